package images

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// scanLife is how long a scan of a region may be reused before an image is removed.
// Queries about a single image are always repeated.
const scanLife = time.Minute

// cachedScan is a scan of what launches machines in a region and of what its parameters
// name.
type cachedScan struct {
	at   time.Time
	scan *usageScan
}

// scan determines what will launch machines in a region, or returns a recent result.
// DescribeImageReferences reports later changes for a single image; without it, the scan
// is repeated each time.
func (r *Remover) scan(ctx context.Context, region string) *usageScan {
	if s, ok := r.scans[region]; ok && r.Guards.on(GuardReferences) && time.Since(s.at) < scanLife && len(s.scan.failed) == 0 {
		return s.scan
	}
	at := time.Now()
	l := r.Account.newUsageScan(region, nil, r.Guards)
	l.launchers(ctx, map[string]func(context.Context) error{GuardChannel: l.channels})
	l.resolve(ctx)
	if r.scans == nil {
		r.scans = map[string]cachedScan{}
	}
	r.scans[region] = cachedScan{at, l}
	return l
}

// uses returns the current uses of an image.
func (r *Remover) uses(ctx context.Context, i Image) []Use {
	known := r.scan(ctx, i.Region)
	g := r.Guards
	g.Children = false // which only cause warnings, already reported
	l := r.Account.newUsageScan(i.Region, []Image{i}, g)
	l.uses[i.ID] = slices.Clone(known.uses[i.ID])
	maps.Copy(l.failed, known.failed)
	l.held()
	l.recent()
	if l.g.on(GuardInstances) {
		l.unless(GuardInstances, l.instances(ctx))
	}
	l.single(ctx, l.images)
	l.recheck(ctx, i)
	l.finish()
	return l.uses[i.ID]
}

// recheck checks the launch templates of which EC2 reports that some version names the
// image: the scan may be older than their current default or latest version.
func (l *usageScan) recheck(ctx context.Context, i Image) {
	known := map[string]bool{}
	for _, u := range l.uses[i.ID] {
		known[u.Guard+u.id] = true
	}
	for _, u := range slices.Clone(l.uses[i.ID]) {
		if !l.g.on(GuardTemplates) || !u.template || known[GuardTemplates+u.id] {
			continue
		}
		in := &ec2.DescribeLaunchTemplateVersionsInput{LaunchTemplateId: &u.id, Versions: []string{"$Latest", "$Default"}}
		err := l.templateVersions(ctx, in, func(v types.LaunchTemplateVersion) {
			l.versionUse(v, Use{Guard: GuardTemplates, User: fmt.Sprintf("launch template %s, version %d", u.id, aws.ToInt64(v.VersionNumber)), id: u.id})
		})
		if err != nil && !absentVersion(err) {
			l.unless(GuardTemplates, err)
		}
	}
}

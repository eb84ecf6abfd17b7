package images

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sync/errgroup"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/destroy"
	"bake/builder/amazon/internal/ownership"
	"bake/internal/lazyregexp"
)

// The guards of snapshots whose image no longer exists, in addition to those that look for
// block device mappings: [GuardTemplates], [GuardScaling] and [GuardFleets].
const (
	GuardBin         = "recycle-bin"  // the image is in the recycle bin, and could come back
	GuardShared      = "shared"       // others may make images of it
	GuardLocked      = "locked"       // it is locked
	GuardFastRestore = "fast-restore" // fast snapshot restore, which costs money, is enabled
	GuardFastLaunch  = "fast-launch"  // EC2 launches machines of the image in advance
)

// orphanGuardNames returns the names of all guards of snapshots.
func orphanGuardNames() []string {
	return []string{GuardBin, GuardTemplates, GuardScaling, GuardFleets, GuardShared, GuardLocked, GuardFastRestore, GuardFastLaunch}
}

// OrphanOptions select the snapshots that count as orphans.
type OrphanOptions struct {
	MinAge time.Duration    // younger ones may belong to an image that is being made
	Ignore []string         // guards that do not run
	Now    func() time.Time // nil: time.Now
}

// Check returns an error if a name of an ignored guard is wrong.
func (o OrphanOptions) Check() error {
	for _, name := range o.Ignore {
		if !slices.Contains(orphanGuardNames(), name) {
			return fmt.Errorf("there is no guard %q; the guards are %s", name, strings.Join(orphanGuardNames(), ", "))
		}
	}
	return nil
}

// Orphan is a snapshot whose image is gone.
type Orphan struct {
	ID          string    `json:"id"`
	Region      string    `json:"region"`
	Image       string    `json:"image,omitempty"` // that it was made for, if its description says so
	Description string    `json:"description"`
	Created     time.Time `json:"created"`
	Bytes       int64     `json:"bytes"` // at most what its deletion frees: snapshots share blocks
	Archived    bool      `json:"archived,omitempty"`
	Volumes     []string  `json:"volumes,omitempty"` // made from it, which do not need it
	Kept        string    `json:"kept,omitempty"`    // why it is not deleted in spite of that
	Encrypted   bool      `json:"encrypted,omitempty"`
}

// What a month of storage costs in us-east-1, in USD per GiB, as of November 2025. Other
// regions differ by up to a half.
const (
	standardPrice = 0.05
	archivePrice  = 0.0125
)

// Price is what keeping the snapshot costs a month in us-east-1 at most, in USD.
func (o Orphan) Price() float64 {
	price := standardPrice
	if o.Archived {
		price = archivePrice
	}
	return float64(o.Bytes) / (1 << 30) * price
}

// Deletable returns the snapshots that nothing keeps, grouped by region.
func Deletable(all []Orphan) (regions [][]Orphan) {
	for _, s := range all {
		if s.Kept != "" {
			continue
		}
		i := slices.IndexFunc(regions, func(r []Orphan) bool { return r[0].Region == s.Region })
		if i < 0 {
			i, regions = len(regions), append(regions, nil)
		}
		regions[i] = append(regions[i], s)
	}
	return regions
}

// Orphans finds the snapshots that were made for images that no longer exist. A snapshot is
// kept if a guard could not decide. The error joins the failures of the regions whose
// snapshots or images could not be listed completely; no orphans are returned for them.
func (a *Account) Orphans(ctx context.Context, o OrphanOptions) ([]Orphan, error) {
	return inRegions(ctx, a.Regions, func(ctx context.Context, region string) ([]Orphan, error) { return a.orphansIn(ctx, region, o) })
}

// DeleteOrphans deletes those of the snapshots that nothing keeps and that are still
// orphans. It returns the IDs of the deleted snapshots; the error joins the failures.
func (a *Account) DeleteOrphans(ctx context.Context, found []Orphan, o OrphanOptions) (deleted []string, err error) {
	regions := map[string][]Orphan{}
	for _, in := range Deletable(found) {
		regions[in[0].Region] = in
	}
	names := slices.Sorted(maps.Keys(regions))
	return inRegions(ctx, names, func(ctx context.Context, region string) ([]string, error) {
		still, err := a.orphansIn(ctx, region, o)
		if err != nil {
			return nil, err
		}
		var (
			each errgroup.Group
			mu   sync.Mutex
			gone []string
			errs []error
		)
		each.SetLimit(imagesAtOnce)
		for _, s := range still {
			if s.Kept != "" || !slices.ContainsFunc(regions[region], func(o Orphan) bool { return o.ID == s.ID }) {
				continue
			}
			each.Go(func() error {
				deleted, err := destroy.Unmapped(ctx, a.session, region, s.ID, "")
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					errs = append(errs, fmt.Errorf("snapshot %s: %w", s.ID, err))
				} else if deleted {
					gone = append(gone, s.ID)
				}
				return nil
			})
		}
		_ = each.Wait() // the errors are in errs
		slices.Sort(gone)
		return gone, errors.Join(errs...)
	})
}

// made matches the descriptions of snapshots that EC2 makes for images. It does not match
// snapshots that people have copied by hand, whose description begins with their origin.
var made = lazyregexp.New(`^(?:Created by CreateImage\(i-[0-9a-f]+\) for (ami-[0-9a-f]+)|Copied for DestinationAmi (ami-[0-9a-f]+) from SourceAmi |Created by AWS-VMImport service for import-ami-)`)

// madeFor reports whether a snapshot was made for an image, and for which if that is
// known.
func madeFor(s types.Snapshot) (image string, ok bool) {
	if m := made.Get().FindStringSubmatch(aws.ToString(s.Description)); m != nil {
		return m[1] + m[2], true
	}
	return "", slices.ContainsFunc(s.Tags, func(t types.Tag) bool { return strings.HasPrefix(aws.ToString(t.Key), "bake:") })
}

// managers are prefixes of the tag keys with which other services mark their snapshots.
var managers = []string{"aws:backup:", "aws:dlm:", "dlm:managed", "ec2-image-builder-", "kubernetes.io/", "ebs.csi.aws.com/", "velero.io/"}

// managed returns which other service manages a snapshot, or "".
func managed(tags []types.Tag) string {
	for _, t := range tags {
		key, value := aws.ToString(t.Key), aws.ToString(t.Value)
		switch {
		case slices.ContainsFunc(managers, func(m string) bool { return strings.HasPrefix(strings.ToLower(key), m) }), key == "CreatedBy" && value == "EC2 Image Builder":
			return "it is managed by others: it has the tag " + key
		case key == ownership.RunTag:
			return "it belongs to the run " + value + ", which bake sweep cleans up after"
		case key == HoldTag:
			return strings.TrimSuffix("held by the tag "+HoldTag+": "+value, ": ")
		}
	}
	return ""
}

// orphansIn is Orphans for one region.
func (a *Account) orphansIn(ctx context.Context, region string, o OrphanOptions) ([]Orphan, error) {
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	candidates, err := a.candidates(ctx, region, now().Add(-o.MinAge))
	if err != nil || len(candidates) == 0 {
		return nil, err
	}
	// Images are listed after the snapshots, so that the list includes images made
	// meanwhile. Their snapshots are not in the list of snapshots or are too young.
	images, err := a.listIn(ctx, []string{region}, Query{})
	if err != nil {
		return nil, err
	}
	registered, used := map[string]bool{}, map[string]bool{}
	for _, i := range images {
		registered[i.ID] = true
		for _, s := range i.Snapshots() {
			used[s] = true
		}
	}
	candidates = slices.DeleteFunc(candidates, func(c *Orphan) bool { return registered[c.Image] || used[c.ID] })
	if len(candidates) > 0 {
		(&orphanScan{a: a, region: region, o: o, all: candidates}).ask(ctx)
	}
	var out []Orphan
	for _, c := range candidates {
		out = append(out, *c)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Created.Before(out[j].Created) })
	return out, context.Cause(ctx)
}

// candidates returns the snapshots of a region that were made for images before a time.
func (a *Account) candidates(ctx context.Context, region string, before time.Time) (out []*Orphan, err error) {
	in := &ec2.DescribeSnapshotsInput{
		OwnerIds: []string{"self"}, MaxResults: aws.Int32(pageSize),
		Filters: []types.Filter{{Name: aws.String("status"), Values: []string{"completed", "error"}}},
	}
	err = pages(ctx, a.session.EC2(region).DescribeSnapshots, in, func(token *string) { in.NextToken = token }, func(page *ec2.DescribeSnapshotsOutput) *string {
		for _, s := range page.Snapshots {
			image, ok := madeFor(s)
			if !ok || aws.ToString(s.OwnerId) != a.ID || s.OwnerAlias != nil || s.StartTime == nil || s.StartTime.After(before) {
				continue
			}
			bytes := aws.ToInt64(s.FullSnapshotSizeInBytes)
			if bytes == 0 { // known since 2025 only
				bytes = int64(aws.ToInt32(s.VolumeSize)) << 30
			}
			out = append(out, &Orphan{
				ID: aws.ToString(s.SnapshotId), Region: region, Image: image, Description: aws.ToString(s.Description), Created: s.StartTime.UTC(), Bytes: bytes,
				Archived: s.StorageTier == types.StorageTierArchive, Kept: managed(s.Tags), Encrypted: aws.ToBool(s.Encrypted),
			})
		}
		return page.NextToken
	})
	return out, err
}

// orphanScan runs the guards for the snapshots of one region.
type orphanScan struct {
	a      *Account
	region string
	o      OrphanOptions
	mu     sync.Mutex
	all    []*Orphan
}

// keep records why a snapshot is kept; an earlier reason stays.
func (g *orphanScan) keep(match func(*Orphan) bool, format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.all {
		if s.Kept == "" && match(s) {
			s.Kept = fmt.Sprintf(format, args...)
		}
	}
}

func isSnapshot(id string) func(*Orphan) bool { return func(s *Orphan) bool { return s.ID == id } }

// ask runs all guards. The queries for single snapshots come last, and cover only those
// that would be deleted.
func (g *orphanScan) ask(ctx context.Context) {
	g.keep(func(s *Orphan) bool { return s.Archived }, "it is in the archive: deleting it within 90 days costs as much as keeping it")
	g.mapped(ctx)
	guards := map[string]func(context.Context) error{
		GuardBin: g.bin, GuardLocked: g.locked, GuardFastRestore: g.fastRestore, GuardFastLaunch: g.fastLaunch,
	}
	var each errgroup.Group
	for name, ask := range guards {
		each.Go(func() error {
			if !slices.Contains(g.o.Ignore, name) {
				g.unless(name, ask(ctx))
			}
			return nil
		})
	}
	_ = each.Wait() // a failure keeps all
	if !slices.Contains(g.o.Ignore, GuardShared) {
		g.shared(ctx)
	}
	g.volumes(ctx)
}

// unless keeps all snapshots if there is an error.
func (g *orphanScan) unless(guard string, err error) {
	if err != nil {
		g.keep(func(*Orphan) bool { return true }, "the guard %q could not tell in %s: %s; -ignore-guard=%s does without it", guard, g.region, err, guard)
	}
}

// mapped keeps the snapshots that launch templates, launch configurations and fleets make
// volumes from.
func (g *orphanScan) mapped(ctx context.Context) {
	l := g.a.newUsageScan(g.region, nil, Guards{Ignore: g.o.Ignore, Now: g.o.Now})
	l.onFailure = g.unless
	l.launchers(ctx, nil)
	for id, uses := range l.snapshots {
		g.keep(isSnapshot(id), "%s makes a volume from it", uses[0].User)
	}
}

// bin keeps the snapshots whose image could be restored from the recycle bin.
func (g *orphanScan) bin(ctx context.Context) error {
	var page struct {
		Images []string `xml:"imageSet>item>imageId"`
		Token  string   `xml:"nextToken"`
	}
	return queryPages(ctx, g.a.session.EC2Query(g.region), "ListImagesInRecycleBin", url.Values{"MaxResults": {strconv.Itoa(pageSize)}}, &page, func() string {
		for _, id := range page.Images {
			g.keep(func(s *Orphan) bool { return s.Image == id || s.Image == "" }, "image %s is in the recycle bin", id)
		}
		return page.Token
	})
}

func (g *orphanScan) locked(ctx context.Context) error {
	var page struct {
		Locks []struct {
			ID    string `xml:"snapshotId"`
			State string `xml:"lockState"`
		} `xml:"snapshotSet>item"`
		Token string `xml:"nextToken"`
	}
	return queryPages(ctx, g.a.session.EC2Query(g.region), "DescribeLockedSnapshots", url.Values{"MaxResults": {strconv.Itoa(pageSize)}}, &page, func() string {
		for _, l := range page.Locks {
			if l.State != "expired" {
				g.keep(isSnapshot(l.ID), "it is locked (%s)", l.State)
			}
		}
		return page.Token
	})
}

func (g *orphanScan) fastRestore(ctx context.Context) error {
	var page struct {
		Restores []struct {
			ID    string `xml:"snapshotId"`
			State string `xml:"state"`
			Zone  string `xml:"availabilityZone"`
		} `xml:"fastSnapshotRestoreSet>item"`
		Token string `xml:"nextToken"`
	}
	return queryPages(ctx, g.a.session.EC2Query(g.region), "DescribeFastSnapshotRestores", url.Values{"MaxResults": {"200"}}, &page, func() string {
		for _, r := range page.Restores {
			if slices.Contains([]string{"enabling", "optimizing", "enabled"}, r.State) {
				g.keep(isSnapshot(r.ID), "fast restore is %s in %s, which costs about 0.75 USD an hour", r.State, r.Zone)
			}
		}
		return page.Token
	})
}

func (g *orphanScan) fastLaunch(ctx context.Context) error {
	var page struct {
		Images []string `xml:"fastLaunchImageSet>item>imageId"`
		Token  string   `xml:"nextToken"`
	}
	return queryPages(ctx, g.a.session.EC2Query(g.region), "DescribeFastLaunchImages", url.Values{"MaxResults": {"200"}}, &page, func() string {
		for _, id := range page.Images {
			g.keep(func(s *Orphan) bool { return s.Image == id }, "fast launch is enabled for image %s", id)
		}
		return page.Token
	})
}

// shared keeps the snapshots that other accounts may have made images from.
func (g *orphanScan) shared(ctx context.Context) {
	var each errgroup.Group
	each.SetLimit(imagesAtOnce)
	for _, s := range g.all {
		if s.Kept != "" {
			continue
		}
		each.Go(func() error {
			out, err := access.Call(ctx, g.a.session.EC2(g.region).DescribeSnapshotAttribute, &ec2.DescribeSnapshotAttributeInput{
				SnapshotId: &s.ID, Attribute: types.SnapshotAttributeNameCreateVolumePermission,
			})
			switch {
			case err != nil:
				g.keep(isSnapshot(s.ID), "whether it is shared is not known: %s", err)
			case len(out.CreateVolumePermissions) > 0:
				g.keep(isSnapshot(s.ID), "it is shared, so others may have made images of it")
			}
			return nil
		})
	}
	_ = each.Wait() // a failure keeps it
}

// volumes finds the volumes that were made from snapshots, for information only: such
// volumes do not depend on the snapshots, so it does not matter if they are not found.
func (g *orphanScan) volumes(ctx context.Context) {
	of := map[string]*Orphan{}
	var ids []string
	for _, s := range g.all {
		of[s.ID], ids = s, append(ids, s.ID)
	}
	for some := range slices.Chunk(ids, filterValues) {
		in := &ec2.DescribeVolumesInput{MaxResults: aws.Int32(500), Filters: []types.Filter{{Name: aws.String("snapshot-id"), Values: some}}}
		_ = pages(ctx, g.a.session.EC2(g.region).DescribeVolumes, in, func(token *string) { in.NextToken = token }, func(out *ec2.DescribeVolumesOutput) *string {
			for _, v := range out.Volumes {
				if s := of[aws.ToString(v.SnapshotId)]; s != nil {
					s.Volumes = append(s.Volumes, aws.ToString(v.VolumeId))
				}
			}
			return out.NextToken
		})
	}
}

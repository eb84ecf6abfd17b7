package image

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/names"
	"bake/builder/amazon/internal/policy"
	"bake/config/schema"
)

// Flaw returns why an available image of an earlier run differs from the result of
// [Maker.share], or cannot be launched; empty if there is no difference.
func (m *Maker) Flaw(ctx context.Context, i builder.ExistingImage) (string, error) {
	if flaw, err := m.brokenSnapshot(ctx, i); err != nil || flaw != "" {
		return flaw, err
	}
	if want := m.others(m.Users, m.Groups, m.OrgARNs, m.OUARNs); len(want) > 0 {
		out, err := access.Call(ctx, m.Session.EC2(i.Region).DescribeImageAttribute, &ec2.DescribeImageAttributeInput{
			ImageId: &i.ID, Attribute: types.ImageAttributeNameLaunchPermission,
		})
		if err != nil {
			return "", err
		}
		var have []string
		for _, p := range out.LaunchPermissions {
			have = append(have, aws.ToString(p.UserId), string(p.Group), aws.ToString(p.OrganizationArn), aws.ToString(p.OrganizationalUnitArn))
		}
		if lost := without(want, have); lost != "" {
			return "it is not shared with " + lost + " any more", nil
		}
	}
	return m.unsharedSnapshot(ctx, i)
}

// others returns all accounts in the lists except the account itself, which needs no
// permission.
func (m *Maker) others(lists ...[]string) (all []string) {
	for _, list := range lists {
		all = append(all, names.Given(list)...)
	}
	return slices.DeleteFunc(all, func(one string) bool { return one == m.Session.Account })
}

// without returns the wanted items that are missing, for people.
func without(want, have []string) string {
	lost := slices.DeleteFunc(slices.Clone(want), func(one string) bool { return slices.Contains(have, one) })
	return strings.Join(lost, ", ")
}

// brokenSnapshot returns which snapshot of an image is missing or damaged.
func (m *Maker) brokenSnapshot(ctx context.Context, i builder.ExistingImage) (string, error) {
	if len(i.Snapshots) == 0 {
		return "", nil
	}
	out, err := access.Call(ctx, m.Session.EC2(i.Region).DescribeSnapshots, &ec2.DescribeSnapshotsInput{
		Filters: []types.Filter{{Name: aws.String("snapshot-id"), Values: i.Snapshots}},
	})
	if err != nil {
		return "", err
	}
	for _, id := range i.Snapshots {
		n := slices.IndexFunc(out.Snapshots, func(s types.Snapshot) bool { return aws.ToString(s.SnapshotId) == id })
		switch {
		case n < 0:
			return fmt.Sprintf("its snapshot %s is gone", id), nil
		case out.Snapshots[n].State != types.SnapshotStateCompleted:
			return fmt.Sprintf("its snapshot %s is %s", id, out.Snapshots[n].State), nil
		case out.Snapshots[n].StorageTier == types.StorageTierArchive:
			return fmt.Sprintf("its snapshot %s is archived", id), nil
		}
	}
	return "", nil
}

// unsharedSnapshot returns which snapshot of an image is not shared as the options
// require.
func (m *Maker) unsharedSnapshot(ctx context.Context, i builder.ExistingImage) (string, error) {
	want := m.others(m.SnapshotUsers, m.SnapshotGroups)
	if len(want) == 0 {
		return "", nil
	}
	for _, id := range i.Snapshots {
		out, err := access.Call(ctx, m.Session.EC2(i.Region).DescribeSnapshotAttribute, &ec2.DescribeSnapshotAttributeInput{
			SnapshotId: &id, Attribute: types.SnapshotAttributeNameCreateVolumePermission,
		})
		if err != nil {
			return "", err
		}
		var have []string
		for _, p := range out.CreateVolumePermissions {
			have = append(have, aws.ToString(p.UserId), string(p.Group))
		}
		if lost := without(want, have); lost != "" {
			return fmt.Sprintf("its snapshot %s is not shared with %s any more", id, lost), nil
		}
	}
	return "", nil
}

// FlawPermissions returns the needs of [Maker.Flaw].
func (o *Options) FlawPermissions(src *schema.Source, region string) []policy.Need {
	all := o.Place(src, region)
	needs := []policy.Need{all.Look("DescribeSnapshots")}
	lists := func(lists ...*[]string) bool {
		return slices.ContainsFunc(lists, func(l *[]string) bool { return policy.MayBe(src, l, len(*l) > 0) })
	}
	if lists(&o.Users, &o.Groups, &o.OrgARNs, &o.OUARNs) {
		needs = append(needs, all.Look("DescribeImageAttribute"))
	}
	if lists(&o.SnapshotUsers, &o.SnapshotGroups) {
		needs = append(needs, all.Look("DescribeSnapshotAttribute"))
	}
	return needs
}

package images

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
)

// Sharing lists who may use an image or a snapshot, apart from its owner.
type Sharing struct {
	Public        bool     `json:"public"`
	Accounts      []string `json:"accounts"`
	Organizations []string `json:"organizations,omitempty"` // ARNs
	Units         []string `json:"organizational_units,omitempty"`
}

// Empty reports whether nothing is shared.
func (s Sharing) Empty() bool { return len(s.all()) == 0 }

// all returns all recipients; it includes "all" for a public image.
func (s Sharing) all() []string {
	all := slices.Concat(s.Accounts, s.Organizations, s.Units)
	if s.Public {
		all = append(all, Everybody)
	}
	return all
}

// Everybody is EC2's name of the group of all accounts.
const Everybody = "all"

// String lists the recipients, for people.
func (s Sharing) String() string {
	all := s.all()
	if s.Public {
		all[len(all)-1] = "everybody"
	}
	if len(all) == 0 {
		return "nobody"
	}
	return strings.Join(all, ", ")
}

// has reports whether All contains who.
func (s Sharing) has(who string) bool { return slices.Contains(s.all(), who) }

func (s *Sharing) sort() {
	for _, l := range []*[]string{&s.Accounts, &s.Organizations, &s.Units} {
		slices.Sort(*l)
	}
	if s.Accounts == nil {
		s.Accounts = []string{}
	}
}

// Sharing queries who else may use an image of the account.
func (a *Account) Sharing(ctx context.Context, i Image) (s Sharing, err error) {
	out, err := access.Call(ctx, a.session.EC2(i.Region).DescribeImageAttribute, &ec2.DescribeImageAttributeInput{
		ImageId: &i.ID, Attribute: types.ImageAttributeNameLaunchPermission,
	})
	if err != nil {
		return s, err
	}
	for _, p := range out.LaunchPermissions {
		switch {
		case p.Group != "":
			s.Public = true
		case p.UserId != nil:
			s.Accounts = append(s.Accounts, *p.UserId)
		case p.OrganizationArn != nil:
			s.Organizations = append(s.Organizations, *p.OrganizationArn)
		case p.OrganizationalUnitArn != nil:
			s.Units = append(s.Units, *p.OrganizationalUnitArn)
		}
	}
	s.sort()
	return s, nil
}

// snapshotSharing queries who else may use a snapshot of the account.
func (a *Account) snapshotSharing(ctx context.Context, region, id string) (s Sharing, err error) {
	out, err := access.Call(ctx, a.session.EC2(region).DescribeSnapshotAttribute, &ec2.DescribeSnapshotAttributeInput{
		SnapshotId: &id, Attribute: types.SnapshotAttributeNameCreateVolumePermission,
	})
	if err != nil {
		return s, err
	}
	for _, p := range out.CreateVolumePermissions {
		if p.Group != "" {
			s.Public = true
		} else if p.UserId != nil {
			s.Accounts = append(s.Accounts, *p.UserId)
		}
	}
	s.sort()
	return s, nil
}

// permission returns the launch permission for a recipient.
func permission(who string) types.LaunchPermission {
	switch {
	case who == Everybody:
		return types.LaunchPermission{Group: types.PermissionGroupAll}
	case strings.Contains(who, ":ou/"):
		return types.LaunchPermission{OrganizationalUnitArn: &who}
	case strings.HasPrefix(who, "arn:"):
		return types.LaunchPermission{OrganizationArn: &who}
	}
	return types.LaunchPermission{UserId: &who}
}

// volumePermission returns the permission of a snapshot for an account or for everybody.
func volumePermission(who string) types.CreateVolumePermission {
	if who == Everybody {
		return types.CreateVolumePermission{Group: types.PermissionGroupAll}
	}
	return types.CreateVolumePermission{UserId: &who}
}

// Snapshot is a snapshot that an image consists of.
type Snapshot struct {
	ID        string            `json:"id"`
	Device    string            `json:"device"`
	State     string            `json:"state"`
	Reason    string            `json:"state_reason,omitempty"`
	Progress  string            `json:"progress,omitempty"`
	Size      int32             `json:"volume_size_gib"`
	Stored    int64             `json:"stored_bytes,omitempty"` // of all its blocks; it may share them with others
	Encrypted bool              `json:"encrypted"`
	Key       string            `json:"kms_key,omitempty"`
	Tier      string            `json:"storage_tier,omitempty"`
	Tags      map[string]string `json:"tags"`
	Sharing   *Sharing          `json:"sharing,omitempty"` // if it was asked for
}

// snapshots describes the snapshots of an image that belong to the account.
func (a *Account) snapshots(ctx context.Context, i Image) ([]Snapshot, error) {
	ids := i.Snapshots()
	if len(ids) == 0 {
		return nil, nil
	}
	found := map[string]types.Snapshot{}
	in := &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}, Filters: []types.Filter{{Name: aws.String("snapshot-id"), Values: ids}}}
	err := pages(ctx, a.session.EC2(i.Region).DescribeSnapshots, in, func(token *string) { in.NextToken = token }, func(out *ec2.DescribeSnapshotsOutput) *string {
		for _, s := range out.Snapshots {
			found[aws.ToString(s.SnapshotId)] = s
		}
		return out.NextToken
	})
	if err != nil {
		return nil, err
	}
	var all []Snapshot
	for _, d := range i.Devices {
		s, ok := found[d.Snapshot]
		if !ok {
			continue // owned by another account, or deleted
		}
		one := Snapshot{
			ID: d.Snapshot, Device: d.Name, State: string(s.State), Reason: aws.ToString(s.StateMessage), Progress: aws.ToString(s.Progress), Size: aws.ToInt32(s.VolumeSize),
			Stored: aws.ToInt64(s.FullSnapshotSizeInBytes), Encrypted: aws.ToBool(s.Encrypted), Key: aws.ToString(s.KmsKeyId), Tier: string(s.StorageTier), Tags: map[string]string{},
		}
		for _, t := range s.Tags {
			one.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
		}
		all = append(all, one)
	}
	return all, nil
}

package image

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/names"
	"bake/builder/amazon/internal/ownership"
	"bake/step"
)

// share shares the image as the options require, and sets its other attributes. The calls
// stop when ctx ends, since the image is then deleted with its run.
func (m *Maker) share(ctx context.Context, made Made) error {
	changes := m.imageChanges(made.ID)
	snapshots := m.snapshotChanges(made.Snapshots)
	if len(changes)+len(snapshots) == 0 && m.DeprecateAt == "" {
		return nil
	}
	return step.Run(ctx, m.Scope, "share the image in "+made.Region, func(ctx context.Context) error {
		client := m.Session.EC2(made.Region)
		for _, in := range changes {
			if _, err := access.Call(ctx, client.ModifyImageAttribute, in); err != nil {
				return m.blameShare(err, in)
			}
		}
		for _, in := range snapshots {
			if _, err := access.Call(ctx, client.ModifySnapshotAttribute, in); err != nil {
				if access.Is(err, "InvalidUserID.Malformed") {
					err = access.Blame(err, m.Src.Errorf(&m.SnapshotUsers, "Invalid account ID", "%s.", err))
				}
				return err
			}
		}
		if m.DeprecateAt == "" {
			return nil
		}
		at, err := time.Parse(time.RFC3339, m.DeprecateAt)
		if err != nil {
			return err
		}
		_, err = access.Call(ctx, client.EnableImageDeprecation, &ec2.EnableImageDeprecationInput{ImageId: &made.ID, DeprecateAt: &at})
		return err
	})
}

func (m *Maker) imageChanges(id string) (changes []*ec2.ModifyImageAttributeInput) {
	var add []types.LaunchPermission
	for _, u := range names.Given(m.Users) {
		add = append(add, types.LaunchPermission{UserId: &u})
	}
	for _, g := range names.Given(m.Groups) {
		add = append(add, types.LaunchPermission{Group: types.PermissionGroup(g)})
	}
	for _, arn := range names.Given(m.OrgARNs) {
		add = append(add, types.LaunchPermission{OrganizationArn: &arn})
	}
	for _, arn := range names.Given(m.OUARNs) {
		add = append(add, types.LaunchPermission{OrganizationalUnitArn: &arn})
	}
	if len(add) > 0 {
		changes = append(changes, &ec2.ModifyImageAttributeInput{ImageId: &id, LaunchPermission: &types.LaunchPermissionModifications{Add: add}})
	}
	if codes := names.Given(m.ProductCodes); len(codes) > 0 {
		changes = append(changes, &ec2.ModifyImageAttributeInput{ImageId: &id, ProductCodes: codes})
	}
	if m.IMDSSupport != "" {
		changes = append(changes, &ec2.ModifyImageAttributeInput{ImageId: &id, ImdsSupport: &types.AttributeValue{Value: &m.IMDSSupport}})
	}
	return changes
}

func (m *Maker) snapshotChanges(ids []string) (changes []*ec2.ModifySnapshotAttributeInput) {
	for _, id := range ids {
		if change := SnapshotSharing(m.SnapshotUsers, m.SnapshotGroups, id); change != nil {
			changes = append(changes, change)
		}
	}
	return changes
}

// SnapshotSharing lets accounts and groups use a snapshot; it is nil if there are none.
func SnapshotSharing(users, groups []string, id string) *ec2.ModifySnapshotAttributeInput {
	var add []types.CreateVolumePermission
	for _, u := range names.Given(users) {
		add = append(add, types.CreateVolumePermission{UserId: &u})
	}
	for _, g := range names.Given(groups) {
		add = append(add, types.CreateVolumePermission{Group: types.PermissionGroup(g)})
	}
	if len(add) == 0 {
		return nil
	}
	return &ec2.ModifySnapshotAttributeInput{
		SnapshotId: &id, CreateVolumePermission: &types.CreateVolumePermissionModifications{Add: add},
	}
}

func (m *Maker) blameShare(err error, in *ec2.ModifyImageAttributeInput) error {
	switch {
	case in.LaunchPermission != nil && access.Is(err, "InvalidAMIAttributeItemValue", "InvalidUserID.Malformed") && len(m.Users) > 0:
		return access.Blame(err, m.Src.Errorf(&m.Users, "Invalid account ID", "%s.", err))
	case len(in.ProductCodes) > 0:
		return access.Blame(err, m.Src.Errorf(&m.ProductCodes, "The product codes cannot be set", "%s.", err))
	}
	return err
}

// finalize hands the images over to the user: they are protected if the options say so,
// lose the tags of the build, and are no longer owned by the scope. Until the end, the
// ledger owns all of them, so if the process ends early, the images are either complete
// and kept, or listed for deletion. finalize returns those that were handed over, and the
// errors of the others. If ctx ends meanwhile, none is handed over.
func (m *Maker) finalize(ctx context.Context, images []Made) (kept []Made, err error) {
	err = step.Run(ctx, m.Scope, "remove bake's tags from the images", func(ctx context.Context) error {
		kept = nil
		errs := make([]error, len(images))
		var all sync.WaitGroup
		for i, made := range images {
			all.Go(func() { errs[i] = m.release(ctx, made) })
		}
		all.Wait()
		if err := context.Cause(ctx); err != nil {
			return err
		}
		var keys []string
		var released []Made
		for i, made := range images {
			if errs[i] != nil {
				errs[i] = fmt.Errorf("image in %s: %w", made.Region, errs[i])
				continue
			}
			keys = append(append(keys, made.Parts...), made.Resource.Key)
			released = append(released, made)
		}
		if err := m.Scope.Keep(ctx, keys...); err != nil {
			return err
		}
		kept = released
		return errors.Join(errs...)
	})
	return kept, err
}

func (m *Maker) release(ctx context.Context, made Made) error {
	client := m.Session.EC2(made.Region)
	if p := m.DeregistrationProtection; p != nil && (p.Enabled || p.WithCooldown) {
		_, err := access.Call(ctx, client.EnableImageDeregistrationProtection, &ec2.EnableImageDeregistrationProtectionInput{
			ImageId: &made.ID, WithCooldown: &p.WithCooldown,
		})
		if err != nil {
			return err
		}
	}
	_, err := access.Call(ctx, client.DeleteTags, &ec2.DeleteTagsInput{
		Resources: append([]string{made.ID}, made.Snapshots...),
		Tags:      []types.Tag{{Key: new(ownership.RunTag)}, {Key: new(ownership.BuildTag)}},
	})
	return err
}

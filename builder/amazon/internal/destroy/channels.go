package destroy

import (
	"context"
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/ownership"
)

// permission revokes an account's permissions to copy an image; there may be only some of
// them. It stops when ctx ends: the permissions are not granted again, and the remaining
// ledger entries are revoked later.
func (j *job) permission(ctx context.Context) error {
	who, image := j.r.With[ownership.WithGrantee], j.r.With[ownership.WithName]
	var errs []error
	if image != "" {
		_, err := access.Call(ctx, j.client.ModifyImageAttribute, &ec2.ModifyImageAttributeInput{
			ImageId: &image, LaunchPermission: &types.LaunchPermissionModifications{Remove: []types.LaunchPermission{{UserId: &who}}},
		})
		errs = append(errs, notFound(err))
	}
	for id := range strings.SplitSeq(j.r.With[ownership.WithSnapshots], ",") {
		if id == "" {
			continue
		}
		_, err := access.Call(ctx, j.client.ModifySnapshotAttribute, &ec2.ModifySnapshotAttributeInput{
			SnapshotId: &id, CreateVolumePermission: &types.CreateVolumePermissionModifications{Remove: []types.CreateVolumePermission{{UserId: &who}}},
		})
		errs = append(errs, notFound(err))
	}
	return errors.Join(errs...)
}

// lock deletes the lock of a channel, unless another process owns it by now.
func (j *job) lock(ctx context.Context) error {
	client, name := j.session.SSM(j.r.Where), j.r.With[ownership.WithName]
	var out struct{ Parameter struct{ Value string } }
	err := client.Do(ctx, "GetParameter", map[string]any{"Name": name}, &out)
	switch {
	case access.Is(err, "ParameterNotFound"):
		return nil
	case err != nil:
		return err
	case out.Parameter.Value != j.r.With[ownership.WithKey]:
		return nil
	}
	err = client.Do(ctx, "DeleteParameter", map[string]any{"Name": name}, nil)
	if access.Is(err, "ParameterNotFound") {
		return nil
	}
	return err
}

package destroy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/ownership"
	"bake/step"
)

// SnapshotsOf returns a resource for the snapshots of an image that the session's account
// is about to deregister. When the image has been deregistered, the resource gets the ID of
// the image.
func SnapshotsOf(s *access.Session, region, image string, snapshots []string) step.Resource {
	with := s.With(region)
	with[ownership.WithName], with[ownership.WithSnapshots] = image, strings.Join(snapshots, ",")
	return step.Resource{Kind: ownership.ImageSnapshots, Key: image, Where: region, With: with}
}

// imageSnapshots deletes the snapshots of a deregistered image. They stay if the image
// still exists, because the process that was about to deregister it ended before that.
func (j *job) imageSnapshots(ctx context.Context) error {
	image := j.r.With[ownership.WithName]
	if j.r.ID == "" {
		registered := false
		err := j.settle(ctx, func(ctx context.Context) (gone bool, err error) {
			registered, err = j.registered(ctx, image)
			return !registered, err
		})
		if err != nil || registered {
			return err
		}
	}
	var errs []error
	for _, id := range strings.Split(j.r.With[ownership.WithSnapshots], ",") {
		if _, err := j.unmapped(ctx, id, image); err != nil {
			errs = append(errs, fmt.Errorf("snapshot %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// registered reports whether there is an image, also a disabled one.
func (j *job) registered(ctx context.Context, id string) (bool, error) {
	out, err := access.Call(ctx, j.client.DescribeImages, &ec2.DescribeImagesInput{ImageIds: []string{id}, IncludeDisabled: aws.Bool(true), IncludeDeprecated: aws.Bool(true)})
	if err != nil {
		return false, notFound(err)
	}
	return slices.ContainsFunc(out.Images, func(i types.Image) bool { return i.State != types.ImageStateDeregistered }), nil
}

// Unmapped deletes a snapshot in a region, unless it is part of an image of the account
// other than without, which is an ID that is known to be deregistered. A missing snapshot
// is not an error.
func Unmapped(ctx context.Context, s *access.Session, region, id, without string) (deleted bool, err error) {
	j := &job{session: s, client: s.EC2(region)}
	return j.unmapped(ctx, id, without)
}

func (j *job) unmapped(ctx context.Context, id, without string) (deleted bool, err error) {
	used, err := j.mapped(ctx, id, without)
	if err != nil || used {
		return false, err
	}
	err = j.busy(ctx, "snapshot "+id, func(ctx context.Context) error { return Snapshot(ctx, j.client, id) }, "InvalidSnapshot.InUse")
	return err == nil, err
}

// mapped reports whether an image consists of a snapshot.
func (j *job) mapped(ctx context.Context, id, without string) (bool, error) {
	in := &ec2.DescribeImagesInput{
		Owners: []string{"self"}, IncludeDisabled: aws.Bool(true), IncludeDeprecated: aws.Bool(true),
		Filters: []types.Filter{{Name: aws.String("block-device-mapping.snapshot-id"), Values: []string{id}}},
	}
	for {
		out, err := access.Call(ctx, j.client.DescribeImages, in)
		if err != nil {
			return false, err
		}
		for _, i := range out.Images {
			if i.State != types.ImageStateDeregistered && aws.ToString(i.ImageId) != without {
				return true, nil
			}
		}
		if in.NextToken = out.NextToken; aws.ToString(in.NextToken) == "" {
			return false, nil
		}
	}
}

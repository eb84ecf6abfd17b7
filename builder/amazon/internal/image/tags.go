package image

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/wait"
	"bake/step"
)

// tagging defines the tags of an image and its snapshots. EC2 sets them when it makes the
// image; other endpoints may refuse or ignore them.
type tagging struct {
	image, snapshots []types.Tag // snapshots is nil if they are already tagged

	refused bool // by the endpoint: nothing is tagged yet
}

// specs returns the tag specifications for a call that makes an image.
func (t *tagging) specs() (specs []types.TagSpecification) {
	if len(t.image) > 0 {
		specs = append(specs, types.TagSpecification{ResourceType: types.ResourceTypeImage, Tags: t.image})
	}
	if len(t.snapshots) > 0 {
		specs = append(specs, types.TagSpecification{ResourceType: types.ResourceTypeSnapshot, Tags: t.snapshots})
	}
	return specs
}

// making makes an image with create, which receives the tag specifications to send. If the
// endpoint does not support them, making calls create again without them.
func (m *Maker) making(ctx context.Context, t *tagging, specs []types.TagSpecification, create func([]types.TagSpecification) (string, error)) (string, error) {
	id, err := create(specs)
	if len(specs) == 0 || !access.NotImplemented(err) {
		return id, err
	}
	m.Scope.Warn(ctx, "The endpoint cannot tag an image on creation (%s). The image is created without tags, which CreateTags then sets.", err)
	t.refused = true
	return create(nil)
}

// tagNew tags a new image that was made without its tags, so that it can be found by them
// if bake ends now.
func (m *Maker) tagNew(ctx context.Context, region, id string, t *tagging) error {
	if !t.refused {
		return nil
	}
	return step.Run(ctx, m.Scope, "tag the image in "+region, func(ctx context.Context) error {
		client := m.Session.EC2(region)
		watch := wait.Watch{Delay: time.Second, Limit: time.Minute}
		return watch.Until(ctx, "image "+id+" to exist", func(ctx context.Context) (bool, error) {
			_, err := access.Call(ctx, client.CreateTags, &ec2.CreateTagsInput{Resources: []string{id}, Tags: t.image})
			if access.NotFound(err) {
				return false, nil
			}
			return err == nil, err
		})
	})
}

// retag ensures that a finished image and its snapshots have their tags, if the endpoint is
// not EC2 itself and so may have ignored them.
func (m *Maker) retag(ctx context.Context, made Made, image types.Image, t *tagging) error {
	if !t.refused && !m.Session.ThirdParty(made.Region) {
		return nil
	}
	return step.Run(ctx, m.Scope, "check the tags in "+made.Region, func(ctx context.Context) error {
		client := m.Session.EC2(made.Region)
		have := map[string][]types.Tag{made.ID: image.Tags}
		want := map[string][]types.Tag{made.ID: t.image}
		ids := []string{made.ID}
		if len(t.snapshots) > 0 && len(made.Snapshots) > 0 {
			out, err := access.Call(ctx, client.DescribeSnapshots, &ec2.DescribeSnapshotsInput{SnapshotIds: made.Snapshots})
			if err != nil {
				return err
			}
			for _, s := range out.Snapshots {
				id := aws.ToString(s.SnapshotId)
				ids, have[id], want[id] = append(ids, id), s.Tags, t.snapshots
			}
		}
		for _, id := range ids {
			lacking := lacking(have[id], want[id])
			if len(lacking) == 0 {
				continue
			}
			if _, err := access.Call(ctx, client.CreateTags, &ec2.CreateTagsInput{Resources: []string{id}, Tags: lacking}); err != nil {
				return fmt.Errorf("tagging %s: %w", id, err)
			}
			m.Scope.Say(ctx, "The endpoint did not tag %s on creation; its tags are set now", id)
		}
		return nil
	})
}

// lacking returns the wanted tags that are missing.
func lacking(have, want []types.Tag) []types.Tag {
	return slices.DeleteFunc(slices.Clone(want), func(w types.Tag) bool {
		return slices.ContainsFunc(have, func(h types.Tag) bool {
			return aws.ToString(h.Key) == aws.ToString(w.Key) && aws.ToString(h.Value) == aws.ToString(w.Value)
		})
	})
}

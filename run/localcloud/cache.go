package localcloud

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	"github.com/google/uuid"

	"bake/builder/amazon"
	"bake/internal/delay"
)

// The limits of the cache: what is older, or more, is deleted when something is added.
const (
	CacheImages = 40
	CacheAge    = 14 * 24 * time.Hour
)

// Cache keeps machines of builds, as they were after each provisioner, as images of the
// cloud. It is an [bake/engine.Cache].
type Cache struct {
	Cloud *Cloud
	Now   func() time.Time
}

// Find implements [bake/engine.Cache].
func (c Cache) Find(ctx context.Context, region string, keys []string) (image string, at int, err error) {
	all, err := c.images(ctx, region, keys)
	if err != nil {
		return "", -1, err
	}
	for at := len(keys) - 1; at >= 0; at-- {
		for _, i := range all { // the newest first
			if i.State == types.ImageStateAvailable && key(i) == keys[at] {
				return aws.ToString(i.ImageId), at, nil
			}
		}
	}
	return "", -1, nil
}

// Keep implements [bake/engine.Cache].
func (c Cache) Keep(ctx context.Context, region, instance, key, about string) error {
	switch have, err := c.images(ctx, region, []string{key}); {
	case err != nil:
		return err
	case slices.ContainsFunc(have, func(i types.Image) bool { return i.State == types.ImageStateAvailable }):
		return nil // another build was faster
	}
	var specs []types.TagSpecification
	for _, of := range []types.ResourceType{types.ResourceTypeImage, types.ResourceTypeSnapshot} {
		specs = append(specs, types.TagSpecification{ResourceType: of, Tags: []types.Tag{{Key: aws.String(amazon.CacheTag), Value: &key}}})
	}
	name := fmt.Sprintf("bake-cache-%.16s-%.8s", key, uuid.NewString())
	about = strings.ToValidUTF8(about[:min(len(about), 255)], "")
	made, err := c.Cloud.EC2(region).CreateImage(ctx, &ec2.CreateImageInput{
		InstanceId: &instance, Name: &name, Description: &about, NoReboot: aws.Bool(true), TagSpecifications: specs,
	})
	if err != nil {
		return err
	}
	if err := c.await(ctx, region, aws.ToString(made.ImageId)); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return errors.Join(err, c.remove(ctx, region, aws.ToString(made.ImageId)))
	}
	_, err = c.Trim(ctx, region, CacheImages)
	return err
}

// await waits until the image is whole: then the machine may change again.
func (c Cache) await(ctx context.Context, region, id string) error {
	for {
		out, err := c.Cloud.EC2(region).DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{id}})
		if err != nil {
			return err
		}
		if len(out.Images) == 0 {
			return fmt.Errorf("image %s is gone", id)
		}
		switch i := out.Images[0]; i.State {
		case types.ImageStateAvailable:
			return nil
		case types.ImageStatePending:
		default:
			reason := ""
			if i.StateReason != nil {
				reason = ": " + aws.ToString(i.StateReason.Message)
			}
			return fmt.Errorf("image %s is %s%s", id, i.State, reason)
		}
		if err := delay.For(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// Cached is an image of the cache.
type Cached struct {
	ID      string `json:"id"`
	Created string `json:"created"`
	About   string `json:"about"`
}

// List lists the images of the cache in a region, the newest first.
func (c Cache) List(ctx context.Context, region string) ([]Cached, error) {
	images, err := c.images(ctx, region, nil)
	all := []Cached{}
	for _, i := range images {
		all = append(all, Cached{aws.ToString(i.ImageId), aws.ToString(i.CreationDate), aws.ToString(i.Description)})
	}
	return all, err
}

// Trim deletes images of the cache in a region but the newest ones, at most that many and
// none that is older than [CacheAge], and says how many it has deleted.
func (c Cache) Trim(ctx context.Context, region string, most int) (deleted int, err error) {
	all, err := c.images(ctx, region, nil)
	if err != nil {
		return 0, err
	}
	for n, i := range all {
		made, err := time.Parse(time.RFC3339, aws.ToString(i.CreationDate))
		if n < most && err == nil && c.Now().Sub(made) < CacheAge {
			continue
		}
		if err := c.remove(ctx, region, aws.ToString(i.ImageId)); err != nil {
			return deleted, err
		}
		deleted++
	}
	return deleted, nil
}

func (c Cache) remove(ctx context.Context, region, id string) error {
	_, err := c.Cloud.EC2(region).DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: &id, DeleteAssociatedSnapshots: aws.Bool(true)})
	if api, ok := errors.AsType[smithy.APIError](err); ok && slices.Contains(gone, api.ErrorCode()) {
		return nil // another build was faster
	}
	return err
}

// gone are the codes of errors about images that are not there any more.
var gone = []string{"InvalidAMIID.Unavailable", "InvalidAMIID.NotFound"}

// images are those of the cache, the newest first; with keys, only those.
func (c Cache) images(ctx context.Context, region string, keys []string) ([]types.Image, error) {
	filter := types.Filter{Name: aws.String("tag-key"), Values: []string{amazon.CacheTag}}
	if len(keys) > 0 {
		filter = types.Filter{Name: aws.String("tag:" + amazon.CacheTag), Values: keys}
	}
	out, err := c.Cloud.EC2(region).DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"self"}, Filters: []types.Filter{filter}})
	if err != nil {
		return nil, err
	}
	all := slices.DeleteFunc(out.Images, func(i types.Image) bool { return i.State == types.ImageStateDeregistered })
	sort.SliceStable(all, func(i, j int) bool { return aws.ToString(all[i].CreationDate) > aws.ToString(all[j].CreationDate) })
	return all, nil
}

func key(i types.Image) string {
	for _, t := range i.Tags {
		if aws.ToString(t.Key) == amazon.CacheTag {
			return aws.ToString(t.Value)
		}
	}
	return ""
}

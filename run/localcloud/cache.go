package localcloud

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	"github.com/google/uuid"

	"bake/builder/amazon"
	"bake/internal/delay"
	"bake/internal/local"
)

// The limits of the cache. A run deletes images that exceed the age, the number or, unless
// the user sets another limit, the size.
const (
	CacheImages = 40
	CacheAge    = 14 * 24 * time.Hour
	CacheBytes  = int64(10e9)
)

// usedTag records when a build last started from an image of the cache.
const usedTag = amazon.CacheTag + "-used"

// starting is how long an image is reserved for a build that has found it but not
// launched its machine yet.
const starting = time.Minute

// Cache stores the state of build machines after each provisioner as images of the cloud. It
// is a [bake/engine.Cache].
type Cache struct {
	Cloud *Cloud
	Now   func() time.Time
	Until context.Context // when it ends, work that continues after Keep stops; only needed for Keep
	Limit int64           // bytes; 0 is [CacheBytes]

	shrinking sync.Mutex // held while images are deleted

	mu      sync.Mutex
	regions map[string]bool  // regions whose images may exceed the limits
	failed  map[string]error // errors of images, not reported yet, by instance
	making  sync.WaitGroup
}

// Find implements [bake/engine.Cache].
func (c *Cache) Find(ctx context.Context, region string, keys []string) (image string, at int, err error) {
	c.due(region)
	all, err := c.images(ctx, region, keys)
	if err != nil {
		return "", -1, err
	}
	for at := len(keys) - 1; at >= 0; at-- {
		for _, i := range all { // the newest first
			if i.State == types.ImageStateAvailable && key(i) == keys[at] {
				_, err := c.Cloud.ec2(region).CreateTags(ctx, &ec2.CreateTagsInput{
					Resources: []string{aws.ToString(i.ImageId)}, Tags: []types.Tag{{Key: aws.String(usedTag), Value: aws.String(c.Now().UTC().Format(time.RFC3339))}},
				})
				return aws.ToString(i.ImageId), at, err
			}
		}
	}
	return "", -1, nil
}

// Keep implements [bake/engine.Cache]. The image is completed while the machine keeps
// running.
func (c *Cache) Keep(ctx context.Context, region, instance, key, about string) error {
	if err := c.failure(instance); err != nil {
		return err
	}
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
	made, err := c.Cloud.ec2(region).CreateImage(ctx, &ec2.CreateImageInput{
		InstanceId: &instance, Name: &name, Description: &about, NoReboot: aws.Bool(true), TagSpecifications: specs,
	})
	if err != nil {
		return err
	}
	c.making.Go(func() { c.finish(c.Until, region, instance, aws.ToString(made.ImageId)) })
	return nil
}

// removing is the time limit for removing a failed image.
const removing = 5 * time.Second

// finish waits until the image of a machine is complete, independent of the build that
// made it, and makes room for it in the cache, or removes it if it has failed. When ctx
// ends, finish leaves the image to the cloud.
func (c *Cache) finish(ctx context.Context, region, instance, id string) {
	err := c.await(ctx, region, id)
	if err == nil {
		c.due(region)
		_ = c.shrink(ctx, region) // Shrink tries again and returns any error
		return
	}
	if ctx.Err() != nil {
		return
	}
	within, cancel := context.WithTimeout(ctx, removing)
	defer cancel()
	err = errors.Join(err, c.remove(within, region, id))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == nil {
		c.failed = map[string]error{}
	}
	c.failed[instance] = err
}

// failure returns why an image of the machine was not made, once.
func (c *Cache) failure(instance string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.failed[instance]
	delete(c.failed, instance)
	return err
}

// Settle waits until the images that Keep has started exist. It returns the errors of
// failed images that have not been reported yet.
func (c *Cache) Settle(ctx context.Context) error {
	made := make(chan struct{})
	go func() {
		c.making.Wait()
		close(made)
	}()
	select {
	case <-made:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for instance, err := range c.failed {
		errs = append(errs, err)
		delete(c.failed, instance)
	}
	return errors.Join(errs...)
}

// Shrink deletes images of the cache, in the regions where this Cache was used, that
// exceed the limits on age and number, and then until the rest is within the limit on size.
func (c *Cache) Shrink(ctx context.Context) (err error) {
	c.mu.Lock()
	regions := slices.Collect(maps.Keys(c.regions))
	c.mu.Unlock()
	for _, region := range regions {
		err = errors.Join(err, c.shrink(ctx, region))
	}
	return err
}

// shrink is Shrink in one region. It does nothing if it has left the cache within its limits
// and no image was added since.
func (c *Cache) shrink(ctx context.Context, region string) error {
	c.shrinking.Lock()
	defer c.shrinking.Unlock()
	c.mu.Lock()
	changed := c.regions[region]
	delete(c.regions, region)
	c.mu.Unlock()
	if !changed {
		return nil
	}
	_, inUse, err := c.trim(ctx, region, Bounds{Images: CacheImages, Age: CacheAge, Bytes: cmp.Or(c.Limit, CacheBytes)})
	if err != nil || inUse > 0 {
		c.due(region)
	}
	return err
}

// due marks a region, so that the next shrink examines its images.
func (c *Cache) due(region string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.regions == nil {
		c.regions = map[string]bool{}
	}
	c.regions[region] = true
}

// await waits until the image is complete.
func (c *Cache) await(ctx context.Context, region, id string) error {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		out, err := c.Cloud.ec2(region).DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{id}})
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
		if err := delay.For(ctx, wait); err != nil {
			return err
		}
	}
}

// Cached is an image of the cache.
type Cached struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Used    time.Time `json:"used"`  // when it was made, or when a build last started from it
	Bytes   int64     `json:"bytes"` // without the base; images may share some of them
	About   string    `json:"about"`

	layers []local.Layer
	busy   bool             // a build is making it, or is about to launch a machine from it
	state  types.ImageState // only available images have a size
}

// Bytes returns the disk space of images of the cache.
func Bytes(all []Cached) (total int64) {
	counted := map[string]bool{}
	for _, i := range all {
		for _, l := range i.layers {
			if !counted[l.ID] {
				counted[l.ID], total = true, total+l.Bytes
			}
		}
	}
	return total
}

// List lists the images of the cache in a region, the last used first.
func (c *Cache) List(ctx context.Context, region string) ([]Cached, error) {
	all, err := c.list(ctx, region)
	if err != nil {
		return nil, err
	}
	return c.measured(ctx, region, all)
}

func (c *Cache) list(ctx context.Context, region string) ([]Cached, error) {
	images, err := c.images(ctx, region, nil)
	if err != nil {
		return nil, err
	}
	all := []Cached{}
	for _, i := range images {
		made, err := time.Parse(time.RFC3339, aws.ToString(i.CreationDate))
		if err != nil {
			return nil, fmt.Errorf("image %s of the cache: %w", aws.ToString(i.ImageId), err)
		}
		cached := Cached{ID: aws.ToString(i.ImageId), Created: made, Used: made, About: aws.ToString(i.Description), state: i.State, busy: i.State == types.ImageStatePending}
		if used, err := time.Parse(time.RFC3339, tag(i, usedTag)); err == nil {
			cached.Used, cached.busy = latest(made, used), cached.busy || c.Now().Sub(used) < starting
		}
		all = append(all, cached)
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Used.After(all[j].Used) })
	return all, nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// measured adds the sizes of images, and leaves out images that no longer exist.
func (c *Cache) measured(ctx context.Context, region string, all []Cached) ([]Cached, error) {
	there := []Cached{}
	for _, i := range all {
		if i.state != types.ImageStateAvailable {
			there = append(there, i)
			continue
		}
		layers, err := c.layers(ctx, region, i.ID)
		if err != nil {
			left, failed := c.Cloud.ec2(region).DescribeImages(ctx, &ec2.DescribeImagesInput{
				Owners: []string{"self"}, Filters: []types.Filter{{Name: aws.String("image-id"), Values: []string{i.ID}}},
			})
			if failed == nil && len(left.Images) == 0 {
				continue
			}
			return nil, err
		}
		i.layers = layers
		i.Bytes = Bytes([]Cached{i})
		there = append(there, i)
	}
	return there, nil
}

func (c *Cache) layers(ctx context.Context, region, id string) ([]local.Layer, error) {
	return local.Layers(ctx, c.Cloud.Endpoint, region, id, local.Key{AccessKey: c.Cloud.AccessKey, SecretKey: c.Cloud.SecretKey})
}

// Bounds limit the size of a cache; zero means no limit.
type Bounds struct {
	None   bool // delete all images
	Images int  // maximum number of images
	Age    time.Duration
	Bytes  int64
}

// Trim deletes images of the cache in a region that have failed or are older than the
// bounds allow. It then deletes the least recently used images until the others are within
// the bounds: first on their number, in which failed images do not count, then on their
// size. It returns the number of deleted images. It keeps images that a machine runs from
// and, unless None is set, images that a build is making.
func (c *Cache) Trim(ctx context.Context, region string, to Bounds) (deleted int, err error) {
	deleted, _, err = c.trim(ctx, region, to)
	return deleted, err
}

// trim is Trim. It also returns the number of images that it keeps only because they are
// in use.
func (c *Cache) trim(ctx context.Context, region string, to Bounds) (deleted, inUse int, err error) {
	all, err := c.list(ctx, region)
	if err != nil || len(all) == 0 {
		return 0, 0, err
	}
	var running map[string]bool // set when the first image has to be deleted
	drop := func(unwanted func(Cached) bool) error {
		for n := len(all) - 1; n >= 0; n-- {
			i := all[n]
			if !unwanted(i) {
				continue
			}
			if i.busy && !to.None {
				inUse++
				continue
			}
			if running == nil {
				if running, err = c.running(ctx, region, all); err != nil {
					return err
				}
			}
			if running[i.ID] {
				inUse++
				continue
			}
			if err := c.remove(ctx, region, i.ID); err != nil {
				return err
			}
			all = slices.Delete(all, n, n+1)
			deleted++
		}
		return nil
	}
	err = drop(func(i Cached) bool { return to.None || i.state == types.ImageStateFailed })
	if err == nil {
		err = drop(func(i Cached) bool {
			tooMany, tooOld := to.Images > 0 && len(all) > to.Images, to.Age > 0 && c.Now().Sub(i.Created) >= to.Age
			return tooMany || tooOld
		})
	}
	if err == nil && to.Bytes > 0 {
		all, err = c.measured(ctx, region, all)
	}
	if err == nil && to.Bytes > 0 {
		err = drop(func(Cached) bool { return Bytes(all) > to.Bytes })
	}
	return deleted, inUse, err
}

// running returns the images of machines that are not terminated.
func (c *Cache) running(ctx context.Context, region string, all []Cached) (map[string]bool, error) {
	var ids []string
	for _, i := range all {
		ids = append(ids, i.ID)
	}
	in := map[string]bool{}
	out, err := c.Cloud.ec2(region).DescribeInstances(ctx, &ec2.DescribeInstancesInput{Filters: []types.Filter{ // the local cloud returns all on one page
		{Name: aws.String("image-id"), Values: ids},
		{Name: aws.String("instance-state-name"), Values: []string{"pending", "running", "stopping", "stopped"}},
	}})
	if err != nil {
		return nil, err
	}
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			in[aws.ToString(i.ImageId)] = true
		}
	}
	return in, nil
}

func (c *Cache) remove(ctx context.Context, region, id string) error {
	_, err := c.Cloud.ec2(region).DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: &id, DeleteAssociatedSnapshots: aws.Bool(true)})
	if api, ok := errors.AsType[smithy.APIError](err); ok && slices.Contains(gone, api.ErrorCode()) {
		return nil // another build was faster
	}
	return err
}

// gone are the error codes for images that no longer exist.
var gone = []string{"InvalidAMIID.Unavailable", "InvalidAMIID.NotFound"}

// images returns the images of the cache, the newest first; with keys, only those with one
// of the keys.
func (c *Cache) images(ctx context.Context, region string, keys []string) ([]types.Image, error) {
	filter := types.Filter{Name: aws.String("tag-key"), Values: []string{amazon.CacheTag}}
	if len(keys) > 0 {
		filter = types.Filter{Name: aws.String("tag:" + amazon.CacheTag), Values: keys}
	}
	out, err := c.Cloud.ec2(region).DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"self"}, Filters: []types.Filter{filter}})
	if err != nil {
		return nil, refused(err)
	}
	all := slices.DeleteFunc(out.Images, func(i types.Image) bool { return i.State == types.ImageStateDeregistered })
	sort.SliceStable(all, func(i, j int) bool { return aws.ToString(all[i].CreationDate) > aws.ToString(all[j].CreationDate) })
	return all, nil
}

func key(i types.Image) string { return tag(i, amazon.CacheTag) }

func tag(i types.Image, name string) string {
	for _, t := range i.Tags {
		if aws.ToString(t.Key) == name {
			return aws.ToString(t.Value)
		}
	}
	return ""
}

package ec2

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// tombstone is the record of a deregistered image.
type tombstone struct {
	Region string
	types.Image
}

// addTombstone records an image that is about to be deregistered.
func (s *state) addTombstone(img *image) error {
	return s.graves.Put(*img.ImageId, &tombstone{img.Region, types.Image{
		ImageId: img.ImageId, Name: img.Name, OwnerId: img.OwnerId, ImageOwnerAlias: img.ImageOwnerAlias, CreationDate: img.CreationDate,
		DeprecationTime: img.DeprecationTime, SourceImageId: img.SourceImageId, SourceImageRegion: img.SourceImageRegion,
		ImageWatermarks: img.ImageWatermarks, Public: aws.Bool(false), State: types.ImageStateDeregistered,
	}})
}

// forgetDeregistered deletes the tombstones that nothing leads to any more: no image, in the
// recycle bin or out of it, and no instance was made from those images.
func (s *state) forgetDeregistered() error {
	needed := map[string]bool{}
	need := func(id *string) {
		for id != nil && !needed[*id] {
			needed[*id] = true
			grave, ok := s.graves.Get(*id)
			if !ok {
				return // what an image was made from is needed by the image itself
			}
			id = grave.SourceImageId
		}
	}
	for _, img := range s.images.Rows {
		need(img.SourceImageId)
	}
	for id, d := range s.recycled.Rows {
		if d.Image != nil {
			need(&id)
			need(d.Image.SourceImageId)
		}
	}
	for _, in := range s.instances.Rows {
		need(in.ImageId)
	}
	return s.graves.Drop(slices.DeleteFunc(s.graves.IDs(), func(id string) bool { return needed[id] })...)
}

// known returns an image of a region, with any owner, even if it has been deregistered.
func (s *state) known(id, region string) (types.Image, bool) {
	if img, ok := s.images.Get(id); ok {
		return img.Image, img.Region == region
	}
	if grave, ok := s.graves.Get(id); ok {
		return grave.Image, grave.Region == region
	}
	all, err := s.imagesIn(region) // publications
	if err != nil {
		return types.Image{}, false
	}
	i := slices.IndexFunc(all, func(img *image) bool { return *img.ImageId == id })
	if i < 0 {
		return types.Image{}, false
	}
	return all[i].Image, true
}

// maxAncestry limits the number of images in an ancestry.
const maxAncestry = 1000

// GetImageAncestry returns the image and the images it was made from, nearest first.
func (s *state) GetImageAncestry(ctx context.Context, in *ec2.GetImageAncestryInput) (*ec2.GetImageAncestryOutput, error) {
	c := wire.CallerFrom(ctx)
	img, err := s.findImage(c, c.Region, in.ImageId)
	if err != nil {
		return nil, err
	}
	out := &ec2.GetImageAncestryOutput{}
	next, region, ok := img.Image, c.Region, true
	for ok && len(out.ImageAncestryEntries) < maxAncestry {
		entry := types.ImageAncestryEntry{ImageId: next.ImageId, ImageOwnerAlias: next.ImageOwnerAlias, SourceImageId: next.SourceImageId, SourceImageRegion: next.SourceImageRegion}
		if at, err := time.Parse(timeForm, aws.ToString(next.CreationDate)); err == nil {
			entry.CreationDate = &at
		}
		out.ImageAncestryEntries = append(out.ImageAncestryEntries, entry)
		if next.SourceImageId == nil {
			break
		}
		if r := aws.ToString(next.SourceImageRegion); r != "" {
			region = r
		}
		next, ok = s.known(*next.SourceImageId, region)
	}
	return out, nil
}

var imageMetadataFilters = filters{
	{"availability-zone", "AvailabilityZone"}, {"image-allowed", "ImageMetadata.ImageAllowed"}, {"instance-id", "InstanceId"}, {"instance-state-name", "State.Name"},
	{"instance-type", "InstanceType"}, {"launch-time", "LaunchTime"}, {"owner-alias", "ImageMetadata.ImageOwnerAlias"}, {"owner-id", "ImageMetadata.OwnerId"},
	{"zone-id", "ZoneId"},
}

// DescribeInstanceImageMetadata describes the images of the caller's instances, including
// images that were deregistered or are no longer shared with the caller.
func (s *state) DescribeInstanceImageMetadata(ctx context.Context, in *ec2.DescribeInstanceImageMetadataInput) (*ec2.DescribeInstanceImageMetadataOutput, error) {
	c := wire.CallerFrom(ctx)
	instances, err := s.instancesOf(c)
	if err != nil {
		return nil, err
	}
	var rows []types.InstanceImageMetadata
	for _, row := range instances {
		v := types.InstanceImageMetadata{InstanceId: row.InstanceId, InstanceType: row.InstanceType, LaunchTime: row.LaunchTime, OwnerId: &row.OwnerId,
			State: row.State, Tags: row.Tags, ImageMetadata: &types.ImageMetadata{ImageId: row.ImageId, State: types.ImageStateDeregistered}}
		if p := row.Placement; p != nil {
			v.AvailabilityZone, v.ZoneId = p.AvailabilityZone, p.AvailabilityZoneId
		}
		if img, ok := s.known(*row.ImageId, c.Region); ok {
			v.ImageMetadata = &types.ImageMetadata{ImageId: img.ImageId, Name: img.Name, OwnerId: img.OwnerId, ImageOwnerAlias: img.ImageOwnerAlias, State: img.State,
				CreationDate: img.CreationDate, DeprecationTime: img.DeprecationTime, IsPublic: img.Public, ImageAllowed: s.imageAllowed(c, img), ImageWatermarks: img.ImageWatermarks}
		}
		rows = append(rows, v)
	}
	k := kindInstance.with(imageMetadataFilters)
	k.min = 1
	rows, next, err := list(s, k, query{in.InstanceIds, in.Filters, in.MaxResults, in.NextToken}, rows)
	return &ec2.DescribeInstanceImageMetadataOutput{InstanceImageMetadata: rows, NextToken: next}, err
}

// maxWatermarks is the largest number of watermarks on an image.
const maxWatermarks = 5

// AttachImageWatermark attaches a watermark to an image that is not public. Images made
// from it later have the watermark too, also in other accounts and regions.
func (s *state) AttachImageWatermark(ctx context.Context, in *ec2.AttachImageWatermarkInput) (*ec2.AttachImageWatermarkOutput, error) {
	c, name := wire.CallerFrom(ctx), aws.ToString(in.WatermarkName)
	if !imageName.Get().MatchString(name) {
		return nil, invalidValue("Value ( %s ) for parameter watermarkName is invalid. Names of watermarks must be between 3 and 128 characters long, and may contain letters, numbers, spaces, and the characters ()[]./-'@_", name)
	}
	key := c.Account + ":" + name
	return &ec2.AttachImageWatermarkOutput{WatermarkKey: &key}, s.changeImage(ctx, in.ImageId, func(img *image) error {
		created, err := time.Parse(timeForm, aws.ToString(img.CreationDate))
		switch {
		case err != nil:
			return err
		case aws.ToBool(img.Public):
			return wire.Errorf("OperationNotPermitted", "The image '%s' is public. Watermarks cannot be added to public AMIs.", *img.ImageId)
		case slices.ContainsFunc(img.ImageWatermarks, hasKey(key)):
			return nil
		case len(img.ImageWatermarks) >= maxWatermarks:
			return wire.Errorf("ResourceLimitExceeded", "The image '%s' has %d watermarks already, which is the limit.", *img.ImageId, maxWatermarks)
		}
		img.ImageWatermarks = append(img.ImageWatermarks, types.ImageWatermark{WatermarkKey: &key, WatermarkCreationTime: aws.Time(s.now()),
			SourceImageId: img.ImageId, SourceImageRegion: &img.Region, SourceImageCreationTime: &created})
		return nil
	})
}

// DetachImageWatermark removes a watermark from an image; images made from it keep theirs.
func (s *state) DetachImageWatermark(ctx context.Context, in *ec2.DetachImageWatermarkInput) (*ec2.DetachImageWatermarkOutput, error) {
	key := aws.ToString(in.WatermarkKey)
	if account, _, ok := strings.Cut(key, ":"); !ok || len(account) != 12 {
		return nil, invalidValue("Value ( %s ) for parameter watermarkKey is invalid. Expected accountId:watermarkName.", key)
	}
	return &ec2.DetachImageWatermarkOutput{Return: aws.Bool(true)}, s.changeImage(ctx, in.ImageId, func(img *image) error {
		i := slices.IndexFunc(img.ImageWatermarks, hasKey(key))
		if i < 0 {
			return invalidValue("The image '%s' has no watermark '%s'.", *img.ImageId, key)
		}
		img.ImageWatermarks = slices.Delete(img.ImageWatermarks, i, i+1)
		return nil
	})
}

func hasKey(key string) func(types.ImageWatermark) bool {
	return func(w types.ImageWatermark) bool { return *w.WatermarkKey == key }
}

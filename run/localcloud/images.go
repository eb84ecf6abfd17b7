package localcloud

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
)

// userTag is the tag of an image that names the login user.
const userTag = "bake:user"

// Image is an image that can be launched, as bake cloud images -json writes it.
type Image struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	Owner       string            `json:"owner"`
	State       string            `json:"state"`
	Created     string            `json:"created"`
	Description string            `json:"description,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
}

// Images returns every image in a region, oldest first.
func (c *Cloud) Images(ctx context.Context, region string) ([]Image, error) {
	images := []Image{}
	out, err := c.ec2(region).DescribeImages(ctx, &ec2.DescribeImagesInput{})
	if err != nil {
		return nil, refused(err)
	}
	for _, i := range out.Images {
		if key(i) == "" { // images of the cache are listed separately
			images = append(images, imageOf(i))
		}
	}
	sort.Slice(images, func(i, j int) bool { return images[i].Created+images[i].Name < images[j].Created+images[j].Name })
	return images, nil
}

// refused returns err without the parts of an API error that only developers of clients need.
func refused(err error) error {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return fmt.Errorf("the local cloud refuses: %s", api.ErrorMessage())
	}
	return err
}

func imageOf(i types.Image) Image {
	tags := map[string]string{}
	for _, t := range i.Tags {
		tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return Image{
		ID: aws.ToString(i.ImageId), Name: aws.ToString(i.Name), Owner: aws.ToString(i.OwnerId),
		State: string(i.State), Created: aws.ToString(i.CreationDate), Description: aws.ToString(i.Description), Tags: tags,
	}
}

// Image returns the image of a region with this id or, if idOrName is not an id, the
// newest one whose name matches. If instanceType is not empty, Image prefers images that
// an instance of this type can run.
func (c *Cloud) Image(ctx context.Context, region, idOrName, instanceType string) (Image, error) {
	in := &ec2.DescribeImagesInput{ImageIds: []string{idOrName}}
	if !strings.HasPrefix(idOrName, "ami-") {
		in = &ec2.DescribeImagesInput{Filters: []types.Filter{{Name: aws.String("name"), Values: []string{idOrName}}}}
	}
	out, err := c.ec2(region).DescribeImages(ctx, in)
	var api smithy.APIError
	if errors.As(err, &api) {
		return Image{}, fmt.Errorf("image %s: %s (%s); bake cloud images lists the available images", idOrName, api.ErrorMessage(), api.ErrorCode())
	}
	if err != nil {
		return Image{}, err
	}
	var fitting []types.ArchitectureType
	if len(out.Images) > 1 { // there is a choice
		if fitting, err = c.architectures(ctx, region, instanceType); err != nil {
			return Image{}, err
		}
	}
	var newest types.Image
	fits := func(i types.Image) bool { return slices.Contains(fitting, types.ArchitectureType(i.Architecture)) }
	for _, i := range out.Images {
		if later := aws.ToString(i.CreationDate) >= aws.ToString(newest.CreationDate); fits(i) && !fits(newest) || later && fits(i) == fits(newest) {
			newest = i
		}
	}
	if newest.ImageId == nil {
		return Image{}, fmt.Errorf("there is no image %s; bake cloud images lists the available images", idOrName)
	}
	return imageOf(newest), nil
}

// architectures returns the architectures of an instance type; none if the type is empty
// or unknown.
func (c *Cloud) architectures(ctx context.Context, region, instanceType string) ([]types.ArchitectureType, error) {
	if instanceType == "" {
		return nil, nil
	}
	out, err := c.ec2(region).DescribeInstanceTypes(ctx, &ec2.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{types.InstanceType(instanceType)}})
	var api smithy.APIError
	switch {
	case errors.As(err, &api), err == nil && len(out.InstanceTypes) == 0: // the launch will report the error
		return nil, nil
	case err != nil:
		return nil, err
	}
	return out.InstanceTypes[0].ProcessorInfo.SupportedArchitectures, nil
}

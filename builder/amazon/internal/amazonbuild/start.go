package amazonbuild

import (
	"context"
	"fmt"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/launch"
)

// start returns the image to launch the instance from: the source image, or the one that
// Start knows.
func (b *Build) start(ctx context.Context) (types.Image, error) {
	if b.Start == nil {
		return b.Source, nil
	}
	from, err := b.from()
	if err != nil {
		return b.Source, err
	}
	id, err := b.Start(ctx, from)
	if err != nil || id == "" {
		return b.Source, err
	}
	out, err := access.Call(ctx, b.client().DescribeImages, &ec2.DescribeImagesInput{ImageIds: []string{id}})
	if err != nil {
		return b.Source, err
	}
	if len(out.Images) == 0 {
		return b.Source, fmt.Errorf("there is no image %s in %s any more", id, b.Session.Region)
	}
	return out.Images[0], nil
}

// from is what the instance would be launched from, and with.
func (b *Build) from() (builder.Start, error) {
	o := b.Machines.Options
	from := builder.Start{Region: b.Session.Region, Image: aws.ToString(b.Source.ImageId)}
	file := ""
	if o.UserDataFile != "" {
		text, err := os.ReadFile(o.UserDataFile)
		if err != nil {
			return from, b.Src.Errorf(&o.UserDataFile, "User data cannot be read", "%s.", err)
		}
		file = string(text)
	}
	if o.SSHClearAuthorizedKeys {
		from.Unfit = "a machine in it admits the temporary key of an earlier build, and ssh_clear_authorized_keys wants none in the image"
	}
	for _, d := range b.Machines.Devices {
		if d.DeviceName != aws.ToString(b.Source.RootDeviceName) {
			from.Unfit = fmt.Sprintf("the machine has another volume (%s) than that of its root", d.DeviceName)
		}
	}
	from.Options = struct {
		Type, User, UserData, UserDataFile, Profile string
		Role                                        *launch.PolicyDocument
		Metadata                                    *launch.MetadataOptions
		Devices                                     []*device.Mapping
	}{o.InstanceType, o.Username, o.UserData, file, o.IAMInstanceProfile, o.TemporaryIAMInstanceProfilePolicyDocument, o.MetadataOptions, b.Machines.Devices}
	return from, nil
}

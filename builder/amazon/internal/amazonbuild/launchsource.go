package amazonbuild

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/launch"
	"bake/internal/hostpath"
)

// start determines the image to launch the instance from: the source image, or the one
// that ResolveSource returns. gone is an image that ResolveSource returned before and that
// no longer exists.
func (b *Build) start(ctx context.Context, gone string) error {
	b.Spec.Image, b.Spec.Continues = b.Source, false
	if b.ResolveSource == nil {
		return nil
	}
	from, err := b.from()
	if err != nil {
		return err
	}
	from.Gone = gone
	id, err := b.ResolveSource(ctx, from)
	if err != nil || id == "" {
		return err
	}
	out, err := access.Call(ctx, b.client().DescribeImages, &ec2.DescribeImagesInput{ImageIds: []string{id}})
	switch {
	case access.NotFound(err) || err == nil && len(out.Images) == 0:
		return b.start(ctx, id)
	case err != nil:
		return err
	}
	b.Spec.Image, b.Spec.Continues = out.Images[0], true
	return nil
}

// launching calls launch, which launches the instance or makes a dry run. If the image
// from ResolveSource no longer exists by then, launching calls launch again with the
// source image.
func (b *Build) launching(ctx context.Context, launch func() error) error {
	err := launch()
	id := aws.ToString(b.Spec.Image.ImageId)
	if id == aws.ToString(b.Source.ImageId) || !access.Is(err, "InvalidAMIID.NotFound", "InvalidAMIID.Unavailable") {
		return err
	}
	if err := b.start(ctx, id); err != nil {
		return err
	}
	return launch()
}

// from returns the image that the instance would be launched from, and the launch
// settings.
func (b *Build) from() (builder.LaunchSource, error) {
	o := b.Machines.Options
	from := builder.LaunchSource{Region: b.Session.Region, Image: aws.ToString(b.Source.ImageId)}
	file := ""
	if o.UserDataFile != "" {
		text, err := hostpath.Read(o.UserDataFile, hostpath.Limit)
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

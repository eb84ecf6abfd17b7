package amazonbuild

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
)

// Volumes returns the volumes of an instance by the names of their devices.
func Volumes(instance types.Instance) map[string]string {
	volumes := map[string]string{}
	for _, b := range instance.BlockDeviceMappings {
		if b.Ebs != nil {
			volumes[aws.ToString(b.DeviceName)] = aws.ToString(b.Ebs.VolumeId)
		}
	}
	return volumes
}

// Detach takes a volume from its instance and waits until it is free.
func (f *Flow) Detach(ctx context.Context, volume string) error {
	_, err := access.Call(ctx, f.client().DetachVolume, &ec2.DetachVolumeInput{VolumeId: &volume})
	if err != nil {
		return err
	}
	return f.awaitVolume(ctx, volume, "to be detached", func(v types.Volume) bool { return v.State == types.VolumeStateAvailable })
}

// Attach gives an instance a volume as a device and waits until it has it.
func (f *Flow) Attach(ctx context.Context, volume, instance, dev string) error {
	_, err := access.Call(ctx, f.client().AttachVolume, &ec2.AttachVolumeInput{VolumeId: &volume, InstanceId: &instance, Device: &dev})
	if err != nil {
		return err
	}
	return f.awaitVolume(ctx, volume, "to be attached", func(v types.Volume) bool {
		return len(v.Attachments) > 0 && v.Attachments[0].State == types.VolumeAttachmentStateAttached
	})
}

func (f *Flow) awaitVolume(ctx context.Context, id, what string, done func(types.Volume) bool) error {
	return f.Session.Watch(5*time.Second, 200*time.Second).Until(ctx, "volume "+id+" "+what, func(ctx context.Context) (bool, error) {
		out, err := access.Call(ctx, f.client().DescribeVolumes, &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
		if err != nil || len(out.Volumes) == 0 {
			return false, err
		}
		return done(out.Volumes[0]), nil
	})
}

func (f *Flow) client() *ec2.Client { return access.EC2(f.Session, f.Session.Region) }

// Available waits until a new volume can be attached.
func (f *Flow) Available(ctx context.Context, volume string) error {
	return f.awaitVolume(ctx, volume, "to be available", func(v types.Volume) bool { return v.State == types.VolumeStateAvailable })
}

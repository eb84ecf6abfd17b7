package amazonbuild

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
)

// Volumes returns the volumes of an instance by device name.
func Volumes(instance types.Instance) map[string]string {
	volumes := map[string]string{}
	for _, m := range instance.BlockDeviceMappings {
		if m.Ebs != nil {
			volumes[aws.ToString(m.DeviceName)] = aws.ToString(m.Ebs.VolumeId)
		}
	}
	return volumes
}

// Detach detaches a volume from its instance and waits until it is available.
func (b *Build) Detach(ctx context.Context, volume string) error {
	_, err := access.Call(ctx, b.client().DetachVolume, &ec2.DetachVolumeInput{VolumeId: &volume})
	if err != nil {
		return err
	}
	return b.awaitVolume(ctx, volume, "to be detached", func(v types.Volume) bool { return v.State == types.VolumeStateAvailable })
}

// Attach attaches a volume to an instance as a device and waits until it is attached.
func (b *Build) Attach(ctx context.Context, volume, instance, dev string) error {
	_, err := access.Call(ctx, b.client().AttachVolume, &ec2.AttachVolumeInput{VolumeId: &volume, InstanceId: &instance, Device: &dev})
	if err != nil {
		return err
	}
	return b.awaitVolume(ctx, volume, "to be attached", func(v types.Volume) bool {
		return len(v.Attachments) > 0 && v.Attachments[0].State == types.VolumeAttachmentStateAttached
	})
}

func (b *Build) awaitVolume(ctx context.Context, id, what string, done func(types.Volume) bool) error {
	return b.Session.Watch(5*time.Second, 200*time.Second).Until(ctx, "volume "+id+" "+what, func(ctx context.Context) (bool, error) {
		out, err := access.Call(ctx, b.client().DescribeVolumes, &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
		if err != nil || len(out.Volumes) == 0 {
			return false, err
		}
		return done(out.Volumes[0]), nil
	})
}

// Available waits until a new volume can be attached.
func (b *Build) Available(ctx context.Context, volume string) error {
	return b.awaitVolume(ctx, volume, "to be available", func(v types.Volume) bool { return v.State == types.VolumeStateAvailable })
}

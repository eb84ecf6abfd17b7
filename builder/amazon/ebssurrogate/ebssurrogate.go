// Package ebssurrogate is the builder amazon-ebssurrogate: an instance prepares
// other volumes than its root, and the image is made of those.
package ebssurrogate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sync/errgroup"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/amazonbuild"
	"bake/builder/amazon/internal/image"
	"bake/builder/amazon/internal/launch"
	"bake/component"
	"bake/config/schema"
	"bake/step"
)

// BuilderID marks the artifacts of this builder.
const BuilderID = "mitchellh.amazon.ebssurrogate"

// Factory makes the builder; cloud stands in for AWS.
func Factory(cloud access.Cloud) component.Factory[builder.Builder] {
	return component.Define("amazon-ebssurrogate", Defaults, func(o *Options, src *schema.Source) builder.Builder {
		return &surrogate{Options: o, src: src, cloud: cloud}
	}).Exporting(amazonbuild.Exports())
}

type surrogate struct {
	*Options
	src   *schema.Source
	cloud access.Cloud
}

// Build implements [builder.Builder].
func (b *surrogate) Build(ctx context.Context, s *step.Scope, provision builder.Provision) (*builder.Artifact, error) {
	f, err := amazonbuild.Open(ctx, s, b.src, b.cloud, &b.Access.Options, &b.Launch.Options)
	if err != nil {
		return nil, err
	}
	f.Machines.Devices = b.devices()
	f.Machines.Keep = launch.Kept(b.src, f.Machines.Devices)
	images := f.Images(&b.Image.Options, &b.Region)
	if err := images.Check(ctx); err != nil {
		return nil, err
	}
	base, err := f.Prepare(ctx, b.VolumeTags.Late())
	if err != nil {
		return nil, err
	}
	labels, err := base.Labels(&b.Image.Options)
	if err != nil {
		return nil, err
	}
	instance, data, err := f.Work(ctx, base, provision)
	if err != nil {
		return nil, err
	}
	id := aws.ToString(instance.InstanceId)
	if err := f.Machines.Stop(ctx, id); err != nil {
		return nil, err
	}
	if err := f.Machines.ModifyInstance(ctx, id, b.SRIOVSupport, b.ENASupport); err != nil {
		return nil, err
	}
	var first image.Made
	if b.UseCreateImage {
		if err := b.exchangeRoot(ctx, f, instance); err != nil {
			return nil, err
		}
		first, err = images.Create(ctx, id, labels)
	} else {
		first, err = b.register(ctx, f, images, instance, labels)
	}
	if err != nil {
		return nil, err
	}
	made, err := images.Distribute(ctx, first, labels)
	if len(made) == 0 {
		return nil, err
	}
	return image.Artifact(BuilderID, made, data), err
}

// register makes snapshots of the volumes, side by side, and an image of them.
func (b *surrogate) register(ctx context.Context, f *amazonbuild.Flow, images *image.Maker, instance types.Instance, labels image.Labels) (image.Made, error) {
	description := b.SnapshotDescription
	if description == "" {
		description = "Packer: " + time.Now().UTC().String()
	}
	volumes := amazonbuild.Volumes(instance)
	snapshots := make([]amazonbuild.Snapshot, len(b.LaunchBlockDeviceMappings))
	g, each := errgroup.WithContext(ctx)
	for i := range b.LaunchBlockDeviceMappings {
		m := &b.LaunchBlockDeviceMappings[i]
		if m.OmitFromArtifact || m.NoDevice || m.VirtualName != "" {
			continue
		}
		volume := volumes[m.DeviceName]
		if volume == "" {
			return image.Made{}, b.src.Errorf(&m.DeviceName, "No volume", "The instance has no volume at %s.", m.DeviceName)
		}
		g.Go(func() (err error) {
			snapshots[i], err = f.Snapshot(each, volume, m.DeviceName, description, image.SnapshotTags(labels))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return image.Made{}, err
	}
	in := images.Request(b.Firmware)
	in.RootDeviceName = &b.Root.DeviceName
	var parts []string
	for i := range b.LaunchBlockDeviceMappings {
		m := &b.LaunchBlockDeviceMappings[i]
		switch snapshot := snapshots[i]; {
		case m.OmitFromArtifact:
			continue
		case snapshot.ID == "":
			in.BlockDeviceMappings = append(in.BlockDeviceMappings, m.EC2())
			continue
		case m.DeviceName == b.Root.SourceDeviceName:
			in.BlockDeviceMappings = append(in.BlockDeviceMappings, image.FromSnapshot(b.Root.mapping(), snapshot.ID))
		default:
			in.BlockDeviceMappings = append(in.BlockDeviceMappings, image.FromSnapshot(&m.Mapping, snapshot.ID))
		}
		parts = append(parts, snapshots[i].Resource.Key)
	}
	for _, m := range b.Image.Devices() {
		taken := func(have types.BlockDeviceMapping) bool { return aws.ToString(have.DeviceName) == m.DeviceName }
		if !slices.ContainsFunc(in.BlockDeviceMappings, taken) {
			in.BlockDeviceMappings = append(in.BlockDeviceMappings, m.EC2())
		}
	}
	return images.Register(ctx, in, labels, parts)
}

// exchangeRoot makes the prepared volume the instance's root. The old root and
// the volumes that are omitted are the instance's no more; they are deleted with
// what else the build leaves.
func (b *surrogate) exchangeRoot(ctx context.Context, f *amazonbuild.Flow, instance types.Instance) error {
	err := step.Run(ctx, f.Scope, "swap the root volume", func(ctx context.Context) error {
		volumes := amazonbuild.Volumes(instance)
		root := volumes[b.Root.SourceDeviceName]
		away := []string{volumes[aws.ToString(instance.RootDeviceName)], root}
		for i := range b.LaunchBlockDeviceMappings {
			if m := &b.LaunchBlockDeviceMappings[i]; m.OmitFromArtifact && volumes[m.DeviceName] != "" {
				away = append(away, volumes[m.DeviceName])
			}
		}
		if root == "" || away[0] == "" {
			return fmt.Errorf("instance %s has no volume at %s, or no root volume", aws.ToString(instance.InstanceId), b.Root.SourceDeviceName)
		}
		g, each := errgroup.WithContext(ctx)
		for _, volume := range away {
			g.Go(func() error { return f.Detach(each, volume) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
		if err := f.Attach(ctx, root, aws.ToString(instance.InstanceId), b.Root.DeviceName); err != nil {
			return err
		}
		_, err := access.Call(ctx, access.EC2(f.Session, f.Session.Region).ModifyInstanceAttribute, &ec2.ModifyInstanceAttributeInput{
			InstanceId: instance.InstanceId,
			BlockDeviceMappings: []types.InstanceBlockDeviceMappingSpecification{{
				DeviceName: &b.Root.DeviceName, Ebs: &types.EbsInstanceBlockDeviceSpecification{DeleteOnTermination: &b.Root.DeleteOnTermination},
			}},
		})
		return err
	})
	return err
}

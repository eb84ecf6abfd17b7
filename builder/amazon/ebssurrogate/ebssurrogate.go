// Package ebssurrogate is the builder amazon-ebssurrogate: an instance prepares volumes
// other than its root, and the image is made from those.
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

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/amazonbuild"
	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/image"
	"bake/step"
)

// builderID is the builder ID in the artifacts of this builder.
const builderID = "mitchellh.amazon.ebssurrogate"

// Factory returns the factory of the builder. cloud replaces AWS.
func Factory(cloud access.Cloud) amazonbuild.Factory {
	return amazonbuild.Define("amazon-ebssurrogate", builderID, cloud, defaults, func(o *Options) amazonbuild.Recipe {
		return amazonbuild.Recipe{
			Access: &o.Access.Options, Launch: &o.Launch.Options, Image: &o.Image.Options,
			Devices: o.devices(), VolumeTags: o.VolumeTags.Deferred(),
			Hooks: o.hooks, Permissions: o.permissions,
		}
	})
}

func (o *Options) hooks(b *amazonbuild.Build) (amazonbuild.Hooks, error) {
	s := &surrogate{o, b}
	return amazonbuild.Hooks{CheckSource: s.checkSource, Make: s.create}, nil
}

// surrogate is one build.
type surrogate struct {
	*Options
	*amazonbuild.Build
}

// checkSource returns an error for an image that could not be shared. The image has only
// those volumes of the template that are not omitted and, with CreateImage, those of the
// source except its root.
func (s *surrogate) checkSource(ctx context.Context, source types.Image) error {
	var volumes []*device.Mapping
	given, gone := map[string]bool{}, map[string]bool{}
	if s.UseCreateImage {
		gone[aws.ToString(source.RootDeviceName)] = true
	}
	for i := range s.LaunchBlockDeviceMappings {
		m := &s.LaunchBlockDeviceMappings[i]
		given[m.DeviceName] = true
		if gone[m.DeviceName] = gone[m.DeviceName] || m.OmitFromArtifact; !gone[m.DeviceName] {
			volumes = append(volumes, &m.Mapping)
		}
	}
	source.BlockDeviceMappings = slices.DeleteFunc(slices.Clone(source.BlockDeviceMappings), func(b types.BlockDeviceMapping) bool {
		name := aws.ToString(b.DeviceName)
		return gone[name] || !given[name] && !s.UseCreateImage
	})
	return s.Images.CheckSharing(ctx, source, volumes)
}

// create makes the first image of the volumes.
func (s *surrogate) create(ctx context.Context) (image.Made, error) {
	if err := s.ModifyInstance(ctx); err != nil {
		return image.Made{}, err
	}
	if !s.UseCreateImage {
		return s.register(ctx)
	}
	_, err := step.Memo(ctx, s.Scope, "root volume swapped", func(ctx context.Context) (bool, error) { return true, s.exchangeRoot(ctx) })
	if err != nil {
		return image.Made{}, err
	}
	return s.Images.Create(ctx, aws.ToString(s.Instance.InstanceId), s.Labels)
}

// register makes snapshots of the volumes concurrently, and an image of them.
func (s *surrogate) register(ctx context.Context) (image.Made, error) {
	description := s.SnapshotDescription
	if description == "" {
		description = "Packer: " + time.Now().UTC().String()
	}
	volumes := amazonbuild.Volumes(s.Instance)
	snapshots := make([]amazonbuild.Snapshot, len(s.LaunchBlockDeviceMappings))
	g, each := errgroup.WithContext(ctx)
	for i := range s.LaunchBlockDeviceMappings {
		m := &s.LaunchBlockDeviceMappings[i]
		if m.OmitFromArtifact || m.NoDevice || m.VirtualName != "" {
			continue
		}
		volume := volumes[m.DeviceName]
		if volume == "" {
			return image.Made{}, s.Src.Errorf(&m.DeviceName, "No volume", "The instance has no volume at %s.", m.DeviceName)
		}
		g.Go(func() (err error) {
			snapshots[i], err = s.Snapshot(each, volume, m.DeviceName, description, image.SnapshotTags(s.Labels))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return image.Made{}, err
	}
	in := s.Images.Request(s.Firmware)
	in.RootDeviceName = &s.Root.DeviceName
	var parts []string
	for i := range s.LaunchBlockDeviceMappings {
		m := &s.LaunchBlockDeviceMappings[i]
		switch snapshot := snapshots[i]; {
		case m.OmitFromArtifact:
			continue
		case snapshot.ID == "":
			in.BlockDeviceMappings = append(in.BlockDeviceMappings, m.EC2())
			continue
		case m.DeviceName == s.Root.SourceDeviceName:
			in.BlockDeviceMappings = append(in.BlockDeviceMappings, image.FromSnapshot(s.Root.mapping(), snapshot.ID))
		default:
			in.BlockDeviceMappings = append(in.BlockDeviceMappings, image.FromSnapshot(&m.Mapping, snapshot.ID))
		}
		parts = append(parts, snapshots[i].Resource.Key)
	}
	for _, m := range s.Image.Devices() {
		taken := func(have types.BlockDeviceMapping) bool { return aws.ToString(have.DeviceName) == m.DeviceName }
		if !slices.ContainsFunc(in.BlockDeviceMappings, taken) {
			in.BlockDeviceMappings = append(in.BlockDeviceMappings, m.EC2())
		}
	}
	return s.Images.Register(ctx, in, s.Labels, parts)
}

// exchangeRoot makes the prepared volume the instance's root. It detaches the old root and
// the volumes that are omitted; they are deleted with the other resources of the build.
func (s *surrogate) exchangeRoot(ctx context.Context) error {
	return step.Run(ctx, s.Scope, "swap the root volume", func(ctx context.Context) error {
		volumes := amazonbuild.Volumes(s.Instance)
		root := volumes[s.Root.SourceDeviceName]
		away := []string{volumes[aws.ToString(s.Instance.RootDeviceName)], root}
		for i := range s.LaunchBlockDeviceMappings {
			if m := &s.LaunchBlockDeviceMappings[i]; m.OmitFromArtifact && volumes[m.DeviceName] != "" {
				away = append(away, volumes[m.DeviceName])
			}
		}
		if root == "" || away[0] == "" {
			return fmt.Errorf("instance %s has no volume at %s, or no root volume", aws.ToString(s.Instance.InstanceId), s.Root.SourceDeviceName)
		}
		g, each := errgroup.WithContext(ctx)
		for _, volume := range away {
			g.Go(func() error { return s.Detach(each, volume) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
		if err := s.Attach(ctx, root, aws.ToString(s.Instance.InstanceId), s.Root.DeviceName); err != nil {
			return err
		}
		_, err := access.Call(ctx, s.Session.EC2(s.Session.Region).ModifyInstanceAttribute, &ec2.ModifyInstanceAttributeInput{
			InstanceId: s.Instance.InstanceId,
			BlockDeviceMappings: []types.InstanceBlockDeviceMappingSpecification{{
				DeviceName: &s.Root.DeviceName, Ebs: &types.EbsInstanceBlockDeviceSpecification{DeleteOnTermination: &s.Root.DeleteOnTermination},
			}},
		})
		return err
	})
}

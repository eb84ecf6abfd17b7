// Package ebs is the builder amazon-ebs: it launches an instance, provisions it
// and makes an image of its EBS volumes.
package ebs

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/amazonbuild"
	"bake/builder/amazon/internal/fastlaunch"
	"bake/builder/amazon/internal/image"
	"bake/builder/amazon/internal/launch"
	"bake/component"
	"bake/config/schema"
	"bake/step"
)

// BuilderID marks the artifacts of this builder.
const BuilderID = "mitchellh.amazonebs"

// Factory makes the builder; cloud stands in for AWS.
func Factory(cloud access.Cloud) component.Factory[builder.Builder] {
	return component.Define("amazon-ebs", Defaults, func(o *Options, src *schema.Source) builder.Builder {
		return &ebs{Options: o, src: src, cloud: cloud}
	}).Exporting(amazonbuild.Exports())
}

type ebs struct {
	*Options
	src   *schema.Source
	cloud access.Cloud
}

// Build implements [builder.Builder].
func (b *ebs) Build(ctx context.Context, s *step.Scope, provision builder.Provision) (*builder.Artifact, error) {
	f, err := amazonbuild.Open(ctx, s, b.src, b.cloud, &b.Access.Options, &b.Launch.Options)
	if err != nil {
		return nil, err
	}
	f.Machines.Devices, f.Machines.NoEphemeral = b.Launch.Devices(), b.NoEphemeral
	f.Machines.Keep = launch.Kept(b.src, b.Launch.Devices())
	images := f.Images(&b.Image.Options, &b.Region)
	images.None = b.SkipCreate
	if b.FastLaunch != nil {
		images.Finish = (&fastlaunch.Enabler{Options: b.FastLaunch, Src: b.src, Session: f.Machines.Session, Scope: s}).Enable
	}
	if err := images.Check(ctx); err != nil {
		return nil, err
	}
	f.Suits = func(source types.Image) error { return images.Suits(ctx, source, f.Machines.Devices) }
	base, err := f.Prepare(ctx, b.VolumeTags.Late())
	if err != nil {
		return nil, err
	}
	if v := b.VirtualizationType; v != "" && v != string(base.Image.VirtualizationType) {
		s.Warn(ctx, "ami_virtualization_type is %s, but the source image is %s, so the image will be too", v, base.Image.VirtualizationType)
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
	if b.SkipCreate {
		s.Say(ctx, "Not creating an image (skip_create_ami)")
		return nil, nil
	}
	if err := f.Machines.ModifyInstance(ctx, id, b.SRIOVSupport, b.ENASupport); err != nil {
		return nil, err
	}
	first, err := images.Create(ctx, id, labels)
	if err != nil {
		return nil, err
	}
	made, err := images.Distribute(ctx, first, labels)
	if len(made) == 0 {
		return nil, err
	}
	return image.Artifact(BuilderID, made, data), err
}

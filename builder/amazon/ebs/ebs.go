// Package ebs is the builder amazon-ebs: it launches an instance, provisions it and
// makes an image from its EBS volumes.
package ebs

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/amazonbuild"
	"bake/builder/amazon/internal/fastlaunch"
)

// builderID is the builder ID in the artifacts of this builder.
const builderID = "mitchellh.amazonebs"

// Factory returns the factory of the builder. cloud replaces AWS.
func Factory(cloud access.Cloud) amazonbuild.Factory {
	return amazonbuild.Define("amazon-ebs", builderID, cloud, Defaults, func(o *Options) amazonbuild.Recipe {
		return amazonbuild.Recipe{
			Access: &o.Access.Options, Launch: &o.Launch.Options, Image: &o.Image.Options,
			Devices: o.Launch.Devices(), VolumeTags: o.VolumeTags.Deferred(),
			Hooks: o.hooks, Permissions: o.permissions,
		}
	})
}

func (o *Options) hooks(b *amazonbuild.Build) (amazonbuild.Hooks, error) {
	b.Machines.NoEphemeral = o.NoEphemeral
	b.Images.None = o.SkipCreate
	if o.FastLaunch != nil {
		b.Images.Finish = (&fastlaunch.Enabler{Options: o.FastLaunch, Src: b.Src, Session: b.Session, Scope: b.Scope}).Enable
	}
	hooks := amazonbuild.Hooks{CheckSource: func(ctx context.Context, source types.Image) error {
		if v := o.VirtualizationType; v != "" && v != string(source.VirtualizationType) {
			b.Scope.Warn(ctx, "ami_virtualization_type is %s, but the source image is %s, so the image will be too", v, source.VirtualizationType)
		}
		return b.Images.CheckSharing(ctx, source, b.Machines.Devices)
	}}
	if o.SkipCreate {
		hooks.Artifact = func(ctx context.Context) (*builder.Artifact, error) {
			b.Scope.Say(ctx, "Not creating an image (skip_create_ami)")
			return nil, nil
		}
	}
	return hooks, nil
}

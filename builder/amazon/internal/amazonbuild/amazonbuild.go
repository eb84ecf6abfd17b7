// Package amazonbuild implements what the Amazon builders have in common: the sequence
// of a build from the session to the artifact, with hooks where builders differ.
package amazonbuild

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/zclconf/go-cty/cty"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/image"
	"bake/builder/amazon/internal/interpolate"
	"bake/builder/amazon/internal/launch"
	"bake/builder/amazon/internal/policy"
	"bake/builder/amazon/internal/sourceami"
	"bake/communicator"
	"bake/component"
	"bake/config/schema"
	"bake/step"
)

// Recipe defines a builder by its options: its source and result, and its specific
// steps.
type Recipe struct {
	Access *access.Options
	Launch *launch.Options // nil: nothing is launched
	Image  *image.Options  // nil: no image is made

	Selection *sourceami.Selection // the source image if nothing is launched; nil: none

	Devices    []*device.Mapping // volumes of the instance that is launched
	VolumeTags interpolate.Tags  // of the instance's volumes

	// Hooks returns the builder's specific steps for b, which has just begun. It may
	// complete b's Machines and Images.
	Hooks func(b *Build) (Hooks, error)

	// Permissions returns the needs of the hooks and of making images, in addition to those
	// of the session and the launch.
	Permissions func(src *schema.Source, region string, here policy.Place) []policy.Need
}

// Hooks are the steps of the sequence in which builders differ, in the order in which they
// are called.
type Hooks struct {
	// CheckSource returns an error for a source image that the build cannot start from. If
	// nil, all images are accepted.
	CheckSource func(ctx context.Context, source types.Image) error

	// Prepare finds existing resources, and makes what the machine needs. Nil means the
	// preparation for an instance launch.
	Prepare func(ctx context.Context) error

	// Work launches the machine and provisions it. Nil: the instance is launched.
	Work func(ctx context.Context, provision builder.Provision) error

	// Finish completes the work on the instance after it was provisioned and the temporary
	// key was removed. Nil: nothing.
	Finish func(ctx context.Context, machine communicator.Communicator) error

	// Stop prepares the machine for making images of it. Nil: the instance is stopped.
	Stop func(ctx context.Context) error

	// Make makes the first image. Nil: EC2 creates it from the instance.
	Make func(ctx context.Context) (image.Made, error)

	// Artifact makes the result of a builder that does not make images. Nil: the builder
	// makes images.
	Artifact func(ctx context.Context) (*builder.Artifact, error)
}

// Factory makes one of the builders.
type Factory = component.Factory[builder.Builder]

// Define returns the factory of a builder. cloud replaces AWS, and id identifies its
// artifacts.
func Define[O any](name, id string, cloud access.Cloud, defaults func() O, recipe func(*O) Recipe) Factory {
	return component.Define(name, defaults, func(o *O, src *schema.Source) builder.Builder {
		return &sequence{Recipe: recipe(o), id: id, src: src, cloud: cloud}
	}).Exporting(map[string]cty.Type{
		"BuildRegion": cty.String, "SourceAMI": cty.String, "SourceAMIName": cty.String,
		"SourceAMICreationDate": cty.String, "SourceAMIOwner": cty.String, "SourceAMIOwnerName": cty.String,
	})
}

// sequence is a builder.
type sequence struct {
	Recipe
	id    string
	src   *schema.Source
	cloud access.Cloud

	begun *Build // by Lookup
	hooks Hooks

	distribution builder.Distribution // of the finished images
}

// begin connects to AWS, unless it has already done so.
func (q *sequence) begin(ctx context.Context, s *step.Scope) (*Build, Hooks, error) {
	if q.begun != nil {
		return q.begun, q.hooks, nil
	}
	b, err := open(ctx, s, q)
	if err != nil {
		return nil, Hooks{}, err
	}
	if q.Recipe.Hooks != nil {
		if q.hooks, err = q.Recipe.Hooks(b); err != nil {
			return nil, Hooks{}, err
		}
	}
	q.begun = b
	return b, q.hooks, nil
}

// Build implements [builder.Builder].
func (q *sequence) Build(ctx context.Context, s *step.Scope, calls builder.Hooks) (*builder.Artifact, error) {
	b, hooks, err := q.begin(ctx, s)
	if err != nil {
		return nil, err
	}
	if a, ok := step.Recall[*builder.Artifact](s, "artifact"); ok {
		return a, nil
	}
	if hooks.Make == nil && hooks.Prepare == nil && hooks.Work == nil { // the image is of the whole machine
		b.ResolveSource = calls.ResolveSource
	}
	if b.Machines != nil {
		b.Machines.AwaitFirstBoot = calls.AwaitFirstBoot
	}
	if b.Images != nil {
		b.Images.Distribution = q.distribution
	}
	hooks.complete(b, q.VolumeTags)
	if err := q.provisioned(ctx, b, hooks, calls.Provision); err != nil {
		return nil, err
	}
	made, err := q.product(ctx, b, hooks, calls)
	if err == nil {
		step.Record(s, "artifact", made)
	}
	return made, err
}

// provisioned launches the machine and provisions it, unless an earlier process of the run
// has done so.
func (q *sequence) provisioned(ctx context.Context, b *Build, hooks Hooks, provision builder.Provision) error {
	if done, ok := step.Recall[milestone](b.Scope, step.Provisioned); ok {
		return b.restore(ctx, done, false)
	}
	if done, ok := step.Recall[milestone](b.Scope, step.Reached); ok {
		if err := b.resumeProvisioning(ctx, done, provision, hooks.Finish); err != nil {
			return err
		}
		return q.recordProvisioned(ctx, b)
	}
	if q.Launch != nil {
		step.Record(b.Scope, step.Resumable, true)
	}
	if q.Image != nil {
		if err := b.Images.Check(ctx); err != nil {
			return err
		}
	}
	if err := hooks.Prepare(ctx); err != nil {
		return err
	}
	if q.Image != nil {
		var err error
		if b.Labels, err = b.labels(q.Image); err != nil {
			return err
		}
	}
	if err := hooks.Work(ctx, provision); err != nil {
		return err
	}
	if q.Launch == nil {
		return nil
	}
	return q.recordProvisioned(ctx, b)
}

// recordProvisioned records that the provisioners have finished, and ends the stage.
func (q *sequence) recordProvisioned(ctx context.Context, b *Build) error {
	step.Record(b.Scope, step.Provisioned, b.milestone())
	return step.EndStage(ctx, b.Scope, step.Boundary{Next: step.StageImage})
}

// product makes the artifact from the provisioned machine.
func (q *sequence) product(ctx context.Context, b *Build, hooks Hooks, calls builder.Hooks) (*builder.Artifact, error) {
	if hooks.Artifact != nil {
		if err := hooks.Stop(ctx); err != nil {
			return nil, err
		}
		return hooks.Artifact(ctx)
	}
	whole := b.Labels
	if calls.ImageCreated != nil {
		b.Labels = whole.WithoutUserTags()
	}
	first, err := step.Memo(ctx, b.Scope, "first image", func(ctx context.Context) (image.Made, error) {
		if err := hooks.Stop(ctx); err != nil {
			return image.Made{}, err
		}
		return hooks.Make(ctx)
	})
	b.Labels = whole
	if err != nil {
		return nil, err
	}
	if calls.ImageCreated != nil {
		if err := step.EndStage(ctx, b.Scope, step.Boundary{Next: step.StageVerify}); err != nil {
			return nil, err
		}
	}
	if a, err := q.shown(ctx, b, first, calls); err != nil {
		return a, err
	}
	made, err := b.Images.Distribute(ctx, first, b.Labels)
	if len(made) == 0 {
		return nil, err
	}
	return image.Artifact(q.id, made, b.Data), err
}

// complete sets hooks that are nil to the defaults for an instance.
func (h *Hooks) complete(b *Build, volumeTags interpolate.Tags) {
	if h.CheckSource == nil {
		h.CheckSource = func(context.Context, types.Image) error { return nil }
	}
	if h.Prepare == nil {
		h.Prepare = func(ctx context.Context) error { return b.prepare(ctx, volumeTags, h.CheckSource) }
	}
	if h.Finish == nil {
		h.Finish = func(context.Context, communicator.Communicator) error { return nil }
	}
	if h.Work == nil {
		h.Work = func(ctx context.Context, provision builder.Provision) error { return b.work(ctx, provision, h.Finish) }
	}
	if h.Stop == nil {
		h.Stop = b.Stop
	}
	if h.Make == nil {
		h.Make = b.create
	}
}

// SetRegion implements [bake/builder/amazon.Regional].
func (q *sequence) SetRegion(region string) { q.Access.SetRegion(region) }

// Permissions implements [bake/builder/amazon.Permitted].
func (q *sequence) Permissions() []policy.Need {
	region := q.Access.KnownRegion(q.src)
	here := policy.In(region)
	needs := q.Access.Permissions(q.src)
	if q.Launch != nil {
		needs = append(needs, q.Launch.Permissions(q.src, here, q.Devices)...)
	}
	return append(needs, q.Recipe.Permissions(q.src, region, here)...)
}

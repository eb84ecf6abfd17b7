package engine

import (
	"context"
	"fmt"

	"bake/builder"
	"bake/config"
	"bake/step"
)

// Pipeline is what is asked of the image of a build, beside what the template says.
type Pipeline struct {
	// Provisioned is called after the last provisioner, just before the machine becomes an
	// image. With its error the build fails. Nil: nothing is asked of the machine.
	Provisioned func(ctx context.Context, s *step.Scope, m builder.Machine) error

	// Made is [builder.Hooks.Made], and may run Provisioners, or some of them, on the
	// machines that it boots. Nil: nothing is asked of the image; otherwise Boots are all
	// that it boots.
	Made         func(ctx context.Context, s *step.Scope, image builder.Image, provision Provision) error
	Boots        []builder.Boot
	Provisioners []*config.Provisioner
}

// Provision runs provisioners on a machine, one after the other.
type Provision func(ctx context.Context, m builder.Machine, all []*config.Provisioner) error

// pipeline is that of a build; nil if it has none.
func (m *maker) pipeline(b *config.Build) *Pipeline { return m.options.Pipelines[b.Builder] }

// provisioned asks of the machine what the pipeline does before there is an image.
func (x *execution) provisioned(ctx context.Context, m builder.Machine) error {
	if p := x.pipeline(x.build); p != nil && p.Provisioned != nil {
		return p.Provisioned(ctx, x.scope, m)
	}
	return nil
}

// hooks are what the builder b calls on its way.
func (x *execution) hooks(b builder.Builder) (builder.Hooks, error) {
	hooks := builder.Hooks{Provision: x.provision}
	p := x.pipeline(x.build)
	if p == nil || p.Made == nil {
		return hooks, nil
	}
	v, ok := b.(builder.Verifiable)
	if !ok {
		return hooks, fmt.Errorf("images of %s cannot be verified before they are handed out: remove the verify blocks of this source", x.build.Type)
	}
	if err := v.Verifiable(p.Boots); err != nil {
		return hooks, fmt.Errorf("the image cannot be verified: %w", err)
	}
	hooks.Made = func(ctx context.Context, image builder.Image) (err error) {
		defer recovered(&err)
		return p.Made(ctx, x.scope, image, x.provisionGuest)
	}
	return hooks, nil
}

// provisionGuest runs provisioners on a machine of the image.
func (x *execution) provisionGuest(ctx context.Context, m builder.Machine, all []*config.Provisioner) (err error) {
	defer recovered(&err)
	m.Leftovers, m.Uploads = new(builder.Leftovers), nil
	for _, s := range m.Data.Secrets() {
		x.secret(s)
	}
	for i, p := range all {
		name := "run " + title(p)
		if n := len(all); n > 1 {
			name += fmt.Sprintf(" (%d of %d)", i+1, n)
		}
		if err := x.attempts(ctx, name, p, m); err != nil {
			return err
		}
	}
	return nil
}

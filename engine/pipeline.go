package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/component"
	"bake/config"
	"bake/config/schema"
	"bake/internal/prose"
	"bake/step"
)

// Pipeline describes the work on a build's image that bake files, rather than the template, define.
type Pipeline struct {
	// Provisioned is called after the last provisioner, just before the machine becomes an image.
	// An error fails the build. It may be nil.
	Provisioned func(ctx context.Context, s *step.Scope, m builder.Machine) error

	// ImageCreated implements [builder.Hooks.ImageCreated]. It may run Provisioners on the machines
	// listed in Boots. It may be nil.
	ImageCreated func(ctx context.Context, s *step.Scope, image builder.Image, provision Provision) error
	Boots        []builder.Boot
	Provisioners []*config.Provisioner
	Quarantines  bool // an image that fails may be quarantined; see [builder.Quarantine]

	// Inputs is called for one build at a time, before the run creates any resource, with the
	// inputs of the build's components. An error prevents the build. It may be nil.
	Inputs func(ctx context.Context, of Materials) hcl.Diagnostics

	// Reuse is called after Inputs. It returns the artifact of an earlier build whose images make
	// this build unnecessary, or nil if the build is needed. If Reuse is nil, the build is needed.
	Reuse func(ctx context.Context, s *step.Scope, b builder.Builder) (*builder.Artifact, error)

	// Prepare is called before b makes the image. It fails if a later step could not succeed. It
	// may be nil.
	Prepare func(ctx context.Context, s *step.Scope, b builder.Builder) error

	// Distribute copies and shares the images in made and adds their new places to it. If it fails,
	// made is incomplete. Nil means that there is nothing to distribute.
	Distribute func(ctx context.Context, s *step.Scope, b builder.Builder, made *builder.Artifact) error

	// Release makes the distributed images available. It is called after the post-processors.
	Release func(ctx context.Context, s *step.Scope, b builder.Builder, made *builder.Artifact) error

	// CheckDistributable returns an error if Distribute does not support the images of a builder.
	// It is nil if Distribute is nil.
	CheckDistributable func(b builder.Builder) error

	// To and Parameters are the targets of Distribute and the channels of Release.
	To         builder.Distribution
	Parameters []string

	// Reports and Key are the location of reports and the key that signs attestations, as set in
	// the bake files; empty if not set.
	Reports, Key string

	// ImageTags implements [builder.Hooks.ImageTags]. Nil means no tags.
	ImageTags func(ctx context.Context, s *step.Scope) (map[string]string, error)

	// Done is called with the builder's artifact when the build has made everything, its
	// post-processors have run, and its machine is gone. An error fails the build, but what was
	// made is kept. It may be nil.
	Done func(ctx context.Context, s *step.Scope, made *builder.Artifact) error

	At *hcl.Range // the first block that asks for Made
}

// Provision runs provisioners on a machine, one after the other.
type Provision func(ctx context.Context, m builder.Machine, all []*config.Provisioner) error

// pipeline returns the pipeline of a build; nil if it has none.
func (m *maker) pipeline(b *config.Build) *Pipeline { return m.options.Pipelines[b.Builder] }

// provisioned runs the pipeline's checks of the machine before the image is made.
func (x *execution) provisioned(ctx context.Context, m builder.Machine) error {
	p := x.pipeline(x.build)
	if p == nil || p.Provisioned == nil {
		return nil
	}
	x.mu.Lock()
	x.seen = true
	x.mu.Unlock()
	if err := x.awaitFirstBoot(ctx, m); err != nil {
		return err
	}
	return p.Provisioned(ctx, x.scope, m)
}

// awaitFirstBoot is [builder.Hooks.AwaitFirstBoot].
func (x *execution) awaitFirstBoot(ctx context.Context, m builder.Machine) (err error) {
	defer recovered(&err)
	if x.options.AwaitFirstBoot == nil {
		return nil
	}
	return x.options.AwaitFirstBoot(ctx, x.scope, m)
}

// finish runs the pipeline's last step.
func (x *execution) finish(ctx context.Context, made *builder.Artifact) (err error) {
	defer recovered(&err)
	p := x.pipeline(x.build)
	if p == nil || p.Done == nil || x.options.PlanOnly {
		return nil
	}
	return p.Done(ctx, x.scope, made)
}

// checkBuilder reports a builder that does not support what the pipeline requires.
func (p *Pipeline) checkBuilder(b builder.Builder, typ string) hcl.Diagnostics {
	if p == nil {
		return nil
	}
	if p.CheckDistributable != nil {
		if err := p.CheckDistributable(b); err != nil {
			return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Image cannot be distributed", Detail: prose.Sprintf("Images of %s: %s.", typ, err), Subject: p.At}}
		}
	}
	if p.ImageCreated == nil {
		return nil
	}
	v, ok := b.(builder.Verifiable)
	if !ok {
		return p.wrong("Images of %s cannot be verified before they are distributed. Remove the verify and provenance blocks of this source.", typ)
	}
	if err := v.Verifiable(p.Boots); err != nil {
		return p.wrong("%s cannot verify its image: %s.", typ, err)
	}
	return nil
}

func (p *Pipeline) wrong(format string, args ...any) hcl.Diagnostics {
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Image cannot be verified", Detail: prose.Sprintf(format, args...), Subject: p.At}}
}

// pipelineOf checks that the builder of b supports its pipeline.
func (ck *checker) pipelineOf(b *config.Build, f component.Factory[builder.Builder], in schema.Input) (diags hcl.Diagnostics) {
	p := ck.pipeline(b)
	if p == nil || p.ImageCreated == nil && p.ImageTags == nil && p.Distribute == nil {
		return nil
	}
	made, wrong := f.Outline(in)
	if wrong.HasErrors() { // Check has reported the errors
		return nil
	}
	if r, ok := made.(builder.Reusable); ok {
		ck.materials(b).Incidental = r.Incidental()
	}
	if diags = p.checkBuilder(made, b.Type); !diags.HasErrors() && ck.options.Verified != nil {
		ck.options.Verified(made, p)
	}
	if err := component.Close(made); err != nil {
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: "Not closed", Detail: prose.Sprintf("%s: %s.", b.Type, err), Subject: p.At})
	}
	return diags
}

// hooks returns the hooks for builder b.
func (x *execution) hooks(b builder.Builder) (builder.Hooks, error) {
	hooks := builder.Hooks{Provision: x.provision, AwaitFirstBoot: x.awaitFirstBoot}
	p := x.pipeline(x.build)
	if p == nil {
		return hooks, nil
	}
	if p.ImageTags != nil {
		hooks.ImageTags = func(ctx context.Context) (map[string]string, error) { return p.ImageTags(ctx, x.scope) }
	}
	if p.ImageCreated == nil && p.CheckDistributable == nil {
		return hooks, nil
	}
	if diags := p.checkBuilder(b, x.build.Type); diags.HasErrors() {
		return hooks, x.template.Explain(diags)
	}
	if p.ImageCreated == nil {
		return hooks, nil
	}
	hooks.ImageCreated = func(ctx context.Context, image builder.Image) (err error) {
		defer recovered(&err)
		return p.ImageCreated(ctx, x.scope, image, x.provisionGuest)
	}
	return hooks, nil
}

// unchecked reports whether the pipeline has checks for the build's machine that have not been run,
// either in this process or in an earlier one of the run.
func (x *execution) unchecked() bool {
	p := x.pipeline(x.build)
	x.mu.Lock()
	defer x.mu.Unlock()
	return p != nil && p.Provisioned != nil && !x.seen && !x.canResume()
}

// errUnchecked is the error of a gate if there was no machine to check.
var errUnchecked = fmt.Errorf("%w: the builder provided no machine on which to run the checks of the image block or to look for leftovers", builder.ErrGate)

// distributeReused distributes and publishes an image that an earlier run made: that run may have
// ended before it did so.
func (x *execution) distributeReused(ctx context.Context, made *builder.Artifact) error {
	err := x.distribute(ctx, made)
	if err == nil {
		err = x.publish(ctx, made)
	}
	if err == nil {
		err = x.finish(ctx, made)
	}
	if cerr := x.scope.Close(ctx, x.runner.stop); cerr != nil {
		err = errors.Join(err, fmt.Errorf("teardown: %w", cerr))
	}
	return x.markPartial(err)
}

// distribute distributes the builder's artifact.
func (x *execution) distribute(ctx context.Context, made *builder.Artifact) (err error) {
	p := x.pipeline(x.build)
	if p == nil || p.Distribute == nil || x.options.PlanOnly {
		return nil
	}
	defer recovered(&err)
	b, err := x.newBuilder(ctx)
	if err != nil {
		return err
	}
	return p.Distribute(ctx, x.scope, b, made)
}

// publish makes the distributed images available.
func (x *execution) publish(ctx context.Context, made *builder.Artifact) (err error) {
	p := x.pipeline(x.build)
	if p == nil || p.Release == nil || x.options.PlanOnly {
		return nil
	}
	defer recovered(&err)
	b, err := x.newBuilder(ctx)
	if err != nil {
		return err
	}
	return p.Release(ctx, x.scope, b, made)
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

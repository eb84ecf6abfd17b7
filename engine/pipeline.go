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

// Pipeline describes the work on the image of a build that the template does not define.
type Pipeline struct {
	// Provisioned is called after the last provisioner, just before the machine becomes an
	// image. If it returns an error, the build fails. It may be nil.
	Provisioned func(ctx context.Context, s *step.Scope, m builder.Machine) error

	// ImageCreated is [builder.Hooks.ImageCreated]. It may run some or all of Provisioners
	// on the machines that it boots, which Boots lists. It may be nil.
	ImageCreated func(ctx context.Context, s *step.Scope, image builder.Image, provision Provision) error
	Boots        []builder.Boot
	Provisioners []*config.Provisioner
	Quarantines  bool // an image that fails may get the fate [builder.Quarantine]

	// Inputs is called for one build at a time, before the run creates any resource, with
	// the inputs of the build's components. If it returns an error, the build is not run.
	// It may be nil.
	Inputs func(ctx context.Context, of Materials) hcl.Diagnostics

	// Reuse is called after Inputs. It returns the artifact of a build that is not needed,
	// since its images exist, or nil if the build is needed. If Reuse is nil, the build is
	// needed.
	Reuse func(ctx context.Context, s *step.Scope, b builder.Builder) (*builder.Artifact, error)

	// Prepare is called before b makes the image, and fails if a later step could not
	// work. It may be nil.
	Prepare func(ctx context.Context, s *step.Scope, b builder.Builder) error

	// Distribute hands out what b has made, and adds to it where it is then. With its error
	// the artifact is only a part. Nil: there is nothing to hand out.
	Distribute func(ctx context.Context, s *step.Scope, b builder.Builder, made *builder.Artifact) error

	// Release makes the distributed images available, once the post-processors have run.
	Release func(ctx context.Context, s *step.Scope, b builder.Builder, made *builder.Artifact) error

	// CheckDistributable reports a builder whose images Distribute cannot hand out. Nil with it.
	CheckDistributable func(b builder.Builder) error

	// To and Parameters are where Distribute hands it to, and the channels of Release.
	To         builder.Distribution
	Parameters []string

	// Reports and Key are the place of reports and the key that signs attestations, as the
	// bake files set them; empty if not set.
	Reports, Key string

	// ImageTags are [builder.Hooks.ImageTags]. Nil: there are none.
	ImageTags func(ctx context.Context, s *step.Scope) (map[string]string, error)

	// Done is called with the builder's artifact when everything that the build makes
	// exists, its post-processors have run, and its machine is gone. If it returns an
	// error, the build fails, and what was made is kept. It may be nil.
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

// suits reports a builder whose images cannot be checked as the pipeline requires.
func (p *Pipeline) suits(b builder.Builder, typ string) hcl.Diagnostics {
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
	if diags = p.suits(made, b.Type); !diags.HasErrors() && ck.options.Verified != nil {
		ck.options.Verified(made, p)
	}
	if err := component.Close(made); err != nil {
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: "Not closed", Detail: prose.Sprintf("%s: %s.", b.Type, err), Subject: p.At})
	}
	return diags
}

// hooks returns the callbacks for the builder b.
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
	if diags := p.suits(b, x.build.Type); diags.HasErrors() {
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

// unseen reports whether the pipeline has checks for the build's machine that have not run
// in any process of this run.
func (x *execution) unseen() bool {
	p := x.pipeline(x.build)
	x.mu.Lock()
	defer x.mu.Unlock()
	return p != nil && p.Provisioned != nil && !x.seen && !x.remembered()
}

// errUnseen is the error of a gate whose checks had no machine to run on.
var errUnseen = fmt.Errorf("%w: the builder had no machine to run the checks of the image block on, or to look for leftovers on", builder.ErrGate)

// distributeReused distributes and publishes an image that existed before the run: an
// earlier run that made the image may have ended before it did so.
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
	return x.partly(err)
}

// distribute distributes what the builder has made.
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

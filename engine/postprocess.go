package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"bake/builder"
	"bake/config"
	"bake/internal/redact"
	"bake/postprocessor"
	"bake/step"
)

// postProcess passes the builder's artifact to every chain and returns the remaining artifacts: the
// builder's, if a chain or an error keeps it, and those that the chains keep. An error in one chain
// does not stop the others.
func (x *execution) postProcess(ctx context.Context, artifact *builder.Artifact) ([]*builder.Artifact, error) {
	var results []*builder.Artifact
	var errs []error
	keep := len(x.build.PostProcessors) == 0
	for i, chain := range x.build.PostProcessors {
		if made, kept, ok := x.recallChain(i, artifact); ok {
			results, keep = append(results, made...), keep || kept
			continue
		}
		if err := context.Cause(ctx); err != nil {
			errs, keep = append(errs, err), true
			break
		}
		made, kept, err := x.chain(ctx, chain, artifact)
		if err != nil {
			errs = append(errs, err)
		} else {
			x.recordChain(i, artifact, made, kept)
		}
		results = append(results, made...)
		// Keep an image that could not be processed.
		keep = keep || kept || err != nil
	}
	if keep {
		results = append([]*builder.Artifact{artifact}, results...)
	} else if !slices.Contains(results, artifact) {
		errs = append(errs, x.delete(ctx, artifact))
	}
	return distinct(results), errors.Join(errs...)
}

// chain runs the post-processors of one chain. It returns the artifacts that remain, and
// whether to keep the builder's artifact.
func (x *execution) chain(ctx context.Context, chain config.Chain, artifact *builder.Artifact) (results []*builder.Artifact, keep bool, err error) {
	defer x.release(ctx, len(x.held))
	in := artifact
	var errs []error
	for i, p := range chain {
		out, answer, err := x.process(ctx, p, in)
		if err != nil {
			if i > 0 {
				results = append(results, in)
			}
			return results, keep, errors.Join(append(errs, err)...)
		}
		kept := keeps(p.KeepInput, answer)
		switch {
		case i == 0:
			keep = kept
		case kept:
			results = append(results, in)
		case in != out && in != artifact: // an artifact that was passed on is still needed
			errs = append(errs, x.delete(ctx, in))
		}
		if out == nil {
			return results, keep, errors.Join(errs...)
		}
		in = out
	}
	return append(results, in), keep, errors.Join(errs...)
}

// keeps returns whether to keep an input artifact: as the template says, unless the post-processor
// requires otherwise.
func keeps(wish *bool, answer postprocessor.Keep) bool {
	switch answer {
	case postprocessor.MustKeep:
		return true
	case postprocessor.MustDiscard:
		return false
	}
	if wish != nil {
		return *wish
	}
	return answer == postprocessor.Kept
}

// process runs one post-processor.
func (x *execution) process(ctx context.Context, p *config.PostProcessor, in *builder.Artifact) (*builder.Artifact, postprocessor.Keep, error) {
	type outcome struct {
		artifact *builder.Artifact
		keep     postprocessor.Keep
	}
	s := x.scope.As(p.Type)
	out, err := step.Do(ctx, x.scope, announced(p), func(ctx context.Context) (o outcome, err error) {
		defer recovered(&err)
		values := actual(x.exports[x.build], x.options.Run, x.machine.Data, in.Data)
		pp, err := newComponent(ctx, x.maker, x.build, p.Component, x.components.PostProcessors, values)
		if err != nil {
			return o, err
		}
		x.hold(p.Type, pp)
		o.artifact, o.keep, err = pp.Process(ctx, s, in)
		x.holdLive(p.Type, o.artifact)
		return o, err
	})
	return out.artifact, out.keep, blame(ctx, err, announced(p), p.TypeRange)
}

// announced returns the name of the step that runs p. Like Packer's, it has two spaces where a name
// is missing, because programs search logs for it.
func announced(p *config.PostProcessor) string {
	if p.Name == p.Type {
		return "running post-processor: " + p.Type
	}
	return fmt.Sprintf("running post-processor: %s (type %s)", p.Name, p.Type)
}

// delete destroys the resources of an artifact, first to last, in the same way as teardown: each
// stays in the ledger until it is gone, and cancellation does not interrupt it.
func (x *execution) delete(ctx context.Context, a *builder.Artifact) error {
	for _, r := range slices.Backward(a.Resources) { // resources are destroyed newest first
		r.Build = x.build.Name
		if err := x.options.Ledger.Intend(r); err != nil {
			return fmt.Errorf("deleting an artifact that is not kept: %w", err)
		}
	}
	err := x.destroy(ctx, a)
	if err = errors.Join(err, x.scope.Close(ctx, x.runner.stop)); err != nil {
		return fmt.Errorf("deleting an artifact that is not kept: %w", err)
	}
	return nil
}

// destroy destroys the parts of an artifact that are not resources.
func (x *execution) destroy(ctx context.Context, a *builder.Artifact) (err error) {
	if a.Live == nil {
		return nil
	}
	defer recovered(&err)
	ctx, end := x.scope.Teardown(ctx, x.runner.stop)
	defer end()
	err = step.Run(ctx, x.scope.Unattended(), "delete artifact "+a.ID, a.Live.Destroy)
	if err != nil {
		err = fmt.Errorf("%w; delete it by hand: %s", err, a.Text)
	}
	return err
}

// distinct removes duplicates: post-processors may return their input.
func distinct(all []*builder.Artifact) []*builder.Artifact {
	var out []*builder.Artifact
	for _, a := range all {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// redacted returns a copy of a without secrets in the fields that are displayed.
func redacted(secrets *redact.Set, a *builder.Artifact) *builder.Artifact {
	clean := *a
	clean.Live = nil
	clean.ID, clean.Text = secrets.RedactMessage(a.ID), secrets.RedactMessage(a.Text)
	clean.Files = slices.Clone(a.Files)
	for i, f := range clean.Files {
		clean.Files[i] = secrets.RedactMessage(f)
	}
	clean.Data = maps.Clone(a.Data)
	for k, v := range clean.Data {
		v.Text = secrets.RedactMessage(v.Text)
		clean.Data[k] = v
	}
	return &clean
}

// redactedResource returns r without secrets in the fields that are displayed. The ledger stores
// the resource unchanged: it could not be deleted under another name.
func redactedResource(secrets *redact.Set, r step.Resource) step.Resource {
	r.Key, r.ID = secrets.RedactMessage(r.Key), secrets.RedactMessage(r.ID)
	r.With = maps.Clone(r.With)
	for k, v := range r.With {
		r.With[k] = secrets.RedactMessage(v)
	}
	return r
}

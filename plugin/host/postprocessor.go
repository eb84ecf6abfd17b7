package host

import (
	"context"
	"errors"
	"maps"

	"bake/builder"
	"bake/plugin/wire"
	"bake/postprocessor"
	"bake/step"
)

// hostedPostProcessor is a plugin's post-processor.
type hostedPostProcessor struct{ hosted }

// Process implements [postprocessor.PostProcessor].
func (h hostedPostProcessor) Process(ctx context.Context, s *step.Scope, in *builder.Artifact) (out *builder.Artifact, keep postprocessor.Keep, err error) {
	proc, err := h.ready(ctx, s)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if out == nil || out == in { // otherwise it lives in the plugin
			err = errors.Join(err, proc.Close())
		}
	}()
	u := newUI(ctx, s, h.plugin)
	given := newInput(in)
	methods := u.methods()
	maps.Copy(methods, given.methods())
	id, begun := proc.serve(methods, u.progress)
	var reply struct {
		Err                 *struct{ Message string }
		Keep, ForceOverride bool
		StreamId            uint32
	}
	err = h.work(ctx, s, proc, job{method: "PostProcess", args: id, reply: &reply, begun: begun, grace: cancelGrace})
	if err == nil && reply.Err != nil {
		err = explained(wire.RemoteError(reply.Err.Message), nil)
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
	}
	if err != nil {
		return nil, 0, err
	}
	keep = decision(reply.Keep, reply.ForceOverride)
	if reply.StreamId == 0 {
		return nil, keep, nil
	}
	after := context.WithoutCancel(ctx)
	client, err := proc.dial(after, reply.StreamId)
	if err != nil {
		return nil, 0, remaining(err)
	}
	made := &artifact{proc: proc, client: client}
	said, err := made.read(after, s.Run.ID)
	switch {
	case err != nil: // it may be the input artifact, which must not be deleted
		return nil, 0, remaining(err)
	case given.is(after, made, said):
		return in, keep, nil
	}
	return said, keep, nil
}

// decision converts a plugin's answer about its input artifact.
func decision(keep, force bool) postprocessor.Keep {
	switch {
	case keep && force:
		return postprocessor.MustKeep
	case keep:
		return postprocessor.Kept
	case force:
		return postprocessor.MustDiscard
	}
	return postprocessor.Discard
}

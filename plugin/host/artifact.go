package host

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"bake/builder"
	"bake/plugin/wire"
)

// Limits on a plugin's description of an artifact.
const (
	maxFiles     = 100_000
	maxFileName  = 32 << 10
	artifactCall = time.Minute
)

// artifact is an artifact that a plugin serves.
type artifact struct {
	proc   *process
	client *wire.Client
}

var _ builder.LiveArtifact = (*artifact)(nil)

func (a *artifact) call(ctx context.Context, method string, args, reply any) error {
	return a.proc.explain(a.client.Call(ctx, "Artifact."+method, args, reply))
}

// ask makes a call that the plugin should answer quickly.
func (a *artifact) ask(ctx context.Context, method string, args, reply any) error {
	return a.within(ctx, artifactCall, "did not report its artifact", method, args, reply)
}

// within makes a call with a time limit. failed is what the plugin did not do if the limit is
// exceeded.
func (a *artifact) within(ctx context.Context, limit time.Duration, failed, method string, args, reply any) error {
	ctx, done := a.proc.plugin.limited(ctx, limit, "", "Artifact."+method, failed)
	defer done()
	return a.call(ctx, method, args, reply)
}

// State implements [builder.LiveArtifact].
func (a *artifact) State(ctx context.Context, name string) (v any, err error) {
	err = a.ask(ctx, "State", name, &v)
	return v, err
}

// Destroy implements [builder.LiveArtifact]. Plugins send the error as the reply.
func (a *artifact) Destroy(ctx context.Context) error {
	var failed *struct{ Message string }
	err := a.within(ctx, teardownGrace, "did not delete its artifact", "Destroy", nil, &failed)
	if err == nil && failed != nil {
		err = errors.New(clip(failed.Message, maxComplaint))
	}
	return err
}

// Close implements [builder.LiveArtifact].
func (a *artifact) Close() error {
	a.client.Close()
	return a.proc.Close()
}

// read requests the description of the artifact. run is the id of the run.
func (a *artifact) read(ctx context.Context, run string) (*builder.Artifact, error) {
	out := &builder.Artifact{Live: a}
	var state any
	for _, q := range []struct {
		method string
		args   any
		reply  any
	}{
		{"BuilderId", nil, &out.BuilderID}, {"Id", nil, &out.ID}, {"String", nil, &out.Text},
		{"Files", nil, &out.Files}, {"State", "generated_data", &state},
	} {
		err := a.ask(ctx, q.method, q.args, q.reply)
		if remote := wire.RemoteError(""); errors.As(err, &remote) && q.method == "State" {
			err = nil // such as values that cannot be encoded
		}
		if err != nil {
			return nil, fmt.Errorf("the plugin %s did not report its artifact: %w", a.proc.plugin.Source, err)
		}
	}
	if len(out.Files) > maxFiles || slices.ContainsFunc(out.Files, func(f string) bool { return len(f) > maxFileName }) {
		return nil, fmt.Errorf("the plugin %s says that its artifact has %d files, or a name that no file can have", a.proc.plugin.Source, len(out.Files))
	}
	out.BuilderID, out.ID, out.Text = clip(out.BuilderID, maxFileName), clip(out.ID, maxText), clip(out.Text, maxText)
	if said, ok := state.(map[string]any); ok {
		out.Data = buildData(run, said).Public()
	}
	return out, nil
}

// lost deletes an artifact that cannot be used, because reading it failed with err.
func (a *artifact) lost(ctx context.Context, err error) error {
	if derr := a.Destroy(ctx); derr != nil {
		return remaining(fmt.Errorf("%w; deleting it: %w", err, derr))
	}
	return fmt.Errorf("%w; the plugin has deleted it", err)
}

// remaining adds to an error that something that the plugin has created may remain.
func remaining(err error) error {
	return fmt.Errorf("the resources of the plugin may still exist: %w", err)
}

// input answers a plugin's calls of Artifact with the artifact that a post-processor receives.
type input struct {
	*builder.Artifact
	token string // State returns it under this name, which identifies this very artifact
}

func newInput(a *builder.Artifact) *input { return &input{Artifact: a, token: "bake-" + rand.Text()} }

func (i *input) methods() wire.Methods {
	give := func(v any) wire.Method { return func(context.Context, any) (any, error) { return v, nil } }
	files := i.Files
	if files == nil {
		files = []string{}
	}
	return wire.Methods{
		"Artifact.BuilderId": give(i.BuilderID), "Artifact.Id": give(i.ID), "Artifact.String": give(i.Text), "Artifact.Files": give(files),
		"Artifact.State": wire.Handle(func(ctx context.Context, name string) (any, error) {
			switch {
			case name == i.token:
				return name, nil
			case i.Live != nil:
				return i.Live.State(ctx, name)
			case name == "generated_data":
				return i.Data.Plain(), nil
			}
			return nil, nil
		}),
		"Artifact.Destroy": func(ctx context.Context, _ any) (any, error) {
			if i.Live == nil {
				return nil, errors.New("bake deletes this artifact itself, once it is not needed any more")
			}
			return nil, i.Live.Destroy(ctx)
		},
	}
}

// is reports whether the artifact that a post-processor returns is its input. It recognizes it by
// the token, which only input answers with.
func (i *input) is(ctx context.Context, a *artifact, said *builder.Artifact) bool {
	v, err := a.State(ctx, i.token)
	return err == nil && v == any(i.token) && said.BuilderID == i.BuilderID && said.ID == i.ID && said.Text == i.Text && slices.Equal(said.Files, i.Files)
}

package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"bake/builder"
	"bake/plugin/wire"
	"bake/step"
)

// hostedBuilder is a plugin's builder.
type hostedBuilder struct{ hosted }

// The hooks that a plugin can call.
const (
	provisionHook = "packer_provision"
	// cleanupHook runs the error-cleanup-provisioner. After the failure of a provisioner it has run
	// already.
	cleanupHook = "packer_cleanup_provision"
)

// Build implements [builder.Builder].
func (h hostedBuilder) Build(ctx context.Context, s *step.Scope, hooks builder.Hooks) (*builder.Artifact, error) {
	proc, err := step.Do(ctx, s, "start "+h.label, func(ctx context.Context) (*process, error) { return h.ready(ctx, s) })
	if err != nil {
		return nil, err
	}
	asking := s
	if h.options.build.OnError == "ask" {
		s = s.Unattended() // the plugin itself asks about its steps
	}
	a, err := step.Do(ctx, s, "build with "+h.label, func(ctx context.Context) (*builder.Artifact, error) {
		b := &building{hostedBuilder: h, scope: asking, proc: proc, provision: hooks.Provision}
		return b.run(ctx)
	})
	if err != nil || a == nil { // otherwise the artifact lives in the plugin
		err = errors.Join(err, proc.Close())
	}
	return a, err
}

// building is a running build in a plugin.
type building struct {
	hostedBuilder
	scope     *step.Scope
	proc      *process
	provision builder.Provision
	hooks     sync.WaitGroup

	mu          sync.Mutex
	over        bool  // no further hook may start
	provisioned error // the error of provisioning
}

func (b *building) run(ctx context.Context) (*builder.Artifact, error) {
	u := newUI(ctx, b.scope, b.plugin)
	if b.scope.Failed != nil && b.options.build.OnError == "ask" {
		u.failed = func(context.Context) string { return b.askFailed(ctx) }
	}
	hookCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	methods := u.methods()
	methods["Hook.Run"] = wire.Handle(func(_ context.Context, a hookArgs) (any, error) {
		if !b.begin() {
			return nil, errors.New("the build is over")
		}
		defer b.hooks.Done()
		return nil, b.hook(hookCtx, a)
	})
	methods["Hook.Cancel"] = func(context.Context, any) (any, error) {
		stop(errors.New("the builder has cancelled the provisioners"))
		return nil, nil
	}
	id, begun := b.proc.serve(methods, u.progress)
	var stream uint32
	err := b.work(ctx, b.scope, b.proc, job{method: "Run", args: id, reply: &stream, begun: begun, grace: cmp.Or(b.scope.Grace, teardownGrace)})
	stop(errors.New("the builder has ended"))
	b.mu.Lock()
	b.over = true
	b.mu.Unlock()
	b.hooks.Wait()
	after := context.WithoutCancel(ctx)
	switch {
	case err != nil:
		if b.leaves() {
			b.scope.Warn(after, "What the plugin created for this build was left in place. bake does not know what that is; %s does.", b.plugin.Source)
		}
		return nil, b.explain(err)
	case stream == 0:
		return nil, nil
	}
	client, err := b.proc.dial(after, stream)
	if err != nil {
		return nil, remaining(err)
	}
	made := &artifact{proc: b.proc, client: client}
	out, err := made.read(after, b.scope.Run.ID)
	if err != nil {
		return nil, made.lost(after, err)
	}
	return out, nil
}

// begin counts a hook that starts. It reports false if the build is over.
func (b *building) begin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.over {
		b.hooks.Add(1)
	}
	return !b.over
}

// explain returns the error of a failed build: the error of provisioning, if that is the cause.
func (b *building) explain(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	remote, ok := errors.AsType[wire.RemoteError](err)
	_, wrong := errors.AsType[*wire.AnswerError](err)
	_, unreadable := errors.AsType[*wire.UnreadableError](err)
	switch {
	case errors.Is(err, wire.ErrGone), wrong, unreadable:
		return fmt.Errorf("the resources that the plugin had created by then may still exist: %w", err)
	case ok && b.provisioned != nil:
		return b.provisioned
	case ok:
		return explained(remote, nil)
	}
	return err
}

type hookArgs struct {
	Name     string
	Data     any
	StreamId uint32
}

// hook answers a plugin's call of a hook, which the plugin makes when its machine is
// running.
func (b *building) hook(ctx context.Context, a hookArgs) error {
	client, err := b.proc.dial(ctx, a.StreamId)
	if err != nil {
		return err
	}
	defer client.Close()
	switch a.Name {
	case provisionHook:
	case cleanupHook:
		return nil
	default:
		return fmt.Errorf("there is no hook %.100q", a.Name)
	}
	said, _ := a.Data.(map[string]any)
	data := buildData(b.scope.Run.ID, said)
	err = b.provision(ctx, builder.Machine{Data: data, Communicator: newMachine(b.proc, client, data)})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.provisioned = err
	return err
}

// askFailed asks the user about a failed step of the plugin and returns the answer in the plugin's
// form. After the failure of a provisioner the user was asked already.
func (b *building) askFailed(ctx context.Context) string {
	b.mu.Lock()
	provisioned := b.provisioned
	b.mu.Unlock()
	var asked *step.Error
	if !errors.As(provisioned, &asked) && b.scope.Failed(ctx, step.Path(ctx), errFailedStep) == step.Retry {
		return "r"
	}
	if b.leaves() {
		return "a"
	}
	return "c"
}

var errFailedStep = errors.New("a step of the plugin has failed; the plugin has said why")

// leaves reports whether the plugin keeps the resources that it has created.
func (b *building) leaves() bool { return b.scope.Leaves != nil && b.scope.Leaves() }

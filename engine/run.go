package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/sync/errgroup"

	"bake/builder"
	"bake/config"
	"bake/step"
)

// runner runs builds and emits their events.
type runner struct {
	*maker
	stop context.Context // cancels teardown

	emitting sync.Mutex
	asking   sync.Mutex
}

func (r *runner) run(ctx context.Context, builds []*config.Build) Result {
	start := time.Now()
	var names []string
	for _, b := range builds {
		names = append(names, b.Name)
	}
	r.emit(step.Event{Time: start, Kind: step.RunStarted, Text: strings.Join(names, "\n"), Command: r.options.Run.Command})
	var g errgroup.Group
	switch {
	case r.options.Run.Debug:
		g.SetLimit(1)
	case r.options.Parallel > 0:
		g.SetLimit(r.options.Parallel)
	}
	results := make([]BuildResult, len(builds))
	each, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for i, b := range builds {
		g.Go(func() error {
			results[i] = r.build(each, b)
			if results[i].Err != nil && r.options.FailFast {
				cancel(&FailFastError{b.Name, results[i].Err})
			}
			return nil
		})
	}
	_ = g.Wait() // never fails: errors are in the results
	if slices.ContainsFunc(results, func(b BuildResult) bool { return b.Unfinished }) {
		return Result{results}
	}
	for _, left := range r.owned("") {
		r.emit(step.Event{Time: time.Now(), Kind: step.ResourceLeft, Resource: &left})
	}
	r.emit(step.Event{Time: time.Now(), Kind: step.RunFinished, Elapsed: time.Since(start), Error: context.Cause(ctx)})
	return Result{results}
}

// emit redacts an event and passes it on. All events go through it.
func (r *runner) emit(e step.Event) {
	secrets := r.template.Secrets()
	if e.Kind == step.Output || e.Kind == step.ErrOutput {
		e.Text = secrets.Redact(e.Text)
	} else {
		e.Text = secrets.RedactMessage(e.Text)
	}
	e.Step, e.Command = secrets.RedactMessage(e.Step), secrets.RedactMessage(e.Command)
	if e.Resource != nil {
		r := redactedResource(secrets, *e.Resource)
		e.Resource = &r
	}
	if e.Channel != nil {
		c := *e.Channel
		c.Parameter, c.Reasons = secrets.RedactMessage(c.Parameter), append([]string(nil), c.Reasons...)
		for i, reason := range c.Reasons {
			c.Reasons[i] = secrets.RedactMessage(reason)
		}
		e.Channel = &c
	}
	e.Error = secrets.Error(e.Error)
	if a, ok := e.Artifact.(*builder.Artifact); ok {
		e.Artifact = redacted(secrets, a)
	}
	r.emitting.Lock()
	defer r.emitting.Unlock()
	r.options.Emit(e)
}

// build runs a build from launch to teardown.
func (r *runner) build(ctx context.Context, b *config.Build) BuildResult {
	result := BuildResult{Name: b.Name}
	if err := context.Cause(ctx); err != nil && (r.options.Boundary == nil || !r.options.Resume) { // cancelled before it started
		result.Err = err
		return result
	}
	start := time.Now()
	r.emit(step.Event{Time: start, Kind: step.BuildStarted, Build: b.Name})
	x := r.newExecution(b)
	result.Artifacts, result.Err = x.executeRest(ctx)
	if errors.Is(result.Err, step.ErrBoundary) {
		return BuildResult{Name: b.Name, Unfinished: true, Elapsed: time.Since(start)}
	}
	result.Reused = x.reused
	result.LeftMachine = result.Err != nil && x.leaves() && x.reached()
	var blamed *failed
	failedStep := ""
	if errors.As(result.Err, &blamed) {
		failedStep, result.Place = blamed.step, fmt.Sprintf("%s:%d", blamed.at.Filename, blamed.at.Start.Line)
	}
	result.Failure = x.failure(ctx, result.Err)
	result.Err = r.template.Secrets().Error(result.Err)
	for _, r := range r.owned(b.Name) {
		result.Left = append(result.Left, redactedResource(x.template.Secrets(), r))
	}
	result.Elapsed = time.Since(start)

	end := step.Event{Time: time.Now(), Kind: step.BuildFinished, Build: b.Name, Elapsed: result.Elapsed, Reused: result.Reused && result.Err == nil}
	if result.Err != nil {
		end.Kind, end.Error, end.Step, end.Place = step.BuildFailed, result.Err, failedStep, result.Place
	}
	for i, a := range result.Artifacts {
		result.Artifacts[i] = redacted(r.template.Secrets(), a)
		r.emit(step.Event{Time: time.Now(), Kind: step.ArtifactMade, Build: b.Name, Artifact: a})
	}
	r.emit(end)
	return result
}

// failed is the error of a step that a block of the template defines.
type failed struct {
	error
	step string // path of the step
	at   hcl.Range
}

func (e *failed) Unwrap() error { return e.error }

// blame returns err as the error of the step with this name, defined by the block at at.
func blame(ctx context.Context, err error, name string, at hcl.Range) error {
	if err == nil || context.Cause(ctx) != nil {
		return err
	}
	if p := step.Path(ctx); p != "" {
		name = p + " > " + name
	}
	return &failed{err, name, at}
}

// execution is the execution of a build.
type execution struct {
	*maker
	runner *runner
	build  *config.Build
	scope  *step.Scope

	mu      sync.Mutex
	leave   bool            // leave the build's resources in place
	made    bool            // a machine, an image or a disk was made, whether or not it still exists
	failed  bool            // a provisioner has failed
	seen    bool            // the pipeline has checked the machine
	builder builder.Builder // nil until it is created
	partial bool            // the builder has made an image and failed afterwards
	machine builder.Machine // as provided by the builder
	cache   caching

	reused bool // nothing was built
	marked bool // the machine records the progress

	held held // closed at the end of the build or earlier
}

func (r *runner) newExecution(b *config.Build) *execution {
	x := &execution{maker: r.maker, runner: r, build: b, made: r.options.Resume}
	run := r.options.Run
	run.Start, run.Version = r.options.Start, config.LanguageVersion
	s := step.Scope{
		Run: run, Build: b.Name, SourceType: b.Type, SourceName: b.Source,
		Ledger: r.options.Ledger, Journal: r.options.Journal, Emit: x.emit, Grace: r.options.Grace,
	}
	if (r.options.From != "" || r.options.Boundary != nil) && r.options.Key != nil {
		s.Key = r.options.Key(b.Name)
	}
	s.Leaves, s.Stop, s.Boundary = x.leaves, r.stop, r.options.Boundary
	if r.options.OnError == Ask && r.options.Ask != nil {
		s.Failed = x.ask
	}
	if run.Debug && r.options.Pause != nil {
		s.Pause = func(ctx context.Context, step string) error { return r.options.Pause(ctx, b.Name, step) }
	}
	x.scope = step.NewScope(s)
	for prefix, d := range r.options.Destroyers {
		x.scope.Handle(prefix, d)
	}
	return x
}

// preparations are the kinds of resources that are created before a machine.
var preparations = []string{"key-pair", "security-group", "instance-profile", "role", "launch-template", "network-interface", "process"}

// emit passes on an event of the build.
func (x *execution) emit(e step.Event) {
	if e.Kind == step.ResourceCreated {
		if _, kind, _ := strings.Cut(e.Resource.Kind, ":"); !slices.Contains(preparations, kind) {
			x.mu.Lock()
			x.made = true
			x.mu.Unlock()
		}
	}
	x.runner.emit(e)
}

// failure returns the phase in which the build failed with err.
func (x *execution) failure(ctx context.Context, err error) Failure {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case err == nil || context.Cause(ctx) != nil:
		return ""
	case errors.Is(err, builder.ErrGate):
		return GateClosed
	case x.failed:
		return Provisioning
	case x.partial:
		return Distributing
	case !x.made && errors.Is(err, step.ErrRefused):
		return Refused
	}
	return ""
}

// ask asks the user about a failed step.
func (x *execution) ask(ctx context.Context, name string, err error) step.Decision {
	x.runner.asking.Lock()
	defer x.runner.asking.Unlock()
	if context.Cause(ctx) != nil {
		return step.GiveUp
	}
	x.sayLogin(ctx)
	switch x.options.Ask(ctx, x.build.Name, name, x.template.Secrets().Error(err)) {
	case AnswerRetry:
		return step.Retry
	case AnswerAbort:
		x.setLeave()
	}
	return step.GiveUp
}

// sayLogin prints how to log in to the machine, if there is one.
func (x *execution) sayLogin(ctx context.Context) {
	x.mu.Lock()
	machine := x.machine
	x.mu.Unlock()
	if x.options.Login == nil || machine.Data == nil {
		return
	}
	if how := x.options.Login(ctx, x.build.Name, machine); how != "" {
		x.scope.Say(ctx, "%s", how)
	}
}

// reached reports whether a machine was provided.
func (x *execution) reached() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.machine.Data != nil
}

func (x *execution) setLeave() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.leave = true
}

// leaves reports whether the resources of the failed build are left in place.
func (x *execution) leaves() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.leave || x.options.OnError == Abort || x.options.OnError == Keep || x.options.OnError == RunCleanupProvisioner
}

// execute runs the builder, the teardown and the post-processors.
func (x *execution) execute(ctx context.Context) ([]*builder.Artifact, error) {
	defer x.release(ctx, 0)
	artifact, err := x.make(ctx)
	if errors.Is(err, step.ErrBoundary) {
		return nil, err
	}
	if err == nil && (x.reused || x.options.PlanOnly) {
		if artifact == nil {
			return nil, nil
		}
		return []*builder.Artifact{artifact}, x.distributeReused(ctx, artifact)
	}
	if err != nil && x.leaves() {
		_, lerr := x.scope.Leave(ctx)
		x.sayLogin(ctx)
		return x.partialArtifacts(ctx, artifact), errors.Join(err, lerr)
	}
	if err != nil {
		step.Record(x.scope, cleanedUp, true)
	}
	if err == nil {
		x.recordArtifact(artifact)
	}
	if err == nil && artifact != nil && x.hasMoreStages() {
		if err := step.EndStage(ctx, x.scope, step.Boundary{Next: step.StagePublish}); err != nil {
			return nil, err
		}
	}
	if err == nil && artifact != nil {
		err = x.markPartial(x.distribute(ctx, artifact))
	}
	if cerr := x.scope.Close(ctx, x.runner.stop); cerr != nil {
		err = errors.Join(err, fmt.Errorf("teardown: %w", cerr))
	}
	if err != nil {
		return x.partialArtifacts(ctx, artifact), err
	}
	if artifact == nil {
		return nil, nil
	}
	kept, err := x.postProcess(ctx, artifact)
	if err == nil {
		err = x.markPartial(x.publish(ctx, artifact))
	}
	if err == nil {
		err = x.finish(ctx, artifact)
	}
	if cerr := x.scope.Close(ctx, x.runner.stop); cerr != nil {
		err = errors.Join(err, fmt.Errorf("teardown: %w", cerr))
	}
	return kept, err
}

// markPartial records, if err is not nil, that an image exists but is not everywhere, and returns err.
func (x *execution) markPartial(err error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.partial = x.partial || err != nil
	return err
}

// partialArtifacts returns the artifact of a failed build. It is not post-processed, because users would take
// the output of a post-processor for the complete result.
func (x *execution) partialArtifacts(ctx context.Context, artifact *builder.Artifact) []*builder.Artifact {
	if artifact == nil {
		return nil
	}
	if len(x.build.PostProcessors) > 0 {
		x.scope.Warn(ctx, "The post-processors are not run, because the build had errors; its artifact is kept.")
	}
	return []*builder.Artifact{artifact}
}

// make runs the builder. It turns a panic into an error, so that teardown still runs.
func (x *execution) make(ctx context.Context) (artifact *builder.Artifact, err error) {
	defer recovered(&err)
	if made, ok := step.Recall[*builder.Artifact](x.scope, madeOnce); ok {
		return made, nil
	}
	b, err := x.newBuilder(ctx)
	if err != nil {
		return nil, err
	}
	hooks, err := x.hooks(b)
	if err != nil {
		return nil, err
	}
	if artifact, err = x.reuse(ctx, b); artifact != nil || err != nil || x.options.PlanOnly {
		x.reused = artifact != nil
		return artifact, err
	}
	hooks = x.withCache(hooks)
	if p := x.pipeline(x.build); p != nil && p.Prepare != nil {
		if err := p.Prepare(ctx, x.scope, b); err != nil {
			return nil, err
		}
	}
	artifact, err = b.Build(ctx, x.scope, hooks)
	x.holdLive(x.build.Type, artifact)
	if err == nil && x.unchecked() {
		err = errUnchecked
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.partial = artifact != nil && err != nil
	return artifact, err
}

// newBuilder creates the builder, which is closed at the end of the build.
func (x *execution) newBuilder(ctx context.Context) (builder.Builder, error) {
	if x.builder != nil {
		return x.builder, nil
	}
	b, err := newComponent(ctx, x.maker, x.build, x.build.Builder, x.components.Builders, cty.NilVal)
	if err == nil {
		x.hold(x.build.Type, b)
		x.builder = b
	}
	return b, err
}

// owned lists the resources that a finished build owns. If build is empty, it lists those of no
// build.
func (r *runner) owned(build string) []step.Resource {
	all, err := r.options.Ledger.Owned()
	if err != nil { // Close or Leave has reported the ledger's error
		return nil
	}
	return slices.DeleteFunc(all, func(r step.Resource) bool { return r.Build != build })
}

// recovered turns a panic into an error with a stack trace.
func recovered(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("a bug in bake: panic: %v\n%s", v, debug.Stack())
	}
}

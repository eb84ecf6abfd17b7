package run

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builder/amazon/images"
	"bake/builder/amazon/kmskey"
	"bake/builtin"
	"bake/config"
	"bake/engine"
	"bake/golden/attest"
	"bake/golden/bakefile"
	"bake/golden/pipeline"
	"bake/golden/reports"
	"bake/internal/envvar"
	"bake/internal/prose"
	"bake/run/cloudinit"
	"bake/run/localcloud"
	"bake/step"
)

// execution is the state of a run in progress. [build] sets its fields in order.
type execution struct {
	Options
	run    step.Invocation
	parts  builtin.Parts
	events *events

	cache  *localcloud.Cache // nil: none
	clouds localcloud.Clouds // with the resources of a resumed run

	components engine.Components
	template   *config.Template
	settings   *bakefile.Settings // the contents of the bake files
	kept       func(run string) reports.Store
	pipelines  map[*config.Component]*engine.Pipeline
	planned    planned
	among      map[*config.Build]bool // as in [engine.Options]
	builds     []string               // selected builds
	diags      hcl.Diagnostics

	journal *step.FileJournal
	ledger  *step.FileLedger
	stages  boundaries // at which builds have ended a stage
}

// say shows the user a message about the run.
func (e *execution) say(kind step.Kind, text string) {
	e.events.handle(step.Event{Time: e.Now(), Kind: kind, Text: text})
}

// warn adds a warning about a finished run.
func (e *execution) warn(err error, detail string) {
	e.diags = append(e.diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: prose.Sentence(err.Error()), Detail: detail})
}

// announce returns two contexts: ctx ends when the run is cancelled, and stop when it must
// stop immediately, which also ends ctx. Each cancellation is logged before its context ends.
func (e *execution) announce(limit *timeLimit) (ctx, stop context.Context, release func()) {
	ctx, unlimit := announced(limit, func(cause error) { e.say(step.Say, cancelling(cause)) })
	stop, unstop := announced(e.Stop, func(error) { e.say(step.Say, "Stopping immediately") })
	ctx, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(stop, func() { cancel(context.Cause(stop)) })
	return ctx, stop, func() {
		unhook()
		cancel(nil)
		unstop()
		unlimit()
	}
}

// enter opens the cloud that replaces AWS, if there is one. inside ends with ctx, and when
// that cloud has gone away. teardown ends with stop, and also when that cloud has gone
// away, since its resources can no longer be deleted.
func (e *execution) enter(ctx, stop context.Context) (inside, teardown context.Context, leave func(), err error) {
	if e.Cloud == nil {
		return ctx, stop, func() {}, nil
	}
	cloud, err := e.Cloud(ctx, e.events.handle)
	if err != nil {
		return nil, nil, nil, err
	}
	if text := cloud.Dependence(); text != "" {
		e.say(step.Say, text)
	}
	e.parts.Cloud = e.hold(cloud.Cloud)
	e.parts.Env = slices.Concat(e.parts.Env, cloud.Environment())
	e.run.Env = slices.Concat(e.run.Env, cloud.Environment())
	e.clouds.Open = func(context.Context) (*localcloud.Cloud, error) { return cloud, nil }
	inside, unwatch := cloud.Watch(ctx)
	teardown, end := context.WithCancelCause(stop)
	if e.Cache && e.resumed == nil {
		e.cache = &localcloud.Cache{Cloud: cloud, Now: e.Now, Until: teardown, Limit: e.CacheLimit}
	}
	unhook := context.AfterFunc(inside, func() {
		if gone, ok := errors.AsType[*localcloud.GoneError](context.Cause(inside)); ok {
			end(gone)
		}
	})
	return inside, teardown, func() {
		unhook()
		end(nil)
		unwatch()
	}, nil
}

// load reads the template and its bake files, and reports warnings about them. The error
// is a *[TemplateError], or the reason why the run is cancelled.
func (e *execution) load(ctx context.Context, limit *timeLimit) error {
	e.parts.Cloud.Warn = func(_ context.Context, format string, args ...any) { e.say(step.Warning, fmt.Sprintf(format, args...)) }
	e.components = e.Components(ctx, e.parts)
	load := e.Template.Options
	load.Warn = e.parts.Cloud.Warn
	load.DataSources, load.ReadData, load.SecretsManager = e.components.DataSources, true, amazon.Secrets(e.parts.Cloud, e.parts.Env)
	e.template, e.diags = config.Load(ctx, load)
	if !e.diags.HasErrors() {
		e.loadBakeFiles(ctx, limit)
	}
	switch {
	case e.diags.HasErrors() && ctx.Err() != nil: // the errors come from the cancellation
		return context.Cause(ctx)
	case e.diags.HasErrors():
		return &TemplateError{e.diags, e.template.Files()}
	}
	if e.OnWarnings != nil {
		e.OnWarnings(Diagnosis{e.diags, e.template.Files()})
	}
	e.run.Redact = e.template.Secrets().Redact
	return nil
}

// loadBakeFiles reads the bake files of the template, and prepares the pipelines of its
// builds.
func (e *execution) loadBakeFiles(ctx context.Context, limit *timeLimit) {
	found := func(more hcl.Diagnostics) { e.diags = append(e.diags, more...) }
	var more hcl.Diagnostics
	e.settings, e.run.MachinesEnd, more = limit.read(ctx, e.template, e.Timeout)
	found(more)
	if e.resumed != nil && e.run.MachinesEnd > 0 { // limits count from now
		e.run.MachinesEnd += max(0, e.Now().Sub(e.run.Start))
	}
	e.kept, more = e.reports(ctx, e.settings, e.parts)
	found(more)
	e.pipelines, more = pipeline.Of(e.settings, pipeline.Options{
		Template: e.template, Place: e.place(), Reports: e.kept(e.run.ID), Earlier: e.kept, Version: e.Version, Now: e.Now,
		Key: envvar.Get(e.Template.Env, pipeline.InputsKey), Parents: e.Template.parents(), ReuseOnly: e.ReuseOnly, PlanOnly: e.planOnly, Planned: e.planned.add,
		Retire: func(ctx context.Context, s *step.Scope, made *builder.Artifact, r builder.Retention) error {
			return images.Retire(ctx, s, made.Resources, e.parts.Cloud, r, e.Now)
		},
		OpenDistributor: images.DistributorOf, Distributes: images.Distributes,
		Signer: e.signer(ctx, e.parts),
	})
	found(more)
	if e.diags.HasErrors() {
		return
	}
	e.among = e.Template.among(ctx, e.template, e.settings)
	e.builds = e.selected(e.template, e.among)
	if e.cache == nil {
		return
	}
	found(uncached(e.template, e.builds))
	if !e.CacheReleases {
		found(noReleases(e.template, e.builds, e.pipelines))
	}
}

// open creates the journal and the ledger of the run, or opens those of a resumed run.
func (e *execution) open() error {
	var err error
	e.journal, err = e.Options.journal(e.run, e.template, e.builds, e.events.trace.First())
	switch {
	case err != nil && e.resumed != nil:
		return fmt.Errorf("run %s cannot be resumed: %w", e.run.ID, err)
	case err != nil:
		return fmt.Errorf("cannot start the journal of the run: %w; set BAKE_STATE_DIR to use another directory", err)
	}
	e.ledger, err = e.Options.ledger(step.Header{
		Run: e.run.ID, Started: e.run.Start, PID: os.Getpid(), Command: e.template.Secrets().Redact(e.Command), Parent: e.Parent,
	})
	if err != nil {
		return errors.Join(err, e.closeJournal(e.journal, e.resumed != nil))
	}
	return nil
}

// cloudInit returns how long to wait for cloud-init.
func (e *execution) cloudInit() cloudinit.Limit {
	if e.resumed != nil {
		return cloudinit.Limit{Timeout: e.CloudInit, SetBy: "the " + cloudinit.Flag + " or " + cloudinit.Variable + " that the run began with"}
	}
	return cloudinit.Limit{Timeout: e.CloudInit, SetBy: cloudinit.Flag + " or " + cloudinit.Variable}
}

// options returns the options of the engine. It first ends what an earlier process of the
// run has left on this host.
func (e *execution) options(ctx context.Context) engine.Options {
	logins := &logins{dir: e.State.keys(e.run.ID), run: e.run.ID, onLocal: e.Cloud != nil, endpoint: localcloud.Endpoint(e.Template.Env), connect: e.Connect}
	options := engine.Options{
		Only: e.Template.Only, Except: e.Template.Except, Builds: e.among, PlanOnly: e.planOnly, Parallel: e.Parallel, OnError: e.OnError, FailFast: e.FailFast,
		Run: e.run, Ledger: e.ledger, Journal: e.journal, Resume: e.resumed != nil, Start: e.run.Start, Grace: teardownGrace, Emit: e.events.handle,
		Ask: e.Ask, Pause: e.Pause, Login: logins.text, Uploads: e.settings.Uploads(), Pipelines: e.pipelines,
		Ready: func(ctx context.Context, s *step.Scope, m builder.Machine) error {
			return cloudinit.Wait(ctx, s, m, e.cloudInit())
		},
		AwaitFirstBoot: func(ctx context.Context, s *step.Scope, m builder.Machine) error {
			return cloudinit.Again(ctx, s, m, e.cloudInit())
		},
	}
	if e.resumed != nil {
		e.say(step.Say, fmt.Sprintf("Resuming run %s, which started at %s", e.run.ID, e.run.Start.UTC().Format("2006-01-02 15:04:05 MST")))
		if err := endEarlier(ctx, e.ledger); err != nil {
			e.say(step.Warning, prose.Sentence(err.Error()))
		}
		options.From, options.Destroyers = e.resumed.from, e.clouds.Destroyers()
		options.Key = func(build string) string { return e.State.key(e.run.ID, build) }
	}
	if e.OnError == engine.Ask && e.Ask == nil || e.Debug && e.Pause == nil {
		text := "There is no terminal for questions: -on-error=ask acts like cleanup, and -debug does not pause."
		if e.Unattended != nil {
			text += " " + prose.Sentence(e.Unattended.Error())
		}
		e.say(step.Warning, text)
	}
	if e.OnError == engine.Ask && e.Ask == nil {
		options.OnError = engine.Cleanup
	}
	if e.Stages {
		options.Boundary = e.stages.add
	}
	if e.cache != nil { // an interface holding a nil pointer is not nil
		options.Cache = e.cache
	}
	return options
}

// settleCache waits for images that are still being added to the cache, and for the deletion
// of those that exceed its limits.
func (e *execution) settleCache(ctx context.Context) {
	if e.cache == nil {
		return
	}
	if err := e.cache.Settle(ctx); err != nil && ctx.Err() == nil {
		e.say(step.Warning, prose.Sentence(fmt.Errorf("a machine could not be added to the cache: %w", err).Error()))
	}
	if err := e.cache.Shrink(ctx); err != nil && ctx.Err() == nil {
		e.say(step.Warning, prose.Sentence(fmt.Errorf("the cache could not be reduced to its limit: %w", err).Error()))
	}
}

// finish writes the records of a run that has ended, or has ended a stage, and reports how
// it ended.
func (e *execution) finish(ctx context.Context, ended engine.Result) (Result, error) {
	goesOn := unfinished(ended.Builds)
	logged := e.keep(ctx, goesOn)
	useful := resumable(e.journal, e.builds, false) == nil
	reachable := resumable(e.journal, e.builds, true) == nil
	left, _ := e.ledger.Owned()
	if err := e.closeJournal(e.journal, reachable || len(left) > 0); err != nil {
		e.warn(fmt.Errorf("the journal of the run: %w", err), "")
	}
	if _, err := os.Stat(e.State.Journal(e.run.ID)); errors.Is(err, fs.ErrNotExist) { // deleted during the run
		useful, reachable = false, false
	}
	result, err := conclude(ctx, e.Options, e.run, e.ledger, ended, Diagnosis{e.diags, e.template.Files()})
	if _, wrong := errors.AsType[*TemplateError](err); err != nil && !wrong {
		e.events.trace.Fail(errors.New(e.template.Secrets().RedactMessage(err.Error())))
	}
	if goesOn {
		result.Next = e.stages.all
	}
	result.Resumable, result.Reachable, result.Planned, result.Log = useful, reachable, e.planned.all, logged
	return result, err
}

// keep closes the log of the run, stores the log of a stage with the reports, and writes
// the report of a finished run. Errors are only warnings, because the images are not
// affected.
func (e *execution) keep(ctx context.Context, goesOn bool) (logged *LogPart) {
	if err := e.events.close(); err != nil {
		e.warn(err, "Free some space there, or set BAKE_STATE_DIR to another directory.")
	}
	in := e.kept(e.run.ID)
	if e.Stages && e.sharedReports(in, e.run.ID) {
		var err error
		if logged, err = e.keepLog(ctx, e.run.ID, e.events.from, in); err != nil {
			e.warn(fmt.Errorf("the log of the stage cannot be written to %s: %w", in, err), "It is still on this host.")
		}
	}
	if goesOn {
		return logged
	}
	if len(e.pipelines) > 0 && !e.planOnly {
		if err := e.page(ctx, e.run.ID, in); err != nil {
			e.warn(fmt.Errorf("the report of the run cannot be written: %w", err), "'bake report' can create it from the log of the run.")
		}
	}
	os.Remove(e.State.parts(e.run.ID))
	return logged
}

// signer returns a function that opens the keys that sign attestations. It returns nil for
// a plan, which signs nothing.
func (o Options) signer(ctx context.Context, parts builtin.Parts) func(key string) (crypto.Signer, error) {
	if o.planOnly {
		return nil
	}
	return func(key string) (crypto.Signer, error) {
		if strings.HasPrefix(key, kmskey.Scheme) {
			return kmskey.Opener(parts.Cloud)(ctx, parts.Env, key)
		}
		return attest.PrivateKey(key, envvar.Get(parts.Env, attest.PassphraseVar))
	}
}

// terminal returns the terminal for components that wait for the user.
func (o Options) terminal() (io.ReadCloser, error) {
	switch {
	case o.Terminal != nil:
		return o.Terminal()
	case o.Unattended != nil:
		return nil, o.Unattended
	}
	return nil, errors.New("there is no terminal to ask on")
}

// announced returns a context that ends when parent does, with the same cause, but only
// after tell was called. The caller releases it, after which tell is not called.
func announced(parent context.Context, tell func(cause error)) (ctx context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	told := make(chan struct{})
	keep := context.AfterFunc(parent, func() {
		defer close(told)
		tell(context.Cause(parent))
		cancel(context.Cause(parent))
	})
	if parent.Err() != nil {
		<-told
	}
	return ctx, func() {
		if !keep() {
			<-told
		}
		cancel(nil)
	}
}

// cancelling returns the reason why a run is cancelled.
func cancelling(cause error) string {
	if c, ok := errors.AsType[interface {
		error
		Cancelling() string
	}](cause); ok {
		return c.Cancelling()
	}
	return fmt.Sprintf("Cancelling build: %v", cause)
}

// runToEnd is [engine.Run], but it does not wait for builds that continue after they were
// stopped. When teardown ends, which it does with stop, nothing more is deleted.
func runToEnd(ctx, stop, teardown context.Context, t *config.Template, c engine.Components, o engine.Options) (engine.Result, hcl.Diagnostics) {
	type end struct {
		result engine.Result
		diags  hcl.Diagnostics
	}
	ended := make(chan end, 1)
	go func() {
		result, diags := engine.Run(ctx, teardown, t, c, o)
		ended <- end{result, diags}
	}()
	select {
	case e := <-ended:
		return e.result, e.diags
	case <-stop.Done():
	}
	select {
	case e := <-ended:
		return e.result, e.diags
	case <-time.After(hurry):
		return engine.Result{}, nil
	}
}

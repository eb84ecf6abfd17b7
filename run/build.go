package run

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
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
	"bake/plugin/host"
	"bake/run/cloudinit"
	"bake/run/localcloud"
	"bake/run/trace"
	"bake/step"
	"bake/step/onhost"
	"bake/ui"
)

// NoTimeout is no limit, whatever bake files say.
const NoTimeout = time.Duration(math.MinInt64)

// Options say what [Build] builds, and how.
type Options struct {
	Template Template // its SecretsManager and ReadData are set by Build
	State    State
	ID       string // of the run, a UUID; empty for a new one
	Whole    string // the id of the run that this is a part of; empty if it is none
	Command  string // what the user called, kept in the ledger without secrets

	Parallel int            // builds at a time; 0 or less means all
	OnError  engine.OnError // empty means [engine.Cleanup]
	FailFast bool           // once a build has failed, cancel the others
	Timeout  time.Duration  // of the run, after which it is cancelled; what it made is deleted after that. 0: as bake files say; [NoTimeout]: none
	Force    bool           // replace images and files that exist already
	Debug    bool           // run one build at a time, and call Pause before each step

	// Cache makes builds in Cloud begin from the machines that earlier ones have
	// provisioned, and keep theirs for later ones. Builds of image blocks are an error
	// then, unless CacheReleases is set.
	Cache, CacheReleases bool

	// CacheLimit is how many bytes are left in the cache afterwards; 0 is [localcloud.CacheBytes].
	CacheLimit int64

	// CloudInit is how long a build waits until cloud-init has set up its machine, before
	// the first provisioner, before what its image block asks of the machine, and before the
	// temporary key is taken out of it; 0: not at all.
	CloudInit time.Duration

	// Stop ends the run at once when it ends itself: teardown too, and what is still
	// running two seconds later is left to itself. Nil never does.
	Stop context.Context

	// Cloud opens a cloud that takes the place of AWS, once the template has been found
	// to be right; emit takes events of that. The caller closes it, after Build. Nil: AWS.
	Cloud func(ctx context.Context, emit func(step.Event)) (*localcloud.Cloud, error)

	// Within is the account and region that the Amazon components are held to, whatever the
	// template says. Nil: where that says.
	Within *amazon.Within

	// Wait is called before each request to a service of AWS in a region, and may fail. Nil:
	// nothing is called.
	Wait func(ctx context.Context, service, region string) error

	// ReuseOnly makes it an error that a build of an image block has to be run, since nothing
	// that there is can be reused.
	ReuseOnly bool

	// Components makes what the template can use, and may ask until ctx ends. Nil: all that
	// is built in.
	Components func(ctx context.Context, parts builtin.Parts) engine.Components

	// Emit gets every event, free of secrets, after it was written to the log. It is
	// called by one goroutine at a time, and not after Build has returned. It may be nil.
	Emit func(step.Event)

	// Trace gets the steps of the run as spans. Nil: nobody does.
	Trace *trace.Tracer

	// Doubts is told what is doubtful about the template before anything of it is run.
	// It may be nil.
	Doubts func(Diagnosis)

	// Ask, Pause and Terminal reach the user: when a step has failed and OnError is
	// [engine.Ask], before each step with Debug, and for components that wait for input.
	// If they are nil, Unattended says why, and [engine.Ask] means [engine.Cleanup].
	Ask        func(ctx context.Context, build, step string, err error) engine.Answer
	Pause      func(ctx context.Context, build, step string) error
	Terminal   func() (io.ReadCloser, error)
	Unattended error

	// Connect is the command that connects its standard input and output to a port of a
	// machine of the local cloud, with the %h and %p of ssh_config, for the user's own
	// SSH client, and with -through and a socket to what this process leads to there.
	// Nil: the machine's address must do.
	Connect []string

	// Stages makes the run end at the next boundary that it can go on from, and keep what it
	// owns; [Resume] with Stages goes on to the one after that. [State.Export] takes it to
	// another host.
	Stages bool

	Now func() time.Time // nil: time.Now

	Version string // of bake: another one does not resume the run by itself

	planOnly bool // nothing is built

	again *again    // the run goes on
	began time.Time // by the clock that is never set
}

// Result is how a run ended.
type Result struct {
	Run     string               // its id
	Elapsed time.Duration        // of what was run now, if the run went on
	Builds  []engine.BuildResult // in template order; none if the run had to stop at once
	Left    []step.Resource      // what was made and neither kept nor deleted; the ledger goes on owning it

	Planned []pipeline.Planned // what was decided about the builds of image blocks
	Parts   []Result           // of a template whose images are built apart: the run of each; it has no id itself

	// Next are the boundaries at which the stage of a run that goes by stages has ended; none
	// if the run is over.
	Next []step.Boundary

	// Log is what the log of a run that goes by stages has of this one; nil if the reports
	// are beside the log, or it could not be written.
	Log *LogPart

	Resumable bool // [Resume] can go on with it
	Reachable bool // and if provisioners are run again

	// Diagnosis says what of the template is to blame for a failure, and warns of a log
	// that is not complete.
	Diagnosis
}

// Reused reports whether there was nothing to build, since all that the builds make is
// there.
func (r Result) Reused() bool {
	return len(r.Builds) > 0 && !slices.ContainsFunc(r.Builds, func(b engine.BuildResult) bool { return !b.Reused })
}

// FailedError is the error of a run some of whose builds failed, or that was
// cancelled, or that left something behind. It wraps what went wrong.
type FailedError struct {
	Errs    []error         // of builds, and the cause that the run was cancelled with
	Left    []step.Resource // as in [Result]
	Outcome Outcome
}

func (e *FailedError) Error() string {
	var lines []string
	for _, err := range e.Errs {
		lines = append(lines, err.Error())
	}
	for _, r := range e.Left {
		lines = append(lines, "left behind: "+r.String())
	}
	return strings.Join(lines, "\n")
}

func (e *FailedError) Unwrap() []error { return e.Errs }

// TimeoutError is the error of a run that took longer than it may.
type TimeoutError struct{ Limit time.Duration }

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("the run was cancelled after %s, its time limit", ui.Words(e.Limit))
}

// Outcome is that of the run.
func (e *TimeoutError) Outcome() Outcome { return OutcomeTimeout }

// Cancelling is what the log of the run says.
func (e *TimeoutError) Cancelling() string {
	return fmt.Sprintf("Cancelling build: the time limit of the run, %s, has passed", ui.Words(e.Limit))
}

// Build runs the builds of a template to their end, whatever that is, and deletes
// what they made only to make their images. When ctx ends, they stop, and what they
// made is deleted; see [Options] for Stop. If the cause of either has a method
// Cancelling() string, that is what the log says of it.
//
// The error is a *[TemplateError] if nothing was run because the template is wrong, and
// a *[FailedError] if not all went well: then the result is that of what was run. Any
// other says what kept the run from starting or its ledger from being written.
func Build(ctx context.Context, o Options) (Result, error) {
	o.ID = cmp.Or(o.ID, uuid.NewString())
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Stages && o.Cache {
		return Result{}, errors.New("a run that goes by stages has no cache")
	}
	o.began = time.Now()
	if o.Stop == nil {
		o.Stop = context.Background()
	}
	if o.Components == nil {
		o.Components = func(_ context.Context, p builtin.Parts) engine.Components { return p.Catalog().Components() }
	}
	if o.Template.Now.IsZero() {
		o.Template.Now = o.Now()
	}
	if o.Template.Cwd == "" {
		cwd, err := os.Getwd()
		if err != nil {
			return Result{}, err
		}
		o.Template.Cwd = cwd
	}
	switch images, diags := o.imagesApart(ctx); {
	case diags.HasErrors():
		return Result{}, &TemplateError{diags, images.Files}
	case images != nil:
		return runApart(ctx, o, images)
	}
	limit := newTimeLimit(ctx)
	defer limit.cancel(nil)
	limit.set(o.Timeout)
	run := step.Invocation{ID: o.ID, Command: o.Command, Force: o.Force, Debug: o.Debug, Start: o.Template.Now, Version: config.LanguageVersion}
	run.Env = slices.Concat(o.Template.Env, []string{"PACKER_RUN_UUID=" + run.ID})
	parts := builtin.Parts{Cloud: o.hold(localcloud.Elsewhere(o.Template.Env)), Env: o.Template.Env, Terminal: o.terminal, Connect: o.Connect, Now: o.Now}
	if o.Cloud != nil {
		// What is wrong with the template is said before the cloud starts; the secrets
		// of that are not known then.
		t := o.Template
		t.SecretsManager, t.ReadData, t.AllData = nil, false, false
		if _, err := check(limit, t, o.Components(limit, parts), run, nil); err != nil {
			return Result{}, err
		}
	}
	o.State.forgetLogins(o.Now())
	events, err := openEvents(o.State, run.ID, o.again != nil, o.Emit)
	if err != nil {
		return Result{}, err
	}
	events.trace = o.record(run)
	defer events.trace.End()
	result, err := build(limit, o, run, parts, events)
	if _, ok := errors.AsType[*TemplateError](err); ok {
		events.trace.Fail(errors.New("the template is wrong")) // its values may be secrets
		_ = events.close()                                     // the template is what matters
		return result, err
	}
	if err != nil {
		events.trace.Fail(err)
	}
	return result, errors.Join(err, events.close())
}

// record begins the trace of the run, or that of what is done of it now.
func (o Options) record(run step.Invocation) *trace.Recorder {
	if o.planOnly {
		return nil
	}
	r := trace.Run{ID: run.ID, Start: run.Start}
	if o.Within != nil {
		r.Account, r.Region = o.Within.Account, o.Within.Region
	}
	switch {
	case o.Stages:
		r.Part, r.Stages = "stage", true
	case o.again != nil:
		r.Part, r.First = "resume", o.again.Trace
	}
	return o.Trace.Begin(r)
}

// hold is the cloud for components that are held to where the options say.
func (o Options) hold(cloud amazon.Cloud) amazon.Cloud {
	cloud.Within, cloud.Wait = o.Within, o.Wait
	return cloud
}

// timeLimit is a context that ends once the run has taken as long as it may.
type timeLimit struct {
	context.Context
	cancel  context.CancelCauseFunc
	started time.Time
}

func newTimeLimit(ctx context.Context) *timeLimit {
	ctx, cancel := context.WithCancelCause(ctx)
	return &timeLimit{ctx, cancel, time.Now()}
}

// set sets the limit, which counts from the start of the run; 0 sets none.
func (l *timeLimit) set(limit time.Duration) {
	if limit > 0 {
		timer := time.AfterFunc(time.Until(l.started.Add(limit)), func() { l.cancel(&TimeoutError{limit}) })
		context.AfterFunc(l, func() { timer.Stop() })
	}
}

// read reads the bake files of a template and sets the limits that they are about.
func (l *timeLimit) read(ctx context.Context, t *config.Template, flag time.Duration) (*bakefile.Settings, time.Duration, hcl.Diagnostics) {
	settings, diags := bakefile.Read(ctx, t)
	if diags.HasErrors() {
		return settings, 0, diags
	}
	timeout, end, more := settings.Limits(flag)
	if flag == 0 {
		l.set(timeout)
	}
	return settings, end, append(diags, more...)
}

// build is Build with everything that it needs. It has closed the events if the run
// was started.
func build(limit *timeLimit, o Options, run step.Invocation, parts builtin.Parts, events *events) (Result, error) {
	say := func(kind step.Kind, text string) { events.handle(step.Event{Time: o.Now(), Kind: kind, Text: text}) }
	ctx, release := announced(limit, func(cause error) { say(step.Say, cancelling(cause)) })
	defer release()
	stop, release := announced(o.Stop, func(error) { say(step.Say, "Stopping immediately") })
	defer release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(stop, func() { cancel(context.Cause(stop)) })()

	teardown := stop
	var cache *localcloud.Cache
	clouds := localcloud.Clouds{Hold: o.hold} // that a run which goes on has made something in
	if o.Cloud != nil {
		cloud, err := o.Cloud(ctx, events.handle)
		if err != nil {
			return Result{}, err
		}
		if text := cloud.Dependence(); text != "" {
			say(step.Say, text)
		}
		var unwatch func()
		ctx, unwatch = cloud.Watch(ctx)
		defer unwatch()
		// Nobody is left to delete anything of this run in the cloud.
		var end context.CancelCauseFunc
		teardown, end = context.WithCancelCause(stop)
		defer end(nil)
		watched := ctx
		defer context.AfterFunc(watched, func() {
			if gone, ok := errors.AsType[*localcloud.GoneError](context.Cause(watched)); ok {
				end(gone)
			}
		})()
		parts.Cloud = o.hold(cloud.Cloud)
		clouds.Open = func(context.Context) (*localcloud.Cloud, error) { return cloud, nil }
		if o.Cache && o.again == nil {
			cache = &localcloud.Cache{Cloud: cloud, Now: o.Now}
		}
		parts.Env = slices.Concat(parts.Env, cloud.Environment())
		run.Env = slices.Concat(run.Env, cloud.Environment())
	}
	all := o.Components(ctx, parts)
	load := o.Template.Options
	load.DataSources, load.ReadData, load.SecretsManager = all.DataSources, true, amazon.Secrets(parts.Cloud, parts.Env)
	template, diags := config.Load(ctx, load)
	settings := new(bakefile.Settings)
	var pipelines map[*config.Component]*engine.Pipeline
	var kept func(run string) reports.Store
	plans := &planned{}
	if !diags.HasErrors() {
		var more hcl.Diagnostics
		settings, run.MachinesEnd, more = limit.read(ctx, template, o.Timeout)
		diags = append(diags, more...)
		kept, more = o.reports(ctx, settings, parts)
		diags = append(diags, more...)
		pipelines, more = pipeline.Of(settings, pipeline.Options{
			Template: template, Place: o.place(), Reports: kept(run.ID), Earlier: kept, Version: o.Version, Now: o.Now,
			Key: envvar.Get(o.Template.Env, pipeline.InputsKey), Parents: o.Template.parents(), ReuseOnly: o.ReuseOnly, PlanOnly: o.planOnly, Planned: plans.add,
			Retire: func(ctx context.Context, s *step.Scope, made *builder.Artifact, r builder.Retention) error {
				return images.Retire(ctx, s, made.Resources, parts.Cloud, r, o.Now)
			},
			Outlet: images.OutletOf, Distributes: images.Distributes,
			Signer: o.signer(ctx, parts),
		})
		diags = append(diags, more...)
		if cache != nil && !diags.HasErrors() {
			selected := o.selected(template, o.Template.among(ctx, template, settings))
			diags = append(diags, uncached(template, selected)...)
			if !o.CacheReleases {
				diags = append(diags, noReleases(template, selected, pipelines)...)
			}
		}
		if o.again != nil && run.MachinesEnd > 0 { // limits count from now
			run.MachinesEnd += max(0, o.Now().Sub(run.Start))
		}
	}
	switch {
	case diags.HasErrors() && ctx.Err() != nil: // that is why
		return Result{}, context.Cause(ctx)
	case diags.HasErrors():
		return Result{}, &TemplateError{diags, template.Files()}
	}
	if o.Doubts != nil {
		o.Doubts(Diagnosis{diags, template.Files()})
	}
	run.Redact = template.Secrets().Redact
	among := o.Template.among(ctx, template, settings)
	builds := o.selected(template, among)
	journal, err := o.journal(run, template, builds, events.trace.First())
	switch {
	case err != nil && o.again != nil:
		return Result{}, fmt.Errorf("run %s cannot be resumed: %w", run.ID, err)
	case err != nil:
		return Result{}, fmt.Errorf("cannot start the journal of the run: %w; set BAKE_STATE_DIR to use another directory", err)
	}
	ledger, err := o.ledger(step.Header{
		Run: run.ID, Started: run.Start, PID: os.Getpid(), Command: template.Secrets().Redact(o.Command), Whole: o.Whole,
	})
	if err != nil {
		return Result{}, errors.Join(err, o.closeJournal(journal, o.again != nil))
	}
	logins := &logins{dir: o.State.keys(run.ID), run: run.ID, onLocal: o.Cloud != nil, endpoint: localcloud.Endpoint(o.Template.Env), connect: o.Connect}
	if o.again != nil {
		say(step.Say, fmt.Sprintf("Resuming run %s, which started at %s", run.ID, run.Start.UTC().Format("2006-01-02 15:04:05 MST")))
	}
	options := engine.Options{
		Only: o.Template.Only, Except: o.Template.Except, Builds: among, PlanOnly: o.planOnly, Parallel: o.Parallel, OnError: o.OnError, FailFast: o.FailFast,
		Run: run, Ledger: ledger, Journal: journal, Resume: o.again != nil, Start: run.Start, Grace: teardownGrace, Emit: events.handle,
		Ask: o.Ask, Pause: o.Pause, Login: logins.text,
		Ready: func(ctx context.Context, s *step.Scope, m builder.Machine) error {
			return cloudinit.Wait(ctx, s, m, o.CloudInit)
		},
		Settle: func(ctx context.Context, s *step.Scope, m builder.Machine) error {
			return cloudinit.Again(ctx, s, m, o.CloudInit)
		},
	}
	if o.again != nil {
		if err := endEarlier(ctx, ledger); err != nil {
			say(step.Warning, sentence(err))
		}
		options.From, options.Destroyers = o.again.from, clouds.Destroyers()
		options.Key = func(build string) string { return o.State.key(run.ID, build) }
	}
	if o.OnError == engine.Ask && o.Ask == nil || o.Debug && o.Pause == nil {
		text := "There is no terminal to ask on: -on-error=ask acts as cleanup, and -debug does not pause."
		if o.Unattended != nil {
			text += " " + sentence(o.Unattended)
		}
		say(step.Warning, text)
		if o.Ask == nil && o.OnError == engine.Ask {
			options.OnError = engine.Cleanup
		}
	}
	var next boundaries
	if o.Stages {
		options.Boundary = next.add
	}
	options.Uploads = settings.Uploads()
	if cache != nil {
		options.Cache = cache
	}
	options.Pipelines = pipelines
	ended, diags := runToEnd(ctx, stop, teardown, template, all, options)
	if cache != nil {
		if err := cache.Shrink(ctx, cmp.Or(o.CacheLimit, localcloud.CacheBytes)); err != nil && ctx.Err() == nil {
			say(step.Warning, sentence(fmt.Errorf("the cache cannot be kept within its limit: %w", err)))
		}
	}
	goesOn := unfinished(ended.Builds)
	if !goesOn && !slices.ContainsFunc(ended.Builds, func(b engine.BuildResult) bool { return b.Err != nil }) && len(o.Template.Only)+len(o.Template.Except) == 0 {
		diags = append(diags, settings.Unused(options.Uploads)...)
	}
	if stop.Err() == nil && teardown.Err() != nil {
		deleteFiles(ctx, ledger)
	}
	if err := events.close(); err != nil { // the images are as good as with a log
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: sentence(err), Detail: "Free some space there, or set BAKE_STATE_DIR to another directory."})
	}
	var logged *LogPart
	if in := kept(run.ID); o.Stages && o.sharedReports(in, run.ID) {
		var err error
		if logged, err = o.keepLog(ctx, run.ID, events.from, in); err != nil {
			diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: sentence(fmt.Errorf("the log of the stage cannot be written to %s: %w", in, err)), Detail: "It is on this host."})
		}
	}
	if len(pipelines) > 0 && !o.planOnly && !goesOn {
		if err := o.page(ctx, run.ID, kept(run.ID)); err != nil {
			diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: sentence(fmt.Errorf("the report of the run cannot be written: %w", err)), Detail: "'bake report' makes it of the log of the run."})
		}
	}
	if !goesOn {
		os.Remove(o.State.parts(run.ID))
	}
	useful := resumable(journal, builds, false) == nil
	again := resumable(journal, builds, true) == nil
	left, _ := ledger.Owned()
	if err := o.closeJournal(journal, again || len(left) > 0); err != nil {
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: sentence(fmt.Errorf("the journal of the run: %w", err))})
	}
	result, err := conclude(ctx, o, run, ledger, ended, Diagnosis{diags, template.Files()})
	if _, wrong := errors.AsType[*TemplateError](err); err != nil && !wrong {
		events.trace.Fail(errors.New(template.Secrets().RedactMessage(err.Error())))
	}
	if goesOn {
		result.Next = next.all
	}
	result.Resumable, result.Reachable, result.Planned, result.Log = useful, again, plans.all, logged
	return result, err
}

// signer opens the keys that attestations are signed with; a plan has no need of them.
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

// terminal is what components get that wait for the user.
func (o Options) terminal() (io.ReadCloser, error) {
	switch {
	case o.Terminal != nil:
		return o.Terminal()
	case o.Unattended != nil:
		return nil, o.Unattended
	}
	return nil, errors.New("there is no terminal to ask on")
}

// announced returns a context that ends when parent does, with the same cause, after
// tell was called. The caller releases it; tell is not called after that.
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

// cancelling says why a run is cancelled.
func cancelling(cause error) string {
	if c, ok := errors.AsType[interface {
		error
		Cancelling() string
	}](cause); ok {
		return c.Cancelling()
	}
	return fmt.Sprintf("Cancelling build: %v", cause)
}

// sentence is an error as a sentence.
func sentence(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// runToEnd is [engine.Run], but does not wait for builds that go on after they
// were told to stop at once. When teardown ends, which it does with stop, nothing
// more is deleted.
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

// deleteFiles deletes the local files that the ledger owns, which needs no cloud. What
// cannot be deleted stays in the ledger.
func deleteFiles(ctx context.Context, ledger step.Ledger) {
	owned, err := ledger.Owned()
	if err != nil {
		return
	}
	for _, r := range owned {
		if strings.HasPrefix(r.Kind, builder.FilePrefix+":") && builder.DestroyFile(ctx, r) == nil {
			_ = ledger.Gone(r.Key)
		}
	}
}

// endEarlier ends and deletes what a run that goes on has left on this host before: it
// belongs to no build, and would go on beside this one.
func endEarlier(ctx context.Context, ledger step.Ledger) error {
	owned, err := ledger.Owned()
	for _, r := range owned {
		var derr error
		switch {
		case r.Kind == host.ProcessKind:
			derr = host.DestroyProcess(ctx, r)
		case strings.HasPrefix(r.Kind, onhost.Prefix+":"):
			derr = onhost.Destroy(ctx, r)
		default:
			continue
		}
		if derr == nil {
			derr = ledger.Gone(r.Key)
		}
		err = errors.Join(err, derr)
	}
	return err
}

// conclude closes the ledger and says how the run ended.
func conclude(ctx context.Context, o Options, run step.Invocation, ledger *step.FileLedger, ended engine.Result, d Diagnosis) (Result, error) {
	result := Result{Run: run.ID, Builds: ended.Builds, Diagnosis: d}
	failed := FailedError{}
	for _, b := range ended.Builds {
		if blamed, ok := errors.AsType[hcl.Diagnostics](b.Err); ok {
			result.Diags = append(result.Diags, blamed...)
		}
		if b.Err != nil {
			failed.Errs = append(failed.Errs, fmt.Errorf("%s: %w", b.Name, b.Err))
		}
	}
	wrong := d.Diags.HasErrors()
	if wrong {
		failed.Errs = append(failed.Errs, d.Diags)
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(&failed, cause) {
		failed.Errs = append(failed.Errs, cause)
	}
	left, err := ledger.Owned()
	if err == nil {
		err = ledger.Close()
	}
	result.Left, result.Elapsed = left, time.Since(o.began)
	if err != nil {
		return result, fmt.Errorf("the ledger of the run: %w", err)
	}
	if len(left) == 0 && !slices.ContainsFunc(ended.Builds, func(b engine.BuildResult) bool { return b.LeftMachine }) {
		os.RemoveAll(o.State.keys(run.ID))
	}
	switch {
	case wrong && len(ended.Builds) == 0 && ctx.Err() != nil: // that is what was wrong
		result.Diagnosis = Diagnosis{}
		return result, context.Cause(ctx)
	case wrong && len(ended.Builds) == 0:
		return result, (*TemplateError)(&result.Diagnosis)
	case unfinished(ended.Builds): // what there is belongs to builds that go on
		left, result.Left = nil, nil
	}
	if failed.Left = left; len(left) > 0 || len(failed.Errs) > 0 {
		failed.Outcome = outcome(ctx, ended.Builds, len(left) > 0)
		return result, &failed
	}
	return result, nil
}

package run

import (
	"cmp"
	"context"
	"encoding/binary"
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
	"bake/builtin"
	"bake/config"
	"bake/engine"
	"bake/golden/bakefile"
	"bake/golden/pipeline"
	"bake/plugin/host"
	"bake/run/localcloud"
	"bake/run/trace"
	"bake/step"
	"bake/step/onhost"
	"bake/ui"
)

// NoTimeout means no limit, whatever bake files say.
const NoTimeout = time.Duration(math.MinInt64)

// Options define what [Build] builds, and how.
type Options struct {
	Template Template // its SecretsManager and ReadData are set by Build
	State    State
	ID       string // of the run, a UUID; empty for a new one
	Parent   string // the id of the run that this one is a part of; empty if there is none
	Command  string // the user's command line, recorded in the ledger without secrets

	Parallel int            // builds at a time; 0 or less means all
	OnError  engine.OnError // empty means [engine.Cleanup]
	FailFast bool           // once a build has failed, cancel the others
	Timeout  time.Duration  // limit for the run; after it, the run is cancelled and then deletes what it made. 0: as bake files say; [NoTimeout]: none
	Force    bool           // replace images and files that exist already
	Debug    bool           // run one build at a time, and call Pause before each step

	// Cache makes builds in Cloud start from the cached machines of earlier builds, and
	// cache their own. Builds of image blocks are then an error, unless CacheReleases is
	// set.
	Cache, CacheReleases bool

	// CacheLimit is the maximum size of the cache in bytes afterwards; 0 means
	// [localcloud.CacheBytes].
	CacheLimit int64

	// CloudInit is how long a build waits for cloud-init to finish on its machine: before
	// the first provisioner, before the checks of its image block, and before the
	// temporary key is removed. 0 means no wait.
	CloudInit time.Duration

	// When Stop is done, the run stops immediately, including its teardown, and anything
	// still running two seconds later is abandoned. If it is nil, this never happens.
	Stop context.Context

	// Cloud opens a cloud that replaces AWS, once the template is known to be valid; emit
	// receives its events. The caller closes it after Build returns. Nil means AWS.
	Cloud func(ctx context.Context, emit func(step.Event)) (*localcloud.Cloud, error)

	// Within restricts the Amazon components to an account and region, whatever the
	// template says. If it is nil, the template decides.
	Within *amazon.Within

	// Wait is called before each request to an AWS service in a region. If it returns an
	// error, the request is not sent. It may be nil.
	Wait func(ctx context.Context, service, region string) error

	// ReuseOnly makes it an error if a build of an image block has to be run because no
	// existing image can be reused.
	ReuseOnly bool

	// Components makes the components that the template can use, and may query plugins
	// until ctx ends. Nil means all built-in components.
	Components func(ctx context.Context, parts builtin.Parts) engine.Components

	// Emit gets every event, free of secrets, after it was written to the log. It is
	// called by one goroutine at a time, and not after Build has returned. It may be nil.
	Emit func(step.Event)

	// Trace records the steps of the run as spans. It may be nil.
	Trace *trace.Tracer

	// OnWarnings is called with the warnings about the template before anything is run. It
	// may be nil.
	OnWarnings func(Diagnosis)

	// Ask, Pause and Terminal interact with the user: when a step has failed and OnError
	// is [engine.Ask], before each step with Debug, and for components that wait for
	// input. If they are nil, Unattended says why, and [engine.Ask] means
	// [engine.Cleanup].
	Ask        func(ctx context.Context, build, step string, err error) engine.Answer
	Pause      func(ctx context.Context, build, step string) error
	Terminal   func() (io.ReadCloser, error)
	Unattended error

	// Connect is a command for the user's own SSH client that connects its standard input
	// and output to a port of a machine of the local cloud, given by %h and %p as in
	// ssh_config; with -through and a socket, it connects by way of this process. If it is
	// nil, SSH clients connect to the machine's address.
	Connect []string

	// Stages makes the run end at the next boundary where it can resume, and keep what it
	// owns. [Resume] with Stages runs the following stage. [State.Export] moves the run to
	// another host.
	Stages bool

	Now func() time.Time // nil: time.Now

	Version string // of bake; a different version resumes the run only on request

	planOnly bool // nothing is built

	resumed *resumed  // set if the run is resumed
	began   time.Time // by the monotonic clock
}

// Result is how a run ended.
type Result struct {
	Run     string               // its id
	Elapsed time.Duration        // of this process only, if the run was resumed
	Builds  []engine.BuildResult // in template order; none if the run had to stop at once
	Left    []step.Resource      // created, but neither kept nor deleted; still owned by the ledger

	Planned []pipeline.Planned // decisions about the builds of image blocks
	Parts   []Result           // the run of each image, if the images of the template are built separately; the result itself then has no id

	// Next are the boundaries at which the stage ended, for a run that runs by stages; none
	// if the run is over.
	Next []step.Boundary

	// Log is the part of the log that this stage has written, for a run that runs by
	// stages. It is nil if the reports are stored next to the log, or if the part could
	// not be written.
	Log *LogPart

	Resumable bool // [Resume] can resume it
	Reachable bool // and whether provisioners would run again

	// Diagnosis holds the errors of the template that caused a failure, and a warning if
	// the log is not complete.
	Diagnosis
}

// Reused reports whether nothing had to be built, because all results already exist.
func (r Result) Reused() bool {
	return len(r.Builds) > 0 && !slices.ContainsFunc(r.Builds, func(b engine.BuildResult) bool { return !b.Reused })
}

// FailedError is the error of a run that was cancelled, or had failed builds, or left
// something behind. It wraps the causes.
type FailedError struct {
	Errs    []error         // of builds, and the cause of the cancellation
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

// TimeoutError is the error of a run that exceeded its time limit.
type TimeoutError struct{ Limit time.Duration }

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("the run was cancelled after %s, its time limit", ui.Words(e.Limit))
}

// Outcome returns the outcome of the run.
func (e *TimeoutError) Outcome() Outcome { return OutcomeTimeout }

// Cancelling returns the message in the log of the run.
func (e *TimeoutError) Cancelling() string {
	return fmt.Sprintf("Cancelling build: the time limit of the run, %s, has passed", ui.Words(e.Limit))
}

// Build runs the builds of a template until they have succeeded or failed, and deletes
// temporary resources. When ctx ends, the builds stop, and what they made is deleted; see
// [Options] for Stop. If the cause of either context has a method Cancelling() string, the
// log uses its result to describe the cause.
//
// The error is a *[TemplateError] if nothing was run because the template is wrong, and a
// *[FailedError] if the run failed in part or in whole: then the result describes what was
// run. Any other error says why the run could not start or why its ledger could not be
// written.
func Build(ctx context.Context, o Options) (Result, error) {
	if err := o.complete(); err != nil {
		return Result{}, err
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
	parts := builtin.Parts{Cloud: o.hold(localcloud.FromEnvironment(o.Template.Env)), Env: o.Template.Env, Terminal: o.terminal, Connect: o.Connect, Now: o.Now}
	if o.Cloud != nil {
		// Report errors in the template before the cloud starts. Its secrets cannot be read
		// until then.
		t := o.Template
		t.SecretsManager, t.ReadData, t.AllData = nil, false, false
		if _, err := check(limit, t, o.Components(limit, parts), run, nil); err != nil {
			return Result{}, err
		}
	}
	o.State.forgetLogins(o.Now())
	events, err := openEvents(o.State, run.ID, o.resumed != nil, o.Emit)
	if err != nil {
		return Result{}, err
	}
	events.trace = o.record(run)
	defer events.trace.End()
	result, err := build(limit, o, run, parts, events)
	if _, ok := errors.AsType[*TemplateError](err); ok {
		events.trace.Fail(errors.New("the template is wrong")) // not err, which may quote secrets
		_ = events.close()                                     // the template error takes precedence
		return result, err
	}
	if err != nil {
		events.trace.Fail(err)
	}
	return result, errors.Join(err, events.close())
}

// NewID returns the id of a new run: a UUID of version 8, whose last 48 bits are the time
// in milliseconds since 1970, which [imagetag.Order] reads. The other bits are random, so
// that [ShortID] distinguishes runs of the same minute.
func NewID() string {
	id := uuid.New()
	var now [8]byte
	binary.BigEndian.PutUint64(now[:], uint64(time.Now().UnixMilli()))
	copy(id[10:], now[2:])
	id[6] = id[6]&0x0f | 8<<4
	return id.String()
}

// complete sets defaults for options that the caller has not set, and rejects incompatible
// ones.
func (o *Options) complete() (err error) {
	if o.Stages && o.Cache {
		return errors.New("a run by stages cannot use the cache")
	}
	o.began = time.Now()
	o.ID = cmp.Or(o.ID, NewID())
	if o.Now == nil {
		o.Now = time.Now
	}
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
		o.Template.Cwd, err = os.Getwd()
	}
	return err
}

// record begins the trace of the run, or of the part that this process runs.
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
	case o.resumed != nil:
		r.Part, r.First = "resume", o.resumed.Trace
	}
	return o.Trace.Begin(r)
}

// hold restricts the cloud to the account and region of the options.
func (o Options) hold(cloud amazon.Cloud) amazon.Cloud {
	cloud.Within, cloud.Wait = o.Within, o.Wait
	return cloud
}

// timeLimit is a context that ends at the time limit of the run.
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

// read reads the bake files of a template and sets their time limits.
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

// build is Build with all inputs resolved. It has closed the events if the run was
// started.
func build(limit *timeLimit, o Options, run step.Invocation, parts builtin.Parts, events *events) (Result, error) {
	e := &execution{Options: o, run: run, parts: parts, events: events, clouds: localcloud.Clouds{Hold: o.hold}}
	ctx, stop, release := e.announce(limit)
	defer release()
	ctx, teardown, leave, err := e.enter(ctx, stop)
	if err != nil {
		return Result{}, err
	}
	defer leave()
	if err := e.load(ctx, limit); err != nil {
		return Result{}, err
	}
	if err := e.open(); err != nil {
		return Result{}, err
	}
	options := e.options(ctx)
	ended, diags := runToEnd(ctx, stop, teardown, e.template, e.components, options)
	e.diags = diags // the diagnostics of load were reported before anything was run
	e.settleCache(ctx)
	if len(e.Template.Only)+len(e.Template.Except) == 0 && succeeded(ended.Builds) {
		e.diags = append(e.diags, e.settings.Unused(options.Uploads)...)
	}
	if stop.Err() == nil && teardown.Err() != nil {
		deleteFiles(ctx, e.ledger)
	}
	return e.finish(ctx, ended)
}

// succeeded reports whether all builds have ended without an error.
func succeeded(builds []engine.BuildResult) bool {
	return !slices.ContainsFunc(builds, func(b engine.BuildResult) bool { return b.Unfinished || b.Err != nil })
}

// deleteFiles deletes the local files that the ledger owns, which needs no cloud. Files
// that cannot be deleted stay in the ledger.
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

// endEarlier stops and deletes what an earlier process of a resumed run left on this
// host. No build owns it, so nothing else would stop it.
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

// conclude closes the ledger and returns how the run ended.
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
	case wrong && len(ended.Builds) == 0 && ctx.Err() != nil: // the template errors come from the cancellation
		result.Diagnosis = Diagnosis{}
		return result, context.Cause(ctx)
	case wrong && len(ended.Builds) == 0:
		return result, (*TemplateError)(&result.Diagnosis)
	case unfinished(ended.Builds): // the remaining resources belong to unfinished builds
		left, result.Left = nil, nil
	}
	if failed.Left = left; len(left) > 0 || len(failed.Errs) > 0 {
		failed.Outcome = outcome(ctx, ended.Builds, len(left) > 0)
		return result, &failed
	}
	return result, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bake/builder"
	"bake/engine"
	"bake/run"
	"bake/run/localcloud"
	"bake/step"
	"bake/ui/prompt"
)

// buildOptions are the flags of bake build.
type buildOptions struct {
	templateFlags
	displayOptions
	path string

	local          bool
	egress         string // of local machines
	faults         string // of the local cloud
	cloudInit      string // how long to wait for cloud-init
	onError        choice
	exitCodes      choice
	cache          choice
	cacheLimit     bytesFlag
	parallel       int
	failFast       bool
	detailed       bool // exit code 3 if everything was reused
	timeout        time.Duration
	force, debug   bool
	warnUndeclared bool
}

func (p *program) buildCommand() *cobra.Command {
	o := buildOptions{onError: choice{string(engine.Cleanup), []string{
		string(engine.Cleanup), string(engine.Abort), string(engine.Ask), string(engine.RunCleanupProvisioner), string(engine.Keep),
	}}}
	o.cache = choice{values: []string{cacheOn, cacheReleases}}
	cmd := &cobra.Command{
		Use:   "build TEMPLATE",
		Short: "Bake the images of a template",
		Long: `Bake the images of a template: a *.pkr.hcl or *.pkr.json file, or a directory of them.
Builds run in parallel. Everything that was created only to make the images is
deleted at the end, even after an error or Ctrl-C. A second Ctrl-C stops
immediately and lists what was left behind.`,
		Example: `  bake build -local examples/webserver
  bake build -var region=eu-west-1 -var-file=prod.pkrvars.hcl template.pkr.hcl
  bake build -only='*.web' -on-error=ask .`,
		Args: exactly("the template"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			asked(cmd, "timeout", &o.timeout)
			failure, err := p.build(cmd.Context(), o)
			if failure == nil && err == nil && o.detailed && p.reused {
				return p.allReused(o.exitCodes)
			}
			return p.ended(failure, err, o.exitCodes)
		},
		Annotations: map[string]string{exitCodes: runExitCodes},
	}
	flags := cmd.Flags()
	o.register(flags)
	flags.BoolVar(&o.local, "local", false, "use the local cloud instead of AWS; no account needed")
	egressFlag(flags, &o.egress)
	faultsFlag(flags, &o.faults)
	cloudInitFlag(flags, &o.cloudInit)
	flags.Var(&o.cache, "cache", "with -local: start after the last unchanged provisioner of an earlier -cache build, and cache the machines of this one; -cache=release: also for image blocks; 'bake cloud cache' lists the cached machines")
	flags.Lookup("cache").NoOptDefVal = cacheOn
	flags.Var(&o.cacheLimit, "cache-limit", "with -cache: at the end, shrink the cache to this `size`, deleting the least recently used machines first; default 10GB")
	flags.Var(&o.onError, "on-error", "`action` to take when a step fails: cleanup, abort (leave everything), ask, run-cleanup-provisioner, keep (leave everything for bake resume)")
	flags.IntVar(&o.parallel, "parallel-builds", 0, "run at most `n` builds at a time; 0 for no limit")
	flags.BoolVar(&o.failFast, "fail-fast", false, "cancel the other builds once one has failed")
	flags.BoolVar(&o.detailed, "detailed-exitcode", false, "exit with 3 if nothing had to be built, because all images of image blocks were reused")
	flags.DurationVar(&o.timeout, "timeout", 0, "cancel the run after this `duration`, such as 45m, and delete what it created; 0 for no limit")
	flags.BoolVar(&o.force, "force", false, "replace existing images and files")
	flags.BoolVar(&o.debug, "debug", false, "run one build at a time, and wait for Enter before each step")
	flags.BoolVar(&o.warnUndeclared, "warn-on-undeclared-var", false, "warn about variables that a -var-file sets but the template does not declare")
	p.exitCodesFlag(flags, &o.exitCodes)
	o.registerReleases(flags)
	withoutEffect(flags, "use-sequential-evaluation", "skip-enforcement")
	flags.BoolVar(&o.color, "color", true, "disable colored output")
	flags.BoolVar(&o.timestamps, "timestamp-ui", false, "prefix each line of a build's output with a timestamp")
	p.jsonFlag(cmd)
	return cmd
}

// The values of -cache.
const (
	cacheOn       = "on"
	cacheReleases = "release"
)

// asked replaces a time limit of 0 that the flag has set by [run.NoTimeout], which also overrides
// bake files.
func asked(cmd *cobra.Command, flag string, limit *time.Duration) {
	if *limit == 0 && cmd.Flags().Changed(flag) {
		*limit = run.NoTimeout
	}
}

// build returns how the run ended, and an error that still has to be reported.
func (p *program) build(ctx context.Context, o buildOptions) (failure, err error) {
	defer func() {
		if failure == nil {
			failure = err
		}
	}()
	if err := p.env.checkExitCodes(); err != nil {
		return nil, err
	}
	if o.egress != "" && !o.local {
		return nil, usageError{"-allow-egress applies to the local cloud only: use it with -local", "bake build"}
	}
	if o.faults != "" && !o.local {
		return nil, usageError{"-faults applies to the local cloud only: use it with -local", "bake build"}
	}
	if o.cache.value != "" && !o.local {
		return nil, usageError{"-cache applies to the local cloud only: use it with -local", "bake build"}
	}
	if o.cacheLimit > 0 && o.cache.value == "" {
		return nil, usageError{"-cache-limit requires -cache", "bake build"}
	}
	if o.timeout < 0 && o.timeout != run.NoTimeout {
		return nil, usageError{"-timeout cannot be negative", "bake build"}
	}
	template, err := o.template(p, "bake build", o.path)
	if err != nil {
		return nil, err
	}
	template.WarnUndeclared = o.warnUndeclared
	cloudInit, err := p.env.cloudInit(o.cloudInit, "bake build")
	if err != nil {
		return nil, err
	}
	var cacheLimit int64
	if o.cache.value != "" {
		if cacheLimit, err = p.env.cacheLimit(o.cacheLimit); err != nil {
			return nil, err
		}
	}
	state, err := p.env.state()
	if err != nil {
		return nil, err
	}
	options := run.Options{
		Template: template, State: state, ID: run.NewID(), Command: p.commandLine(),
		Parallel: o.parallel, OnError: engine.OnError(o.onError.value), FailFast: o.failFast, Timeout: o.timeout, Force: o.force, Debug: o.debug, CloudInit: cloudInit,
		Cache: o.cache.value != "", CacheReleases: o.cache.value == cacheReleases, CacheLimit: cacheLimit,
	}
	return p.bake(ctx, o, options, run.Build)
}

// bake runs or resumes a build with the settings of this process. failure is the error of
// the build, and err is an error that still has to be reported.
func (p *program) bake(ctx context.Context, o buildOptions, options run.Options, do func(context.Context, run.Options) (run.Result, error)) (failure, err error) {
	o.prompts = o.debug || o.onError.value == string(engine.Ask)
	o.log = options.State.Log(options.ID)
	o.onLocal = o.local
	feed := p.openFeed(o.displayOptions)
	defer feed.close()
	options.Components = p.components(options.Template.Options, o.releases)
	options.Emit, options.OnWarnings = feed.emit, func(d run.Diagnosis) { p.diagnostics(d.Files, d.Diags) }
	options.Trace = p.traces("bake", p.env, feed)
	options.Unattended, options.Connect, options.Now, options.Version = prompt.ErrNoTerminal, ncProxy(), p.now, version
	if ask := p.newPrompter(feed.suspend); ask != nil {
		options.Ask, options.Pause, options.Terminal = ask.FailedStep, ask.Pause, ask.Open
	}
	ctx, stop, release := p.interrupts(ctx, func(_ int, cause error) {
		if errors.Is(cause, errUnread) {
			fmt.Fprintf(p.stderr, "%s.\nThe log of the run: %s\n", errUnread.Cancelling(), o.log)
		}
	})
	defer release()
	options.Stop = stop
	served, disk := false, &diskWatch{}
	if o.local {
		var cloud *localcloud.Cloud
		options.Emit = disk.watched(feed.emit)
		options.Cloud = func(ctx context.Context, emit func(step.Event)) (_ *localcloud.Cloud, err error) {
			open, err := p.joinOptions(o.egress, emit)
			if err != nil {
				return nil, err
			}
			open.Faults, open.Launches = o.faults, true
			cloud, err = localcloud.Open(ctx, open)
			served = err == nil && cloud.Served()
			disk.cloud.Store(cloud)
			return cloud, err
		}
		defer func() {
			if cloud != nil {
				err = errors.Join(err, cloud.Close(stop))
			}
		}()
	}
	result, err := do(ctx, options)
	options.Trace.Close()
	p.reused = err == nil && result.Reused()
	feed.close()
	if p.stdout.unread() {
		p.stdout = p.stderr // so that standard output can be piped
	}
	return err, p.conclude(result, err, disk, served)
}

// conclude prints what the display of the run has not shown: the place in the template of
// the failure's cause, and the resources left behind. disk has watched the directory of the
// local cloud, and served reports whether its machines end with this process.
func (p *program) conclude(result run.Result, err error, disk *diskWatch, served bool) error {
	if result.Run != "" || len(result.Parts) > 0 { // it came to a run
		var parts []string
		for _, one := range result.Parts {
			parts = append(parts, one.Run)
		}
		p.json.result = runResult{result.Run, parts, result.Elapsed, builtAll(result.Builds), list(result.Left), result.Resumable || result.Reachable}
	}
	if wrong, ok := errors.AsType[*templateError](err); ok {
		return wrong
	}
	p.diagnostics(result.Files, result.Diags)
	if gone, ok := errors.AsType[*localcloud.GoneError](err); ok {
		fmt.Fprintf(p.stderr, "Error: %v.\n", gone)
	}
	failed, ok := errors.AsType[*run.FailedError](err)
	if !ok {
		return err
	}
	if text := disk.text(); text != "" {
		p.say(text)
	}
	for _, one := range append(slices.Clone(result.Parts), result) {
		p.sayNext(one)
	}
	if slices.ContainsFunc(failed.Left, func(r step.Resource) bool {
		return strings.HasSuffix(r.Kind, ":instance") && r.With["cloud"] == localcloud.Name
	}) {
		when := "Local machines stop when the bake that serves the local cloud exits."
		if served {
			when = "The machine stops now, because this bake was serving the local cloud."
		}
		p.say(when + " To look around on a running machine, use -on-error=ask or a breakpoint, or keep 'bake cloud up' running in another terminal.")
	}
	return errReported
}

// sayNext prints what the user can do about a failed run.
func (p *program) sayNext(result run.Result) {
	if result.Run == "" {
		return
	}
	if len(result.Left) > 0 {
		p.say(leftText(result.Run, result.Left))
	}
	if result.Resumable {
		p.say("To resume the run: bake resume " + result.Run)
	} else if result.Reachable {
		p.say("To run provisioners again: bake resume " + result.Run + " -from PROVISIONER\nTo log in: bake ssh " + result.Run)
	}
}

// runResult is the last object of bake build -json.
type runResult struct {
	Run     string          `json:"run"`
	Runs    []string        `json:"runs,omitempty"` // of images that are built apart; then the run has no id
	Elapsed time.Duration   `json:"elapsed"`        // nanoseconds
	Builds  []builtOne      `json:"builds"`
	Left    []step.Resource `json:"left_behind"`

	Resumable bool `json:"resumable"` // bake resume can go on with it
}

// builtOne is how one build ended.
type builtOne struct {
	Name      string              `json:"name"`
	OK        bool                `json:"ok"`
	Reused    bool                `json:"reused,omitempty"` // nothing was built: the artifacts are those of earlier builds
	Elapsed   time.Duration       `json:"elapsed"`          // nanoseconds
	Error     string              `json:"error,omitempty"`
	Place     string              `json:"place,omitempty"` // "file:line" of the provisioner or post-processor that failed
	Artifacts []*builder.Artifact `json:"artifacts"`
}

func builtAll(builds []engine.BuildResult) []builtOne {
	out := []builtOne{}
	for _, b := range builds {
		one := builtOne{Name: b.Name, OK: b.Err == nil, Reused: b.Reused, Elapsed: b.Elapsed, Artifacts: list(b.Artifacts)}
		if b.Err != nil {
			one.Error, one.Place = b.Err.Error(), b.Place
		}
		out = append(out, one)
	}
	return out
}

// leftText lists what a run has left behind, and how to remove it.
func leftText(run string, left []step.Resource) string {
	var b strings.Builder
	b.WriteString("\nLeft behind:\n")
	for _, r := range left {
		fmt.Fprintf(&b, "  %s\n", r)
	}
	fmt.Fprintf(&b, "To delete it: bake sweep -run %s", run)
	return b.String()
}

// commandLine returns the command line of the user, including any secrets.
func (p *program) commandLine() string { return strings.Join(append([]string{"bake"}, p.args...), " ") }

// say writes a text that is not part of the event stream. It ignores an empty text.
func (p *program) say(text string) {
	switch {
	case text == "", p.json.on: // programs have the result
		return
	case p.machineReadable:
		text = p.record("say", text)
	default:
		text += "\n"
	}
	io.WriteString(p.stdout, text)
}

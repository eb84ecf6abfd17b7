package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"bake/builder"
	"bake/builder/amazon"
	"bake/config"
	"bake/engine"
	"bake/run/localcloud"
	"bake/step"
)

// buildOptions are the flags of bake build.
type buildOptions struct {
	templateFlags
	displayOptions
	path string

	local          bool
	egress         string // of local machines
	onError        choice
	parallel       int
	force, debug   bool
	warnUndeclared bool
}

// teardownGrace is how long the teardown of one build may take. Terminating an
// instance on EC2 takes a minute or two, deregistering what a copy left a few more.
const teardownGrace = 20 * time.Minute

// hurry is how long a build that was told to stop at once may take to do so.
const hurry = 2 * time.Second

func (p *program) buildCommand() *cobra.Command {
	o := buildOptions{onError: choice{string(engine.Cleanup), []string{
		string(engine.Cleanup), string(engine.Abort), string(engine.Ask), string(engine.RunCleanupProvisioner),
	}}}
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
			return p.build(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	o.register(flags)
	flags.BoolVar(&o.local, "local", false, "use the local cloud instead of AWS; no account needed")
	egressFlag(flags, &o.egress)
	flags.Var(&o.onError, "on-error", "`action` to take when a step fails: cleanup, abort (leave everything), ask, run-cleanup-provisioner")
	flags.IntVar(&o.parallel, "parallel-builds", 0, "run at most `n` builds at a time; 0 for no limit")
	flags.BoolVar(&o.force, "force", false, "replace existing images and files")
	flags.BoolVar(&o.debug, "debug", false, "run one build at a time, and wait for Enter before each step")
	flags.BoolVar(&o.warnUndeclared, "warn-on-undeclared-var", false, "warn about variables that a -var-file sets but the template does not declare")
	withoutEffect(flags, "ignore-prerelease-plugins", "use-sequential-evaluation", "skip-enforcement")
	flags.BoolVar(&o.color, "color", true, "disable colored output")
	flags.BoolVar(&o.timestamps, "timestamp-ui", false, "prefix each line of a build's output with a timestamp")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) build(ctx context.Context, o buildOptions) (err error) {
	if o.egress != "" && !o.local {
		return usageError{"-allow-egress applies to the local cloud only: use it with -local", "bake build"}
	}
	load, err := o.options(p, "bake build", o.path)
	if err != nil {
		return err
	}
	load.WarnUndeclared = o.warnUndeclared
	state, err := p.env.stateDir()
	if err != nil {
		return err
	}
	run := step.Invocation{ID: uuid.NewString(), Force: o.force, Debug: o.debug, Start: load.Now, Version: config.LanguageVersion}
	run.Env = slices.Concat(p.env, []string{"PACKER_RUN_UUID=" + run.ID})

	o.prompts = o.debug || o.onError.value == string(engine.Ask)
	if o.local {
		// What is wrong with the template is said before the local cloud starts; the
		// secrets of that are not known then.
		load.SecretsManager = nil
		if _, err := p.check(ctx, load, o.templateFlags, run); err != nil {
			return err
		}
	}
	events, err := p.openFeed(o.displayOptions, run.ID, state)
	if err != nil {
		return err
	}
	closeFeed := events.closeOnce()
	defer func() { err = errors.Join(err, closeFeed()) }()

	ctx, stop, release := p.interrupts(ctx, func(n int, cause error) {
		var text string
		var got interrupted
		switch {
		case n > 1:
			text = "Stopping immediately"
		case errors.As(cause, &got):
			text = fmt.Sprintf("Cancelling build after receiving %s", got.signal)
		default:
			text = "Cancelling build: the program reading its output has exited"
			fmt.Fprintf(p.stderr, "%s.\nThe log of the run is %s\n", text, events.log.Name())
		}
		events.emit(step.Event{Time: p.now(), Kind: step.Say, Text: text})
	})
	defer release()

	machinesEnd := false // with this process
	ask := p.newPrompter(events.suspend)
	parts := p.parts()
	parts.Terminal = ask.open
	if o.local {
		local, err := p.openLocal(ctx, o.egress, events.emit)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, local.Close(stop)) }()
		if text := local.Dependence(); text != "" {
			events.emit(step.Event{Time: p.now(), Kind: step.Say, Text: text})
		}
		var unwatch func()
		ctx, unwatch = local.Watch(ctx)
		defer unwatch()
		parts.Cloud, machinesEnd = local.Cloud, local.Served()
		parts.Env = slices.Concat(p.env, local.Environment())
		run.Env = slices.Concat(run.Env, local.Environment())
		load.SecretsManager = amazon.Secrets(local.Cloud, parts.Env)
	}
	all := parts.Catalog()
	load.DataSources, load.ReadData = all.DataSources, true
	template, diags := config.Load(ctx, load)
	if diags.HasErrors() {
		_ = closeFeed() // the template is what matters
		return &templateError{diags, template.Files()}
	}
	p.diagnostics(template.Files(), diags)

	ledger, err := step.CreateLedger(ledgerDir(state), step.Header{
		Run: run.ID, Started: run.Start, PID: os.Getpid(),
		Command: template.Secrets().Redact(strings.Join(append([]string{"bake"}, os.Args[1:]...), " ")),
	})
	if err != nil {
		return err
	}
	options := engine.Options{
		Only: o.only, Except: o.except, Parallel: o.parallel, OnError: engine.OnError(o.onError.value),
		Run: run, Ledger: ledger, Start: run.Start, Grace: teardownGrace, Emit: events.emit,
	}
	logins := &logins{dir: keysDir(state, run.ID), run: run.ID, onLocal: o.local}
	options.Login = logins.text
	if ask != nil {
		options.Ask, options.Pause = ask.failedStep, ask.pause
	} else {
		if options.OnError == engine.Ask {
			options.OnError = engine.Cleanup
		}
		if o.prompts {
			events.emit(step.Event{Time: p.now(), Kind: step.Warning, Text: "There is no terminal to ask on: -on-error=ask acts as cleanup, and -debug does not pause. " + title(errNoTerminal)})
		}
	}
	result, diags := runToEnd(ctx, stop, template, all.Components, options)
	if err := closeFeed(); err != nil { // the images are as good as with a log
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: title(err), Detail: "Free some space there, or set BAKE_STATE_DIR to another directory."})
	}
	if p.stdout.unread() {
		p.stdout = p.stderr // somebody may read that
	}
	err = p.conclude(ctx, state, run, ledger, result, template.Files(), diags)
	left := slices.ContainsFunc(result.Builds, func(b engine.BuildResult) bool {
		return slices.ContainsFunc(b.Left, func(r step.Resource) bool { return strings.HasSuffix(r.Kind, ":instance") })
	})
	if machinesEnd && left {
		p.say("The machine stops now, because this bake was serving the local cloud. To look around on a running machine, use -on-error=ask or a breakpoint, or keep 'bake cloud up' running in another terminal.")
	}
	return err
}

// title is an error as a sentence.
func title(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// runToEnd is [engine.Run], but does not wait for builds that go on after they
// were told to stop at once.
func runToEnd(ctx, stop context.Context, t *config.Template, c engine.Components, o engine.Options) (engine.Result, hcl.Diagnostics) {
	type end struct {
		result engine.Result
		diags  hcl.Diagnostics
	}
	ended := make(chan end, 1)
	go func() {
		result, diags := engine.Run(ctx, stop, t, c, o)
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

// conclude says what the display of the run has not said: where in the template
// the cause of a failure is, and what is left behind.
func (p *program) conclude(ctx context.Context, state string, run step.Invocation, ledger *step.FileLedger, result engine.Result, files map[string]*hcl.File, diags hcl.Diagnostics) error {
	failed := diags.HasErrors() || context.Cause(ctx) != nil
	for _, b := range result.Builds {
		var blamed hcl.Diagnostics
		if errors.As(b.Err, &blamed) {
			diags = append(diags, blamed...)
		}
		failed = failed || b.Err != nil
	}
	p.diagnostics(files, diags)
	if gone, ok := errors.AsType[*localcloud.GoneError](context.Cause(ctx)); ok {
		fmt.Fprintf(p.stderr, "Error: %s.\n", strings.TrimSuffix(title(gone), "."))
	}
	left, err := ledger.Owned()
	if err == nil {
		err = ledger.Close()
	}
	if err != nil {
		return fmt.Errorf("the ledger of the run: %w", err)
	}
	p.json.result = runResult{run.ID, p.now().Sub(run.Start), builtAll(result), list(left)}
	if len(left) == 0 {
		os.RemoveAll(keysDir(state, run.ID))
	}
	if len(left) > 0 {
		p.say(leftText(run.ID, left))
		if slices.ContainsFunc(left, func(r step.Resource) bool {
			return strings.HasSuffix(r.Kind, ":instance") && r.With["cloud"] == localcloud.Name
		}) {
			p.say("Local machines stop when the bake that serves the local cloud exits. To look around on a running machine, use -on-error=ask or a breakpoint, or keep 'bake cloud up' running in another terminal.")
		}
		failed = true
	}
	if failed {
		return errReported
	}
	return nil
}

// runResult is what bake build -json ends with.
type runResult struct {
	Run     string          `json:"run"`
	Elapsed time.Duration   `json:"elapsed"` // nanoseconds
	Builds  []builtOne      `json:"builds"`
	Left    []step.Resource `json:"left_behind"`
}

// builtOne is how one build ended.
type builtOne struct {
	Name      string              `json:"name"`
	OK        bool                `json:"ok"`
	Elapsed   time.Duration       `json:"elapsed"` // nanoseconds
	Error     string              `json:"error,omitempty"`
	Place     string              `json:"place,omitempty"` // "file:line" of the provisioner or post-processor that failed
	Artifacts []*builder.Artifact `json:"artifacts"`
}

func builtAll(r engine.Result) []builtOne {
	out := []builtOne{}
	for _, b := range r.Builds {
		one := builtOne{Name: b.Name, OK: b.Err == nil, Elapsed: b.Elapsed, Artifacts: list(b.Artifacts)}
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

// say writes a text that is no part of the event stream.
func (p *program) say(text string) {
	switch {
	case p.json.on: // programs have the result
		return
	case p.machineReadable:
		text = p.record("say", text)
	default:
		text += "\n"
	}
	io.WriteString(p.stdout, text)
}

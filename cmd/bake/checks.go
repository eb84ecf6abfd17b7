package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bake/builder"
	"bake/builder/amazon/images"
	"bake/golden/checks"
	"bake/golden/checks/facts"
	"bake/golden/findings"
	"bake/golden/gates"
	"bake/internal/prose"
	"bake/run/host"
	"bake/step"
	"bake/ui"
)

// checksOptions are the flags of bake checks.
type checksOptions struct {
	checks.Options
	host      hostFlags
	ami       string
	guest     guestFlags
	format    choice
	env       []string
	sudo      bool
	maxFailed []string
	minScore  float64
	waivers   string
	gate      findings.Gate
}

func (p *program) checksCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "checks",
		Short: "Check machines against goss files and the built-in baseline",
		Long: `Check existing machines over SSH, or machines launched from an image, against files in
goss's format and the built-in security profile bake:baseline.`,
		Args: cobra.ArbitraryArgs,
		RunE: p.noCommand,
	}
	cmd.AddCommand(p.checksRunCommand(), p.checksListCommand())
	return cmd
}

func (p *program) checksRunCommand() *cobra.Command {
	var o checksOptions
	cmd := &cobra.Command{
		Use:   "run FILE...",
		Short: "Check a machine",
		Long: `Check a machine over SSH: an existing one (-host), or one launched from an image for this
purpose (-ami). The latter gets its own key and security group and is always deleted
again; if bake is killed, 'bake sweep' deletes it.

FILE is a file in goss's format (.yaml, .yml or .json), - for standard input, or a
built-in profile: bake:baseline or bake:baseline/SELECTION, where SELECTION is a list of
level2, rule IDs, and rule IDs to exclude, each after a minus. Nothing is installed or
left on the machine. It needs a POSIX shell, and a user who is root or can use sudo
without a password.

The gate is closed, and the exit code is 2, if a check fails that the flags do not allow
to fail, or if its result is unknown.`,
		Example: `  bake checks run -host ssh://admin@198.51.100.7 goss.yaml
  bake checks run -ami ami-0123456789abcdef0 -region eu-west-1 bake:baseline
  bake checks run -local -ami web-20261128 goss.yaml
  bake checks run -host ssh://root@web1:2222 -i key.pem -format junit bake:baseline >report.xml
  bake checks run -host admin@10.0.1.5 -bastion admin@bastion.example.com -remediate bake:baseline`,
		Annotations: map[string]string{exitCodes: `0    the gate is open
1    the checks could not be run, or the command line is wrong
2    the gate is closed
4    something of the machine of an image was left behind
5    the cloud refused to launch a machine of the image
130  cancelled by Ctrl-C (SIGINT); 143: by SIGTERM
With -exit-codes=packer: only 0 and 1.`},
		Args: needFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Files = args
			if err := o.complete(p, cmd); err != nil {
				return err
			}
			if o.ami != "" {
				return p.checkImage(cmd, o)
			}
			return interruptible(cmd.Context(), func(ctx context.Context) error { return p.runChecks(ctx, o) })
		},
	}
	o.register(p, cmd.Flags())
	p.jsonFlag(cmd)
	return cmd
}

// register declares the flags.
func (o *checksOptions) register(p *program, flags *pflag.FlagSet) {
	o.host.register(flags, "check")
	flags.StringVar(&o.ami, "ami", "", "launch a machine from this `image`, given by ID or name, check it, and delete it")
	o.guest.register(p, flags)
	flags.BoolVar(&o.sudo, "sudo", true, "run checks as root, with sudo unless the user is root; -sudo=false: as the login user")
	flags.BoolVar(&o.Remediate, "remediate", false, "run the fixes of checks that fail, as root, and check again")
	flags.DurationVar(&o.RetryTimeout, "retry-timeout", 0, "retry failing goss files for up to this `duration`")
	flags.DurationVar(&o.Sleep, "sleep", time.Second, "`interval` between retries")
	flags.StringArrayVar(&o.maxFailed, "max-failed", nil, "let the gate open with up to N failed checks of a severity: `SEVERITY=N`; repeatable")
	flags.Float64Var(&o.minScore, "min-score", 0, "`percentage` of checks that must pass for the gate to open")
	flags.StringVar(&o.waivers, "waivers", "", "`file` of waivers: checks that may fail until a date")
	o.varFlags(flags)
	var formats []string
	for _, f := range findings.Formats() {
		formats = append(formats, string(f))
	}
	formats = append(formats, gossJSON)
	o.format = choice{values: formats, value: string(findings.Plain)}
	flags.Var(&o.format, "format", "`format` of the report: "+strings.Join(formats, ", "))
}

// gossJSON is a report format for programs that read goss's reports.
const gossJSON = "goss-json"

// varFlags registers the flags for what templates of goss files know.
func (o *checksOptions) varFlags(flags *pflag.FlagSet) {
	flags.StringArrayVar(&o.VarsFiles, "vars", nil, "YAML or JSON `file` for .Vars of goss files; repeatable, later files override earlier ones")
	flags.StringVar(&o.VarsInline, "vars-inline", "", "`YAML` or JSON for .Vars of goss files; overrides -vars")
	flags.StringArrayVar(&o.env, "env", nil, "`NAME=VALUE` in .Env of goss files, which contains nothing else; repeatable")
}

func needFiles(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usageError{"name the files to check, or bake:baseline", cmd.CommandPath()}
	}
	return nil
}

// complete sets the options from the flags.
func (o *checksOptions) complete(p *program, cmd *cobra.Command) error {
	usage := func(format string, args ...any) error {
		return usageError{fmt.Sprintf(format, args...), cmd.CommandPath()}
	}
	if profile := slices.IndexFunc(o.Files, checks.IsProfile); profile >= 0 && o.format.value == gossJSON {
		return usage("-format %s is for goss files; %s is none", gossJSON, o.Files[profile])
	}
	if err := o.where(cmd.Flags()); err != nil {
		return usage("%s", err)
	}
	o.As = facts.As(o.sudo)
	if slices.Contains(o.Files, "-") {
		var err error
		if o.Input, err = io.ReadAll(io.LimitReader(p.stdin, maxInput)); err != nil {
			return fmt.Errorf("reading standard input: %w", err)
		}
		p.input = o.Input
	}
	var err error
	if o.Env, err = checks.ParseEnv(o.env); err != nil {
		return usage("-env %v", err)
	}
	var gate gates.Options
	if gate.MaxFailed, err = gates.ParseMaxFailed(o.maxFailed); err != nil {
		return usage("-max-failed %v", err)
	}
	if cmd.Flags().Changed("min-score") {
		if !(o.minScore >= 0 && o.minScore <= 100) {
			return usage("-min-score is from 0 to 100")
		}
		gate.MinScore = &o.minScore
	}
	o.gate = gate.Gate(nil)
	return nil
}

// maxInput is how much of standard input is read: more than a goss file can have.
const maxInput = 2 << 20

// where returns an error if the flags do not define the machine to check.
func (o *checksOptions) where(flags *pflag.FlagSet) error {
	others, name := guestNames(), "-host"
	switch {
	case flags.Lookup("host") == nil:
		return nil
	case o.host.Host == "" && o.ami == "":
		return errors.New("-host names the machine to check, such as ssh://admin@198.51.100.7, or -ami an image to launch one of")
	case o.ami != "":
		others, name = hostNames(), "-ami"
	}
	for _, other := range others {
		if flags.Changed(other) {
			return fmt.Errorf("-%s cannot be combined with %s", other, name)
		}
	}
	if o.ami != "" {
		if !flags.Changed("retry-timeout") {
			o.RetryTimeout = settling
		}
		return nil
	}
	return o.host.check()
}

// settling is how long a machine that has just started may take until nothing fails.
const settling = 20 * time.Second

// loadChecks reads the files, and prints their errors.
func (p *program) loadChecks(o checks.Options) (*checks.Checks, error) {
	c, diags := checks.Load(o)
	return c, p.blame(diags)
}

// blame shows errors in files on standard error, since standard output is for a report,
// and returns the error for them.
func (p *program) blame(diags hcl.Diagnostics) error {
	switch {
	case p.json.on && diags.HasErrors():
		return &templateError{Diags: diags, Files: p.sources(diags)}
	case p.json.on:
		p.keepDiagnostics(p.sources(diags), diags)
		return nil
	}
	width, _ := p.stderr.size()
	ui.Diagnostics(p.stderr, p.sources(diags), diags, width, p.stderr.draws() && p.env.colors())
	if diags.HasErrors() {
		return errReported
	}
	return nil
}

// sources returns the files that diags are about, as far as they can be read.
func (p *program) sources(diags hcl.Diagnostics) map[string]*hcl.File {
	files := map[string]*hcl.File{checks.Stdin: {Bytes: p.input}}
	for _, d := range diags {
		if d.Subject == nil || files[d.Subject.Filename] != nil {
			continue
		}
		if f := ui.SourceFile(d.Subject.Filename); f != nil {
			files[d.Subject.Filename] = f
		}
	}
	return files
}

// checked is the output of bake checks run -json.
type checked struct {
	Machine  string            `json:"machine"`
	Open     bool              `json:"open"` // the gate
	Reasons  []string          `json:"reasons"`
	Warnings []string          `json:"warnings"`
	Reports  []findings.Report `json:"reports"`
}

// errClosed is the error of a gate that is closed, which has been shown.
func errClosed() error { return outcomeError{guarded{errReported}, gateClosed} }

// gateClosed is the exit code.
const gateClosed = 2

// prepareChecks reads everything that a run of checks needs. A report in goss's format, if
// requested, is written to goss.
func (p *program) prepareChecks(o *checksOptions, goss *bytes.Buffer) (*checks.Checks, error) {
	if o.waivers != "" {
		waivers, diags := gates.ReadWaivers(o.waivers)
		if err := p.blame(diags); err != nil {
			return nil, err
		}
		o.gate.Waivers = waivers
	}
	if o.format.value == gossJSON {
		o.Goss = goss
	}
	return p.loadChecks(o.Options)
}

func (p *program) runChecks(ctx context.Context, o checksOptions) (err error) {
	emit, done := p.progressDisplay()
	over := func() {
		if done != nil {
			done()
			done = nil
		}
	}
	defer over()
	o.Say = func(format string, args ...any) {
		emit(step.Event{Time: p.now(), Kind: step.Say, Text: fmt.Sprintf(format, args...)})
	}
	var goss bytes.Buffer
	c, err := p.prepareChecks(&o, &goss)
	if err != nil {
		return err
	}
	o.host.Env, o.host.Emit = p.env, emit
	m, err := host.Connect(ctx, o.host.Options)
	if err != nil {
		return fmt.Errorf("%s: %w", o.host.Host, err)
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	reports, err := c.Run(ctx, m)
	over()
	if err != nil {
		return p.blamed(err)
	}
	return p.verdict(o, o.host.Host, reports, goss.Bytes())
}

// checkImage checks a machine that is launched of an image for that.
func (p *program) checkImage(cmd *cobra.Command, o checksOptions) error {
	say := func(string, ...any) {}
	o.Say = func(format string, args ...any) { say(format, args...) }
	var goss bytes.Buffer
	c, err := p.prepareChecks(&o, &goss)
	if err != nil {
		return err
	}
	var reports []findings.Report
	machine := ""
	err = p.withGuest(cmd, &o.guest, o.ami, func(ctx context.Context, s *step.Scope, i images.Image, m builder.Machine) (err error) {
		machine = i.ID
		say = func(format string, args ...any) { s.Say(ctx, format, args...) }
		return step.Run(ctx, s, "run the checks", func(ctx context.Context) error {
			reports, err = c.Run(ctx, m.Communicator)
			return err
		})
	})
	shown := p.blamed(err)
	if reports != nil {
		judged := p.verdict(o, machine, reports, goss.Bytes())
		err, shown = errors.Join(err, judged), cmp.Or(shown, judged)
	}
	return p.ended(err, shown, o.guest.exitCodes)
}

// blamed shows errors about files, and returns any other error unchanged.
func (p *program) blamed(err error) error {
	if diags, ok := errors.AsType[hcl.Diagnostics](err); ok {
		return p.blame(diags)
	}
	return err
}

// verdict judges what was found, and writes the report.
func (p *program) verdict(o checksOptions, machine string, reports []findings.Report, goss []byte) error {
	v := o.gate.Judge(reports, p.now())
	report := bytes.NewBuffer(goss)
	if o.Goss == nil {
		d := findings.Document{Verdict: &v, Machine: machine, Version: version}
		if err := d.Write(report, findings.Format(o.format.value)); err != nil {
			return err
		}
	}
	p.json.outcome = "done"
	if !v.Open {
		p.json.outcome = "gate-closed"
	}
	if p.json.on {
		p.json.result = checked{machine, v.Open, list(v.Reasons), list(v.Warnings), list(v.Reports)}
	} else if _, err := p.stdout.Write(report.Bytes()); err != nil {
		return err
	}
	if !v.Open {
		return errClosed()
	}
	return nil
}

func (p *program) checksListCommand() *cobra.Command {
	var o checksOptions
	cmd := &cobra.Command{
		Use:   "list FILE...",
		Short: "List checks without running them",
		Long: `List the checks in goss files, or in a built-in profile: bake:baseline or
bake:baseline/SELECTION. Files are read as 'bake checks run' reads them, but without a
machine: files whose templates read from the machine are skipped.`,
		Example: `  bake checks list bake:baseline
  bake checks list -env ROLE=web goss.yaml`,
		Args: needFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Files = args
			if err := o.complete(p, cmd); err != nil {
				return err
			}
			return p.listChecks(o)
		},
	}
	o.varFlags(cmd.Flags())
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) listChecks(o checksOptions) error {
	c, err := p.loadChecks(o.Options)
	if err != nil {
		return err
	}
	reports := c.Rules()
	if p.json.on {
		p.json.result = struct {
			Reports []findings.Report `json:"reports"`
		}{reports}
		return nil
	}
	for i, r := range reports {
		if i > 0 {
			fmt.Fprintln(p.stdout)
		}
		fmt.Fprintf(p.stdout, "%s: %s\n", findings.Line(r.Name), prose.Count(len(r.Findings), "check"))
		var table prose.Table
		for _, f := range r.Findings {
			table.Row("  "+string(f.Severity), prose.Cut(findings.Line(f.ID), 100), prose.Cut(findings.Line(cmp.Or(f.Title, "-")), 100))
		}
		if len(r.Findings) > 0 {
			fmt.Fprintln(p.stdout, table.String())
		}
	}
	return nil
}

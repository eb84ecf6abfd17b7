// Command bake makes machine images from HCL templates.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/builder/amazon"
	"bake/builtin"
	"bake/internal/envvar"
	"bake/internal/local"
	"bake/internal/prose"
	"bake/internal/terminal"
	"bake/plugin/keeper"
	"bake/plugin/registry"
	"bake/run"
	"bake/ui"
)

func main() {
	if ran, code := local.Child(os.Args); ran {
		os.Exit(code)
	}
	if ran, code := keeper.Child(os.Args); ran {
		os.Exit(code)
	}
	keepOwnAccess()
	env := os.Environ()
	for _, name := range withheld {
		_ = os.Unsetenv(name) // it fails for impossible names alone
	}
	os.Exit(bake(os.Args, env, os.Stdin, os.Stdout, os.Stderr))
}

// withheld are variables that bake does not pass to the programs that it starts, such as
// plugins and commands of provisioners.
var withheld = []string{run.KeyVar, run.KeyFileVar}

// bake runs the program and returns its exit code. args begin with its name.
func bake(args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	early := listenEarly()
	name, args := args[0], args[1:]
	keys, env := envvar.Split(env, withheld...)
	p := &program{
		name: name, args: args, early: early,
		env: environ(env), keys: keys, stdin: stdin, stdout: newOutput(stdout), stderr: newOutput(stderr), now: time.Now,
		openTerminal: func() (io.ReadWriteCloser, error) { return terminal.Open() },
	}
	isRecords := func(arg string) bool { return arg == "-"+machineReadable }
	p.machineReadable = slices.ContainsFunc(args, isRecords)
	args = slices.DeleteFunc(slices.Clone(args), isRecords)
	var err error
	if p.log, err = openLog(p.env, p.stderr); err != nil {
		p.report(err)
		return exitCode(err)
	}
	err = p.configure()
	root := p.root(args)
	answer := func() {}
	if asksForCompletion(args) {
		err = nil
		args, answer = p.completeWith(root, args)
	} else {
		args = singleDash(args)
	}
	root.SetArgs(args)
	p.log.Debug("bake starts", "version", version, "commit", commit(), "pid", os.Getpid())
	cmd := root
	if err == nil {
		cmd, err = root.ExecuteContextC(p.log.logged(context.Background()))
	}
	answer()
	code := exitCode(err)
	p.log.Debug("bake ends", "command", cmd.CommandPath(), "code", code)
	if cerr := p.log.close(); cerr != nil {
		p.report(fmt.Errorf("the log is incomplete: %w", cerr))
		code = 1
	}
	if err != nil && asksForJSON(args) {
		p.json.on, p.command = true, commandName(cmd)
	}
	p.report(err)
	if p.json.on {
		p.writeResult(code)
	}
	if code == 0 && p.stdout.unread() {
		code = 1
	}
	if lost := p.stdout.failure(); lost != nil {
		fmt.Fprintf(p.stderr, "Error: the output is incomplete: %v\n", lost)
		code = max(code, 1)
	}
	return code
}

// machineReadable is the name of a flag that is parsed before all others: it takes effect
// anywhere on the command line, if it is spelled exactly like this.
const machineReadable = "machine-readable"

// program is what every command works with.
type program struct {
	name           string   // that the program was called by
	args           []string // as the user gave them
	env            environ  // of this process, and of the processes that it starts
	keys           []string // of fleets, as in env
	stdin          io.Reader
	input          []byte // the input read so far, for diagnostics
	stdout, stderr *output
	now            func() time.Time
	log            *debugLog
	early          chan os.Signal                     // see listenEarly
	openTerminal   func() (io.ReadWriteCloser, error) // that the program was started from; an error if there is none

	command         string // such as "cloud images"
	machineReadable bool   // the flag was given
	json            jsonOutput

	reused bool // a build had nothing to do

	lock atomic.Pointer[registry.Lock] // of the template, if it was needed
}

// parts returns the building blocks of components that are only checked, or that run in AWS.
func (p *program) parts() builtin.Parts {
	return builtin.Parts{Cloud: amazon.Cloud{Warn: p.warn}, Env: p.env, Now: p.now}
}

// warn reports a problem while bake keeps trying.
func (p *program) warn(_ context.Context, format string, args ...any) {
	fmt.Fprintf(p.stderr, "Warning: %s\n", prose.Printable(p.log.secrets.Redact(fmt.Sprintf(format, args...))))
}

// errReported is the error of a command that has already shown what went wrong.
var errReported = errors.New("failed")

// unknownCommand is the error of a command line that names no command.
type unknownCommand struct{ text string }

func (e unknownCommand) Error() string { return e.text }

// usageError is the error of a command line that is wrong in another way.
type usageError struct {
	text    string
	command string // whose help explains it
}

func (e usageError) Error() string { return e.text }

// templateError holds the errors of a template, and its sources.
type templateError = run.TemplateError

// exitCode maps a command's error to the exit code of the program.
func exitCode(err error) int {
	var unknown unknownCommand
	var ended exitStatus
	code, ok := outcomeCode(err)
	switch {
	case err == nil:
		return 0
	case ok:
		return code
	case errors.As(err, &unknown):
		return 127
	case errors.Is(err, errUnformatted):
		return 3
	case errors.As(err, &ended):
		return int(ended)
	default:
		return 1
	}
}

// report shows a command's error. Errors in a template go to standard output, like all
// other output about it; others go to standard error.
func (p *program) report(err error) {
	if errors.Is(err, syscall.EMFILE) {
		err = fmt.Errorf("%w; allow bake more open files, such as with: ulimit -n 4096", err)
	}
	var usage usageError
	var template *templateError
	var ended exitStatus
	switch {
	case errors.As(err, &ended):
	case err == nil, errors.Is(err, errReported), errors.Is(err, errUnformatted):
	case errors.Is(err, errUnread), p.stdout.unread() && terminal.Unread(err): // as Unix tools end: without a word
	case p.stdout.failure() != nil && errors.Is(err, p.stdout.failure()): // said at the end
	case errors.As(err, &template):
		p.diagnostics(template.Files, template.Diags)
	case p.json.on:
		d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: err.Error()}
		if errors.As(err, &usage) {
			d.Detail = fmt.Sprintf("Run '%s -h' for help.", usage.command)
		}
		p.keepDiagnostics(nil, hcl.Diagnostics{d})
	case errors.As(err, &usage):
		fmt.Fprintf(p.stderr, "Error: %s\nRun '%s -h' for help.\n", prose.PrintableLines(err.Error()), usage.command)
	default:
		fmt.Fprintf(p.stderr, "Error: %s\n", prose.PrintableLines(err.Error()))
	}
}

// diagnostics shows diags with the lines of the template that they blame.
func (p *program) diagnostics(files map[string]*hcl.File, diags hcl.Diagnostics) {
	if len(diags) == 0 {
		return
	}
	files = p.withLock(files)
	if p.json.on {
		p.keepDiagnostics(files, diags)
		return
	}
	if !p.machineReadable {
		width, _ := p.stdout.size()
		ui.Diagnostics(p.stdout, files, diags, width, p.stdout.draws() && p.env.colors())
		return
	}
	level := "say"
	if diags.HasErrors() {
		level = "error"
	}
	io.WriteString(p.stdout, p.record(level, diagnosticsText(files, diags)))
}

// record makes text for people a machine-readable record.
func (p *program) record(level, text string) string {
	return ui.Record(p.now(), "", "ui", level, text)
}

package script

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// LocalSource is the Go source that documents [LocalOptions].
//
//go:embed local.go
var LocalSource string

// LocalOptions are embedded in the options of a component that runs scripts on
// the computer where bake runs.
type LocalOptions struct {
	Options

	// Deprecated: a single command, as `inline` with one line.
	Command string `hcl:"command,optional,again"`

	// The program that runs the script, and its arguments. `{{.Script}}` is the
	// path of the script, `{{.Vars}}` are the assignments of its environment; the
	// values of `build.*` have their names.
	// `["/bin/sh", "-c", "{{.Vars}} {{.Script}}"]` when not set.
	ExecuteCommand []string `hcl:"execute_command,optional,late"`

	// The interpreter of an inline script.
	InlineShebang string `hcl:"inline_shebang,optional"`

	// How one variable is assigned: the first %s is its name and the second its
	// value, in which single quotes are quoted.
	EnvVarFormat string `hcl:"env_var_format,optional"`

	// What the name of the file of an inline script ends in.
	TempfileExtension string `hcl:"tempfile_extension,optional"`

	// Run only where bake runs on one of these systems: `darwin`, `freebsd`,
	// `linux`, `openbsd`, `solaris` or `windows`.
	OnlyOn []string `hcl:"only_on,optional"`

	// Give scripts the paths that they have in the Windows Subsystem for Linux.
	// It has no effect on other systems than Windows.
	UseLinuxPathing bool `hcl:"use_linux_pathing,optional"`
}

// LocalDefaults are the options of a block that sets none.
func LocalDefaults() LocalOptions {
	return LocalOptions{InlineShebang: "/bin/sh -e", EnvVarFormat: "%s='%s' "}
}

var systems = []string{"darwin", "freebsd", "linux", "openbsd", "solaris", "windows"}

// Problems finds what is wrong with the options.
func (o *LocalOptions) Problems(known func(field any) bool) (found []Problem) {
	if o.Command != "" {
		if o.Inline != nil || o.Script != "" || o.Scripts != nil {
			found = append(found, Problem{&o.Command, "Two kinds of script", "Set one of command, inline, script and scripts."})
		}
		found = append(found, o.withCommand().Problems(func(any) bool { return true })...)
	} else if known(&o.Command) {
		found = o.Options.Problems(known)
	}
	for _, name := range o.OnlyOn {
		if !slices.Contains(systems, name) {
			found = append(found, Problem{&o.OnlyOn, "Unknown system", fmt.Sprintf("%q is not one of %s.", name, strings.Join(systems, ", "))})
		}
	}
	if err := CheckFormat(o.EnvVarFormat); err != nil {
		found = append(found, Problem{&o.EnvVarFormat, "Unusable format", err.Error() + "."})
	}
	return found
}

// withCommand is the script options with command as their inline script.
func (o *LocalOptions) withCommand() *Options {
	merged := o.Options
	if o.Command != "" {
		merged.Inline = []string{o.Command}
	}
	return &merged
}

// Local is one run of scripts on this computer.
type Local struct {
	Options     *LocalOptions
	Env         []string       // of the process
	BuildName   string         // label of the source block
	BuilderType string         // type of the source block
	Data        map[string]any // build.*
	Render      func(text string, data map[string]any) (string, error)

	Say            func(text string) // what is being done
	Stdout, Stderr io.Writer
}

// Run runs the scripts one by one until one fails. When ctx is over, it kills
// the script and all that the script has started.
func (l *Local) Run(ctx context.Context) error {
	o := l.Options.withCommand()
	if only := l.Options.OnlyOn; len(only) > 0 && !slices.Contains(only, runtime.GOOS) {
		l.Say(fmt.Sprintf("Skipping shell-local: it is for %s only, and this is %s", strings.Join(only, ", "), runtime.GOOS))
		return nil
	}
	render := func(text string) (string, error) { return l.Render(text, l.Data) }
	vars, err := o.Vars(render, l.BuildName, l.BuilderType, l.Data)
	if err != nil {
		return err
	}
	paths := o.Paths()
	if len(o.Inline) > 0 {
		lines, err := o.Lines(render)
		if err != nil {
			return err
		}
		path, err := tempScript(Text(l.Options.InlineShebang, lines), l.Options.TempfileExtension)
		if err != nil {
			return err
		}
		defer os.Remove(path)
		paths = []string{path}
	}
	assignments := Assign(l.Options.EnvVarFormat, vars, Quote)
	for _, path := range paths {
		l.Say("Running local shell script: " + path)
		if err := l.script(ctx, path, assignments); err != nil {
			return err
		}
	}
	return nil
}

func tempScript(text, extension string) (path string, err error) {
	f, err := os.CreateTemp("", "shell-local-*"+extension)
	if err != nil {
		return "", fmt.Errorf("a place for the script: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Chmod(0o700), f.Close()); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// killGrace is how long the output of a killed script is waited for.
const killGrace = 2 * time.Second

func (l *Local) script(ctx context.Context, path, assignments string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	data := map[string]any{}
	for k, v := range l.Data {
		data[k] = v
	}
	data["Script"], data["Command"], data["Vars"] = path, path, assignments
	line := l.Options.ExecuteCommand
	if len(line) == 0 {
		line = []string{"/bin/sh", "-c", "{{.Vars}} {{.Script}}"}
	}
	args := make([]string, len(line))
	for i, text := range line {
		if args[i], err = l.Render(text, data); err != nil {
			return fmt.Errorf("execute_command: %w", err)
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = l.Env, l.Stdout, l.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killGrace
	err = cmd.Run()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return l.Options.CheckExit(0)
	case errors.As(err, &exit) && exit.Exited():
		return l.Options.CheckExit(exit.ExitCode())
	}
	return fmt.Errorf("running %s: %w", args[0], err)
}

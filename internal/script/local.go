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
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"bake/internal/procgroup"
)

//go:embed local.go
var localSource string

// LocalOptions are embedded in the options of a component that runs scripts on
// the computer where bake runs.
type LocalOptions struct {
	Options

	// Deprecated: a single command, as `inline` with one line.
	Command string `hcl:"command,optional,again"`

	// The program that runs the script, and its arguments. `{{.Script}}` is the
	// path of the script, `{{.Vars}}` are the assignments of its environment; the
	// values of `build.*` have their names. Where a shell reads the assignments, as by
	// default, their values come from its environment, so that nobody can read them
	// among the arguments of processes.
	// `["/bin/sh", "-c", "{{.Vars}} {{.Script}}"]` when not set.
	ExecuteCommand []string `hcl:"execute_command,optional,deferred"`

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

// GoSource implements [schema.Documented].
func (*LocalOptions) GoSource() string { return localSource }

// LocalDefaults are the options of a block that sets none.
func LocalDefaults() LocalOptions {
	return LocalOptions{InlineShebang: "/bin/sh -e", EnvVarFormat: "%s='%s' "}
}

var systems = []string{"darwin", "freebsd", "linux", "openbsd", "solaris", "windows"}

// Problems finds what is wrong with the options.
func (o *LocalOptions) Problems(known func(field any) bool) (found []Problem) {
	if o.Command != "" {
		if len(o.Inline) > 0 || o.Script != "" || len(o.Scripts) > 0 {
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
	for _, path := range paths {
		l.Say("Running local shell script: " + path)
		if err := l.script(ctx, path, vars); err != nil {
			return err
		}
	}
	return nil
}

var (
	shells   = []string{"sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"}
	command  = regexp.MustCompile(`^-[a-z]*c$`)
	varsHere = regexp.MustCompile(`\{\{-?\s*\.Vars\s*-?\}\}`)
	name     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	shellOwn = regexp.MustCompile(`^(?:_|IFS|ENV|PATH|HOME|PWD|OLDPWD|CDPATH|GLOBIGNORE|POSIXLY_CORRECT|SHELLOPTS|UID|EUID|PPID|PS[0-9]|LANG|LC_.*|LD_.*|DYLD_.*|BASH.*)$`)
)

// expanded reports whether word i of a command line is the text of a shell that
// expands variables where the assignments stand in it. Their values are in the
// environment of the shell then: arguments can be read by everybody on this computer.
func (o *LocalOptions) expanded(line []string, i int) bool {
	if i < 2 || !slices.Contains(shells, filepath.Base(line[0])) || !command.MatchString(line[i-1]) {
		return false
	}
	for _, flag := range line[1:i] {
		if !strings.HasPrefix(flag, "-") {
			return false
		}
	}
	places := varsHere.FindAllStringIndex(line[i], -1)
	if len(places) == 0 || !strings.Contains(o.EnvVarFormat, "'%s'") {
		return false
	}
	before := line[i][:places[len(places)-1][0]]
	return !strings.ContainsAny(before, "'\"`\\<") // the assignments are not within other quotes
}

// carried reports whether a variable can be put into the environment of a shell
// without a meaning for the shell itself.
func carried(variable string) bool {
	return name.MatchString(variable) && !shellOwn.MatchString(variable)
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

func (l *Local) script(ctx context.Context, path string, vars map[string]string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	data := map[string]any{}
	for k, v := range l.Data {
		data[k] = v
	}
	data["Script"], data["Command"] = path, path
	line := l.Options.ExecuteCommand
	if len(line) == 0 {
		line = []string{"/bin/sh", "-c", "{{.Vars}} {{.Script}}"}
	}
	args := make([]string, len(line))
	env := slices.Clone(l.Env)
	for i, text := range line {
		values := map[string]string{}
		for name, value := range vars {
			values[name] = Quote(value)
			if carried(name) && l.Options.expanded(line, i) {
				env = append(env, name+"="+value)
				values[name] = `'"$` + name + `"'` // out of the single quotes of the format, and back
			}
		}
		data["Vars"] = Assign(l.Options.EnvVarFormat, values, func(quoted string) string { return quoted })
		if args[i], err = l.Render(text, data); err != nil {
			return fmt.Errorf("execute_command: %w", err)
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, l.Stdout, l.Stderr
	procgroup.Own(cmd)
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

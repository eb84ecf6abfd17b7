package script

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"bake/internal/lazyregexp"
	"bake/internal/procgroup"
)

// LocalOptions are embedded in the options of a component that runs scripts on
// the computer where bake runs.
type LocalOptions struct {
	Options

	// Deprecated: use `inline`. A single command.
	Command string `hcl:"command,optional,again"`

	// Program that runs the script, and its arguments. `{{.Script}}` is the path of the
	// script, `{{.Vars}}` its environment as assignments; the values of `build.*` are
	// available by name. If a shell reads the assignments, as by default, it takes their
	// values from its own environment, so that they do not appear in process lists. Not
	// set: `["/bin/sh", "-c", "{{.Vars}} {{.Script}}"]`, or on Windows
	// `["cmd", "/V", "/C", "{{.Vars}}", "call", "{{.Script}}"]`.
	ExecuteCommand []string `hcl:"execute_command,optional,deferred"`

	// Interpreter for inline scripts. No effect on Windows.
	InlineShebang string `hcl:"inline_shebang,optional"`

	// Format of one assignment: the first %s is the name, the second the value, with single
	// quotes escaped except on Windows. Not set: `%s='%s' `; on Windows, the variables are then set in the
	// program's environment and `{{.Vars}}` is empty.
	EnvVarFormat string `hcl:"env_var_format,optional"`

	// Extension of the temporary file that holds an inline script. Not set: none, or `.cmd`
	// on Windows.
	TempfileExtension string `hcl:"tempfile_extension,optional"`

	// Run only if bake runs on one of these systems: `darwin`, `freebsd`, `linux`,
	// `openbsd`, `solaris` or `windows`.
	OnlyOn []string `hcl:"only_on,optional"`

	// On Windows, run scripts in a shell of the Windows Subsystem for Linux, such as with
	// `execute_command = ["bash", "-c", "{{.Vars}} {{.Script}}"]`. Scripts are passed with
	// the paths they have there, such as `/mnt/c/scripts/a.sh` for `C:\scripts\a.sh`; inline
	// scripts and assignments are as on other systems. No effect on other systems.
	UseLinuxPathing bool `hcl:"use_linux_pathing,optional"`
}

// LocalDefaults returns the options of a block that sets none.
func LocalDefaults() LocalOptions {
	return LocalOptions{InlineShebang: "/bin/sh -e"}
}

// assignment is the format of env_var_format when that is not set.
const assignment = "%s='%s' "

func (o *LocalOptions) format() string { return cmp.Or(o.EnvVarFormat, assignment) }

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
	if err := CheckFormat(o.format()); err != nil {
		found = append(found, Problem{&o.EnvVarFormat, "Unusable format", err.Error() + "."})
	}
	return found
}

// withCommand returns the script options with command as their inline script.
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

	Say            func(text string) // reports progress
	Warn           func(text string) // reports a possible problem
	Stdout, Stderr io.Writer

	Exec   func(*exec.Cmd) error // runs a command, which has a context, to its end; nil for [procgroup.Run]
	System string                // the system that runs the scripts, as in GOOS; empty: this one
}

func (l *Local) system() string { return cmp.Or(l.System, runtime.GOOS) }

// windows reports whether scripts and assignments are those of Windows.
func (l *Local) windows() bool { return l.system() == "windows" && !l.Options.UseLinuxPathing }

// Run runs the scripts one by one until one fails. When ctx ends, it kills the script
// and all processes that the script has started.
func (l *Local) Run(ctx context.Context) error {
	o := l.Options.withCommand()
	if only := l.Options.OnlyOn; len(only) > 0 && !slices.Contains(only, l.system()) {
		l.Say(fmt.Sprintf("Skipping shell-local: it is for %s only, and this is %s", strings.Join(only, ", "), l.system()))
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
		text, whole := l.encoded(l.text(lines))
		if !whole {
			l.Warn("The inline script has characters that the console's code page lacks, so cmd.exe misreads all that are not ASCII. Begin the script with: @chcp 65001 >nul")
		}
		path, err := tempScript(text, l.extension())
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

// text returns the text of the inline script.
func (l *Local) text(lines []string) string {
	if l.windows() { // whose cmd misreads other line ends
		return strings.Join(lines, "\r\n") + "\r\n"
	}
	return Text(l.Options.InlineShebang, lines)
}

// extension returns the file name extension of an inline script.
func (l *Local) extension() string {
	if l.windows() {
		return cmp.Or(l.Options.TempfileExtension, ".cmd") // without which it cannot be run
	}
	return l.Options.TempfileExtension
}

var (
	shells   = []string{"sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"}
	command  = lazyregexp.New(`^-[a-z]*c$`)
	varsHere = lazyregexp.New(`\{\{-?\s*\.Vars\s*-?\}\}`)
	varsOnly = lazyregexp.New(`^\s*\{\{-?\s*\.Vars\s*-?\}\}\s*$`)
	drive    = lazyregexp.New(`^[A-Za-z]:[\\/]`)
	name     = lazyregexp.New(`^[A-Za-z_][A-Za-z0-9_]*$`)
	shellOwn = lazyregexp.New(`^(?:_|IFS|ENV|PATH|HOME|PWD|OLDPWD|CDPATH|GLOBIGNORE|POSIXLY_CORRECT|SHELLOPTS|UID|EUID|PPID|PS[0-9]|LANG|LC_.*|LD_.*|DYLD_.*|BASH.*)$`)
)

// expanded reports whether word i of a command line is shell code, and the shell expands
// variables at the position of the assignments. The values are then passed in the shell's
// environment, because all users of this computer can read arguments.
func (o *LocalOptions) expanded(line []string, i int) bool {
	if i < 2 || !slices.Contains(shells, filepath.Base(line[0])) || !command.Get().MatchString(line[i-1]) {
		return false
	}
	for _, flag := range line[1:i] {
		if !strings.HasPrefix(flag, "-") {
			return false
		}
	}
	places := varsHere.Get().FindAllStringIndex(line[i], -1)
	if len(places) == 0 || !strings.Contains(o.format(), "'%s'") {
		return false
	}
	before := line[i][:places[len(places)-1][0]]
	return !strings.ContainsAny(before, "'\"`\\<") // the assignments are not within other quotes
}

// carried reports whether a variable can be put into the environment of a shell
// without a meaning for the shell itself.
func carried(variable string) bool {
	return name.Get().MatchString(variable) && !shellOwn.Get().MatchString(variable)
}

func tempScript(text, extension string) (path string, err error) {
	f, err := os.CreateTemp("", "shell-local-*"+extension)
	if err != nil {
		return "", fmt.Errorf("cannot create a file for the script: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Chmod(0o700), f.Close()); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// killGrace is how long to wait for the output of a killed script.
const killGrace = 2 * time.Second

func (l *Local) script(ctx context.Context, path string, vars map[string]string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	args, env, err := l.command(path, vars)
	if err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = env
	cmd.WaitDelay = killGrace
	verbatim(cmd)
	run := procgroup.Run
	if l.Exec != nil {
		run = l.Exec
	}
	err = l.run(cmd, run)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return l.Options.CheckExit(0)
	case errors.As(err, &exit) && exit.Exited():
		err := l.Options.CheckExit(exit.ExitCode())
		if err != nil && exit.ExitCode() == cannotExecute && !executable(path) {
			return fmt.Errorf("%w; %s is not executable: chmod +x it", err, filepath.Base(path))
		}
		return err
	}
	return fmt.Errorf("running %s: %w", args[0], err)
}

// cannotExecute is the exit status of a shell that finds a command but may not run it.
const cannotExecute = 126

// executable reports whether anybody may execute the file.
func executable(path string) bool {
	info, err := os.Stat(path)
	return err != nil || runtime.GOOS == "windows" || info.Mode()&0o111 != 0
}

// command returns the command line that runs the script at an absolute path, and its
// environment.
func (l *Local) command(path string, vars map[string]string) (args, env []string, err error) {
	if l.system() == "windows" && l.Options.UseLinuxPathing {
		path = linuxPath(path)
	}
	data := map[string]any{}
	for k, v := range l.Data {
		data[k] = v
	}
	data["Script"], data["Command"] = path, path
	line := l.Options.ExecuteCommand
	switch {
	case len(line) > 0:
	case l.windows():
		line = []string{"cmd", "/V", "/C", "{{.Vars}}", "call", "{{.Script}}"}
	default:
		line = []string{"/bin/sh", "-c", "{{.Vars}} {{.Script}}"}
	}
	env = slices.Clone(l.Env)
	for i, text := range line {
		var assigned string
		assigned, env = l.assigned(line, i, vars, env)
		if assigned == "" && varsOnly.Get().MatchString(text) {
			continue // the word, not an empty one
		}
		data["Vars"] = assigned
		arg, err := l.Render(text, data)
		if err != nil {
			return nil, nil, fmt.Errorf("execute_command: %w", err)
		}
		args = append(args, arg)
	}
	return args, env, nil
}

// assigned returns the value of {{.Vars}} in word i of a command line, and env with the
// variables that the program's environment needs for it.
func (l *Local) assigned(line []string, i int, vars map[string]string, env []string) (string, []string) {
	if l.windows() && l.Options.EnvVarFormat == "" {
		if i == 0 { // its programs have the variables of their parents
			for _, name := range slices.Sorted(maps.Keys(vars)) {
				env = append(env, name+"="+vars[name])
			}
		}
		return "", env
	}
	values := map[string]string{}
	for name, value := range vars {
		switch {
		case l.windows():
			values[name] = value // quotes that programs do not know
		case l.system() != "windows" && carried(name) && l.Options.expanded(line, i):
			env = append(env, name+"="+value)
			values[name] = `'"$` + name + `"'` // out of the single quotes of the format, and back
		default:
			values[name] = Quote(value)
		}
	}
	return Assign(l.Options.format(), values, func(quoted string) string { return quoted }), env
}

// linuxPath returns the path that an absolute path of Windows has in the Windows Subsystem
// for Linux.
func linuxPath(path string) string {
	slashed := strings.ReplaceAll(path, `\`, "/")
	if !drive.Get().MatchString(slashed) {
		return slashed
	}
	return "/mnt/" + strings.ToLower(slashed[:1]) + slashed[2:]
}

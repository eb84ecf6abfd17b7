package powershell

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"bake/builder"
	"bake/communicator"
	"bake/internal/lazyregexp"
	"bake/internal/script"
)

// shell is what reads a command line on a machine.
type shell int

const (
	cmdExe shell = iota
	powerShell
	posix
)

// system holds the properties of a machine that command lines depend on.
type system struct {
	shell   shell
	windows bool
}

// which makes each shell identify itself: cmd.exe expands %OS%, PowerShell its own variables, and a
// POSIX shell environment variables. PowerShell before 5.1 has no PSEdition, and runs only on
// Windows.
const which = `echo "%OS% [$PSEdition] [$IsWindows] [$OS] [$ShellId]"`

var identity = lazyregexp.New(`(?m)^"?(%OS%|Windows_NT) \[(.*?)\] \[(.*?)\] \[(.*?)\] \[(.*?)\]"?[ \r]*$`)

// identify determines the machine's system. With WinRM it is always the same.
func identify(ctx context.Context, m builder.Machine) (system, error) {
	if m.Data["ConnType"].Text == "winrm" {
		return system{cmdExe, true}, nil
	}
	out := communicator.Head{Max: 64 << 10}
	if _, err := m.Run(ctx, communicator.Command{Line: which, Stdout: &out}); err != nil {
		return system{}, err
	}
	all := identity.Get().FindAllStringSubmatch(out.String(), -1) // a login shell may print a greeting first
	if len(all) == 0 {
		return system{posix, false}, nil
	}
	last := all[len(all)-1]
	switch os, edition, isWindows, inherited, shellID := last[1], last[2], last[3], last[4], last[5]; {
	case os == "Windows_NT":
		return system{cmdExe, true}, nil
	case edition != "":
		return system{powerShell, edition == "Desktop" || isWindows == "True"}, nil
	case shellID == "Microsoft.PowerShell":
		return system{powerShell, true}, nil
	default:
		return system{posix, inherited == "Windows_NT"}, nil // such as Cygwin's
	}
}

// verbatim protects the $ in a double-quoted word, which is PowerShell's own, from
// the shell.
func (s shell) verbatim(line string) string {
	switch s {
	case powerShell:
		return strings.ReplaceAll(line, "$", "`$")
	case posix:
		return strings.ReplaceAll(line, "$", `\$`)
	}
	return line
}

// quiet keeps progress bars out of the output.
const quiet = "if (Test-Path variable:global:ProgressPreference){$ProgressPreference='SilentlyContinue'};"

// runScript is the command line that runs a script after the environment was set.
func (o *Options) runScript(sh shell, vars string) string {
	trace := ""
	if o.DebugMode > 0 {
		trace = fmt.Sprintf("Set-PsDebug -Trace %d;", o.DebugMode)
	}
	block := "& { " + quiet + trace + ". " + blanks(vars, "{{.Vars}}", "'") + "; &'{{.Path}}'; exit $LastExitCode }"
	switch {
	case o.ExecutionPolicy == noPolicy:
		return block
	case o.UsePwsh:
		return "pwsh -executionpolicy " + string(o.ExecutionPolicy) + ` -command "` + sh.verbatim(block) + `"`
	}
	return "powershell -executionpolicy " + string(o.ExecutionPolicy) + ` "` + sh.verbatim(block) + `"`
}

// runInline is the command line that runs an inline script.
func (o *Options) runInline(path string) string {
	word := blanks(path, "{{.Path}}", `"`)
	switch {
	case o.ExecutionPolicy == noPolicy:
		return "& { &'{{.Path}}'; exit $LastExitCode }"
	case o.UsePwsh:
		return "pwsh -executionpolicy " + string(o.ExecutionPolicy) + " -file " + word
	}
	return "powershell -executionpolicy " + string(o.ExecutionPolicy) + " -file " + word
}

// ownCommand is the user's command line, or empty.
func (o *Options) ownCommand() string {
	if o.ElevatedUser != "" {
		return o.ElevatedExecuteCommand
	}
	return o.ExecuteCommand
}

// executeCommand is the command line as a template, for a shell and the paths of the
// scripts.
func (o *Options) executeCommand(sh shell, path, vars string) string {
	switch own := o.ownCommand(); {
	case own != "":
		return own
	case len(o.Inline) > 0:
		return o.runInline(path)
	}
	return o.runScript(sh, vars)
}

// blanks quotes word, which represents a path, if the path contains blanks.
func blanks(path, word, quote string) string {
	if strings.ContainsAny(path, " \t") {
		return quote + word + quote
	}
	return word
}

// The characters that are special between double quotes. PowerShell treats typographic
// quotes like straight ones.
var special = sync.OnceValue(func() *strings.Replacer {
	var pairs []string
	for _, c := range "$\"`'\u201c\u201d\u201e" {
		pairs = append(pairs, string(c), "`"+string(c))
	}
	return strings.NewReplacer(pairs...)
})

// escape escapes a value for use between double quotes in PowerShell.
func escape(value string) string { return special().Replace(value) }

// literal is a text as a word of PowerShell.
func literal(text string) string {
	var b strings.Builder
	for _, c := range text {
		if strings.ContainsRune("'\u2018\u2019\u201a\u201b", c) {
			b.WriteRune(c)
		}
		b.WriteRune(c)
	}
	return "'" + b.String() + "'"
}

var plainName = lazyregexp.New(`^[A-Za-z0-9_]+$`)

// assign returns the assignments of variables. bake's own format allows any name, such as
// ProgramFiles(x86).
func (o *Options) assign(vars map[string]string) string {
	format := o.envVarFormat()
	if format != assignment {
		return script.Assign(format, vars, escape)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if !plainName.Get().MatchString(name) {
			fmt.Fprintf(&b, "${env:%s}=\"%s\"; ", braces().Replace(name), escape(vars[name]))
			delete(vars, name)
		}
	}
	return script.Assign(format, vars, escape) + b.String()
}

var braces = sync.OnceValue(func() *strings.Replacer {
	return strings.NewReplacer("`", "``", "{", "`{", "}", "`}")
})

// inlineScript returns a script with the given lines. It fails if a line throws or if the last
// program that the lines ran has failed. The lines are not indented, because a here-string must end
// at the start of a line.
func (o *Options) inlineScript(assigned string, lines []string) string {
	text := []string{"if (Test-Path variable:global:ProgressPreference) { $ProgressPreference = 'SilentlyContinue' }"}
	if o.DebugMode > 0 {
		text = append(text, fmt.Sprintf("Set-PsDebug -Trace %d", o.DebugMode))
	}
	text = append(text, "try {", assigned)
	text = append(text, lines...)
	text = append(text,
		"} catch {",
		"[Console]::Error.WriteLine(($_ | Out-String).TrimEnd())",
		"exit 1",
		"}",
		"if ((Test-Path variable:global:LASTEXITCODE) -and $LASTEXITCODE -ne 0) { exit $LASTEXITCODE }",
		"exit 0", "")
	return strings.Join(text, "\n")
}

// file encodes one of bake's scripts for PowerShell, with a byte order mark: without it, Windows
// PowerShell decodes non-ASCII text in the machine's code page.
func file(text string) []byte {
	if strings.IndexFunc(text, func(c rune) bool { return c >= 0x80 }) >= 0 {
		text = "\ufeff" + text
	}
	return []byte(text)
}

// cleanup returns a script that ends tasks, and removes files and itself.
func cleanup(self string, paths []string, tasks []elevation) string {
	text := []string{"$ErrorActionPreference = 'SilentlyContinue'"}
	words := make([]string, len(paths))
	for i, path := range paths {
		words[i] = literal(path)
	}
	if len(tasks) > 0 {
		text = append(text, "$service = New-Object -ComObject 'Schedule.Service'", "$service.Connect()", `$folder = $service.GetFolder('\')`)
	}
	for _, t := range tasks {
		text = append(text,
			"try { $folder.GetTask("+literal(t.task)+").Stop(0) } catch { }",
			"try { $folder.DeleteTask("+literal(t.task)+", 0) } catch { }")
		words = append(words, literal(t.wrapper), "[Environment]::ExpandEnvironmentVariables("+literal(t.log)+")")
	}
	return strings.Join(append(text,
		"$paths = @("+strings.Join(words, ", ")+")",
		"Remove-Item -LiteralPath $paths -Force",
		"$left = @($paths | Where-Object { Test-Path -LiteralPath $_ })",
		"Remove-Item -LiteralPath "+literal(self)+" -Force",
		"if ($left.Count -gt 0) { [Console]::Error.WriteLine(\"cannot remove $left\"); exit 1 }",
		"exit 0", ""), "\n")
}

var errNotWindows = errors.New("the machine does not run Windows")

// suits returns an error if the options require something that the machine cannot do.
func (o *Options) suits(sys system) error {
	switch {
	case sys.windows:
		return nil
	case o.ElevatedUser != "":
		return fmt.Errorf("elevated_user: %w, whose task scheduler would run the script; use sudo in the script or in execute_command", errNotWindows)
	case !o.UsePwsh && o.ExecuteCommand == "" && o.ExecutionPolicy != noPolicy:
		return fmt.Errorf("%w, so it has no powershell.exe; set use_pwsh = true if PowerShell is installed on it", errNotWindows)
	}
	return nil
}

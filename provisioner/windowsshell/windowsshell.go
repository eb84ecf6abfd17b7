// Package windowsshell is the provisioner windows-shell: it runs batch files on a
// Windows machine.
package windowsshell

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"bake/builder"
	"bake/component"
	"bake/config/schema"
	"bake/internal/script"
	"bake/provisioner"
	"bake/provisioner/internal/remote"
	"bake/step"
)

// Options are the arguments of a windows-shell provisioner.
type Options struct {
	script.Options

	// Command line that runs the script on the machine. `{{.Path}}` is the path of the
	// script, `{{.Vars}}` its environment as assignments; the values of `build.*` are
	// available by name.
	ExecuteCommand string `hcl:"execute_command,optional,deferred"`

	// Format of one assignment: the first %s is the name, the second the value.
	EnvVarFormat string `hcl:"env_var_format,optional"`

	// Upload the script unchanged. Otherwise line endings are converted to those of
	// Windows.
	Binary bool `hcl:"binary,optional"`

	// Path of the script on the machine. It is removed after it has run.
	RemotePath string `hcl:"remote_path,optional"`

	// How long to keep trying to start a script while the connection fails.
	StartRetryTimeout time.Duration `hcl:"start_retry_timeout,optional"`
}

func defaults() Options {
	return Options{
		ExecuteCommand: `{{.Vars}}"{{.Path}}"`, EnvVarFormat: `set "%s=%s" && `,
		RemotePath: "c:/Windows/Temp/script.bat", StartRetryTimeout: 5 * time.Minute,
	}
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	for _, p := range o.Problems(c.Known) {
		c.Errorf(p.Field, p.Summary, "%s", p.Detail)
	}
	if err := script.CheckFormat(o.EnvVarFormat); err != nil {
		c.Errorf(&o.EnvVarFormat, "Unusable format", "%s.", err)
	}
	if o.StartRetryTimeout < 0 {
		c.Errorf(&o.StartRetryTimeout, "Negative duration", "start_retry_timeout cannot be negative.")
	}
}

// Factory returns the factory of the windows-shell provisioner.
func Factory() component.Factory[provisioner.Provisioner] {
	return component.Define("windows-shell", defaults,
		func(o *Options, _ *schema.Source) provisioner.Provisioner { return &windowsShell{o} })
}

type windowsShell struct{ *Options }

// Provision implements [provisioner.Provisioner].
func (p *windowsShell) Provision(ctx context.Context, s *step.Scope, machine builder.Machine) error {
	m := &remote.Machine{Machine: machine, Scope: s, Patience: p.StartRetryTimeout}
	render := func(text string) (string, error) { return m.Render(text, nil) }
	vars, err := p.Vars(render, s.SourceName, s.SourceType, m.Data.Plain())
	if err != nil {
		return err
	}
	assigned := script.Assign(p.EnvVarFormat, vars, func(value string) string { return value })
	line, err := m.Render(p.ExecuteCommand, map[string]any{"Path": p.RemotePath, "Vars": assigned})
	if err != nil {
		return fmt.Errorf("execute_command: %w", err)
	}
	if len(p.Inline) > 0 {
		lines, err := p.Lines(render)
		if err != nil {
			return err
		}
		s.Say(ctx, "Provisioning with windows-shell script: inline")
		return p.script(ctx, m, line, []byte(strings.Join(lines, "\n")+"\n"))
	}
	for _, local := range p.Paths() {
		text, err := script.Read(local)
		if err != nil {
			return err
		}
		s.Say(ctx, "Provisioning with windows-shell script: %s", local)
		if err := p.script(ctx, m, line, text); err != nil {
			return fmt.Errorf("%s: %w", local, err)
		}
	}
	return nil
}

// script uploads and runs one script, and always removes it.
func (p *windowsShell) script(ctx context.Context, m *remote.Machine, line string, text []byte) error {
	err := p.run(ctx, m, line, text)
	// cmd explicitly, because the login shell may be PowerShell. Its del always reports
	// success.
	file := `"` + strings.ReplaceAll(p.RemotePath, "/", `\`) + `"`
	return m.RemoveBy(ctx, err, []string{p.RemotePath}, func(ctx context.Context) error {
		if err := m.Exec(ctx, "cmd /c del /f /q "+file); err != nil {
			return err
		}
		if err := m.Exec(ctx, "cmd /c if exist "+file+" exit 1"); err != nil {
			return fmt.Errorf("%w; something may still hold the file open", err)
		}
		return nil
	})
}

func (p *windowsShell) run(ctx context.Context, m *remote.Machine, line string, text []byte) error {
	if !p.Binary {
		text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
	}
	to := strings.ReplaceAll(p.RemotePath, `\`, "/")
	if err := m.Persist(ctx, func(ctx context.Context) error { return m.Upload(ctx, to, 0o644, text) }); err != nil {
		return err
	}
	code, err := m.Execute(ctx, line)
	if err != nil {
		return err
	}
	return p.CheckExit(code)
}

// Package shell is the provisioner that runs shell scripts on the machine.
package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"

	"bake/builder"
	"bake/communicator"
	"bake/component"
	"bake/config/schema"
	"bake/internal/delay"
	"bake/internal/script"
	"bake/provisioner"
	"bake/provisioner/internal/remote"
	"bake/step"
)

// Factory returns the factory of the shell provisioner.
func Factory() component.Factory[provisioner.Provisioner] {
	return component.Define("shell", defaults,
		func(o *Options, src *schema.Source) provisioner.Provisioner {
			return &shell{Options: o, shebangSet: src.Set(&o.InlineShebang)}
		})
}

type shell struct {
	*Options
	shebangSet bool
}

// Key implements [provisioner.Keyed].
func (p *shell) Key() (options any, files []string, err error) {
	return p.Options, append([]string{p.Script}, p.Scripts...), nil
}

// Provision implements [provisioner.Provisioner].
func (p *shell) Provision(ctx context.Context, s *step.Scope, m builder.Machine) error {
	r := &run{shell: p, Machine: remote.Machine{Machine: m, Scope: s, Patience: p.StartRetryTimeout}, path: p.remotePath()}
	vars, err := p.Vars(r.render, s.SourceName, s.SourceType, m.Data.Plain())
	if err != nil {
		return err
	}
	r.vars = script.Assign(p.envVarFormat(), vars, script.Quote)
	if p.UseEnvVarFile {
		r.envFile = fmt.Sprintf("%s/varfile_%d.sh", p.RemoteFolder, rand.IntN(9999))
	}
	err = r.scripts(ctx)
	if !p.SkipClean {
		err = r.clean(ctx, err)
	}
	if err != nil {
		return err
	}
	return delay.For(ctx, p.PauseAfter)
}

// run is one call of Provision.
type run struct {
	*shell
	remote.Machine
	vars    string // assignments of the environment
	path    string // of the script on the machine
	envFile string // on the machine; empty if there is none
}

func (r *run) render(text string) (string, error) { return r.Render(text, nil) }

func (r *run) scripts(ctx context.Context) error {
	if len(r.Inline) > 0 {
		text, err := r.inline()
		if err != nil {
			return err
		}
		r.Scope.Say(ctx, "Provisioning with shell script: inline")
		return r.script(ctx, text)
	}
	for _, local := range r.Paths() {
		text, err := script.Read(local)
		if err != nil {
			return err
		}
		r.Scope.Say(ctx, "Provisioning with shell script: %s", local)
		if err := r.script(ctx, text); err != nil {
			return fmt.Errorf("%s: %w", local, err)
		}
	}
	return nil
}

func (r *run) inline() ([]byte, error) {
	lines, err := r.Lines(r.render)
	if err != nil {
		return nil, err
	}
	if !r.shebangSet && strings.HasPrefix(lines[0], "#!") {
		return []byte(strings.Join(lines, "\n") + "\n"), nil
	}
	return []byte(script.Text(r.InlineShebang, lines)), nil
}

// script uploads and runs one script.
func (r *run) script(ctx context.Context, text []byte) error {
	if !r.Binary {
		text = bytes.TrimPrefix(text, []byte("\ufeff"))
		text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
		if !bytes.HasSuffix(text, []byte("\n")) {
			text = append(text, '\n')
		}
	}
	line, err := r.Render(r.executeCommand(), map[string]any{"Path": r.path, "Vars": r.vars, "EnvVarFile": r.envFile})
	if err != nil {
		return fmt.Errorf("execute_command: %w", err)
	}
	err = r.Persist(ctx, func(ctx context.Context) error {
		if r.envFile != "" {
			if err := r.Upload(ctx, r.envFile, 0o600, []byte(r.vars)); err != nil {
				return err
			}
		}
		return r.Upload(ctx, r.path, 0o755, text)
	})
	if err != nil {
		return err
	}
	code, err := r.Execute(ctx, line)
	if errors.Is(err, communicator.ErrDisconnected) {
		if ctx.Err() != nil {
			return context.Cause(ctx) // the actual cause
		}
		if r.ExpectDisconnect {
			return nil
		}
		return fmt.Errorf("%w; if the script reboots the machine, set expect_disconnect = true", err)
	}
	if err != nil {
		return err
	}
	if restarter, ok := r.Communicator.(communicator.Restarter); ok && r.ExpectDisconnect && restarter.Restarts(ctx) {
		r.Scope.Say(ctx, "The script restarts the machine.")
	}
	err = r.CheckExit(code)
	if by := interpreter(text); err != nil && by != "" && (code == 126 || code == 127) {
		return fmt.Errorf("%w; if the script did not start, the machine lacks %s, which its first line names", err, by)
	}
	return err
}

// interpreter returns the program that the first line of a script names, unless it is a
// shell that every machine has.
func interpreter(text []byte) string {
	line, found := bytes.CutPrefix(text, []byte("#!"))
	line, _, _ = bytes.Cut(line, []byte("\n"))
	words := strings.Fields(string(line))
	if !found || len(words) == 0 || words[0] == "/bin/sh" {
		return ""
	}
	if path.Base(words[0]) == "env" {
		if len(words) != 2 {
			return ""
		}
		return words[1]
	}
	return words[0]
}

// clean removes the uploaded files, whether or not the scripts succeeded.
func (r *run) clean(ctx context.Context, failed error) error {
	paths := []string{r.path}
	if r.envFile != "" {
		paths = append(paths, r.envFile)
	}
	err := r.Remove(ctx, failed, paths, "rm -f "+strings.Join(paths, " "))
	if failed == nil && err != nil {
		return fmt.Errorf("%w (skip_clean = true leaves it there)", err)
	}
	return err
}

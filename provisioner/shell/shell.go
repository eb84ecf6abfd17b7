// Package shell is the provisioner that runs shell scripts on the machine.
package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"time"

	"bake/builder"
	"bake/communicator"
	"bake/component"
	"bake/config/schema"
	"bake/internal/delay"
	"bake/internal/gotemplate"
	"bake/internal/script"
	"bake/provisioner"
	"bake/step"
)

// Component describes the shell provisioner.
func Component() component.Factory[provisioner.Provisioner] {
	return component.Define("shell", []string{source, script.Source}, defaults,
		func(o *Options, src *schema.Source) provisioner.Provisioner {
			return &shell{Options: o, shebangSet: src.Set(&o.InlineShebang)}
		})
}

type shell struct {
	*Options
	shebangSet bool
}

// Provision implements [provisioner.Provisioner].
func (p *shell) Provision(ctx context.Context, s *step.Scope, m builder.Machine) error {
	r := &run{shell: p, scope: s, machine: m, path: p.remotePath()}
	vars, err := p.Vars(r.render, s.SourceName, s.SourceType, m.Data)
	if err != nil {
		return err
	}
	r.vars = script.Assign(p.envVarFormat(), vars, script.Quote)
	if p.UseEnvVarFile {
		r.envFile = fmt.Sprintf("%s/varfile_%d.sh", p.RemoteFolder, rand.IntN(9999))
	}
	if err := r.scripts(ctx); err != nil {
		return err
	}
	if !p.SkipClean {
		if err := r.clean(ctx); err != nil {
			return err
		}
	}
	return delay.For(ctx, p.PauseAfter)
}

// run is one call of Provision.
type run struct {
	*shell
	scope   *step.Scope
	machine builder.Machine
	vars    string // assignments of the environment
	path    string // of the script on the machine
	envFile string // on the machine; empty if there is none
}

func (r *run) render(text string) (string, error) { return r.renderWith(text, nil) }

func (r *run) renderWith(text string, more map[string]any) (string, error) {
	data := map[string]any{}
	for k, v := range r.machine.Data {
		data[k] = v
	}
	for k, v := range more {
		data[k] = v
	}
	s := r.scope
	c := gotemplate.Context{BuildName: s.SourceName, BuildType: s.SourceType, Start: s.Run.Start, Version: s.Run.Version}
	return c.RenderAll(text, data)
}

func (r *run) scripts(ctx context.Context) error {
	if len(r.Inline) > 0 {
		text, err := r.inline()
		if err != nil {
			return err
		}
		r.scope.Say(ctx, "Provisioning with shell script: inline")
		return r.script(ctx, text)
	}
	for _, local := range r.Paths() {
		text, err := os.ReadFile(local)
		if err != nil {
			return err
		}
		r.scope.Say(ctx, "Provisioning with shell script: %s", local)
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
		text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
		if !bytes.HasSuffix(text, []byte("\n")) {
			text = append(text, '\n')
		}
	}
	line, err := r.renderWith(r.executeCommand(), map[string]any{"Path": r.path, "Vars": r.vars, "EnvVarFile": r.envFile})
	if err != nil {
		return fmt.Errorf("execute_command: %w", err)
	}
	err = r.persist(ctx, func(ctx context.Context) error {
		if r.envFile != "" {
			if err := r.upload(ctx, r.envFile, 0o600, []byte(r.vars)); err != nil {
				return err
			}
		}
		return r.upload(ctx, r.path, 0o755, text)
	})
	if err != nil {
		return err
	}
	code, err := r.execute(ctx, line)
	if errors.Is(err, communicator.ErrDisconnected) {
		if r.ExpectDisconnect {
			return nil
		}
		return fmt.Errorf("%w; if the script reboots the machine, set expect_disconnect = true", err)
	}
	if err != nil {
		return err
	}
	return r.CheckExit(code)
}

func (r *run) upload(ctx context.Context, to string, mode fs.FileMode, text []byte) error {
	return r.machine.Put(ctx, path.Dir(to), communicator.File(path.Base(to), mode, text))
}

// execute runs a command line and passes its output on as events.
func (r *run) execute(ctx context.Context, line string) (int, error) {
	out := script.NewLines(func(text string) { r.scope.Output(ctx, step.Output, text) })
	errOut := script.NewLines(func(text string) { r.scope.Output(ctx, step.ErrOutput, text) })
	defer errOut.Flush()
	defer out.Flush()
	st, err := r.machine.Run(ctx, communicator.Command{Line: line, Stdout: out, Stderr: errOut})
	return st.Code, err
}

// clean removes what was uploaded. After a reboot it waits for the machine.
func (r *run) clean(ctx context.Context) error {
	line := "rm -f " + r.path
	if r.envFile != "" {
		line += " " + r.envFile
	}
	err := r.persist(ctx, func(ctx context.Context) error {
		code, err := r.execute(ctx, line)
		if err == nil && code != 0 {
			err = fmt.Errorf("%s: exit status %d", line, code)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("removing the script from the machine (skip_clean = true leaves it there): %w", err)
	}
	return nil
}

// retryPause is how long to wait before talking to a machine again that has
// dropped the connection.
const retryPause = 2 * time.Second

// persist repeats fn while the connection is lost under it, for as long as
// start_retry_timeout allows.
func (r *run) persist(ctx context.Context, fn func(context.Context) error) error {
	if r.StartRetryTimeout == 0 {
		return fn(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.StartRetryTimeout,
		fmt.Errorf("the machine could not be reached again within %s (start_retry_timeout)", r.StartRetryTimeout))
	defer cancel()
	for {
		err := fn(ctx)
		if !errors.Is(err, communicator.ErrDisconnected) {
			return err
		}
		if cause := delay.For(ctx, retryPause); cause != nil {
			return fmt.Errorf("%w: %w", cause, err)
		}
	}
}

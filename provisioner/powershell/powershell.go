package powershell

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

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

// Factory returns the factory of the powershell provisioner.
func Factory() component.Factory[provisioner.Provisioner] {
	return component.Define("powershell", defaults,
		func(o *Options, _ *schema.Source) provisioner.Provisioner { return &provision{o} })
}

type provision struct{ *Options }

// cleanPatience is how long the removal of files is tried after a success.
const cleanPatience = time.Minute

// Provision implements [provisioner.Provisioner].
func (p *provision) Provision(ctx context.Context, s *step.Scope, m builder.Machine) error {
	r := &run{provision: p, Machine: remote.Machine{Machine: m, Scope: s, Patience: p.StartRetryTimeout}}
	var err error
	if r.system, err = identify(ctx, m); err != nil {
		return err
	}
	if err := p.suits(r.system); err != nil {
		return err
	}
	if p.ExecutionPolicy == noPolicy && r.system.shell != powerShell && p.ownCommand() == "" {
		s.Warn(ctx, `execution_policy = "none" leaves the script to the login shell, which is not PowerShell on this machine.`)
	}
	folder := "/tmp/"
	if r.system.windows {
		folder = "c:/Windows/Temp/"
	}
	r.path = cmp.Or(p.RemotePath, folder+"script-"+uuid.NewString()+".ps1")
	r.envPath = cmp.Or(p.RemoteEnvVarPath, folder+"packer-ps-env-vars-"+uuid.NewString()+".ps1")
	r.cleanupPath = folder + "packer-cleanup-" + uuid.NewString() + ".ps1"
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
	*provision
	remote.Machine
	system                     system
	path, envPath, cleanupPath string // on the machine
	tasks                      []elevation
}

func (r *run) render(text string) (string, error) { return r.Render(text, nil) }

func (r *run) scripts(ctx context.Context) error {
	vars, err := r.Vars(r.render, r.Scope.SourceName, r.Scope.SourceType, r.Data.Plain())
	if err != nil {
		return err
	}
	assigned := r.assign(vars)
	if len(r.Inline) > 0 {
		lines, err := r.Lines(r.render)
		if err != nil {
			return err
		}
		r.Scope.Say(ctx, "Provisioning with powershell script: inline")
		return r.script(ctx, assigned, file(r.inlineScript(assigned, lines)))
	}
	for _, local := range r.Paths() {
		text, err := script.Read(local)
		if err != nil {
			return err
		}
		r.Scope.Say(ctx, "Provisioning with powershell script: %s", local)
		if err := r.script(ctx, assigned, text); err != nil {
			return fmt.Errorf("%s: %w", local, err)
		}
	}
	return nil
}

// script uploads and runs one script.
func (r *run) script(ctx context.Context, assigned string, text []byte) error {
	type upload struct {
		path string
		text []byte
	}
	uploads := []upload{{r.envPath, file(assigned)}, {r.path, text}}
	line, err := r.command()
	if err != nil {
		return err
	}
	if r.ElevatedUser != "" {
		user, err := r.render(r.ElevatedUser)
		if err != nil {
			return fmt.Errorf("elevated_user: %w", err)
		}
		password, err := r.render(r.ElevatedPassword)
		if err != nil {
			return fmt.Errorf("elevated_password: %w", err)
		}
		e := newElevation()
		r.tasks = append(r.tasks, e)
		uploads = append(uploads, upload{e.wrapper, []byte(e.script(user, password, line))})
		line = e.command()
	}
	err = r.Persist(ctx, func(ctx context.Context) error {
		for _, u := range uploads {
			if err := r.Upload(ctx, slashes(u.path), 0o600, u.text); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	code, err := r.Execute(ctx, line)
	if errors.Is(err, communicator.ErrDisconnected) && ctx.Err() != nil {
		return context.Cause(ctx) // the actual cause
	}
	if err != nil {
		return err
	}
	return r.CheckExit(code)
}

// slashes converts a path to the form that uploads take.
func slashes(path string) string { return strings.ReplaceAll(path, `\`, "/") }

// command returns the command line that runs the script.
func (r *run) command() (string, error) {
	sh := r.system.shell
	if r.ElevatedUser != "" {
		sh = cmdExe // run by the task
	}
	line, err := r.Render(r.executeCommand(sh, r.path, r.envPath), map[string]any{"Path": r.path, "Vars": r.envPath})
	if err != nil {
		return "", fmt.Errorf("execute_command: %w", err)
	}
	return line, nil
}

// clean removes the uploaded files, whether or not the scripts succeeded. After a success,
// a file that cannot be removed is only a warning: a script may have shut the machine down.
func (r *run) clean(ctx context.Context, failed error) error {
	paths := []string{r.path, r.envPath}
	for _, t := range r.tasks {
		paths = append(paths, t.wrapper)
	}
	r.Lenient, r.Patience = true, cleanPatience
	return r.RemoveBy(ctx, failed, paths, func(ctx context.Context) error {
		if !r.system.windows {
			words := make([]string, len(paths))
			for i, path := range paths {
				words[i] = remote.Word(path, false)
			}
			return r.Exec(ctx, "rm -f "+strings.Join(words, " "))
		}
		if err := r.Upload(ctx, r.cleanupPath, 0o600, file(cleanup(r.cleanupPath, []string{r.path, r.envPath}, r.tasks))); err != nil {
			return err
		}
		program := "powershell"
		if r.UsePwsh {
			program = "pwsh"
		}
		return r.Exec(ctx, fmt.Sprintf("%s -executionpolicy bypass -file %s", program, r.cleanupPath))
	})
}

// Package ansible is the provisioner that runs Ansible on this computer, with a
// playbook for the machine.
package ansible

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"bake/builder"
	"bake/component"
	"bake/config/schema"
	"bake/internal/gotemplate"
	"bake/internal/hostpath"
	"bake/internal/redact"
	"bake/internal/script"
	"bake/internal/shellquote"
	"bake/provisioner"
	"bake/step"
	"bake/step/onhost"
)

// Factory returns the factory of the ansible provisioner. connect is a command that
// connects its standard input and output to port %p of %h, with -through SOCKET by way
// of this process. Without connect, Ansible can log in only to machines that can be
// dialed directly.
func Factory(connect []string) component.Factory[provisioner.Provisioner] {
	return component.Define("ansible", defaults,
		func(o *Options, src *schema.Source) provisioner.Provisioner {
			return &ansible{Options: o, src: src, connect: connect}
		})
}

type ansible struct {
	*Options
	src     *schema.Source
	connect []string
}

// run is one call of Provision.
type run struct {
	*ansible
	scope   *step.Scope
	machine builder.Machine
	dir     string   // accessible by this user only; removed at the end of the call
	sockets string   // likewise, with a short path
	extra   []string // extra_arguments, rendered
	env     []string // ansible_env_vars, rendered
	to      target

	background sync.WaitGroup // goroutines that end with the context of connectTo
}

// Provision implements [provisioner.Provisioner].
func (p *ansible) Provision(ctx context.Context, s *step.Scope, m builder.Machine) (err error) {
	dir, remove, err := onhost.TempDir(s, "", "ansible")
	if err != nil {
		return err
	}
	r := &run{ansible: p, scope: s, machine: m, dir: dir, sockets: dir}
	removeSockets := func() error { return nil }
	ctx, cancel := context.WithCancelCause(ctx)
	defer func() {
		r.endConnections()
		cancel(nil)
		r.background.Wait()
		if rerr := errors.Join(remove(), removeSockets()); err == nil {
			err = rerr
		}
	}()
	if len(dir) > maxSocketDir && runtime.GOOS != "windows" {
		short, remove, err := onhost.TempDir(s, "/tmp", "ansible")
		if err != nil {
			return err
		}
		r.sockets, removeSockets = short, remove
	}
	for _, dir := range []string{r.file("tmp"), r.controlDir()} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	if r.extra, err = r.renderAll("extra_arguments", p.ExtraArguments); err != nil {
		return err
	}
	if r.env, err = r.renderAll("ansible_env_vars", p.AnsibleEnvVars); err != nil {
		return err
	}
	for _, secret := range redact.Assigned(r.extra) {
		p.src.Secret(secret)
	}
	if err := r.connectTo(ctx); err != nil {
		return err
	}
	if p.GalaxyFile != "" {
		if err := r.install(ctx); err != nil {
			return err
		}
	}
	inventory, removeInventory, err := r.inventoryFile(ctx)
	if err != nil {
		return err
	}
	defer removeInventory()
	args, err := r.arguments(inventory)
	if err != nil {
		return err
	}
	return r.execute(ctx, p.Command, args)
}

// inventoryFile returns the path of the inventory with the machine: the user's file, or a
// generated one that the caller removes.
func (r *run) inventoryFile(ctx context.Context) (path string, remove func(), err error) {
	if r.InventoryFile != "" {
		return r.InventoryFile, func() {}, nil
	}
	if path, remove, err = r.writeInventory(); err != nil {
		return "", nil, fmt.Errorf("writing the inventory: %w", err)
	}
	if r.KeepInventoryFile {
		r.scope.Say(ctx, "The inventory is kept: %s", path)
	}
	return path, remove, nil
}

// maxSocketDir is the maximum path length of the directory of sockets: the path of a socket
// is limited to about 100 bytes, of which ssh's names take 40.
const maxSocketDir = 60

// controlDir returns the directory of the sockets of Ansible's shared SSH connections,
// which are needed to end these connections.
func (r *run) controlDir() string { return filepath.Join(r.sockets, "cp") }

// file returns the path of a file that is deleted at the end of the call.
func (r *run) file(name string) string { return filepath.Join(r.dir, name) }

// write writes such a file, readable only by this user.
func (r *run) write(name, text string) (path string, err error) {
	path = r.file(name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

func (r *run) render(text string, more map[string]any) (string, error) {
	data := r.machine.Data.Plain()
	for name, value := range more {
		data[name] = value
	}
	c := gotemplate.Context{BuildName: r.scope.SourceName, BuildType: r.scope.SourceType, Start: r.scope.Run.Start, Version: r.scope.Run.Version}
	return c.RenderAll(text, data)
}

func (r *run) renderAll(option string, texts []string) (rendered []string, err error) {
	for _, text := range texts {
		out, err := r.render(text, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", option, err)
		}
		rendered = append(rendered, out)
	}
	return rendered, nil
}

// install installs the roles and collections that the playbook needs.
func (r *run) install(ctx context.Context) error {
	text, err := hostpath.Read(r.GalaxyFile, hostpath.Limit)
	if err != nil {
		return err
	}
	for _, args := range r.galaxy(text) {
		if err := r.execute(ctx, r.GalaxyCommand, args); err != nil {
			return err
		}
	}
	return nil
}

// outputGrace limits the wait for the output of a program that has ended or was killed.
const outputGrace = 2 * time.Second

// execute runs one of Ansible's programs until it ends or ctx does.
func (r *run) execute(ctx context.Context, name string, args []string) error {
	path, err := lookUp(name)
	if err != nil {
		return errors.New(notInstalled(name, err))
	}
	shown := shellquote.Join(append([]string{name}, args...)...)
	for _, secret := range append(redact.Assigned(r.extra), r.machine.Data.Secrets()...) {
		shown = strings.ReplaceAll(shown, secret, redact.Mask)
	}
	r.scope.Say(ctx, "Executing Ansible: %s", shown)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	out := script.NewLines(func(line string) { r.scope.Output(ctx, step.Output, line) })
	errOut := script.NewLines(func(line string) { r.scope.Output(ctx, step.ErrOutput, line) })
	live := func(text string) { r.scope.Output(ctx, step.Partial, text) }
	out.Overwritten, errOut.Overwritten = live, live
	defer errOut.Flush()
	defer out.Flush()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = r.environment(), out, errOut
	cmd.WaitDelay = outputGrace
	err = onhost.Run(r.scope, cmd)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // a background process may hold the output open
		return nil
	case errors.As(err, &exit) && exit.Exited():
		return fmt.Errorf("%s ended with exit status %d%s", name, exit.ExitCode(), meaning(name, exit.ExitCode()))
	}
	return fmt.Errorf("running %s: %w", name, err)
}

// meaning explains an exit status of ansible-playbook, in parentheses; "" if there is
// nothing to explain.
func meaning(name string, code int) string {
	if filepath.Base(name) != "ansible-playbook" {
		return ""
	}
	switch code {
	case 2:
		return " (a task failed)"
	case 3, 4:
		return " (the machine could not be reached, or the playbook could not be read)"
	case 5:
		return " (its arguments are wrong)"
	}
	return ""
}

// endConnections ends the shared connections that Ansible's SSH clients leave open in
// the background for a while.
func (r *run) endConnections() {
	sockets, err := os.ReadDir(r.controlDir())
	if err != nil {
		return
	}
	for _, socket := range sockets {
		if socket.Type()&fs.ModeSocket == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), outputGrace)
		_ = exec.CommandContext(ctx, "ssh", "-o", "ControlPath="+filepath.Join(r.controlDir(), socket.Name()), "-O", "exit", "--", "machine").Run() // it may have ended already
		cancel()
	}
}

// lookUp finds a program.
func lookUp(name string) (string, error) {
	if strings.HasPrefix(name, "~/") {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		name = filepath.Join(home, name[2:])
	}
	return exec.LookPath(name)
}

// notInstalled returns how to install a program that was not found.
func notInstalled(name string, err error) string {
	if errors.Is(err, exec.ErrNotFound) && !strings.ContainsRune(name, filepath.Separator) {
		return fmt.Sprintf("There is no %s in PATH. Install Ansible, for example with 'pipx install ansible-core' or the system's package ansible-core or ansible; "+
			"if it is somewhere else, or the build installs it, set command, or skip_version_check = true", name)
	}
	return fmt.Sprintf("%s cannot be run: %s", name, strings.TrimPrefix(err.Error(), "exec: "))
}

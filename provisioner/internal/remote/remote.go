// Package remote has the common parts of provisioners that run scripts on the machine.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"strings"
	"time"

	"bake/builder"
	"bake/communicator"
	"bake/internal/delay"
	"bake/internal/gotemplate"
	"bake/internal/script"
	"bake/internal/shellquote"
	"bake/step"
)

// Machine is the machine of one provisioner.
type Machine struct {
	builder.Machine
	Scope    *step.Scope
	Patience time.Duration // start_retry_timeout

	// Lenient turns a failed removal into a warning, because scripts may shut the machine down.
	Lenient bool

	uploaded bool // there may be files to remove
}

// Render expands the {{ }} of an option with the values of build.* and more.
func (m *Machine) Render(text string, more map[string]any) (string, error) {
	data := m.Data.Plain()
	maps.Copy(data, more)
	s := m.Scope
	c := gotemplate.Context{BuildName: s.SourceName, BuildType: s.SourceType, Start: s.Run.Start, Version: s.Run.Version}
	return c.RenderAll(text, data)
}

// Upload writes one file to a path with slashes. The machine's shell expands variables in
// the directory of the path.
func (m *Machine) Upload(ctx context.Context, to string, mode fs.FileMode, text []byte) error {
	dir, err := Expand(ctx, m.Machine, path.Dir(to))
	if err != nil {
		return err
	}
	return m.Put(ctx, dir, communicator.File(path.Base(to), mode, text))
}

// Put is the communicator's Put. It also records that there may be files to remove.
func (m *Machine) Put(ctx context.Context, dst string, src fs.FS) error {
	err := m.Machine.Put(ctx, dst, src)
	m.uploaded = m.uploaded || !errors.Is(err, communicator.ErrNoCommands)
	return err
}

// MakeDirs makes directories and their parents. mode is the permissions of the last element of each
// path; "" leaves them to the machine.
func (m *Machine) MakeDirs(ctx context.Context, mode string, dirs ...string) error {
	line := "mkdir -p"
	if mode != "" {
		line += " -m " + mode
	}
	errOut := communicator.Head{Max: 4 << 10}
	st, err := m.Run(ctx, communicator.Command{Line: line + " " + shellquote.Join(dirs...), Stderr: &errOut})
	m.uploaded = m.uploaded || !errors.Is(err, communicator.ErrNoCommands)
	if err == nil && st.Code != 0 {
		err = fmt.Errorf("making %s on the machine: exit status %d: %s", strings.Join(dirs, ", "), st.Code, strings.TrimSpace(errOut.String()))
	}
	return err
}

// Execute runs a command line and forwards its output as events. It returns an error
// only if the exit status is unknown.
func (m *Machine) Execute(ctx context.Context, line string) (int, error) {
	out := script.NewLines(func(text string) { m.Scope.Output(ctx, step.Output, text) })
	errOut := script.NewLines(func(text string) { m.Scope.Output(ctx, step.ErrOutput, text) })
	live := func(text string) { m.Scope.Output(ctx, step.Partial, text) }
	out.Overwritten, errOut.Overwritten = live, live
	defer errOut.Flush()
	defer out.Flush()
	st, err := m.Run(ctx, communicator.Command{Line: line, Stdout: out, Stderr: errOut})
	return st.Code, err
}

// removalGrace is how long the removal of files may take after an attempt that has
// failed or was cancelled.
const removalGrace = 10 * time.Second

// Exec runs one of bake's own command lines, and returns an error if it fails. Its
// output is discarded.
func (m *Machine) Exec(ctx context.Context, line string) error {
	errOut := communicator.Head{Max: 4 << 10}
	st, err := m.Run(ctx, communicator.Command{Line: line, Stderr: &errOut})
	if err == nil && st.Code != 0 {
		err = fmt.Errorf("exit status %d: %s", st.Code, strings.TrimSpace(errOut.String()))
	}
	return err
}

// Remove is RemoveBy with a command line for the machine's shell.
func (m *Machine) Remove(ctx context.Context, failed error, paths []string, line string) error {
	return m.RemoveBy(ctx, failed, paths, func(ctx context.Context) error { return m.Exec(ctx, line) })
}

// RemoveBy removes the files that an attempt has uploaded. It returns the error of the attempt, or
// its own. Without an upload it does nothing. After a success, it waits for a machine that
// reboots. After a failure, it tries for a short time, even if ctx has ended, but not if the
// connection is lost. Files that remain are recorded in the machine's leftovers.
func (m *Machine) RemoveBy(ctx context.Context, failed error, paths []string, by func(context.Context) error) error {
	what := strings.Join(paths, " ")
	remove := func(ctx context.Context) error {
		if err := by(ctx); err != nil {
			return fmt.Errorf("removing %s from the machine: %w", what, err)
		}
		return nil
	}
	patient := func(ctx context.Context) error { return m.Persist(ctx, remove) }
	briefly := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeoutCause(ctx, removalGrace, fmt.Errorf("no answer within %s", removalGrace))
		defer cancel()
		return remove(ctx)
	}
	later, err := patient, failed
	if m.Lenient {
		later = func(ctx context.Context) error {
			if err := briefly(ctx); err != nil {
				m.Scope.Warn(ctx, "Left on the machine: %s", err)
			}
			return context.Cause(ctx)
		}
	}
	switch {
	case !m.uploaded:
		return failed
	case failed == nil:
		if err = patient(ctx); err == nil {
			return nil
		}
		if m.Lenient && ctx.Err() == nil {
			m.Scope.Warn(ctx, "%s. It is tried once more before the machine becomes an image.", err)
			err = nil
		}
	case !errors.Is(failed, communicator.ErrDisconnected):
		if briefly(context.WithoutCancel(ctx)) == nil {
			return failed
		}
	}
	m.Leftovers.Add(builder.Leftover{Path: what, Remove: later})
	return err
}

// retryPause is the pause before another attempt after a lost connection.
const retryPause = 2 * time.Second

// Persist calls fn, and repeats it while the connection is lost, for at most
// start_retry_timeout.
func (m *Machine) Persist(ctx context.Context, fn func(context.Context) error) error {
	if m.Patience == 0 {
		return fn(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, m.Patience,
		fmt.Errorf("the machine could not be reached again within %s (start_retry_timeout)", m.Patience))
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

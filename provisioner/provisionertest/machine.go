package provisionertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"bake/builder"
	"bake/communicator"
	"bake/internal/procgroup"
)

// Machine is a communicator whose machine is this host: commands run in a shell here, with
// a separate home directory.
type Machine struct {
	Home string
	Data builder.Data // build.*
	Faults

	leftovers builder.Leftovers
}

// Faults inject faults into calls to a machine.
type Faults struct {
	// Fault is called before each call, and its error fails the call. n counts from 0.
	Fault func(n int, call string) error

	// After is called after each call has taken effect, and its error fails the call.
	After func(n int, call string) error

	mu    sync.Mutex
	calls []string
}

// faulty is a machine with injected faults.
type faulty struct {
	communicator.Communicator
	Faults
}

func (m *faulty) Run(ctx context.Context, c communicator.Command) (st communicator.Status, err error) {
	over, err := m.call(ctx, "run %s", c.Line)
	defer over(&err)
	if err != nil {
		return st, err
	}
	return m.Communicator.Run(ctx, c)
}

func (m *faulty) Put(ctx context.Context, dst string, src fs.FS) (err error) {
	over, err := m.call(ctx, "put %s", dst)
	defer over(&err)
	if err != nil {
		return err
	}
	return m.Communicator.Put(ctx, dst, src)
}

func (m *faulty) Get(ctx context.Context, src string, dst *os.Root) (err error) {
	over, err := m.call(ctx, "get %s", src)
	defer over(&err)
	if err != nil {
		return err
	}
	return m.Communicator.Get(ctx, src, dst)
}

// NewMachine returns a machine that lasts as long as the test.
func NewMachine(t testing.TB) *Machine {
	return &Machine{Home: t.TempDir(), Data: builder.Data{"ID": builder.Text("i-test"), "Host": builder.Text("192.0.2.1"), "Port": builder.Number(22)}}
}

// Builder returns m in the form that provisioners get.
func (m *Machine) Builder() builder.Machine {
	return builder.Machine{Communicator: m, Data: m.Data, Leftovers: &m.leftovers}
}

// Tidy removes the leftovers of provisioners, as the engine does at the end.
func (m *Machine) Tidy(ctx context.Context) error { return tidy(ctx, &m.leftovers) }

func tidy(ctx context.Context, left *builder.Leftovers) error {
	var errs []error
	for _, l := range left.Take() {
		errs = append(errs, l.Remove(ctx))
	}
	return errors.Join(errs...)
}

// Calls returns the calls to the machine: "run LINE", "put DIR" and "get PATH".
func (m *Faults) Calls() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.calls...)
}

// call records a call. over is called at its end, and adds the result of After to *err.
func (m *Faults) call(ctx context.Context, format string, args ...any) (over func(err *error), err error) {
	over = func(*error) {}
	if err := context.Cause(ctx); err != nil {
		return over, err
	}
	m.mu.Lock()
	n, call := len(m.calls), fmt.Sprintf(format, args...)
	m.calls = append(m.calls, call)
	m.mu.Unlock()
	if m.After != nil {
		over = func(err *error) {
			if fault := m.After(n, call); *err == nil {
				*err = cmp.Or(fault, context.Cause(ctx))
			}
		}
	}
	if m.Fault == nil {
		return over, nil
	}
	if err := m.Fault(n, call); err != nil {
		return func(*error) {}, err
	}
	return over, context.Cause(ctx)
}

// Run implements [communicator.Communicator].
func (m *Machine) Run(ctx context.Context, c communicator.Command) (_ communicator.Status, err error) {
	over, err := m.call(ctx, "run %s", c.Line)
	defer over(&err)
	if err != nil {
		return communicator.Status{}, err
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", c.Line)
	cmd.Dir, cmd.Env = m.Home, append(os.Environ(), "HOME="+m.Home)
	cmd.Stdout, cmd.Stderr = c.Stdout, c.Stderr
	if c.Stdin != nil { // through a pipe, because Wait would wait for input that nobody reads
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return communicator.Status{}, err
		}
		go func() {
			_, _ = io.Copy(stdin, c.Stdin)
			stdin.Close()
		}()
	}
	err = procgroup.Run(cmd)
	if cause := context.Cause(ctx); cause != nil {
		return communicator.Status{}, cause
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return communicator.Status{Code: exit.ExitCode()}, nil
	}
	return communicator.Status{}, err
}

func (m *Machine) local(p string) string {
	if p == "~" || strings.HasPrefix(p, "~/") {
		p = m.Home + p[1:]
	}
	if !path.IsAbs(p) {
		p = path.Join(m.Home, p)
	}
	return p
}

// Put implements [communicator.Communicator].
func (m *Machine) Put(ctx context.Context, dst string, src fs.FS) (err error) {
	over, err := m.call(ctx, "put %s", dst)
	defer over(&err)
	if err != nil {
		return err
	}
	dst = m.local(dst)
	if info, err := os.Stat(dst); err != nil || !info.IsDir() {
		return fmt.Errorf("%w: there is not a directory %s", fs.ErrNotExist, dst)
	}
	return copyTree(src, ".", func(name string, info fs.FileInfo, r io.Reader) error {
		to := filepath.Join(dst, name)
		if info.IsDir() {
			err := os.Mkdir(to, info.Mode().Perm())
			if errors.Is(err, fs.ErrExist) {
				return nil
			}
			return err
		}
		f, err := os.Create(to)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Chmod(info.Mode().Perm()), f.Close())
	})
}

// copyTree calls write for everything below dir.
func copyTree(src fs.FS, dir string, write func(string, fs.FileInfo, io.Reader) error) error {
	list, err := fs.ReadDir(src, dir)
	if err != nil {
		return err
	}
	for _, d := range list {
		name := path.Join(dir, d.Name())
		f, err := src.Open(name)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err == nil {
			err = write(name, info, f)
		}
		f.Close()
		if err == nil && info.IsDir() {
			err = copyTree(src, name, write)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Get implements [communicator.Communicator].
func (m *Machine) Get(ctx context.Context, src string, dst *os.Root) (err error) {
	over, err := m.call(ctx, "get %s", src)
	defer over(&err)
	if err != nil {
		return err
	}
	base := path.Base(src)
	local := m.local(src)
	if info, err := os.Stat(local); err != nil {
		return err
	} else if !info.IsDir() {
		b, err := os.ReadFile(local)
		if err != nil {
			return err
		}
		return dst.WriteFile(base, b, info.Mode().Perm())
	}
	if base != "." {
		if err := dst.MkdirAll(base, 0o755); err != nil {
			return err
		}
	}
	return copyTree(os.DirFS(local), ".", func(name string, info fs.FileInfo, r io.Reader) error {
		to := path.Join(base, name)
		if info.IsDir() {
			return dst.MkdirAll(to, info.Mode().Perm())
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		return dst.WriteFile(to, b, info.Mode().Perm())
	})
}

// Close implements [communicator.Communicator].
func (m *Machine) Close() error { return nil }

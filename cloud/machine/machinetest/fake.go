// Package machinetest provides a [machine.Driver] that boots nothing, for tests, and the
// conformance suite of real drivers.
package machinetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"

	"bake/cloud/machine"
	"bake/cloud/machine/layer"
)

// Driver is a fake [machine.Driver]. Its machines run until they are ended and have an empty disk.
// File operations use the caller's user id. The zero value is ready to use. All methods are safe
// for concurrent use once the exported fields are set.
type Driver struct {
	// StartError, if not nil, is called before every start; a non-nil result is the error of Start.
	StartError func(machine.Spec) error

	// Dial implements the machines' Dial. If nil, every connection is refused.
	Dial func(ctx context.Context, spec machine.Spec, port uint16) (net.Conn, error)

	// Exec implements the machines' Exec. When ctx ends, it must return. If nil, every command
	// succeeds at once.
	Exec func(ctx context.Context, spec machine.Spec, c machine.Command) (status int, err error)

	// Run runs the command of a spec that has one; the machine ends when it returns. If nil, every
	// command succeeds at once.
	Run func(machine.Spec) error

	// Stopping, if not nil, is called by Stop after a suspended machine is resumed and before it
	// ends.
	Stopping func(machine.Spec)

	// Lacks are the processors that Runs rejects.
	Lacks []string

	// Findings is the result of Check.
	Findings []machine.Finding

	mu       sync.Mutex
	specs    []machine.Spec
	machines map[string]*Machine
}

var _ machine.Driver = (*Driver)(nil)

// Specs returns the specs that were started, in order.
func (d *Driver) Specs() []machine.Spec {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]machine.Spec(nil), d.specs...)
}

// Machine returns the running machine with that id, or nil.
func (d *Driver) Machine(id string) *Machine {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.machines[id]
}

// Start implements [machine.Driver]. It creates an empty Dir/upper and writes a line to the
// console.
func (d *Driver) Start(ctx context.Context, spec machine.Spec) (machine.Machine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if d.StartError != nil {
		if err := d.StartError(spec); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Join(spec.Dir, "upper"), 0o755); err != nil {
		return nil, err
	}
	for _, layer := range spec.Layers {
		if _, err := os.Stat(layer); err != nil {
			return nil, fmt.Errorf("start %s: layer: %w", spec.ID, err)
		}
	}
	if err := appendLine(spec.Console, "machine "+spec.ID+" booted"); err != nil {
		return nil, fmt.Errorf("start %s: console: %w", spec.ID, err)
	}

	m := &Machine{driver: d, spec: spec, done: make(chan struct{})}
	d.mu.Lock()
	if d.machines[spec.ID] != nil {
		d.mu.Unlock()
		return nil, fmt.Errorf("start %s: it is already running", spec.ID)
	}
	if d.machines == nil {
		d.machines = make(map[string]*Machine)
	}
	d.machines[spec.ID] = m
	d.specs = append(d.specs, spec)
	d.mu.Unlock()

	if len(spec.Command) > 0 {
		go m.runCommand()
	}
	return m, nil
}

// Unpack implements [machine.Driver].
func (d *Driver) Unpack(ctx context.Context, r io.Reader, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return layer.Unpack(untilDone{ctx, r}, f, layer.Options{IgnoreOwner: true})
}

// Pack implements [machine.Driver].
func (d *Driver) Pack(ctx context.Context, dir string, w io.Writer) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return layer.Pack(f, w)
}

// PackMerged implements [machine.Driver].
func (d *Driver) PackMerged(ctx context.Context, layers []string, w io.Writer) error {
	return opened(layers, func(dirs []*os.File) error { return layer.PackMerged(dirs, w) })
}

// Remove implements [machine.Driver].
func (d *Driver) Remove(ctx context.Context, dir string) error { return os.RemoveAll(dir) }

// Private implements [machine.Driver].
func (d *Driver) Private(dir string) error {
	return errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(dir, 0o700))
}

// Clone implements [machine.Driver].
func (d *Driver) Clone(ctx context.Context, from *os.File, dst string) error {
	if err := os.Mkdir(dst, 0o755); err != nil {
		return err
	}
	to, err := os.Open(dst)
	if err != nil {
		return err
	}
	defer to.Close()
	return layer.Clone(from, to, layer.Options{IgnoreOwner: true})
}

// MakeVolume implements [machine.Driver].
func (d *Driver) MakeVolume(ctx context.Context, dir string, layers []string, size int64) error {
	content := filepath.Join(dir, machine.VolumeContent)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(content, 0o755); err != nil {
		return err
	}
	to, err := os.Open(content)
	if err != nil {
		return err
	}
	defer to.Close()
	return opened(layers, func(from []*os.File) error { return layer.Merge(from, to, layer.Options{IgnoreOwner: true}) })
}

// opened calls do with open directories.
func opened(paths []string, do func([]*os.File) error) error {
	var dirs []*os.File
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		dirs = append(dirs, f)
	}
	return do(dirs)
}

// GrowVolume implements [machine.Driver]; the volumes of the fake have no devices.
func (d *Driver) GrowVolume(dir string, _ int64) error {
	_, err := os.Stat(dir)
	return err
}

// untilDone is a reader that fails once its context ends.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(b []byte) (int, error) {
	if err := context.Cause(u.ctx); err != nil {
		return 0, err
	}
	return u.r.Read(b)
}

// Runs implements [machine.Driver].
func (d *Driver) Runs(arch string) error {
	if !slices.Contains(d.Lacks, arch) {
		return nil
	}
	return fmt.Errorf("this host runs programs for %s and has no emulator for %s", runtime.GOARCH, arch)
}

// Check implements [machine.Driver].
func (d *Driver) Check(context.Context) []machine.Finding { return d.Findings }

// Machine is a fake [machine.Machine].
type Machine struct {
	driver *Driver
	spec   machine.Spec

	mu             sync.Mutex
	ended          bool
	exit           machine.Exit
	done           chan struct{}
	frozen         int  // number of calls of Freeze without their Thaw
	released       bool // resumed for good; cannot be frozen again
	networkChanges int
}

var _ machine.Machine = (*Machine)(nil)

// Spec returns the spec that the machine was started with.
func (m *Machine) Spec() machine.Spec { return m.spec }

// End ends the machine as if from inside: by a reboot, a power-off or a crash. It does nothing if
// the machine has already ended.
func (m *Machine) End(e machine.Exit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return
	}
	m.ended, m.exit = true, e
	m.driver.mu.Lock()
	delete(m.driver.machines, m.spec.ID)
	m.driver.mu.Unlock()
	close(m.done)
}

// Print appends a line to the machine's console.
func (m *Machine) Print(line string) error { return appendLine(m.spec.Console, line) }

// NetworkChanges returns the number of calls of NetworkChanged.
func (m *Machine) NetworkChanges() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.networkChanges
}

// Frozen reports whether the machine is between Freeze and Thaw.
func (m *Machine) Frozen() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.frozen > 0
}

// Dial implements [machine.Machine].
func (m *Machine) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	select {
	case <-m.done:
		return nil, machine.ErrEnded
	default:
	}
	if m.driver.Dial == nil {
		addr := &net.TCPAddr{IP: m.spec.Network.Private.AsSlice(), Port: int(port)}
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: addr, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	return m.driver.Dial(ctx, m.spec, port)
}

// Exec implements [machine.Machine].
func (m *Machine) Exec(ctx context.Context, c machine.Command) (int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-m.done:
			cancel(machine.ErrEnded)
		case <-ended:
		}
	}()
	if m.driver.Exec == nil {
		return 0, context.Cause(ctx)
	}
	return m.driver.Exec(ctx, m.spec, c)
}

// Stop implements [machine.Machine].
func (m *Machine) Stop(context.Context) error {
	m.mu.Lock()
	m.frozen, m.released = 0, true
	m.mu.Unlock()
	if m.driver.Stopping != nil {
		m.driver.Stopping(m.spec)
	}
	m.End(machine.Exit{Reason: machine.Stopped})
	return nil
}

// Kill implements [machine.Machine].
func (m *Machine) Kill() error {
	m.End(machine.Exit{Reason: machine.Stopped})
	return nil
}

// Freeze implements [machine.Machine].
func (m *Machine) Freeze(context.Context) error { return m.setFrozen(1) }

// Thaw implements [machine.Machine].
func (m *Machine) Thaw() error { return m.setFrozen(-1) }

// Plug implements [machine.Machine].
func (m *Machine) Plug(_ context.Context, name string) error {
	_, err := os.Stat(filepath.Join(m.spec.Dir, machine.VolumesDir, name, machine.VolumeContent))
	return err
}

// Unplug implements [machine.Machine].
func (m *Machine) Unplug(context.Context, string) error { return nil }

// NetworkChanged implements [machine.Machine].
func (m *Machine) NetworkChanged() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.networkChanges++
}

// Done implements [machine.Machine].
func (m *Machine) Done() <-chan struct{} { return m.done }

// Exit implements [machine.Machine].
func (m *Machine) Exit() machine.Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exit
}

func (m *Machine) setFrozen(more int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return machine.ErrEnded
	}
	if m.released {
		return machine.ErrReleased
	}
	m.frozen = max(0, m.frozen+more)
	return nil
}

func (m *Machine) runCommand() {
	var err error
	if m.driver.Run != nil {
		err = m.driver.Run(m.spec)
	}
	m.End(machine.Exit{Reason: machine.PowerOff, Err: err})
}

func appendLine(path, line string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, line)
	return errors.Join(err, f.Close())
}

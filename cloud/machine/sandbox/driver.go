// Package sandbox boots machines as processes of this host: a user namespace, an overlay of layers
// as the root file system, the distribution's own init and SSH server, and a network card that
// leads to a router in this program.
//
// A machine needs two processes besides its own. The driver starts the shim, which owns the
// machine's user and network namespaces but sees the host's files. The shim starts the machine's
// first process in the other namespaces. Both run this program again, from a sealed copy in memory:
// see [Child]. On behalf of the driver, the shim does what is only possible inside the namespaces,
// such as opening the network card or a connection. When the driver's process ends, for whatever
// reason, the shim ends, and with it the machine.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"bake/cloud/machine"

	"golang.org/x/sys/unix"
)

// Options are the options of [New]. The zero value chooses what is best on this host.
type Options struct {
	// Dir is the directory that holds machines and layers. Check inspects its file system.
	Dir string

	// Mode is how user ids are mapped; empty chooses.
	Mode Mode

	// Init is the init of machines; empty chooses systemd where the image has it and the host lets
	// it run.
	Init Init

	// Link is the kind of the machines' network cards; empty chooses.
	Link Link

	// OldMount mounts overlays with mount(2), as kernels before 6.5 require.
	OldMount bool

	// Log receives messages for developers; nil discards them.
	Log *slog.Logger
}

// Init is the kind of a machine's first process.
type Init string

const (
	// InitSystemd is the image's own systemd. It needs a delegated cgroup.
	InitSystemd Init = "systemd"
	// InitBuiltin is a small init that is part of the driver, with a systemctl that can start and
	// stop services.
	InitBuiltin Init = "builtin"
)

// Link is the kind of a machine's network card.
type Link string

// The kinds of network card.
const (
	LinkTap    Link = "tap"    // a tap device; needs /dev/net/tun
	LinkPacket Link = "packet" // a pair of virtual cards and a packet socket
)

// Driver implements [machine.Driver] with namespaces.
type Driver struct {
	options Options
	log     *slog.Logger
	ids     identity
	groups  cgroups
	budget  *budget

	executable string // this program's file, if it is known
	spares     spares
	moves      quickMoves
	runs       answers

	mu    sync.Mutex
	disks map[string]bool // directories of machines that run or are starting
}

var _ machine.Driver = (*Driver)(nil)

// New makes a driver for this host and user. It fails only if options request something impossible.
// Check and Start report what the host lacks.
func New(o Options) (*Driver, error) {
	d := &Driver{options: o, log: o.Log, disks: make(map[string]bool), budget: newBudget(), spares: spares{unused: spareUnused, delay: afterLaunch}}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if d.options.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	if d.ids, err = hostIdentity(o.Mode); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	d.executable, _ = os.Executable()
	d.groups = findCgroups(d.log)
	d.groups.removeStale(d.removeGroup)
	return d, nil
}

// Start implements [machine.Driver].
func (d *Driver) Start(ctx context.Context, spec machine.Spec) (machine.Machine, error) {
	release, err := d.occupy(spec.Dir)
	if err != nil {
		return nil, fmt.Errorf("start machine %s: %w", spec.ID, err)
	}
	if d.wantsBudget(spec) {
		done, err := d.budget.acquire(ctx, spec.Waiting)
		if err != nil {
			release()
			return nil, fmt.Errorf("start machine %s: %w", spec.ID, err)
		}
		free := release
		release = func() {
			free()
			done()
		}
	}
	d.replenish(d.spares.delay)
	if d.groups.own != "" {
		d.moves.begin(func() error { return joinGroup(d.groups.own, os.Getpid()) })
	}
	m, err := d.start(ctx, spec)
	if err != nil {
		release()
		return nil, fmt.Errorf("start machine %s: %w", spec.ID, d.explain(ctx, err))
	}
	go m.listen(func() { d.replenish(0) }, release)
	return m, nil
}

// Prepare starts a process in the background that the next machine, or the next work on its files,
// would otherwise have to wait for. The process ends if it is unused for a while. A new one is
// started a second after each start of a machine, or when the machine has ended, until Close.
func (d *Driver) Prepare() {
	d.spares.mu.Lock()
	d.spares.keeps = true
	d.spares.mu.Unlock()
	d.replenish(0)
}

// Close ends the process that Prepare has started. The driver remains usable, as before Prepare.
func (d *Driver) Close() { d.spares.close() }

// occupy prevents two machines from using the same disk.
func (d *Driver) occupy(dir string) (release func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.disks[dir] {
		return nil, &os.PathError{Op: "lock", Path: dir, Err: errors.New("a machine with this disk is running")}
	}
	d.disks[dir] = true
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.disks, dir)
	}, nil
}

// explain replaces the error of a failed start by what the host lacks for any start, if that is the
// cause. A start that succeeds needs no such check.
func (d *Driver) explain(ctx context.Context, failed error) error {
	if ctx.Err() != nil {
		return failed
	}
	findings := d.Check(ctx)
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%w (checking whether the host is the cause failed: %w)", failed, cause)
	}
	var errs []error
	for _, f := range findings {
		if f.Fatal && !f.OK {
			errs = append(errs, fmt.Errorf("%s: %s; %s", f.Name, f.Detail, f.Remedy))
		}
	}
	if len(errs) == 0 {
		return failed
	}
	return fmt.Errorf("this host cannot run machines: %w", errors.Join(errs...))
}

// Unpack implements [machine.Driver].
func (d *Driver) Unpack(ctx context.Context, tar io.Reader, dir string) error {
	if err := d.makeLayerDir(dir); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	defer f.Close()
	if err := d.inNamespace(ctx, filesJob{op: "unpack", dirs: []*os.File{f}, stdin: tar}); err != nil {
		return &os.PathError{Op: "unpack into", Path: dir, Err: err}
	}
	return nil
}

// Pack implements [machine.Driver].
func (d *Driver) Pack(ctx context.Context, dir string, w io.Writer) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	defer f.Close()
	if err := d.inNamespace(ctx, filesJob{op: "pack", dirs: []*os.File{f}, stdout: w}); err != nil {
		return &os.PathError{Op: "pack", Path: dir, Err: err}
	}
	return nil
}

// PackMerged implements [machine.Driver].
func (d *Driver) PackMerged(ctx context.Context, layers []string, w io.Writer) error {
	job := filesJob{op: "pack-merged", stdout: w}
	for _, path := range layers {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("pack: %w", err)
		}
		defer f.Close()
		job.dirs = append(job.dirs, f)
	}
	if err := d.inNamespace(ctx, job); err != nil {
		return fmt.Errorf("pack %s: %w", strings.Join(layers, " over "), err)
	}
	return nil
}

// Remove implements [machine.Driver].
func (d *Driver) Remove(ctx context.Context, dir string) error {
	// No helper is needed for files that this user may remove.
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	f, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	defer f.Close()
	if err := d.inNamespace(ctx, filesJob{op: "empty", dirs: []*os.File{f}}); err != nil {
		return &os.PathError{Op: "remove", Path: dir, Err: err}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}

// Clone implements [machine.Driver].
func (d *Driver) Clone(ctx context.Context, from *os.File, dst string) error {
	if _, err := os.Lstat(dst); err == nil {
		return &os.LinkError{Op: "clone", Old: from.Name(), New: dst, Err: os.ErrExist}
	}
	if err := d.makeLayerDir(dst); err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	to, err := os.Open(dst)
	if err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	defer to.Close()
	if err := d.inNamespace(ctx, filesJob{op: "clone", dirs: []*os.File{from, to}}); err != nil {
		return &os.LinkError{Op: "clone", Old: from.Name(), New: dst, Err: err}
	}
	return nil
}

// MakeVolume implements [machine.Driver].
func (d *Driver) MakeVolume(ctx context.Context, dir string, layers []string, size int64) error {
	if err := d.makeVolume(ctx, dir, layers, size); err != nil {
		return &os.PathError{Op: "make volume", Path: dir, Err: err}
	}
	return nil
}

// GrowVolume implements [machine.Driver].
func (d *Driver) GrowVolume(dir string, size int64) error {
	if err := growVolume(dir, size); err != nil {
		return &os.PathError{Op: "grow volume", Path: dir, Err: err}
	}
	return nil
}

// Private implements [machine.Driver].
func (d *Driver) Private(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	mode := os.FileMode(0o700)
	if d.ids.mode == ModeRange { // the machines' root is another user, who must be able to pass through
		if err := os.Lchown(dir, os.Geteuid(), d.ids.rootGID()); err != nil {
			return err
		}
		mode = 0o710
	}
	return os.Chmod(dir, mode)
}

// makeLayerDir makes an empty directory that belongs to the machines' root. It may become a
// machine's root directory, so its mode must not depend on this user's umask.
func (d *Driver) makeLayerDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := makeDir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.ids.give(dir)
}

// clean joins the lines of a child's error output.
func clean(text string) string {
	return strings.Join(strings.Fields(strings.TrimPrefix(strings.TrimSpace(text), "bake: ")), " ")
}

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"bake/cloud/machine"
	"bake/cloud/network"

	"golang.org/x/sys/unix"
)

// running is the driver's side of a machine.
type running struct {
	spec  machine.Spec
	log   *slog.Logger
	group *group   // nil if the host offers none
	v1    []string // groups of version 1 controllers

	memoryGroup string // the one of those that limits memory; empty if none does

	removeGroup func(*group) error

	control *control
	shim    *worker
	router  *network.Router

	mu       sync.Mutex
	nextID   uint64
	pending  map[uint64]chan<- reply // closed when the shim has ended
	gone     bool
	stopping bool
	ending   *ending

	commands    context.Context // the context of commands of Exec; ends when the machine is about to end
	endCommands context.CancelFunc

	freezing chan struct{} // lock: holds a token while the machine is being suspended, being resumed or starting a command
	holds    int           // calls of Freeze without their Thaw
	released bool          // the machine was resumed for good and cannot be frozen again
	thawed   chan struct{} // closed when the machine is resumed; nil while it runs

	done chan struct{}
	exit machine.Exit
}

type reply struct {
	message
	file *os.File
}

var _ machine.Machine = (*running)(nil)

// bootSpec is what the shim and the machine's first process need to know. Paths are relative to the
// shim's working directory, because the shim may lack the rights to walk there.
type bootSpec struct {
	ID           string
	Dir          string
	Layers       []string
	Hostname     string
	CPUs         int
	Memory       int64  // bytes; 0 means no limit
	MemoryGroup  string // the control group that enforces the limit; empty if none does
	InstanceType string
	Arch         string // as in machine.Spec
	Emulator     string // the host's program that emulates Arch; empty if none is needed
	First        bool
	Continues    bool // as in machine.Spec
	User         string
	Keys         []string
	Metadata     bool // there is a metadata service
	HasUserData  bool
	Command      []string

	Mode       Mode
	Init       Init
	InitCgroup string // the group that the machine's tree starts in
	OldMount   bool
	Executable string // this program's file, if it is known
	Console    string // the console's terminal; set by the shim

	KernelFiles []string // files that this program serves in place of the kernel's; set by the shim

	Volumes []string       // those plugged at the start
	volumes []*volumeTrees // the same; set by the first process

	Card *nic // nil for a machine without a network

	announced string // lines for the console; set by the first process
}

// nic describes the machine's network card.
type nic struct {
	Link       Link
	Address    netip.Prefix
	Gateway    netip.Addr
	NameServer netip.Addr
	MTU        int
	MAC        string
}

const (
	upperDir = "upper" // the writable layer
	workDir  = "work"  // the work directory of overlayfs
	rootDir  = "root"  // where the machine's root is mounted, in its own mount namespace only
)

func (d *Driver) start(ctx context.Context, spec machine.Spec) (_ *running, err error) {
	boot, base, err := d.bootSpec(spec)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{spec.Dir, filepath.Join(spec.Dir, machine.VolumesDir)} {
		if err := d.Private(dir); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{upperDir, workDir, rootDir} {
		if err := d.makeLayerDir(filepath.Join(spec.Dir, name)); err != nil {
			return nil, err
		}
	}
	if spec.RootSize > 0 {
		if err := writeSize(spec.Dir, spec.RootSize); err != nil {
			return nil, err
		}
	}
	volumes, err := os.ReadDir(filepath.Join(spec.Dir, machine.VolumesDir))
	if err != nil {
		return nil, err
	}
	for _, v := range volumes {
		boot.Volumes = append(boot.Volumes, v.Name())
	}
	console, err := os.OpenFile(spec.Console, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	defer console.Close()

	m := &running{spec: spec, log: d.log, removeGroup: d.removeGroup, pending: make(map[uint64]chan<- reply), freezing: make(chan struct{}, 1), done: make(chan struct{})}
	m.commands, m.endCommands = context.WithCancel(context.WithoutCancel(ctx)) // the machine outlives ctx
	if m.group, err = d.groups.create(spec.ID, d.ids); err != nil {
		return nil, fmt.Errorf("control group: %w", err)
	}
	defer func() {
		if err != nil {
			m.endCommands()
			_ = m.clear()
		}
	}()
	if err := m.startShim(ctx, d, base, console); err != nil {
		return nil, err
	}
	if m.group != nil {
		boot.InitCgroup = m.group.init()
	}
	boot.MemoryGroup = m.memoryGroup
	if d.ids.mode == ModeRange && spec.Limits != (machine.Limits{}) {
		if node, err := d.makeFuseNode(spec.Dir); err == nil {
			defer os.Remove(node)
		} else {
			d.log.Debug("no FUSE device", "machine", spec.ID, "error", err)
		}
	}
	if err := m.sendBoot(d, boot); err != nil {
		return nil, err
	}
	if err := m.await(ctx); err != nil {
		return nil, err
	}
	d.replenish(d.spares.delay)
	return m, nil
}

// sendBoot sends the shim its boot specification. As root it also passes the tun device, which on
// many hosts only root may open.
func (m *running) sendBoot(d *Driver, boot *bootSpec) error {
	var tun *os.File
	if boot.Card != nil && boot.Card.Link != LinkPacket && d.ids.mode == ModeRange {
		var err error
		if tun, err = openTunOf(m.shim.cmd.Process.Pid); err == nil {
			defer tun.Close()
		} else {
			d.log.Debug("no tun device", "machine", boot.ID, "error", err)
		}
	}
	if err := m.control.send(message{Op: opBoot, Boot: boot}, tun); err != nil {
		return m.shimDeath(err)
	}
	return nil
}

// bootSpec translates spec. base is the directory that the paths in boot are relative to.
func (d *Driver) bootSpec(spec machine.Spec) (boot *bootSpec, base string, err error) {
	paths := append([]string{spec.Dir}, spec.Layers...)
	for i, p := range paths {
		if paths[i], err = filepath.Abs(p); err != nil {
			return nil, "", err
		}
	}
	base = commonDir(paths)
	for i, p := range paths {
		if paths[i], err = filepath.Rel(base, p); err != nil {
			return nil, "", err
		}
	}
	if len(spec.Layers) == 0 {
		return nil, "", errors.New("no layers: a machine needs a root file system")
	}
	emulator, err := emulator(spec.Arch, exec.LookPath, binfmtDir, release())
	if err != nil {
		return nil, "", err
	}
	boot = &bootSpec{
		Arch: spec.Arch, Emulator: emulator,
		ID: spec.ID, Dir: paths[0], Layers: paths[1:], Hostname: spec.Hostname, CPUs: spec.Limits.CPUs, Memory: spec.Limits.Memory, InstanceType: spec.Type, First: spec.First, Continues: spec.Continues,
		User: spec.User, Keys: spec.AuthorizedKeys, Metadata: spec.Network.Metadata != nil, HasUserData: spec.HasUserData, Command: spec.Command,
		Mode: d.ids.mode, Init: d.options.Init, OldMount: d.options.OldMount, Executable: d.executable,
	}
	if n := spec.Network; n.Private.IsValid() {
		boot.Card = &nic{
			Link:       d.options.Link,
			Address:    netip.PrefixFrom(n.Private, n.Subnet.Bits()),
			Gateway:    network.Gateway(n.Subnet),
			NameServer: network.NameServer(n.Subnet),
			MTU:        n.MTUOrDefault(),
			MAC:        network.HardwareAddr(n.Private).String(),
		}
	}
	return boot, base, nil
}

// commonDir returns the deepest directory that contains all paths or is one of them.
func commonDir(paths []string) string {
	dir := filepath.Dir(paths[0])
	for _, p := range paths[1:] {
		for dir != "/" && p != dir && !strings.HasPrefix(p, dir+"/") {
			dir = filepath.Dir(dir)
		}
	}
	return dir
}

// startShim makes a worker with the working directory base the shim, in the machine's control
// group. The shim prints to console.
func (m *running) startShim(ctx context.Context, d *Driver, base string, console *os.File) error {
	w, err := d.worker(ctx, base)
	if err != nil {
		return err
	}
	m.control, m.shim = w.control, w
	pid := w.cmd.Process.Pid
	if m.group != nil {
		if err := m.group.take(pid); err != nil {
			return fmt.Errorf("control group: %w", w.death(err))
		}
	} else if d.groups.scopes {
		if m.group, err = d.groups.adopt(ctx, m.spec.ID, pid, d.ids, m.spec.Limits); err != nil {
			d.log.Warn("no control group, the machine runs without systemd", "machine", m.spec.ID, "error", err)
		} else if g := m.group; d.groups.own == "" {
			d.moves.begin(func() error { return g.take(pid) })
		}
	}
	if err := d.groups.limit(m, m.spec.ID, pid); err != nil {
		return fmt.Errorf("limit the machine to its size: %w", w.death(err))
	}
	return w.give(message{Op: opShim}, console)
}

// await handles the shim's messages until the machine's first process runs.
func (m *running) await(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { m.shim.cmd.Process.Kill() })
	defer stop()
	var link *os.File
	for {
		msg, f, err := m.control.receive()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return m.shimDeath(err)
		}
		switch msg.Op {
		case opLink:
			link = f
		case opFailed:
			return msg.error()
		case opUp:
			return m.connect(link)
		}
	}
}

// shimDeath returns why the shim could not be reached, after that failed with err. Once the worker
// is a shim, its messages are on the console.
func (m *running) shimDeath(err error) error {
	if !ofDeath(err) {
		return err
	}
	err = m.shim.death(err)
	if m.shim.complaint.Len() == 0 {
		err = fmt.Errorf("%w; see %s", err, m.spec.Console)
	}
	return fmt.Errorf("the shim ended before the machine started: %w", err)
}

// connect plugs the machine's card into a router.
func (m *running) connect(link *os.File) error {
	cfg := m.spec.Network
	if !cfg.Private.IsValid() {
		return nil
	}
	names, own := cfg.Names, strings.ToLower(m.spec.Hostname)
	cfg.Names = func(name string) (netip.Addr, bool) {
		if names != nil {
			if addr, ok := names(name); ok {
				return addr, true
			}
		}
		return cfg.Private, own != "" && name == own
	}
	var err error
	m.router, err = network.New(cfg, guest{m}, network.Options{Link: link, Log: m.log})
	return err
}

// guest is the machine as the router sees it.
type guest struct{ m *running }

func (g guest) Dial(ctx context.Context, port uint16) (net.Conn, error) { return g.m.Dial(ctx, port) }

func (g guest) Listening(ctx context.Context) ([]uint16, error) {
	answer, err := g.m.ask(ctx, message{Op: opPorts})
	return answer.Ports, err
}

// listen passes on the shim's answers until the machine has ended. It then calls ended, and release
// once the machine's disk no longer changes.
func (m *running) listen(ended, release func()) {
	for {
		msg, f, err := m.control.receive()
		if err != nil {
			break
		}
		if msg.Op == opEnded { // the last message, though the shim may be unable to exit by itself
			m.mu.Lock()
			m.ending = msg.End
			m.mu.Unlock()
			break
		}
		m.mu.Lock()
		waiting := m.pending[msg.ID]
		delete(m.pending, msg.ID)
		m.mu.Unlock()
		if waiting != nil {
			waiting <- reply{msg, f}
		} else if f != nil {
			f.Close()
		}
	}
	ended()
	m.endCommands()
	m.mu.Lock()
	m.gone = true
	for id, waiting := range m.pending {
		close(waiting)
		delete(m.pending, id)
	}
	m.mu.Unlock()
	err := m.clear()
	release()

	m.mu.Lock()
	defer m.mu.Unlock()
	m.exit = m.verdict()
	m.exit.Err = errors.Join(m.exit.Err, err)
	close(m.done)
}

// clear ends what remains of the machine and frees its resources.
func (m *running) clear() error {
	if m.shim != nil {
		m.control.close() // the shim notices, and ends the machine with itself
		if m.group != nil {
			_ = m.group.kill()
		}
		<-m.shim.ended //nolint:errcheck // how it ended was asked for
	} else if m.control != nil {
		m.control.close()
	}
	var err error
	if m.router != nil {
		err = m.router.Close()
	}
	if m.group != nil {
		err = errors.Join(err, m.removeGroup(m.group))
	}
	for _, dir := range m.v1 {
		// The last processes may take a moment to disappear.
		err = errors.Join(err, eventually(context.Background(), 5*time.Second, func() (bool, error) {
			err := removeTree(dir)
			return err == nil, ignoreBusy(err)
		}))
	}
	return err
}

func ignoreBusy(err error) error {
	if errors.Is(err, unix.EBUSY) {
		return nil
	}
	return err
}

// verdict translates the exit status of the first process, see reboot(2): in a pid namespace it
// dies of SIGHUP at a restart and of SIGINT at a power-off.
func (m *running) verdict() machine.Exit {
	e := m.ending
	switch {
	case m.stopping:
		return machine.Exit{Reason: machine.Stopped}
	case e == nil:
		return machine.Exit{Reason: machine.Crashed, Err: errors.New("the machine's supervisor died")}
	case e.Signal == int(unix.SIGHUP):
		return machine.Exit{Reason: machine.Reboot}
	case e.Signal == int(unix.SIGINT):
		return machine.Exit{Reason: machine.PowerOff}
	case e.Signal != 0:
		return machine.Exit{Reason: machine.Crashed, Err: fmt.Errorf("the first process was ended by signal %d (%v)", e.Signal, syscall.Signal(e.Signal))}
	case len(m.spec.Command) > 0 && e.Code != 0:
		return machine.Exit{Reason: machine.PowerOff, Err: fmt.Errorf("%s: exit status %d", m.spec.Command[0], e.Code)}
	case len(m.spec.Command) == 0:
		return machine.Exit{Reason: machine.Crashed, Err: fmt.Errorf("the first process exited with status %d", e.Code)}
	}
	return machine.Exit{Reason: machine.PowerOff}
}

// ask sends a question to the shim and waits for the answer. Any number of questions may be open.
func (m *running) ask(ctx context.Context, msg message) (reply, error) {
	answer := make(chan reply, 1)
	m.mu.Lock()
	if m.gone {
		m.mu.Unlock()
		return reply{}, machine.ErrEnded
	}
	m.nextID++
	msg.ID = m.nextID
	m.pending[msg.ID] = answer
	m.mu.Unlock()
	if err := m.control.send(msg, nil); err != nil {
		m.forget(msg.ID)
		return reply{}, fmt.Errorf("%w: %w", machine.ErrEnded, err)
	}
	select {
	case a, ok := <-answer:
		if !ok {
			return reply{}, machine.ErrEnded
		}
		return a, a.error()
	case <-ctx.Done():
		if !m.forget(msg.ID) { // it is being answered right now
			if a, ok := <-answer; ok && a.file != nil {
				a.file.Close()
			}
		}
		return reply{}, context.Cause(ctx)
	}
}

func (m *running) forget(id uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.pending[id]
	delete(m.pending, id)
	return ok
}

// Dial implements [machine.Machine].
func (m *running) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	answer, err := m.ask(ctx, message{Op: opDial, Port: port})
	if err != nil {
		return nil, fmt.Errorf("dial port %d of machine %s: %w", port, m.spec.ID, err)
	}
	if answer.file == nil {
		return nil, fmt.Errorf("dial port %d of machine %s: no connection received", port, m.spec.ID)
	}
	defer answer.file.Close()
	return net.FileConn(answer.file)
}

// Stop implements [machine.Machine].
func (m *running) Stop(ctx context.Context) error {
	m.mu.Lock()
	m.stopping = true
	m.mu.Unlock()
	m.endCommands()
	_ = m.release()
	_ = m.control.send(message{Op: opStop}, nil) // if the shim has ended, so has the machine
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return m.Kill()
	}
}

// Kill implements [machine.Machine].
func (m *running) Kill() error {
	m.mu.Lock()
	m.stopping = true
	m.mu.Unlock()
	m.endCommands()
	_ = m.control.send(message{Op: opKill}, nil)
	if m.group != nil {
		_ = m.group.kill()
	}
	<-m.done
	return nil
}

// Freeze implements [machine.Machine].
func (m *running) Freeze(ctx context.Context) error {
	select {
	case m.freezing <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("freeze machine %s: %w", m.spec.ID, context.Cause(ctx))
	}
	defer func() { <-m.freezing }()
	var err error
	switch {
	case m.released:
		return fmt.Errorf("freeze machine %s: %w", m.spec.ID, machine.ErrReleased)
	case m.holds > 0:
	case m.group != nil:
		err = m.group.freeze(ctx)
	default:
		_, err = m.ask(ctx, message{Op: opFreeze})
	}
	if err != nil {
		if m.holds == 0 {
			_ = m.thaw()
		}
		return fmt.Errorf("freeze machine %s: %w", m.spec.ID, err)
	}
	if m.holds == 0 {
		m.thawed = make(chan struct{})
	}
	m.holds++
	return nil
}

// Thaw implements [machine.Machine].
func (m *running) Thaw() error {
	m.freezing <- struct{}{}
	defer func() { <-m.freezing }()
	switch {
	case m.released:
		return machine.ErrReleased
	case m.holds > 1:
		m.holds--
		return nil
	}
	return m.resume()
}

// release resumes the machine for good, however often it was frozen.
func (m *running) release() error {
	m.freezing <- struct{}{}
	defer func() { <-m.freezing }()
	m.released = true
	return m.resume()
}

// resume resumes the machine. The caller holds freezing.
func (m *running) resume() error {
	if m.thawed != nil {
		close(m.thawed)
	}
	m.holds, m.thawed = 0, nil
	return m.thaw()
}

// whileAwake waits until the machine is not suspended, then calls begin and prevents a suspension
// until begin returns. begin must be short.
func (m *running) whileAwake(ctx context.Context, begin func() error) error {
	for {
		select {
		case m.freezing <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-m.commands.Done():
			return machine.ErrEnded
		}
		if m.holds == 0 {
			defer func() { <-m.freezing }()
			return begin()
		}
		thawed := m.thawed
		<-m.freezing
		select {
		case <-thawed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-m.commands.Done():
			return machine.ErrEnded
		}
	}
}

func (m *running) thaw() error {
	select {
	case <-m.done:
		return machine.ErrEnded
	default:
	}
	if m.group != nil {
		return m.group.thaw()
	}
	_, err := m.ask(context.Background(), message{Op: opThaw})
	return err
}

// NetworkChanged implements [machine.Machine].
func (m *running) NetworkChanged() {
	if m.router != nil {
		m.router.Changed()
	}
}

// Plug implements [machine.Machine].
func (m *running) Plug(ctx context.Context, name string) error {
	_, err := m.ask(ctx, message{Op: opPlug, Name: name})
	return err
}

// Unplug implements [machine.Machine].
func (m *running) Unplug(ctx context.Context, name string) error {
	_, err := m.ask(ctx, message{Op: opUnplug, Name: name})
	return err
}

// Done implements [machine.Machine].
func (m *running) Done() <-chan struct{} { return m.done }

// Exit implements [machine.Machine].
func (m *running) Exit() machine.Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exit
}

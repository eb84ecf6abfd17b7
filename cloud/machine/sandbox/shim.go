package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

const (
	fdControl = fdMapped + 1 // the worker's end of the control socket

	fdBootSpec = 3 // where init reads its specification
	fdReport   = 4 // where init says what went wrong; closed without a word when nothing did
	fdFuse     = 5 // the first of the mounts of kernelFiles

	// systemdPowerOff asks systemd to power off: SIGRTMIN+4, see systemd(1).
	systemdPowerOff = unix.Signal(34 + 4)

	dialInside = 10 * time.Second

	// Who waits for a machine that starts tries again after the first of these, and looks whether it
	// still starts after the second: that costs the kernel a walk through a large table.
	reachAgain, lookAgain = 4 * time.Millisecond, 100 * time.Millisecond

	maxWaiting = 64 // connections; later ones are refused
)

// becomeShim is the process between the driver and a machine. Given is the console's file, which is its
// standard output. It returns an error if the machine has not begun, or
// its end cannot be told.
func becomeShim(c *control, given []*os.File) error {
	if len(given) != 1 {
		return fmt.Errorf("a shim was given %d files", len(given))
	}
	for _, fd := range []int{unix.Stdout, unix.Stderr} {
		if err := unix.Dup3(int(given[0].Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	given[0].Close()
	if err := keepFiles(); err != nil {
		return err
	}
	msg, tun, err := c.receive()
	if err != nil {
		return err
	}
	s := &shim{control: c, boot: msg.Boot, begins: make(chan func())}
	if err := s.start(tun); err != nil {
		return err
	}
	return s.run()
}

// keepFiles has no process that this one begins inherit a file besides those that it is given: what
// began bake may have left some open to it.
func keepFiles() error {
	const open = "/proc/self/fd"
	entries, err := os.ReadDir(open)
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return err
}

type shim struct {
	control  *control
	boot     *bootSpec
	init     *exec.Cmd
	console  *os.File // the terminal's driving end
	terminal *os.File // the other; as long as it is open here, the machine may close it
	log      *consoleLog
	printed  chan struct{}
	systemd  bool
	begun    time.Time
	begins   chan func()  // what is to be done on the thread that began the machine
	waiting  atomic.Int32 // connections, for something that listens

	starts struct { // see starting
		sync.Mutex
		over   bool
		looked time.Time
	}
}

// start makes the network card and begins the machine's first process.
func (s *shim) start(tun *os.File) error {
	if err := linkUp("lo"); err != nil {
		return err
	}
	if s.boot.Card != nil {
		link, err := s.boot.Card.create(tun)
		if err != nil {
			return fmt.Errorf("network card: %w", err)
		}
		err = s.control.send(message{Op: opLink}, link)
		link.Close()
		if err != nil {
			return err
		}
	}
	if err := s.startInit(); err != nil {
		return err
	}
	return s.control.send(message{Op: opUp}, nil)
}

// openConsole makes the machine's console and prints what is written to it on
// standard output until the console is closed.
func (s *shim) openConsole() error {
	console, terminal, err := pty.Open()
	if err != nil {
		return fmt.Errorf("console: %w", err)
	}
	if err := plainOutput(terminal); err != nil {
		return fmt.Errorf("console: %w", err)
	}
	s.boot.Console = terminal.Name()
	s.console, s.terminal, s.log, s.printed = console, terminal, &consoleLog{file: os.Stdout}, make(chan struct{})
	go func() {
		_, _ = io.Copy(s.log, console)
		close(s.printed)
	}()
	return nil
}

func (s *shim) startInit() error {
	if err := s.openConsole(); err != nil {
		return err
	}
	if err := limitCPUs(s.boot.CPUs, s.boot.ID); err != nil {
		return err
	}
	if err := resetClocks(); err != nil {
		return err
	}
	mounts, err := s.openKernelFiles()
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range mounts {
			f.Close()
		}
	}()
	specRead, specWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer specRead.Close()
	reportRead, reportWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reportRead.Close()

	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{roleInit}
	cmd.Env = []string{}
	if len(s.boot.Command) == 0 {
		cmd.Env = append(cmd.Env, "container="+containerName)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.terminal, s.terminal, s.terminal
	cmd.ExtraFiles = append([]*os.File{specRead, reportWrite}, mounts...)
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
		Setsid:     true,
	}
	if s.boot.InitCgroup != "" {
		dir, err := os.Open(s.boot.InitCgroup)
		if err != nil {
			return fmt.Errorf("control group: %w", err)
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	disks := s.tellDisks()
	err = cmd.Start()
	reportWrite.Close()
	if err != nil {
		return fmt.Errorf("begin the first process: %w", err)
	}
	s.init, s.begun = cmd, time.Now()
	err = json.NewEncoder(specWrite).Encode(s.boot)
	specWrite.Close()
	if err != nil {
		return err
	}
	report, err := io.ReadAll(bufio.NewReader(reportRead))
	if err != nil {
		return err
	}
	text := string(report)
	if ready, ok := strings.CutPrefix(text, reportReady); ok {
		init, announced, _ := strings.Cut(ready, "\n")
		s.systemd = Init(init) == InitSystemd
		if disks != nil {
			if err := disks.begun(cmd.Process.Pid); err != nil { // all calls are passed
				announced += fmt.Sprintf("bake: df shows the host's disk: %v\n", err)
			}
		}
		return s.log.writeLines(announced)
	}
	cmd.Process.Kill()
	_ = cmd.Wait()
	if text == "" {
		text = "the first process died before it said why"
	}
	return errors.New(text)
}

// tellDisks makes what the calling thread begins see the machine's disks as large as they are. A
// host that does not let this program listen to calls shows its own.
func (s *shim) tellDisks() *diskTeller {
	if _, err := readSize(s.boot.Dir); err != nil { // the root has no size
		return nil
	}
	t, err := listenDisks(s.boot, func(err error) {
		_ = s.log.writeLines(fmt.Sprintf("bake: statfs(2), and so df, fails in this machine until it is started again: %v\n", err))
	})
	if err != nil {
		return nil
	}
	go t.serve() // which ends with this process
	return t
}

// reportReady begins the report of a first process that is about to hand over; the name of
// the init follows, and in lines after it what is to be on the console. What the process prints
// there itself, systemd discards when it sets the terminal up, unless it has been read by then.
const reportReady = "ready "

// plainOutput makes the terminal leave ends of lines as they are.
func plainOutput(terminal *os.File) error {
	t, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO
	return unix.IoctlSetTermios(int(terminal.Fd()), unix.TCSETS, t)
}

// run serves the driver until the first process has ended. That is told by another thread: the machine
// can have this one wait for a command that begins, until the driver ends both.
func (s *shim) run() error {
	go s.serve()
	told := make(chan error, 1)
	go func() {
		_ = s.init.Wait()
		told <- s.tellEnd()
	}()
	for {
		select {
		case begin := <-s.begins:
			begin()
		case err := <-told:
			return err
		}
	}
}

// tellEnd says how the first process has ended, once the console is printed.
func (s *shim) tellEnd() error {
	s.terminal.Close()
	select {
	case <-s.printed: // every holder of the terminal has gone
	case <-time.After(execBegin): // but for a command that does not begin
	}
	end := &ending{}
	switch status := s.init.ProcessState.Sys().(syscall.WaitStatus); {
	case status.Signaled():
		end.Signal = int(status.Signal())
	default:
		end.Code = status.ExitStatus()
	}
	return s.control.send(message{Op: opEnded, End: end}, nil)
}

// serve answers the driver. When the driver has gone the machine ends.
func (s *shim) serve() {
	endFreeze := func() {}
	for {
		msg, f, err := s.control.receive()
		if err != nil {
			s.init.Process.Kill()
			return
		}
		if f != nil && msg.Op != opExec {
			f.Close()
		}
		switch msg.Op {
		case opExec:
			go s.exec(f)
		case opDial:
			go s.dial(msg)
		case opPorts:
			ports, err := listeningPorts("/proc/self/net/tcp", "/proc/self/net/tcp6")
			s.answer(message{Ports: ports}, msg.ID, err)
		case opFreeze:
			endFreeze()
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() {
				defer close(done)
				s.answer(message{}, msg.ID, s.freeze(ctx))
			}()
			endFreeze = func() {
				cancel()
				<-done
			}
		case opThaw:
			endFreeze()
			s.answer(message{}, msg.ID, s.thaw())
		case opPlug:
			go func() { s.answer(message{}, msg.ID, s.plug(msg.Name)) }()
		case opUnplug:
			go func() { s.answer(message{}, msg.ID, s.unplug(msg.Name)) }()
		case opStop:
			go s.stop()
		case opKill:
			s.init.Process.Kill()
		}
	}
}

func (s *shim) plug(name string) error {
	v, err := openVolume(s.boot.Dir, name)
	if err != nil {
		return err
	}
	return s.inMachine(func() error { return plug(v) })
}

// unplug asks the host's /proc where the volume is mounted: what the machine's
// says is the machine's to choose.
func (s *shim) unplug(name string) error {
	places, err := mountPoints(fmt.Sprintf("/proc/%d/mountinfo", s.init.Process.Pid), name)
	if err != nil {
		return err
	}
	return s.inMachine(func() error { return unplug(name, places) })
}

func (s *shim) answer(m message, id uint64, err error) {
	m.ID = id
	if err != nil {
		m = failure(m, err)
	}
	_ = s.control.send(m, nil) // if the driver has gone, serve sees it
}

func (s *shim) dial(question message) {
	host := "127.0.0.1"
	if s.boot.Card != nil {
		host = s.boot.Card.Address.Addr().String()
	}
	c, err := s.reach(net.JoinHostPort(host, strconv.Itoa(int(question.Port))))
	if err != nil {
		s.answer(message{}, question.ID, err)
		return
	}
	defer c.Close()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		s.answer(message{}, question.ID, err)
		return
	}
	defer f.Close()
	_ = s.control.send(message{ID: question.ID}, f)
}

// reach connects to an address in the machine. One on which nothing listens yet, on an address that
// others reach, is starting: who comes is not refused but waits, as with an instance whose network
// is not up.
func (s *shim) reach(addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialInside}
	defer s.waiting.Add(-1)
	wait := s.waiting.Add(1) <= maxWaiting
	for {
		starting := wait && s.starting() // asked before, for what begins to listen meanwhile
		c, err := d.DialContext(context.Background(), "tcp", addr)
		if err == nil {
			s.starts.Lock()
			s.starts.over = true
			s.starts.Unlock()
		}
		if !starting || !errors.Is(err, unix.ECONNREFUSED) {
			return c, err
		}
		time.Sleep(reachAgain)
	}
}

// starting reports whether, when that was last looked at, nothing had listened in the machine, which
// has begun a short while ago.
func (s *shim) starting() bool {
	s.starts.Lock()
	defer s.starts.Unlock()
	if s.starts.over || time.Since(s.starts.looked) < lookAgain {
		return !s.starts.over
	}
	ports, err := listeningPorts("/proc/self/net/tcp", "/proc/self/net/tcp6")
	s.starts.over = err != nil || len(ports) > 0 || time.Since(s.begun) > dialInside
	s.starts.looked = time.Now()
	return !s.starts.over
}

// stop asks the first process to shut the machine down. The kernel drops a
// signal to the first process of a namespace as long as it is not handled, and
// systemd needs a moment until it is.
func (s *shim) stop() {
	ask := powerOffSignal
	if s.systemd {
		ask = systemdPowerOff
	}
	pid := s.init.Process.Pid
	err := eventually(context.Background(), time.Minute, func() (bool, error) { return handles(pid, ask) })
	if err == nil {
		_ = s.init.Process.Signal(ask)
	} // else it has ended, or it is beyond asking and the driver will kill it
}

// handles reports whether a process has blocked a signal, to read it, or catches it.
func handles(pid int, signal unix.Signal) (bool, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(b)) {
		name, hex, _ := strings.Cut(line, ":")
		if name != "SigBlk" && name != "SigCgt" {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		if err == nil && mask&(1<<(signal-1)) != 0 {
			return true, nil
		}
	}
	return false, nil
}

// freeze stops every process of the machine and waits until it stands still, for hosts without
// cgroups to freeze.
func (s *shim) freeze(ctx context.Context) error {
	looks := 0 // one after the other that found nothing to stop: what began during the first is in the second
	return eventually(ctx, 10*time.Second, func() (bool, error) {
		all, err := s.processes()
		if err != nil {
			return false, err
		}
		blocked := make(map[int]bool)
		for _, p := range all {
			blocked[p.pid] = p.blocked
		}
		looks++
		for _, p := range all {
			signal := unix.SIGSTOP
			if blocked[p.parent] { // perhaps until this one begins a program, see vfork(2)
				signal = unix.SIGCONT
			}
			if p.still == (signal == unix.SIGSTOP) {
				continue
			}
			looks = 0
			if err := p.signal(signal); err != nil {
				return false, err
			}
		}
		return looks == 2, nil
	})
}

// thaw has every process of the machine go on.
func (s *shim) thaw() error {
	all, err := s.processes()
	for _, p := range all {
		err = errors.Join(err, p.signal(unix.SIGCONT))
	}
	return err
}

// process is one of a machine, with the host's ids.
type process struct {
	pid, parent int
	still       bool // all its threads have stopped or ended
	blocked     bool // a thread waits in the kernel, where it cannot be stopped
}

// signal sends a signal to the process, if it has not ended.
func (p process) signal(signal unix.Signal) error {
	if err := unix.Kill(p.pid, signal); err != nil && err != unix.ESRCH {
		return fmt.Errorf("signal process %d: %w", p.pid, err)
	}
	return nil
}

func (s *shim) processes() ([]process, error) {
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", s.init.Process.Pid))
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var all []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if ns, err := os.Readlink("/proc/" + e.Name() + "/ns/pid"); err == nil && ns == namespace {
			all = append(all, readProcess(pid))
		}
	}
	return all, nil
}

// readProcess reads what a process does from the stat files of its threads, see proc(5).
func readProcess(pid int) process {
	p := process{pid: pid, still: true}
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid)) // the pattern is good
	for _, path := range threads {
		fields := statFields(path)
		if len(fields) < 2 { // it has ended
			continue
		}
		p.still = p.still && strings.Contains("TtZX", fields[0])
		p.blocked = p.blocked || fields[0] == "D"
		p.parent, _ = strconv.Atoi(fields[1]) // the kernel's numbers are numbers
	}
	return p
}

// listeningPorts reads the ports that are listened on from files of the form of
// /proc/net/tcp, see proc(5). Those that only the machine's own loopback reaches
// are left out. A file that does not exist lists none.
func listeningPorts(files ...string) ([]uint16, error) {
	seen := make(map[uint16]bool)
	var ports []uint16
	for _, file := range files {
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			const listen = "0A"
			fields := strings.Fields(line)
			if len(fields) < 4 || fields[3] != listen {
				continue
			}
			addr, hex, ok := strings.Cut(fields[1], ":")
			port, err := strconv.ParseUint(hex, 16, 16)
			if !ok || err != nil || seen[uint16(port)] || isLoopbackHex(addr) {
				continue
			}
			seen[uint16(port)] = true
			ports = append(ports, uint16(port))
		}
	}
	return ports, nil
}

// isLoopbackHex reports whether an address as the kernel prints it, each group
// of four bytes in the host's order, is of 127.0.0.0/8 or ::1.
func isLoopbackHex(addr string) bool {
	switch len(addr) {
	case 8:
		return littleEndian() && addr[6:] == "7F" || !littleEndian() && addr[:2] == "7F"
	case 32:
		return addr[:24] == strings.Repeat("0", 24) && (addr[24:] == "01000000" || addr[24:] == "00000001")
	}
	return false
}

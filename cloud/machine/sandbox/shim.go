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

	fdBootSpec = 3 // init reads its boot specification here
	fdReport   = 4 // init reports errors here; closed without data on success
	fdFuse     = 5 // the first of the mounts of kernelFiles

	// systemdPowerOff asks systemd to power off: SIGRTMIN+4, see systemd(1).
	systemdPowerOff = unix.Signal(34 + 4)

	dialInside = 10 * time.Second

	// reachAgain is the interval at which a connection to a starting machine is retried. lookAgain
	// is the interval at which the shim checks whether the machine is still starting, for which
	// some kernels scan a large table.
	reachAgain, lookAgain = 4 * time.Millisecond, 100 * time.Millisecond

	maxWaiting = 64 // connections; later ones are refused
)

// becomeShim is the main function of the process between the driver and a
// machine. given holds one file, the console, which becomes standard output. It
// returns an error if the machine did not start or its end cannot be reported.
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

// keepFiles sets close-on-exec on all files that are open, so that processes
// started from here inherit only the files passed to them. The process that
// started bake may have left some files open.
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
	console  *os.File // the terminal's master end
	terminal *os.File // the terminal's slave end; while it is open here, the machine may close it
	log      *consoleLog
	printed  chan struct{}
	systemd  bool
	begun    time.Time
	begins   chan func()  // functions to run on the thread that started the machine
	waiting  atomic.Int32 // connections that wait for a listener

	starts struct { // see starting
		sync.Mutex
		over   bool
		looked time.Time
	}
}

// start configures the network card and starts the machine's first process.
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

// openConsole creates the machine's console and copies what is written to it to
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

	cmd := s.initCommand()
	cmd.ExtraFiles = append([]*os.File{specRead, reportWrite}, mounts...)
	if s.boot.InitCgroup != "" {
		dir, err := os.Open(s.boot.InitCgroup)
		if err != nil {
			return fmt.Errorf("control group: %w", err)
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	disks := s.startStatfsServer()
	err = cmd.Start()
	reportWrite.Close()
	if err != nil {
		return fmt.Errorf("start the first process: %w", err)
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
			if err := disks.begun(cmd.Process.Pid); err != nil { // from here on, all calls are passed
				announced += fmt.Sprintf("bake: df shows the host's disk: %v\n", err)
			}
		}
		return s.log.writeLines(announced)
	}
	cmd.Process.Kill()
	_ = cmd.Wait()
	if text == "" {
		text = "the first process ended without reporting an error"
	}
	return errors.New(text)
}

// initCommand returns the command of the first process, without the files that it inherits.
func (s *shim) initCommand() *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{roleInit}
	cmd.Env = []string{}
	if len(s.boot.Command) == 0 {
		cmd.Env = append(cmd.Env, "container="+containerName)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.terminal, s.terminal, s.terminal
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
		Setsid:     true,
	}
	return cmd
}

// startStatfsServer makes the processes that the calling thread starts see the
// configured sizes of the machine's disks. If the host does not let this
// program intercept calls, they see the host's sizes.
func (s *shim) startStatfsServer() *statfsServer {
	if _, err := readSize(s.boot.Dir); err != nil { // the root has no size
		return nil
	}
	t, err := newStatfsServer(s.boot, func(err error) {
		_ = s.log.writeLines(fmt.Sprintf("bake: statfs(2), and so df, fails in this machine until it is restarted: %v\n", err))
	})
	if err != nil {
		return nil
	}
	go t.serve() // ends with this process
	return t
}

// reportReady begins the report of a first process that is about to execute the
// init. The name of the init follows; the lines after it are for the console.
// If the process printed them to the console itself, systemd could discard them
// when it sets up the terminal.
const reportReady = "ready "

// plainOutput turns off the terminal's conversion of line ends.
func plainOutput(terminal *os.File) error {
	t, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO
	return unix.IoctlSetTermios(int(terminal.Fd()), unix.TCSETS, t)
}

// run serves the driver until the first process has ended. Another goroutine
// serves: the machine can block this thread while a command starts, until the
// driver ends both.
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

// tellEnd reports how the first process ended, after all console output is
// copied.
func (s *shim) tellEnd() error {
	s.terminal.Close()
	select {
	case <-s.printed: // every process that held the terminal has ended
	case <-time.After(execBegin): // except a command that is still being started
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

// serve answers the driver. When the driver goes away, the machine ends.
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
			ports, err := listeningPorts()
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

// unplug finds in the host's /proc where the volume is mounted, because the
// machine controls the content of its own.
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
	_ = s.control.send(m, nil) // if the driver has gone away, serve notices
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

// reach connects to an address in the machine. If nothing listens yet on an
// address that others can reach, the machine is still starting: the connection
// waits instead of being refused, as on an instance whose network is not up.
func (s *shim) reach(addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialInside}
	defer s.waiting.Add(-1)
	wait := s.waiting.Add(1) <= maxWaiting
	for {
		starting := wait && s.starting() // checked first, in case something starts to listen meanwhile
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

// starting reports whether the machine was started a short while ago and
// nothing listened in it at the last check.
func (s *shim) starting() bool {
	s.starts.Lock()
	defer s.starts.Unlock()
	if s.starts.over || time.Since(s.starts.looked) < lookAgain {
		return !s.starts.over
	}
	ports, err := listeningPorts()
	s.starts.over = err != nil || len(ports) > 0 || time.Since(s.begun) > dialInside
	s.starts.looked = time.Now()
	return !s.starts.over
}

// stop asks the first process to shut the machine down. The kernel drops a
// signal to the first process of a pid namespace that does not handle it, and
// systemd needs a moment to install its handler.
func (s *shim) stop() {
	ask := powerOffSignal
	if s.systemd {
		ask = systemdPowerOff
	}
	pid := s.init.Process.Pid
	err := eventually(context.Background(), time.Minute, func() (bool, error) { return handles(pid, ask) })
	if err == nil {
		_ = s.init.Process.Signal(ask)
	} // otherwise it has ended, or cannot be asked and the driver will kill it
}

// handles reports whether a process catches a signal, or blocks it in order to
// read it.
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

// freeze stops every process of the machine and waits until all have stopped.
// It serves hosts without cgroups that can freeze.
func (s *shim) freeze(ctx context.Context) error {
	looks := 0 // consecutive checks that found nothing to stop: a process started during the first shows up in the second
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
			if blocked[p.parent] { // perhaps until this process executes a program, see vfork(2)
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

// thaw resumes every process of the machine.
func (s *shim) thaw() error {
	all, err := s.processes()
	for _, p := range all {
		err = errors.Join(err, p.signal(unix.SIGCONT))
	}
	return err
}

// process is a process of a machine, with the host's ids.
type process struct {
	pid, parent int
	still       bool // all its threads have stopped or ended
	blocked     bool // a thread waits in the kernel, where it cannot be stopped
}

// signal sends a signal to the process, if it still runs.
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

// readProcess reads the state of a process from the stat files of its threads,
// see proc(5).
func readProcess(pid int) process {
	p := process{pid: pid, still: true}
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid)) // the pattern is valid
	for _, path := range threads {
		fields := statFields(path)
		if len(fields) < 2 { // it has ended
			continue
		}
		p.still = p.still && strings.Contains("TtZX", fields[0])
		p.blocked = p.blocked || fields[0] == "D"
		p.parent, _ = strconv.Atoi(fields[1]) // the kernel prints valid numbers
	}
	return p
}

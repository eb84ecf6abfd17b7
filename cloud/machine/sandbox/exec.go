package sandbox

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"bake/cloud/machine"

	"golang.org/x/sys/unix"
)

// A command is run by a process between the shim and the machine, the executor, which
// begins it in the machine's namespaces and stays outside of them. Driver and executor
// talk over a socket: the driver sends the command, the executor what it prints and how
// it ended. The driver's end of writing is the command's. A machine is not suspended while one
// begins: the shim would wait with it, and on a host that suspends processes one by one it would
// be missed.

const fdExec = 3 // the executor's end of the socket

const (
	execGrace    = 5 * time.Second  // for what was killed to be gone
	execBegin    = 10 * time.Second // within it a command has begun: the machine can hold that up
	maxExecFrame = 32 << 10         // bytes of what a command prints, in one message
	execLeaf     = "bake-commands"  // the control group of commands, below the machine's
	noExitCode   = 127              // of a command that did not begin, as a shell has it
)

// execRequest is what the driver asks for.
type execRequest struct {
	Script []byte
	Dir    string
}

// Kinds of what the executor sends: a byte, a length of four, and so much.
const (
	frameBegun byte = iota // the first: the command is one of the machine's processes
	frameStdout
	frameStderr
	frameStatus // four bytes
	frameFailed // why it did not begin
)

// Exec implements [machine.Machine].
func (m *running) Exec(ctx context.Context, c machine.Command) (status int, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("run a command in machine %s: %w", m.spec.ID, err)
		}
	}()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "command"), os.NewFile(uintptr(pair[1]), "command")
	defer theirs.Close()
	file, err := net.FileConn(ours)
	if err = errors.Join(err, ours.Close()); err != nil {
		return 0, err
	}
	defer file.Close()
	conn := file.(*net.UnixConn)
	end := func() {
		_ = conn.CloseWrite() // if it has gone, so has the command
		_ = conn.SetReadDeadline(time.Now().Add(execGrace))
	}
	defer context.AfterFunc(ctx, end)()
	defer context.AfterFunc(m.commands, end)()
	frames := bufio.NewReader(conn)
	err = m.whileAwake(ctx, func() (err error) {
		late := time.AfterFunc(execBegin, func() { _ = conn.Close() })
		defer func() {
			if !late.Stop() {
				err = fmt.Errorf("it has not begun within %v", execBegin)
			}
		}()
		if err := errors.Join(m.control.send(message{Op: opExec}, theirs), theirs.Close()); err != nil {
			return fmt.Errorf("%w: %w", machine.ErrEnded, err)
		}
		if err := json.NewEncoder(conn).Encode(execRequest{c.Script, c.Dir}); err != nil {
			return err
		}
		_, err = frames.Peek(1)
		return err
	})
	if err == nil {
		status, err = readFrames(frames, c.Stdout, c.Stderr)
	}
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case m.commands.Err() != nil || errors.Is(err, io.EOF):
		return 0, machine.ErrEnded
	}
	return status, err
}

// readFrames passes on what the executor sends, until it says how the command ended.
func readFrames(r io.Reader, stdout, stderr io.Writer) (status int, err error) {
	var header [5]byte
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return 0, err
		}
		size := binary.BigEndian.Uint32(header[1:])
		if size > maxExecFrame {
			return 0, fmt.Errorf("a message of %d bytes is too long", size)
		}
		data := make([]byte, size)
		if _, err := io.ReadFull(r, data); err != nil {
			return 0, err
		}
		switch kind := header[0]; {
		case kind == frameBegun:
		case kind == frameStdout:
			_, err = stdout.Write(data)
		case kind == frameStderr:
			_, err = stderr.Write(data)
		case kind == frameStatus && size == 4:
			return int(binary.BigEndian.Uint32(data)), nil
		case kind == frameFailed:
			return noExitCode, errors.New(clean(string(data)))
		default:
			return 0, fmt.Errorf("an unknown message of kind %d", kind)
		}
		if err != nil {
			return 0, err
		}
	}
}

// exec begins an executor with its end of the socket.
func (s *shim) exec(socket *os.File) {
	defer socket.Close()
	cmd := self(roleExec, strconv.Itoa(s.init.Process.Pid), string(s.boot.Mode))
	cmd.Env = []string{}
	cmd.ExtraFiles = []*os.File{socket}
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	// That thread has its clocks, and is told of the machine's disks.
	begun := make(chan error, 1)
	s.begins <- func() { begun <- s.beginExecutor(cmd) } // when the machine has ended, so will this process
	if err := <-begun; err != nil {
		_ = (&frames{to: socket}).write(frameFailed, []byte(err.Error())) // else the driver sees that it ended
		return
	}
	_ = cmd.Wait() // it has told
}

// beginExecutor begins it where what the machine does is counted, limited and suspended.
func (s *shim) beginExecutor(cmd *exec.Cmd) error {
	if s.boot.InitCgroup == "" {
		return cmd.Start()
	}
	// A group of their own: systemd lets no processes be in the one that its units' are below.
	leaf := filepath.Join(s.boot.InitCgroup, execLeaf)
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("control group: %w", err)
	}
	dir, err := os.Open(leaf)
	if err != nil {
		return fmt.Errorf("control group: %w", err)
	}
	defer dir.Close()
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	return cmd.Start()
}

// frames writes messages, of several at a time.
type frames struct {
	mu sync.Mutex
	to io.Writer
}

func (f *frames) write(kind byte, data []byte) error {
	data = data[:min(len(data), maxExecFrame)]
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.to.Write(append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(data))), data...))
	return err
}

// copy writes what is read from r; what nobody hears any more is dropped, so that the
// command does not wait.
func (f *frames) copy(kind byte, r io.Reader) {
	b := make([]byte, maxExecFrame)
	for {
		n, err := r.Read(b)
		if n > 0 {
			_ = f.write(kind, b[:n])
		}
		if err != nil {
			return
		}
	}
}

// execMain is the executor.
func execMain(args []string) error {
	runtime.LockOSThread() // never unlocked: it goes where the machine is
	unix.CloseOnExec(fdExec)
	socket := os.NewFile(fdExec, "command")
	out := &frames{to: socket}
	status, err := executeFor(args, socket, out)
	if err != nil {
		return out.write(frameFailed, []byte(err.Error()))
	}
	return out.write(frameStatus, binary.BigEndian.AppendUint32(nil, uint32(status)))
}

func executeFor(args []string, socket io.Reader, out *frames) (status int, err error) {
	init, err := strconv.Atoi(args[1])
	if err != nil {
		return 0, err
	}
	var q execRequest
	if err := json.NewDecoder(socket).Decode(&q); err != nil {
		return 0, err
	}
	stdout, stdoutEnd, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	stderr, stderrEnd, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	script, err := scriptFile(q.Script)
	if err != nil {
		return 0, err
	}
	// It may have waited to begin for longer than the driver has.
	if gone, _ := unix.Poll([]unix.PollFd{{Fd: fdExec, Events: unix.POLLRDHUP}}, 0); gone > 0 {
		return 0, errors.New("nobody wants it any more")
	}
	mode, env := Mode(args[2]), []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	if mode == ModeSingle {
		env = append(env, "APT_CONFIG="+aptConfig)
	}
	clocks, err := enterMachine(init, mode)
	if err != nil {
		return 0, err
	}
	child, err := fork(clocks, q.Dir, env, [4]*os.File{os.Stdin, stdoutEnd, stderrEnd, script})
	if err := errors.Join(err, stdoutEnd.Close(), stderrEnd.Close(), script.Close()); err != nil {
		return 0, err
	}
	go func() { // first: the machine may have the child wait for its directory
		_, _ = io.Copy(io.Discard, socket) // until the driver wants no more
		child.kill()
		time.Sleep(execGrace) // what has left the group may hold the pipes
		stdout.Close()
		stderr.Close()
	}()
	_ = out.write(frameBegun, nil) // if the driver has gone, it is killed
	if err := child.began(); err != nil {
		_, _ = child.reap() // it ends when it has said why
		return 0, err
	}
	var printed sync.WaitGroup
	printed.Go(func() { out.copy(frameStdout, stdout) })
	printed.Go(func() { out.copy(frameStderr, stderr) })
	printed.Wait() // while others of the group may be left, the first is not waited for
	return child.reap()
}

// scriptFile is a file with a script which only those who inherit it can run.
func scriptFile(text []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("script", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("script", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "script")
	if _, err := f.Write(text); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, f.Chmod(0o700)
}

// enterMachine has the calling thread, and what it begins, be where a machine's first
// process is, as far as a thread may go: clocks, if not nil, are the machine's.
func enterMachine(init int, mode Mode) (clocks *os.File, err error) {
	proc := fmt.Sprintf("/proc/%d/", init)
	var spaces []*os.File
	for _, name := range []string{"mnt", "uts", "ipc", "cgroup", "pid"} {
		f, err := os.Open(proc + "ns/" + name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		spaces = append(spaces, f)
	}
	if clocks, err = os.Open(proc + "ns/time"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(init, &cpus); err != nil {
		return nil, os.NewSyscallError("sched_getaffinity", err)
	}
	if err := unix.SchedSetaffinity(0, &cpus); err != nil {
		return nil, os.NewSyscallError("sched_setaffinity", err)
	}
	// Like the machine's other processes it ends before the shim should memory not suffice.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(sysctl(proc+"oom_score_adj")), 0); err != nil {
		return nil, err
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	for _, f := range spaces {
		if err := unix.Setns(int(f.Fd()), 0); err != nil {
			return nil, fmt.Errorf("enter %s: %w", f.Name(), err)
		}
	}
	if mode == ModeSingle {
		return clocks, pretendIDs()
	}
	return clocks, nil
}

// execution is a command that runs, the first of a process group. Its id, and so its group's, is its
// own until it is waited for.
type execution struct {
	pid    int
	report *os.File // says why the shell does not have the script; ends when it has
	mu     sync.Mutex
	reaped bool
}

func (e *execution) kill() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.reaped {
		_ = unix.Kill(-e.pid, unix.SIGKILL)
		_ = unix.Kill(e.pid, unix.SIGKILL) // should it have no group yet
	}
}

// reap waits for the first process to end, and returns its status as a shell has it.
func (e *execution) reap() (int, error) {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PID, e.pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reaped = true
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(e.pid, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, os.NewSyscallError("wait4", err)
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		default:
			return status.ExitStatus(), nil
		}
	}
}

// forked is what the child of fork needs. All of it is made before: the child, which has
// one thread only, may do nothing but call the kernel.
type forked struct {
	clocks  uintptr // or 0
	dir     *byte
	script  *byte      // its path
	shell   *byte      // the path of the one that runs it if the kernel does not
	argv    []*byte    // the shell's; without its first, the script's; ends in nil, as the next
	envp    []*byte    //
	fds     [4]uintptr // that become 0 to 3
	signals unix.Sigset_t
	report  uintptr   // where it says why it failed
	message [2]uint64 // the step of that, and its error
}

// steps are what the child does, by number.
func steps() []string {
	return []string{"clone", "enter the machine's clocks", "begin a session", "change to the directory", "connect the output", "run the script"}
}

// fork begins the shell with a script in the machine that the calling thread has entered.
//
// The child is visible there before it becomes the shell, and whoever is root in the machine
// may write to its memory then, and choose how long that takes. So this memory is a copy,
// where that of os/exec is the parent's own, who is outside; and so all that the child has
// is the machine's.
func fork(clocks *os.File, dir string, env []string, inherited [4]*os.File) (child *execution, err error) {
	report, reportEnd, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err = errors.Join(err, reportEnd.Close()); err != nil {
			report.Close()
		}
	}()
	c := &forked{}
	if c.dir, err = unix.BytePtrFromString(cmp.Or(dir, "/")); err != nil {
		return nil, fmt.Errorf("directory %q: %w", dir, err)
	}
	c.shell, c.script = text("/bin/sh"), text("/proc/self/fd/3")
	c.argv = []*byte{text("sh"), c.script, nil}
	for _, v := range env {
		c.envp = append(c.envp, text(v))
	}
	c.envp = append(c.envp, nil)
	if clocks != nil {
		defer clocks.Close()
		c.clocks = clocks.Fd()
	}
	// Above those that they become, so that none takes another's place.
	high := []*uintptr{&c.report}
	for i := range c.fds {
		high = append(high, &c.fds[i])
	}
	for i, f := range append([]*os.File{reportEnd}, inherited[:]...) {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 64)
		if err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		defer unix.Close(fd)
		*high[i] = uintptr(fd)
	}
	pid, err := c.run()
	return &execution{pid: pid, report: report}, err
}

// began waits until the shell has the script, and returns why it has not.
func (e *execution) began() error {
	defer e.report.Close()
	message := make([]byte, 16)
	if _, err := io.ReadFull(e.report, message); err != nil {
		return nil // the shell has it no more
	}
	step, errno := binary.NativeEndian.Uint64(message), binary.NativeEndian.Uint64(message[8:])
	return fmt.Errorf("%s: %w", steps()[step%uint64(len(steps()))], unix.Errno(errno))
}

// text is s as C has it.
func text(s string) *byte { return unsafe.StringData(s + "\x00") }

// run is begin while no signal comes, which the child could not handle.
func (c *forked) run() (pid int, err error) {
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &c.signals); err != nil {
		return 0, os.NewSyscallError("sigprocmask", err)
	}
	child, errno := c.begin()
	err = unix.PthreadSigmask(unix.SIG_SETMASK, &c.signals, nil)
	runtime.KeepAlive(c)
	if errno != 0 {
		return 0, os.NewSyscallError(steps()[0], errno)
	}
	return int(child), os.NewSyscallError("sigprocmask", err)
}

// begin clones this process; in the child it does not return.
//
//go:nosplit
//go:norace
func (c *forked) begin() (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid != 0 || errno != 0 {
		return pid, errno
	}
	c.message[0] = 1
	if c.clocks != 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_SETNS, c.clocks, 0, 0)
	}
	if errno == 0 {
		c.message[0] = 2
		_, _, errno = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
	}
	if errno == 0 {
		c.message[0] = 3
		_, _, errno = syscall.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(c.dir)), 0, 0)
	}
	for i := uintptr(0); i < 4 && errno == 0; i++ {
		c.message[0] = 4
		_, _, errno = syscall.RawSyscall(unix.SYS_DUP3, c.fds[i], i, 0)
	}
	if errno == 0 {
		c.message[0] = 5
		_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&c.signals)), 0, 8, 0, 0)
		_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(c.script)), uintptr(unsafe.Pointer(&c.argv[1])), uintptr(unsafe.Pointer(&c.envp[0])))
	}
	if errno == unix.ENOEXEC {
		_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(c.shell)), uintptr(unsafe.Pointer(&c.argv[0])), uintptr(unsafe.Pointer(&c.envp[0])))
	}
	c.message[1] = uint64(errno)
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, c.report, uintptr(unsafe.Pointer(&c.message)), 16)
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, noExitCode, 0, 0)
	}
}

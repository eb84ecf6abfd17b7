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

// A command is run by the executor, a process between the shim and the machine. It starts the
// command in the machine's namespaces but stays outside of them itself. Driver and executor
// communicate over a socket: the driver sends the command, the executor its output and exit status.
// If the driver closes its side for writing, the command is killed. A machine is not suspended
// while a command starts: the shim would be blocked too, and where processes are suspended one by
// one, the new process would be missed.

const fdExec = 3 // the executor's end of the socket

const (
	execGrace    = 5 * time.Second  // after a kill, until the output pipes are closed
	execBegin    = 10 * time.Second // limit on the start of a command, which the machine can delay
	maxExecFrame = 32 << 10         // bytes of output in one message
	execLeaf     = "bake-commands"  // the control group of commands, below the machine's
	noExitCode   = 127              // status of a command that did not start, as in a shell
)

// execRequest is the driver's request.
type execRequest struct {
	Script []byte
	Dir    string
}

// Kinds of messages from the executor. A message is a byte for its kind, a length of four bytes,
// and data of that length.
const (
	frameBegun byte = iota // sent first: the command is one of the machine's processes
	frameStdout
	frameStderr
	frameStatus // four bytes
	frameFailed // why it did not start
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
		_ = conn.CloseWrite() // if the connection is closed, so is the command
		_ = conn.SetReadDeadline(time.Now().Add(execGrace))
	}
	defer context.AfterFunc(ctx, end)()
	defer context.AfterFunc(m.commands, end)()
	frames := bufio.NewReader(conn)
	err = m.whileAwake(ctx, func() (err error) {
		late := time.AfterFunc(execBegin, func() { _ = conn.Close() })
		defer func() {
			if !late.Stop() {
				err = fmt.Errorf("it did not start within %v", execBegin)
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

// readFrames copies the output that the executor sends to stdout and stderr until the executor
// reports how the command ended.
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

// exec starts an executor and gives it its end of the socket.
func (s *shim) exec(socket *os.File) {
	defer socket.Close()
	cmd := self(roleExec, strconv.Itoa(s.init.Process.Pid), string(s.boot.Mode))
	cmd.Env = []string{}
	cmd.ExtraFiles = []*os.File{socket}
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	// The thread that started the machine starts the executor too: it is in the machine's time
	// namespace, and its calls go to statfsServer.
	begun := make(chan error, 1)
	s.begins <- func() { begun <- s.beginExecutor(cmd) } // once the machine has ended, this process ends too
	if err := <-begun; err != nil {
		_ = (&frames{to: socket}).write(frameFailed, []byte(err.Error())) // if this fails, the driver sees that the connection ended
		return
	}
	_ = cmd.Wait() // it has reported the status
}

// beginExecutor starts the executor in the machine's control groups, where it is counted, limited
// and suspended with the machine.
func (s *shim) beginExecutor(cmd *exec.Cmd) error {
	if s.boot.InitCgroup == "" {
		return cmd.Start()
	}
	// A separate group: systemd does not allow processes in the parent group of its units.
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

// frames writes messages. Several goroutines may write.
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

// copy sends what it reads from r. It keeps reading after the connection has failed, so that the
// command does not block.
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

// execMain is the main function of the executor.
func execMain(args []string) error {
	runtime.LockOSThread() // never unlocked: the thread enters the machine
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
	// The executor may have been delayed for longer than the driver waits.
	if gone, _ := unix.Poll([]unix.PollFd{{Fd: fdExec, Events: unix.POLLRDHUP}}, 0); gone > 0 {
		return 0, errors.New("the caller has gone")
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
	go func() { // started first: the machine may block the child when it enters its directory
		_, _ = io.Copy(io.Discard, socket) // until the driver closes its side
		child.kill()
		time.Sleep(execGrace) // processes that have left the group may hold the pipes
		stdout.Close()
		stderr.Close()
	}()
	_ = out.write(frameBegun, nil) // if the driver has gone, the command is killed
	if err := child.began(); err != nil {
		_, _ = child.reap() // it ends after it has sent the report
		return 0, err
	}
	var printed sync.WaitGroup
	printed.Go(func() { out.copy(frameStdout, stdout) })
	printed.Go(func() { out.copy(frameStderr, stderr) })
	printed.Wait() // reap only then: it ends the validity of the group id, and others of the group may still run
	return child.reap()
}

// scriptFile returns a file with a script that only processes that inherit the file can run.
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

// enterMachine moves the calling thread, and so the processes that it starts, to where a machine's
// first process is, as far as a thread can move. clocks, if not nil, is the machine's time
// namespace, which only a new process can enter.
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
	// If memory runs out, it is killed before the shim, like the machine's other processes.
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

// execution is a running command, the first process of its process group. Its id, which is also the
// group's, is not reused until the process is waited for.
type execution struct {
	pid    int
	report *os.File // why the shell did not get the script; end of file if it did
	mu     sync.Mutex
	reaped bool
}

func (e *execution) kill() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.reaped {
		_ = unix.Kill(-e.pid, unix.SIGKILL)
		_ = unix.Kill(e.pid, unix.SIGKILL) // in case it has no group yet
	}
}

// reap waits for the first process to end and returns its status in a shell's form.
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

// forked is the data for the child of fork. All of it is prepared before the clone: the child has
// only one thread and may do nothing but make system calls.
type forked struct {
	clocks  uintptr // the time namespace, or 0
	dir     *byte
	script  *byte      // the script's path
	shell   *byte      // path of the shell, which runs the script if the kernel does not
	argv    []*byte    // of the shell; from the second on, of the script; nil-terminated like envp
	envp    []*byte    //
	fds     [4]uintptr // become descriptors 0 to 3
	signals unix.Sigset_t
	report  uintptr   // where the child reports why it failed
	message [2]uint64 // the step that failed, and its error
}

// steps returns the names of the child's steps, by number.
func steps() []string {
	return []string{"clone", "enter the machine's clocks", "begin a session", "change to the directory", "connect the output", "run the script"}
}

// fork starts the shell with a script in the machine that the calling thread has entered.
//
// The child is visible in the machine before it becomes the shell. At that time the machine's root
// may write to the child's memory and delay it at will. Therefore the child gets a copy of the
// memory; the child of os/exec would share that of its parent, which is outside the machine. For
// the same reason the child holds nothing that is not the machine's.
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
	// The numbers are above those that the files get in the child, so that none overwrites another.
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

// began waits until the shell has the script, or returns why it does not.
func (e *execution) began() error {
	defer e.report.Close()
	message := make([]byte, 16)
	if _, err := io.ReadFull(e.report, message); err != nil {
		return nil // the pipe closed at the exec of the shell
	}
	step, errno := binary.NativeEndian.Uint64(message), binary.NativeEndian.Uint64(message[8:])
	return fmt.Errorf("%s: %w", steps()[step%uint64(len(steps()))], unix.Errno(errno))
}

// text returns s as a C string.
func text(s string) *byte { return unsafe.StringData(s + "\x00") }

// run calls begin with all signals blocked, because the child could not handle one.
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

// begin clones this process. It does not return in the child.
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

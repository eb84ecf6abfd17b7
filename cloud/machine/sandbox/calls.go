package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// callListener decides on the system calls that a seccomp filter stops, see seccomp_unotify(2).
// Each call waits until it is passed to the kernel or answered.
type callListener struct {
	file *os.File
	say  func(error) // reports why the calls are no longer handled

	once sync.Once
}

// stoppedCall is struct seccomp_notif.
type stoppedCall struct {
	id        uint64
	thread    uint32 // as this process sees it
	_         uint32
	number    int32
	_         uint32
	_         uint64
	arguments [6]uint64
}

// callAnswer is struct seccomp_notif_resp.
type callAnswer struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// listenCalls makes a system call wait for the listener in all processes that the calling thread
// starts from now on. Linux allows one listener among a process's filters.
func listenCalls(call uint32, say func(error)) (*callListener, error) {
	var listener int
	var err error
	flags := []uintptr{unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, 0} // the first since Linux 5.19: a signal with a handler does not interrupt the call
	for _, flag := range flags {
		listener, err = filterCalls([]uint32{call}, unix.SECCOMP_RET_USER_NOTIF, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW|flag)
		if err == nil {
			break
		}
	}
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("another program, such as a container engine, already intercepts the system calls of this one, and Linux allows only one to do so: %w", err)
	}
	if err != nil {
		return nil, err
	}
	// Since Linux 6.6: the caller resumes on the processor that this process ran on.
	_ = unix.IoctlSetInt(listener, unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	if err := unix.SetNonblock(listener, true); err != nil { // so that waiting does not keep the file from being closed
		unix.Close(listener)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &callListener{file: os.NewFile(uintptr(listener), "seccomp"), say: say}, nil
}

// receive waits for a call. The error is io.EOF when all processes that could make one have ended.
func (l *callListener) receive() (call *stoppedCall, err error) {
	conn, err := l.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	waitErr := conn.Read(func(fd uintptr) (done bool) {
		call, err = receiveCall(int(fd))
		return call != nil || err != nil
	})
	if waitErr != nil {
		return nil, waitErr
	}
	return call, err
}

// receiveCall returns the next call, or nil if none waits.
func receiveCall(listener int) (*stoppedCall, error) {
	for {
		ready := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, os.NewSyscallError("poll", err)
		case n == 0:
			return nil, nil
		case ready[0].Revents&unix.POLLIN == 0:
			return nil, io.EOF
		}
		call := new(stoppedCall)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(call)))
		switch errno {
		case 0:
			return call, nil
		case unix.EINTR, unix.ENOENT: // the caller has ended
		default:
			return nil, os.NewSyscallError("SECCOMP_IOCTL_NOTIF_RECV", errno)
		}
	}
}

// pass lets the kernel execute the call.
func (l *callListener) pass(call *stoppedCall) {
	l.send(callAnswer{id: call.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
}

// done makes the call succeed.
func (l *callListener) done(call *stoppedCall) { l.send(callAnswer{id: call.id}) }

func (l *callListener) send(a callAnswer) {
	err := l.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&a))
	if err != nil && !errors.Is(err, unix.ENOENT) { // ENOENT: the caller has ended
		l.fail(os.NewSyscallError("SECCOMP_IOCTL_NOTIF_SEND", err))
	}
}

// fail gives up: all waiting and later calls fail with ENOSYS. There is no way to return them to
// the kernel, and a call that fails is better than one that never ends.
func (l *callListener) fail(err error) {
	l.once.Do(func() {
		l.file.Close()
		if !errors.Is(err, io.EOF) {
			l.say(err)
		}
	})
}

// waits reports whether the call still waits. If so, the thread is still the one that made it.
func (l *callListener) waits(call *stoppedCall) bool {
	return l.ioctl(unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&call.id)) == nil
}

func (l *callListener) ioctl(request uintptr, argument unsafe.Pointer) error {
	conn, err := l.file.SyscallConn()
	if err != nil {
		return err
	}
	var errno unix.Errno
	err = conn.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(argument))
	})
	if err == nil && errno != 0 {
		return errno
	}
	return err
}

// text reads the string at an address in the caller's memory. It must end within limit bytes. The
// caller controls its memory, so reading may block forever, as may write.
func (c *stoppedCall) text(address uint64, limit int) (string, error) {
	text := make([]byte, limit)
	// The memory after the string may be unmapped: the kernel reads each part completely or not at
	// all.
	first := min(limit, os.Getpagesize()-int(address%uint64(os.Getpagesize())))
	remote := []unix.RemoteIovec{{Base: uintptr(address), Len: first}, {Base: uintptr(address) + uintptr(first), Len: limit - first}}
	local := []unix.Iovec{{Base: &text[0]}}
	local[0].SetLen(limit)
	n, err := unix.ProcessVMReadv(int(c.thread), local, remote, 0)
	if err != nil {
		return "", os.NewSyscallError("process_vm_readv", err)
	}
	end := bytes.IndexByte(text[:n], 0)
	if end < 0 {
		return "", errors.New("an unterminated string")
	}
	return string(text[:end]), nil
}

// write writes to an address in the caller's memory, if the caller may write there.
func (c *stoppedCall) write(address uint64, data []byte) error {
	local := []unix.Iovec{{Base: &data[0]}}
	local[0].SetLen(len(data))
	n, err := unix.ProcessVMWritev(int(c.thread), local, []unix.RemoteIovec{{Base: uintptr(address), Len: len(data)}}, 0)
	if err == nil && n < len(data) {
		err = unix.EFAULT
	}
	return os.NewSyscallError("process_vm_writev", err)
}

// writeStatfs writes the result of statfs(2).
func (c *stoppedCall) writeStatfs(st *unix.Statfs_t) error {
	return c.write(c.arguments[1], unsafe.Slice((*byte)(unsafe.Pointer(st)), unsafe.Sizeof(*st)))
}

// pathname reads the path argument of statfs(2). If it is invalid, the kernel has to refuse the
// call.
func (c *stoppedCall) pathname() (string, error) { return c.text(c.arguments[0], unix.PathMax) }

const (
	probedPath   = "/"
	probedBlocks = 4711
)

// tryCalls tests whether statfs(2) can be answered and passed on for a child of this process.
func tryCalls(child func() error) error {
	failed := make(chan error, 1)
	note := func(err error) {
		select {
		case failed <- err:
		default: // the first error is the cause
		}
	}
	l, err := listenCalls(unix.SYS_STATFS, note)
	if err != nil {
		return err
	}
	defer l.fail(io.EOF)
	go func() {
		for {
			call, err := l.receive()
			if err != nil {
				l.fail(err)
				return
			}
			path, err := call.pathname()
			if err == nil && path == probedPath {
				if err = call.writeStatfs(&unix.Statfs_t{Blocks: probedBlocks}); err == nil {
					l.done(call)
					continue
				}
			}
			if err != nil {
				note(err)
			}
			l.pass(call)
		}
	}()
	err = child()
	select {
	case cause := <-failed:
		return cause
	default:
		return err
	}
}

// askCalls is the part of tryCalls that runs in the child.
func askCalls() error {
	var st unix.Statfs_t
	if err := unix.Statfs(probedPath, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: probedPath, Err: err}
	}
	if st.Blocks != probedBlocks {
		return errors.New("no answer to statfs(2)")
	}
	if err := unix.Statfs("/proc", &st); err != nil {
		return &os.PathError{Op: "statfs", Path: "/proc", Err: err}
	}
	return nil
}

package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// control is one end of the socket between the driver and a worker, such as a machine's
// shim. Each message is one JSON packet, with at most one file descriptor.
type control struct {
	conn *net.UnixConn
	mu   sync.Mutex // orders writers
	buf  []byte
}

// maxMessage is well above the size of a specification with 500 layers, and below the
// default limit of a socket.
const maxMessage = 160 << 10

// message is a message in either direction. ID matches an answer to its request.
type message struct {
	Op    op        `json:"op"`
	ID    uint64    `json:"id,omitempty"`
	Boot  *bootSpec `json:"boot,omitempty"`
	Port  uint16    `json:"port,omitempty"`
	Name  string    `json:"name,omitempty"`
	Mode  Mode      `json:"mode,omitempty"`
	Ports []uint16  `json:"ports,omitempty"`
	Err   string    `json:"err,omitempty"`
	Errno int       `json:"errno,omitempty"`
	End   *ending   `json:"end,omitempty"`
}

type op string

const (
	opGive   op = "give"   // to a worker: a file for its job
	opShim   op = "shim"   // to a worker: become a shim
	opFiles  op = "files"  // to a worker: do a filesJob
	opDone   op = "done"   // from a worker: the job is done; otherwise opFailed
	opBoot   op = "boot"   // to the shim: what to boot
	opLink   op = "link"   // from the shim: the far end of the network card
	opUp     op = "up"     // from the shim: the first process is running
	opFailed op = "failed" // from the shim: the machine did not start
	opDial   op = "dial"   // request: connect to a port
	opPorts  op = "ports"  // request: list the listening ports
	opFreeze op = "freeze" // request: suspend every process
	opThaw   op = "thaw"   // request: resume every process
	opPlug   op = "plug"   // request: attach a volume
	opUnplug op = "unplug" // request: detach a volume
	opExec   op = "exec"   // to the shim, with a socket: run a command; see exec.go
	opStop   op = "stop"   // to the shim: ask the machine to shut down
	opKill   op = "kill"   // to the shim: end the machine at once
	opEnded  op = "ended"  // from the shim: the machine has ended; the last message
)

// ending is how a machine's first process ended.
type ending struct {
	Signal int // 0 if it exited
	Code   int
}

func newControl(f *os.File) (*control, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("the control socket is not a Unix socket")
	}
	return &control{conn: u, buf: make([]byte, maxMessage)}, nil
}

// send sends m and, if f is not nil, a copy of its descriptor.
func (c *control) send(m message, f *os.File) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return fmt.Errorf("a message of %d bytes is too long", len(b))
	}
	var rights []byte
	if f != nil {
		rights = syscall.UnixRights(int(f.Fd()))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _, err = c.conn.WriteMsgUnix(b, rights, nil)
	return err
}

// closed reports whether either end of the socket is closed.
func (c *control) closed() bool {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return true
	}
	closed := false
	err = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(poll, 0)
		closed = err == nil && n == 1 && poll[0].Revents&unix.POLLHUP != 0
	})
	return closed || err != nil
}

// receive waits for a message. The caller closes the file. Only one goroutine may call receive at a
// time. The error is io.EOF when the other end is closed.
func (c *control) receive() (message, *os.File, error) {
	rights := make([]byte, syscall.CmsgSpace(4))
	n, nrights, _, _, err := c.conn.ReadMsgUnix(c.buf, rights)
	if err != nil {
		return message{}, nil, err
	}
	if n == 0 {
		return message{}, nil, io.EOF
	}
	f, err := receivedFile(rights[:nrights])
	if err != nil {
		return message{}, nil, err
	}
	var m message
	if err := json.Unmarshal(c.buf[:n], &m); err != nil {
		if f != nil {
			f.Close()
		}
		return message{}, nil, fmt.Errorf("control message: %w", err)
	}
	return m, f, nil
}

func receivedFile(rights []byte) (*os.File, error) {
	if len(rights) == 0 {
		return nil, nil
	}
	messages, err := syscall.ParseSocketControlMessage(rights)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return nil, err
	}
	syscall.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "received"), nil
}

func (c *control) close() { _ = c.conn.Close() }

// failure stores err in m in a form that keeps its kind.
func failure(m message, err error) message {
	m.Err = err.Error()
	var errno syscall.Errno
	if errors.As(err, &errno) {
		m.Errno = int(errno)
	}
	return m
}

// remoteError is an error from the other side.
type remoteError struct {
	text  string
	errno syscall.Errno
}

func (e *remoteError) Error() string { return e.text }

func (e *remoteError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

func (m message) error() error {
	if m.Err == "" {
		return nil
	}
	return &remoteError{m.Err, syscall.Errno(m.Errno)}
}

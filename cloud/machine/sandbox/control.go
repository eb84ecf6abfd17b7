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
	opGive   op = "give"   // to a worker: a file for its work
	opShim   op = "shim"   // to a worker: be a shim
	opFiles  op = "files"  // to a worker: do a filesJob
	opDone   op = "done"   // from a worker: it is done; else opFailed
	opBoot   op = "boot"   // to the shim: what to boot
	opLink   op = "link"   // from the shim: the network card's far end
	opUp     op = "up"     // from the shim: the first process runs
	opFailed op = "failed" // from the shim: it does not
	opDial   op = "dial"   // a question: a connection to a port
	opPorts  op = "ports"  // a question: the ports that are listened on
	opFreeze op = "freeze" // a question: stop every process
	opThaw   op = "thaw"   // a question: let them go on
	opPlug   op = "plug"   // a question: make a volume appear
	opUnplug op = "unplug" // a question: take it away
	opExec   op = "exec"   // to the shim, with a socket: run a command; see exec.go
	opStop   op = "stop"   // to the shim: ask the machine to shut down
	opKill   op = "kill"   // to the shim: end the machine at once
	opEnded  op = "ended"  // from the shim, the last message
)

// ending is how a machine's first process ended.
type ending struct {
	Signal int // 0 when it exited
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

// send sends m and, when f is not nil, a copy of its descriptor.
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

// receive waits for a message; the caller closes the file. Only one goroutine
// may receive. The error is io.EOF once the other end is closed.
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

// failure stores an error in a message so that its kind is preserved.
func failure(m message, err error) message {
	m.Err = err.Error()
	var errno syscall.Errno
	if errors.As(err, &errno) {
		m.Errno = int(errno)
	}
	return m
}

// remoteError is an error of the other side.
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

// Package relay lets other programs of the same user use connections that only this
// process can make, such as those through its session or login.
package relay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// Limits for the request of a client, and for the answer.
const (
	patience = time.Minute
	maxLine  = 4 << 10
)

// abandoned is how long the other side may take to end after the joined terminal has gone
// away.
const abandoned = 10 * time.Second

// Serve serves connections on a socket at path until ctx ends. The socket is private to
// this user if its directory is. Each connection is joined to one that dial opens to the
// address, host and port, that the client requests.
func Serve(ctx context.Context, path string, dial func(ctx context.Context, addr string) (net.Conn, error)) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			go serve(ctx, conn, dial)
		}
	}()
	return nil
}

func serve(ctx context.Context, near net.Conn, dial func(ctx context.Context, addr string) (net.Conn, error)) {
	defer near.Close()
	defer context.AfterFunc(ctx, func() { _ = near.Close() })()
	in, addr, err := firstLine(near)
	if err != nil {
		return
	}
	far, err := dial(ctx, addr)
	if err != nil {
		_, _ = fmt.Fprintln(near, strings.ReplaceAll(err.Error(), "\n", " ")) // to a peer that may be gone
		return
	}
	defer far.Close()
	defer context.AfterFunc(ctx, func() { _ = far.Close() })()
	if _, err := io.WriteString(near, "\n"); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(far, in)
		closeWrite(far)
	}()
	_, _ = io.Copy(near, far)
}

// Connect connects to addr, a host and a port, through the process that serves path.
func Connect(ctx context.Context, path, addr string) (net.Conn, error) {
	if strings.ContainsAny(addr, "\r\n") {
		return nil, fmt.Errorf("%q is not an address", addr)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("the bake that leads to %s does not answer: %w", addr, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_, err = io.WriteString(conn, addr+"\n")
	var in *bufio.Reader
	var refusal string
	if err == nil {
		in, refusal, err = firstLine(conn)
	}
	if err == nil && refusal != "" {
		err = errors.New(refusal)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connecting to %s: %w", addr, err)
	}
	return &relayed{conn, in}, nil
}

// closeWrite signals the end of the data to the other side, if necessary by closing
// conn.
func closeWrite(conn net.Conn) {
	if w, ok := conn.(interface{ CloseWrite() error }); !ok || w.CloseWrite() != nil {
		_ = conn.Close()
	}
}

// Join connects a process's input and output to conn, for an SSH client that has the
// process as its ProxyCommand, until the other side of either closes it. Join closes conn.
//
// The end of a terminal does not end the connection: a client that continues in the
// background, as with ControlPersist, leaves its ProxyCommand in the terminal's process
// group, and would otherwise lose its connection when the first command that used it ends.
// The pipes end with the client in any case. If the terminal was the input, the other side
// also gets some time to end.
func Join(conn net.Conn, in io.Reader, out io.Writer) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	return join(conn, in, out, hangup)
}

func join(conn net.Conn, in io.Reader, out io.Writer, hangup <-chan os.Signal) error {
	defer conn.Close()
	over := make(chan struct{})
	defer close(over)
	go func() {
		_, _ = io.Copy(conn, in)
		closeWrite(conn)
		select {
		case <-hangup:
		case <-over:
			return
		}
		select {
		case <-time.After(abandoned):
			_ = conn.Close()
		case <-over:
		}
	}()
	_, err := io.Copy(out, conn)
	return err
}

// firstLine reads the first line from the other side, and returns a reader for the rest.
func firstLine(conn net.Conn) (rest *bufio.Reader, line string, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, "", err
	}
	rest = bufio.NewReaderSize(conn, maxLine)
	text, err := rest.ReadSlice('\n')
	if err != nil {
		return nil, "", err
	}
	return rest, strings.TrimSuffix(string(text), "\n"), conn.SetReadDeadline(time.Time{})
}

// relayed is a connection some of whose first bytes have been read ahead.
type relayed struct {
	net.Conn
	in *bufio.Reader
}

// Read implements [net.Conn].
func (r *relayed) Read(b []byte) (int, error) { return r.in.Read(b) }

// CloseWrite signals the end of the data to the other side.
func (r *relayed) CloseWrite() error {
	if w, ok := r.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

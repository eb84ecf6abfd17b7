package localcloud

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// GoneError is the cause of a context that ended because the process that served the
// local cloud has ended, and all machines with it.
type GoneError struct{ pid int }

func (e *GoneError) Error() string {
	return fmt.Sprintf("the local cloud is gone: process %d, which was serving it, has exited, and its machines with it. Run this again; leftover instances are stopped, and 'bake sweep' or a TerminateInstances call removes them. "+
		"To keep the local cloud independent of single commands, run 'bake cloud up' in another terminal", e.pid)
}

// watchEvery is the interval at which the process that serves the local cloud is
// checked.
const watchEvery = time.Second

// Watch returns a context that ends with a *GoneError when the process that serves the
// cloud has ended without waiting for this one. It ends at most a second later, and before a
// lost connection to a machine is reported. The caller releases it.
func (c *Cloud) Watch(parent context.Context) (ctx context.Context, release func()) {
	if c.open.ServedBy == 0 {
		return parent, func() {}
	}
	ctx, cancel := context.WithCancelCause(parent)
	look := func() {
		if c.gone(ctx) {
			cancel(&GoneError{c.open.ServedBy})
		}
	}
	dial := c.Dial
	c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &watchedConn{conn, look}, nil
	}
	go func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				look()
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// watchedConn is a connection to a machine that checks the cloud when it is lost.
type watchedConn struct {
	net.Conn
	look func()
}

// Read implements [net.Conn].
func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.look()
	}
	return n, err
}

// gone reports whether the server of the cloud is gone. A process that is being killed may
// accept a connection and then break it. Any other failure may be due to a busy host.
func (c *Cloud) gone(ctx context.Context) bool {
	d := net.Dialer{Timeout: watchEvery}
	for range 20 {
		conn, err := d.DialContext(ctx, "tcp", strings.TrimPrefix(c.Endpoint, "http://"))
		if err != nil {
			return errors.Is(err, syscall.ECONNREFUSED)
		}
		conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err = conn.Read(make([]byte, 1))
		conn.Close()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false // it is waiting for a request
		}
	}
	return false
}

// Dependence describes the other process whose end would also end the machines of this
// process. It is empty if there is no such process.
func (c *Cloud) Dependence() string {
	if c.open.ServedBy == 0 {
		return ""
	}
	return fmt.Sprintf("Process %d is serving the local cloud: if it is killed or gets a second Ctrl-C, the machines stop too.", c.open.ServedBy)
}

package network

import (
	"context"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// pipe copies bytes in both directions until both sides have finished or ctx ends, and
// closes both connections. The end of one side's stream reaches the other as an end, a
// reset as a reset, so that an interrupted download never looks complete.
func pipe(ctx context.Context, a, b net.Conn) {
	stop := context.AfterFunc(ctx, func() { abort(a); abort(b) })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { oneWay(a, b) })
	both.Go(func() { oneWay(b, a) })
	both.Wait()
	a.Close()
	b.Close()
}

func oneWay(dst, src net.Conn) {
	_, err := io.Copy(dst, io.LimitReader(prompt{src}, promptBytes))
	if err == nil {
		_, err = io.Copy(dst, src) // without copying in user space, where the kernel supports it
	}
	if err != nil {
		abort(src)
		abort(dst)
		return
	}
	if half, ok := dst.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	dst.Close()
}

// promptBytes is the number of bytes at the start of a stream that are acknowledged at
// once. A server that sends several small messages while its connection still uses
// Nagle's algorithm, as OpenSSH's does until it runs a command, waits for the
// acknowledgment of each, which the kernel delays by 40 ms.
const promptBytes = 64 << 10

// prompt acknowledges at once what is read from it.
type prompt struct{ src net.Conn }

func (p prompt) Read(b []byte) (int, error) {
	n, err := p.src.Read(b)
	acknowledge(p.src)
	return n, err
}

// acknowledge sends the acknowledgment that the kernel delays, see TCP_QUICKACK in tcp(7). The
// kernel soon delays acknowledgments again.
func acknowledge(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) })
}

// abort closes c in such a way that the other end sees a reset.
func abort(c net.Conn) {
	switch c := c.(type) {
	case interface{ reset() }:
		c.reset()
	case *net.TCPConn:
		_ = c.SetLinger(0)
		_ = c.Close()
	default:
		c.Close()
	}
}

// connQueue is a listener for connections that were accepted elsewhere.
type connQueue struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newConnQueue(addr net.Addr) *connQueue {
	return &connQueue{addr: addr, conns: make(chan net.Conn, maxHandshake), closed: make(chan struct{})}
}

// push passes c to Accept. If the queue is full or closed, c is reset.
func (q *connQueue) push(c net.Conn) {
	select {
	case <-q.closed:
		abort(c)
	case q.conns <- c:
	default:
		abort(c)
	}
}

func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *connQueue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

func (q *connQueue) Addr() net.Addr { return q.addr }

// Severable returns a connection that is reset when link ends.
func Severable(link context.Context, c net.Conn) net.Conn {
	return &severable{c, context.AfterFunc(link, func() { abort(c) })}
}

type severable struct {
	net.Conn
	release func() bool
}

// Close implements [net.Conn].
func (c *severable) Close() error {
	c.release()
	return c.Conn.Close()
}

// CloseWrite closes the sending half, if the connection supports it.
func (c *severable) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

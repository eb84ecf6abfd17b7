package network

import (
	"context"
	"io"
	"net"
	"sync"
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
	if _, err := io.Copy(dst, src); err != nil {
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

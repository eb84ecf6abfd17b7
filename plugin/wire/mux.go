package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
)

const (
	// maxStreams is the maximum number of open streams. Each can hold 256 KiB of unread data.
	maxStreams = 512
	// maxGreeting is how long the other end may take to name the stream that it dials, or to accept
	// one that was dialled. Plugins give up after 5 seconds.
	maxGreeting = 30 * time.Second
	// maxClosing is how long Close waits for an end that does not read.
	maxClosing = time.Second
	// maxStalled is how long the other end may not read at all. It is long because the process may
	// be suspended; if the process ends, the connection breaks anyway.
	maxStalled = 24 * time.Hour
)

// Mux is one connection that carries many streams. Each stream has a number. The side that
// allocates the number accepts the stream, and the other side dials it; each side counts from 1.
// Stream 0, the main one, is accepted by the plugin.
type Mux struct {
	session  *yamux.Session
	next     atomic.Uint32
	other    func(id uint32, c *Conn) // gets streams that have no listener; if nil, they are closed
	greeting time.Duration            // maxGreeting, except in tests

	mu      sync.Mutex
	waiting map[uint32]chan *Conn // of capacity 1; an entry is removed when its stream is dialled
	err     error                 // why the connection was closed, if the other end broke the rules
}

// NewMux starts the host's side of conn, which it takes over.
func NewMux(conn io.ReadWriteCloser) (*Mux, error) { return newMux(conn, yamux.Client, nil) }

// NewServer starts the plugin's side of conn, which it takes over. accept waits for the
// host to dial the main stream.
func NewServer(conn io.ReadWriteCloser) (m *Mux, accept func(context.Context) (*Conn, error), err error) {
	m = &Mux{waiting: map[uint32]chan *Conn{}, greeting: maxGreeting}
	accept = m.listen(0)
	return m, accept, m.start(conn, yamux.Server)
}

// NewRelay starts one side of conn, which it takes over: the plugin's or else the host's. It passes
// every stream that the other end dials to other, which must acknowledge it with [Ack] or close it.
func NewRelay(conn io.ReadWriteCloser, plugin bool, other func(id uint32, c *Conn)) (*Mux, error) {
	if plugin {
		return newMux(conn, yamux.Server, other)
	}
	return newMux(conn, yamux.Client, other)
}

type side func(io.ReadWriteCloser, *yamux.Config) (*yamux.Session, error)

func newMux(conn io.ReadWriteCloser, as side, other func(id uint32, c *Conn)) (*Mux, error) {
	m := &Mux{waiting: map[uint32]chan *Conn{}, other: other, greeting: maxGreeting}
	return m, m.start(conn, as)
}

func (m *Mux) start(conn io.ReadWriteCloser, as side) error {
	config := yamux.DefaultConfig()
	config.LogOutput = io.Discard
	config.EnableKeepAlive = false // both ends are on one machine
	config.ConnectionWriteTimeout = maxStalled
	config.StreamOpenTimeout = 0 // Dial has its own limits
	var err error
	if m.session, err = as(conn, config); err != nil {
		return err
	}
	go m.run()
	return nil
}

// Close ends all streams.
func (m *Mux) Close() error { return m.session.Close() }

// Closed is closed when the connection is closed, by either side.
func (m *Mux) Closed() <-chan struct{} { return m.session.CloseChan() }

// Err returns why the connection was closed if the other end has broken the rules of the protocol,
// and nil otherwise.
func (m *Mux) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// fail closes the connection because the other end has broken a rule.
func (m *Mux) fail(err error) {
	m.mu.Lock()
	m.err = err
	m.mu.Unlock()
	_ = m.session.Close()
}

// Conn is a stream. Closing it ends pending reads and drops data that still arrives, so that the
// other end can go on writing without blocking.
type Conn struct {
	stream  *yamux.Stream
	reading sync.Mutex
	closed  atomic.Bool
}

func newConn(s *yamux.Stream) *Conn { return &Conn{stream: s} }

// Read implements [io.Reader].
func (c *Conn) Read(b []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.stream.Read(b)
	if err != nil && c.closed.Load() {
		err = net.ErrClosed
	}
	return n, err
}

// Write implements [io.Writer].
func (c *Conn) Write(b []byte) (int, error) { return c.stream.Write(b) }

// CloseWrite ends the output; the other end then reads the end of the data. It does not wait long
// for an end that does not read.
func (c *Conn) CloseWrite() error {
	return within(maxClosing, c.stream.Close)
}

// Close implements [io.Closer].
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	_ = c.stream.SetReadDeadline(time.Unix(1, 0))
	return within(maxClosing, func() error {
		go func() {
			c.reading.Lock() // until a pending read has returned
			defer c.reading.Unlock()
			_ = c.stream.SetReadDeadline(time.Time{})
			_, _ = io.Copy(io.Discard, c.stream)
		}()
		return c.stream.Close()
	})
}

// within runs fn and waits for it up to limit. After that fn continues in the background.
func within(limit time.Duration, fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return nil
	}
}

// Dial opens the stream that the other end accepts as id. The other end may take some seconds; ctx
// can end the wait earlier.
func (m *Mux) Dial(ctx context.Context, id uint32) (*Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.greeting, errors.New("it was not accepted in time"))
	defer cancel()
	type opened struct {
		s   *yamux.Stream
		err error
	}
	ch := make(chan opened, 1)
	go func() {
		s, err := m.session.OpenStream()
		if err == nil {
			err = binary.Write(s, binary.LittleEndian, id)
		}
		ch <- opened{s, err}
	}()
	var o opened
	select {
	case o = <-ch:
	case <-ctx.Done():
		go func() {
			if o := <-ch; o.s != nil {
				_ = o.s.Close()
			}
		}()
		return nil, m.failed(ctx, id, nil)
	}
	if o.err != nil {
		if o.s != nil {
			newConn(o.s).Close()
		}
		return nil, m.failed(ctx, id, o.err)
	}
	stop := context.AfterFunc(ctx, func() { _ = o.s.SetReadDeadline(time.Unix(1, 0)) })
	var ack uint32
	err := binary.Read(o.s, binary.LittleEndian, &ack)
	if !stop() && err == nil { // the deadline may be set at any moment
		err = context.Cause(ctx)
	}
	if err != nil {
		newConn(o.s).Close()
		return nil, m.failed(ctx, id, err)
	}
	if ack != id {
		newConn(o.s).Close()
		return nil, fmt.Errorf("stream %d: it was taken for stream %d", id, ack)
	}
	return newConn(o.s), nil
}

// failed returns the error of a stream that could not be opened because of err or because ctx has
// ended.
func (m *Mux) failed(ctx context.Context, id uint32, err error) error {
	refused := errors.Is(err, io.EOF) || errors.Is(err, yamux.ErrConnectionReset)
	switch cause := m.Err(); {
	case cause != nil:
		err = cause
	case m.session.IsClosed():
		err = ErrGone
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case refused:
		err = errors.New("nobody waits for it")
	default: // the connection broke and is about to be closed
		err = fmt.Errorf("%w: %w", ErrGone, err)
	}
	return fmt.Errorf("stream %d: %w", id, err)
}

// Listen allocates a number and returns a function that waits, once, until the other end dials it.
// The number becomes invalid when that function returns.
func (m *Mux) Listen() (id uint32, accept func(context.Context) (*Conn, error)) {
	id = m.next.Add(1)
	return id, m.listen(id)
}

func (m *Mux) listen(id uint32) func(context.Context) (*Conn, error) {
	ch := make(chan *Conn, 1)
	m.mu.Lock()
	m.waiting[id] = ch
	m.mu.Unlock()
	return func(ctx context.Context) (*Conn, error) {
		var c *Conn
		var err error
		select {
		case c = <-ch:
			if err = Ack(c, id); err == nil {
				return c, nil
			}
		case <-m.Closed():
		case <-ctx.Done():
		}
		if !m.forget(id, ch) && c == nil {
			c = <-ch // just dialled
		}
		if c != nil {
			c.Close()
		}
		return nil, m.failed(ctx, id, err)
	}
}

// forget stops waiting for a stream. It reports false if the stream was dialled already and so was
// sent to ch.
func (m *Mux) forget(id uint32, ch chan *Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiting[id] != ch {
		return false
	}
	delete(m.waiting, id)
	return true
}

// Ack accepts a stream that a relay was passed.
func Ack(c *Conn, id uint32) error { return binary.Write(c, binary.LittleEndian, id) }

// run accepts the streams that the other end opens until the connection is closed.
func (m *Mux) run() {
	for {
		s, err := m.session.AcceptStream()
		if err != nil {
			return
		}
		if m.session.NumStreams() > maxStreams {
			m.fail(fmt.Errorf("%w: %d streams at a time", errLimit, maxStreams))
			return
		}
		go m.greet(s)
	}
}

// greet reads the number of stream s and passes s to the function that waits for it.
func (m *Mux) greet(s *yamux.Stream) {
	var id uint32
	_ = s.SetReadDeadline(time.Now().Add(m.greeting))
	if err := binary.Read(s, binary.LittleEndian, &id); err != nil {
		newConn(s).Close()
		return
	}
	_ = s.SetReadDeadline(time.Time{})
	m.mu.Lock()
	ch := m.waiting[id]
	delete(m.waiting, id)
	if ch != nil {
		ch <- newConn(s)
	}
	m.mu.Unlock()
	switch {
	case ch != nil:
	case m.other != nil:
		m.other(id, newConn(s))
	default:
		newConn(s).Close()
	}
}

package ssh_test

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// pipe is a network connection in memory that buffers without limit, so that it
// works in a bubble of testing/synctest.
func pipe() (net.Conn, net.Conn) {
	a, b := newHalf(), newHalf()
	return &memConn{a, b}, &memConn{b, a}
}

type half struct {
	mu     sync.Mutex
	more   *sync.Cond
	data   []byte
	closed bool
}

func newHalf() *half {
	h := &half{}
	h.more = sync.NewCond(&h.mu)
	return h
}

type memConn struct{ in, out *half }

func (c *memConn) Read(b []byte) (int, error) {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	for len(c.in.data) == 0 {
		if c.in.closed {
			return 0, io.EOF
		}
		c.in.more.Wait()
	}
	n := copy(b, c.in.data)
	c.in.data = c.in.data[n:]
	return n, nil
}

func (c *memConn) Write(b []byte) (int, error) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.out.closed {
		return 0, io.ErrClosedPipe
	}
	c.out.data = append(c.out.data, b...)
	c.out.more.Broadcast()
	return len(b), nil
}

func (c *memConn) Close() error {
	for _, h := range []*half{c.in, c.out} {
		h.mu.Lock()
		h.closed = true
		h.more.Broadcast()
		h.mu.Unlock()
	}
	return nil
}

func (c *memConn) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }
func (c *memConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 22} }
func (c *memConn) SetDeadline(time.Time) error      { return nil }
func (c *memConn) SetReadDeadline(time.Time) error  { return nil }
func (c *memConn) SetWriteDeadline(time.Time) error { return nil }

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// fake is an SSH server in memory. Commands succeed without doing anything,
// except "hang", which does not end.
type fake struct {
	HostKey gossh.Signer
	Key     gossh.PublicKey // nil: nobody gets in
	Mute    bool            // from the login on, answer nothing

	mu    sync.Mutex
	dials int
	conns []net.Conn
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dials
}

func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.Close()
	}
}

// dial is for [ssh.Target].
func (f *fake) dial(context.Context, string, string) (net.Conn, error) {
	near, far := pipe()
	f.mu.Lock()
	f.dials++
	f.conns = append(f.conns, far)
	f.mu.Unlock()
	go f.serve(far)
	return near, nil
}

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	config := &gossh.ServerConfig{
		MaxAuthTries: 6,
		PublicKeyCallback: func(_ gossh.ConnMetadata, key gossh.PublicKey) (*gossh.Permissions, error) {
			if f.Key != nil && string(key.Marshal()) == string(f.Key.Marshal()) {
				return nil, nil
			}
			return nil, io.EOF
		},
	}
	config.AddHostKey(f.HostKey)
	_, channels, requests, err := gossh.NewServerConn(c, config)
	if err != nil {
		return
	}
	if !f.Mute {
		go gossh.DiscardRequests(requests)
	}
	for ch := range channels {
		channel, requests, err := ch.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range requests {
				_ = r.Reply(true, nil)
				var cmd struct{ Line string }
				if r.Type == "exec" && gossh.Unmarshal(r.Payload, &cmd) == nil && cmd.Line != "hang" {
					_, _ = channel.SendRequest("exit-status", false, gossh.Marshal(struct{ Code uint32 }{0}))
					channel.Close()
				}
			}
		}()
	}
}

// refused is a dialer to a host on which nobody listens.
func refused(context.Context, string, string) (net.Conn, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: io.ErrUnexpectedEOF}
}

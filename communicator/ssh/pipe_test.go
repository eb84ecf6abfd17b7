package ssh_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"bake/communicator/ssh"
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

// fake is an SSH server in memory. Commands succeed without doing anything, except
// "hang", which does not end; "wait", which takes two seconds; "background" and
// "chatty", which end but leave a process that holds the output, silent or not.
type fake struct {
	HostKey gossh.Signer
	Plain   gossh.Signer    // beside HostKey, if that is a certificate
	Key     gossh.PublicKey // nil: no login succeeds
	Mute    bool            // from the login on, answer nothing
	Silent  string          // the step that is not answered
	Banner  string

	// SFTP serves the subsystem; nil: nothing answers.
	SFTP func(io.ReadWriteCloser)

	More   []gossh.Signer // other host keys, which are told after the login
	Liar   bool           // the others are not the server's
	OnDisk []gossh.PublicKey
	Down   func() bool // whether the machine is shutting down; nil: it does not run systemd

	mu    sync.Mutex
	drops int // links that are closed when a session is requested
	dials int
	conns []net.Conn
	ends  []chan struct{} // of the connections
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dials
}

// drop sets how many links are closed when a session is requested.
func (f *fake) drop(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drops = n
}

// dropped reports whether a link is to be closed.
func (f *fake) dropped() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drops--
	return f.drops >= 0
}

func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.Close()
	}
	for _, end := range f.ends {
		close(end)
	}
	f.conns, f.ends = nil, nil
}

// dial is for [ssh.Target].
func (f *fake) dial(context.Context, string, string) (net.Conn, error) {
	near, far := pipe()
	f.mu.Lock()
	f.dials++
	end := make(chan struct{})
	f.conns, f.ends = append(f.conns, far), append(f.ends, end)
	f.mu.Unlock()
	go f.serve(far, end)
	return near, nil
}

func (f *fake) serve(c net.Conn, end <-chan struct{}) {
	defer c.Close()
	if f.Silent == "version" {
		<-end
		return
	}
	config := &gossh.ServerConfig{
		MaxAuthTries: 6,
		PublicKeyCallback: func(_ gossh.ConnMetadata, key gossh.PublicKey) (*gossh.Permissions, error) {
			if f.Silent == "auth" {
				<-end
			}
			if f.Key != nil && string(key.Marshal()) == string(f.Key.Marshal()) {
				return nil, nil
			}
			return nil, io.EOF
		},
	}
	if f.Banner != "" {
		config.BannerCallback = func(gossh.ConnMetadata) string { return f.Banner }
	}
	if len(f.More) > 0 {
		config.ServerVersion = "SSH-2.0-OpenSSH_fake"
	}
	config.AddHostKey(f.HostKey)
	if f.Plain != nil {
		config.AddHostKey(f.Plain)
	}
	conn, channels, requests, err := gossh.NewServerConn(c, config)
	if err != nil {
		return
	}
	if !f.Mute {
		go f.global(conn, requests)
	}
	for ch := range channels {
		if f.Silent == "channel" {
			continue
		}
		if f.dropped() {
			return
		}
		channel, requests, err := ch.Accept()
		if err != nil {
			return
		}
		go f.session(channel, requests)
	}
}

// global answers requests that are about the connection.
func (f *fake) global(conn gossh.Conn, requests <-chan *gossh.Request) {
	if len(f.More) > 0 {
		var list []byte
		for _, k := range append(f.More, f.HostKey) {
			list = append(list, gossh.Marshal(struct{ Blob []byte }{k.PublicKey().Marshal()})...)
		}
		_, _, _ = conn.SendRequest("hostkeys-00@openssh.com", false, list)
	}
	for r := range requests {
		switch {
		case r.Type == f.Silent:
		case r.Type == "hostkeys-prove-00@openssh.com":
			var answer []byte
			for _, k := range f.More {
				signed := gossh.Marshal(struct {
					Name    string
					Session []byte
					Blob    []byte
				}{r.Type, conn.SessionID(), k.PublicKey().Marshal()})
				if f.Liar {
					k = f.HostKey
				}
				sig, err := k.Sign(rand.Reader, signed)
				if err != nil {
					return
				}
				answer = append(answer, gossh.Marshal(struct{ Sig []byte }{gossh.Marshal(sig)})...)
			}
			_ = r.Reply(true, answer)
		case r.WantReply:
			_ = r.Reply(false, nil)
		}
	}
}

func (f *fake) session(channel gossh.Channel, requests <-chan *gossh.Request) {
	gone := make(chan struct{})
	defer close(gone)
	exit := func() {
		_, _ = channel.SendRequest("exit-status", false, gossh.Marshal(struct{ Code uint32 }{0}))
	}
	for r := range requests {
		if r.Type == f.Silent {
			continue
		}
		_ = r.Reply(true, nil)
		if r.Type == "subsystem" && f.SFTP != nil {
			go f.SFTP(channel)
		}
		var cmd struct{ Line string }
		if r.Type != "exec" || gossh.Unmarshal(r.Payload, &cmd) != nil {
			continue // a subsystem says nothing
		}
		switch {
		case cmd.Line == "hang":
		case cmd.Line == "wait":
			time.AfterFunc(2*time.Second, func() {
				exit()
				channel.Close()
			})
		case cmd.Line == "background":
			_, _ = io.WriteString(channel, "started\n")
			exit()
		case cmd.Line == "chatty":
			exit()
			go func() {
				for {
					select {
					case <-gone:
						return
					case <-time.After(time.Second):
						_, _ = io.WriteString(channel, "still here\n")
					}
				}
			}()
		case strings.Contains(cmd.Line, "ssh_host_") && f.OnDisk != nil:
			go f.disk(channel)
		case strings.Contains(cmd.Line, "is-system-running") && f.Down != nil:
			state := "running"
			if f.Down() {
				state = "stopping"
			}
			_, _ = io.WriteString(channel, "Welcome to the machine!\n\n"+ssh.ScriptMark+"\n"+state+"\n")
			exit()
			channel.Close()
		default:
			exit()
			channel.Close()
		}
	}
}

// disk prints the host keys on disk for each line that it reads.
func (f *fake) disk(channel gossh.Channel) {
	_, _ = io.WriteString(channel, "Welcome to the machine!\n\n"+ssh.ScriptMark+"\n")
	lines := bufio.NewScanner(channel)
	for lines.Scan() {
		f.mu.Lock()
		for _, k := range f.OnDisk {
			_, _ = channel.Write(gossh.MarshalAuthorizedKey(k))
		}
		f.mu.Unlock()
		_, _ = io.WriteString(channel, "\n")
	}
	channel.Close()
}

// refused is a dialer to a host on which nobody listens.
func refused(context.Context, string, string) (net.Conn, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: io.ErrUnexpectedEOF}
}

package ssh

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/net/proxy"

	"bake/internal/httpconnect"
)

// link is one connection to the machine, with everything that exists as long as it does.
type link struct {
	*ssh.Client
	addr string
	host string
	port int

	direct   bool // any program could have dialed addr
	hostKeys *keyReader

	once    sync.Once
	down    chan struct{} // closed once the connection is unusable
	quiet   atomic.Bool   // the user was warned that the machine does not answer
	dead    atomic.Bool   // it was closed because the machine did not answer
	mu      sync.Mutex
	rtt     time.Duration // the shortest round trip seen; 0 before the first
	closers []func()      // the network connection comes first, so that the others do not wait for it
}

// onClose adds a function to call when the link is closed. If the link is closed already, it calls
// the function at once.
func (l *link) onClose(f func()) {
	l.mu.Lock()
	late := l.isDown()
	if !late {
		l.closers = append(l.closers, f)
	}
	l.mu.Unlock()
	if late {
		f()
	}
}

// Close ends the link and everything that runs over it.
func (l *link) Close() {
	l.once.Do(func() {
		l.mu.Lock()
		close(l.down)
		closers := l.closers
		l.mu.Unlock()
		for _, f := range closers {
			f()
		}
	})
}

func (l *link) isDown() bool {
	select {
	case <-l.down:
		return true
	default:
		return false
	}
}

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// Dial implements [proxy.Dialer]. The proxy package requires it but does not call it if it can pass
// a context.
func (f dialFunc) Dial(network, addr string) (net.Conn, error) {
	return f(context.Background(), network, addr)
}

func (f dialFunc) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return f(ctx, network, addr)
}

// dial connects to addr directly, through the proxy or through the bastion host. Connections that
// it opens are closed with l.
func (c *Client) dial(ctx context.Context, l *link, addr string) (conn net.Conn, err error) {
	switch {
	case c.opts.BastionHost != "":
		return c.throughBastion(ctx, l, addr)
	case c.opts.ProxyHost != "":
		conn, err = c.throughProxy(ctx, addr)
	default:
		conn, err = c.straight(ctx, "tcp", addr)
	}
	if err == nil {
		l.onClose(func() { conn.Close() })
	}
	return conn, err
}

// direct reports whether conn is a connection to addr itself.
func direct(conn net.Conn, addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	to, ok := conn.RemoteAddr().(*net.TCPAddr)
	if err != nil || !ok || strconv.Itoa(to.Port) != port {
		return false
	}
	ip := net.ParseIP(host)
	return ip == nil || ip.Equal(to.IP)
}

// Dial implements [communicator.Accessible].
func (c *Client) Dial(ctx context.Context) (net.Conn, error) {
	host, port := c.lastAddr()
	l := &link{down: make(chan struct{})}
	conn, err := c.dial(ctx, l, net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		l.Close()
		return nil, err
	}
	if c.target.Prepare != nil {
		c.target.Prepare(ctx)
	}
	return &linkedConn{conn, l}, nil
}

// linkedConn is a connection that also closes its link when it is closed.
type linkedConn struct {
	net.Conn
	link *link
}

// Close implements [net.Conn].
func (c *linkedConn) Close() error {
	err := c.Conn.Close()
	c.link.Close()
	return err
}

// CloseWrite tells the machine that no more data follows, if the connection supports that.
func (c *linkedConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (c *Client) straight(ctx context.Context, network, addr string) (net.Conn, error) {
	dial, patience := (&net.Dialer{KeepAlive: 5 * time.Second}).DialContext, dialTimeout
	if c.target.Dial != nil {
		dial, patience = c.target.Dial, indirectTimeout
	}
	ctx, cancel := patient(ctx, patience, addr)
	defer cancel()
	conn, err := within(ctx, func() (net.Conn, error) { return dial(ctx, network, addr) }, func(c net.Conn) { c.Close() })
	if err != nil {
		return nil, explained(ctx, err)
	}
	if c.opts.ReadWriteTimeout == 0 {
		return conn, nil
	}
	return &impatientConn{conn, c.opts.ReadWriteTimeout}, nil
}

func patient(ctx context.Context, limit time.Duration, addr string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("connecting to %s: no answer within %s", addr, limit))
}

// proxyServer is the proxy from the options: its protocol and its address.
type proxyServer struct{ scheme, host, port string }

func (p proxyServer) addr() string { return net.JoinHostPort(p.host, p.port) }

// The proxy protocols.
const (
	socksProxy = "socks5"
	httpProxy  = "http"
	httpsProxy = "https"
)

// proxy returns the proxy server. Its host may be written as a URL.
func (o *Options) proxy() (proxyServer, error) {
	p := proxyServer{socksProxy, o.ProxyHost, strconv.Itoa(o.ProxyPort)}
	if !strings.Contains(o.ProxyHost, "://") {
		return p, nil
	}
	u, err := url.Parse(o.ProxyHost)
	switch {
	case err != nil:
		return p, err
	case u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return p, fmt.Errorf("%q is not the URL of a proxy, such as http://proxy.example.com:3128", u.Redacted())
	case u.User != nil:
		return p, errors.New("the user and the password of the proxy belong in ssh_proxy_username and ssh_proxy_password")
	}
	switch u.Scheme {
	case socksProxy, httpProxy, httpsProxy:
		p.scheme = u.Scheme
	case "socks5h":
	default:
		return p, fmt.Errorf("%q is not a kind of proxy; use socks5, http or https", u.Scheme)
	}
	p.host = u.Hostname()
	if u.Port() != "" {
		p.port = u.Port()
	}
	return p, nil
}

func (c *Client) throughProxy(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := patient(ctx, indirectTimeout, addr)
	defer cancel()
	server, err := c.opts.proxy()
	if err != nil {
		return nil, &fatalError{fmt.Errorf("ssh_proxy_host: %w", err)}
	}
	conn, err := c.connectBy(ctx, server, addr)
	if err != nil {
		return nil, fmt.Errorf("through the proxy %s: %w", server.addr(), explained(ctx, err))
	}
	return conn, nil
}

func (c *Client) connectBy(ctx context.Context, server proxyServer, addr string) (net.Conn, error) {
	user, password := c.opts.ProxyUsername, c.opts.ProxyPassword
	if server.scheme == socksProxy {
		var auth *proxy.Auth
		if user != "" || password != "" {
			auth = &proxy.Auth{User: user, Password: password}
		}
		d, err := proxy.SOCKS5("tcp", server.addr(), auth, dialFunc(c.straight))
		if err != nil {
			return nil, err
		}
		return d.(proxy.ContextDialer).DialContext(ctx, "tcp", addr)
	}
	conn, err := c.straight(ctx, "tcp", server.addr())
	if err != nil {
		return nil, err
	}
	if server.scheme == httpsProxy {
		secure := tls.Client(conn, &tls.Config{ServerName: server.host, MinVersion: tls.VersionTLS12})
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, err
		}
		conn = secure
	}
	var header http.Header
	if user != "" || password != "" {
		header = httpconnect.Authorization(user, password)
	}
	conn, err = httpconnect.Tunnel(ctx, conn, addr, header)
	if refused := (*httpconnect.RefusedError)(nil); errors.As(err, &refused) && refused.Code == http.StatusProxyAuthRequired {
		return nil, &fatalError{fmt.Errorf("%w; check ssh_proxy_username and ssh_proxy_password", err)}
	}
	return conn, err
}

func (c *Client) throughBastion(ctx context.Context, l *link, addr string) (net.Conn, error) {
	server := net.JoinHostPort(c.opts.BastionHost, strconv.Itoa(c.opts.BastionPort))
	where := "the bastion host " + server
	conn, err := c.straight(ctx, "tcp", server)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be reached: %w", where, err)
	}
	l.onClose(func() { conn.Close() })
	bastion, err := c.handshake(ctx, conn, peer{server, where, c.opts.BastionUsername, "ssh_bastion_username", "ssh_bastion_port"}, c.bastionAuth, c.bastionHostKeys)
	if refused := (*authError)(nil); errors.As(err, &refused) {
		return nil, &fatalError{err} // permanent: the bastion host is up and has refused the login
	} else if err != nil {
		return nil, err
	}
	ctx, cancel := patient(ctx, indirectTimeout, addr)
	defer cancel()
	inner, err := bastion.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s cannot reach %s: %w", where, addr, explained(ctx, err))
	}
	return inner, nil
}

// impatientConn limits how long each read and each write may take.
type impatientConn struct {
	net.Conn
	limit time.Duration
}

func (c *impatientConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *impatientConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// openTunnels opens the tunnels of ssh_local_tunnels and ssh_remote_tunnels. They are closed with
// the link.
func (c *Client) openTunnels(ctx context.Context, l *link) error {
	for _, t := range c.opts.LocalTunnels {
		at := net.JoinHostPort("localhost", strconv.Itoa(t.Port))
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at)
		if err != nil {
			return fatal("ssh_local_tunnels: cannot listen on %s here: %w", at, err)
		}
		l.tunnel(ln, t.To, l.DialContext)
	}
	for _, t := range c.opts.RemoteTunnels {
		at := net.JoinHostPort("localhost", strconv.Itoa(t.Port))
		ln, err := within(ctx, func() (net.Listener, error) { return l.Listen("tcp", at) }, func(ln net.Listener) { ln.Close() })
		if errors.Is(err, errSilent) || context.Cause(ctx) != nil {
			return fmt.Errorf("ssh_remote_tunnels: %w", err)
		} else if err != nil {
			return fatal("ssh_remote_tunnels: the machine cannot listen on its %s: %w; the port may be in use, or sshd may not allow forwarding", at, err)
		}
		l.tunnel(ln, t.To, (&net.Dialer{}).DialContext)
	}
	return nil
}

// tunnel connects every connection that ln accepts to one that dial opens.
func (l *link) tunnel(ln net.Listener, to string, dial dialFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	l.onClose(func() {
		cancel()
		ln.Close()
	})
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			go join(ctx, near, to, dial)
		}
	}()
}

func join(ctx context.Context, near net.Conn, to string, dial dialFunc) {
	defer near.Close()
	far, err := dial(ctx, "tcp", to)
	if err != nil {
		return // the peer sees its connection closed, as it would without a tunnel
	}
	defer far.Close()
	defer context.AfterFunc(ctx, func() {
		near.Close()
		far.Close()
	})()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.Copy(far, near)
		closeWrite(far)
	}()
	_, _ = io.Copy(near, far)
	closeWrite(near)
	<-sent
}

func closeWrite(c net.Conn) {
	if c, ok := c.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}

// Package ssh talks to a machine over SSH: it waits until the machine is up, verifies its identity,
// runs commands and transfers files.
package ssh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/crypto/ssh"

	"bake/communicator"
	"bake/communicator/none"
	"bake/internal/debuglog"
	"bake/internal/delay"
	"bake/internal/lazyregexp"
	"bake/internal/prose"
	"bake/step"
)

// Target is what a builder knows about the machine that it created. Every field may be nil.
type Target struct {
	// Addr returns the address of the machine. It is called before each attempt to connect, also
	// after a reboot. An error that is [ErrNotYet] means that there is no address yet; any other
	// error ends connecting. Port 0 means ssh_port. The option ssh_host, if set, replaces the host.
	Addr func(ctx context.Context) (host string, port int, err error)

	// Signers are the builder's own keys, such as the temporary key of the build.
	Signers []ssh.Signer

	// HostKeys returns the machine's host keys as known from a source other than its network, such
	// as its console; none if they are not known yet. It is called at most once a second while
	// connecting. An error counts as not known yet.
	HostKeys func(ctx context.Context) ([]ssh.PublicKey, error)

	// User returns the login user of the machine's image if it is known, or "". It serves to
	// explain why the machine refuses ssh_username.
	User func(ctx context.Context) string

	// Dial replaces the connection over the network.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// Prepare is called before each login, also after a reboot, once the machine accepts
	// connections, and before a connection is passed to another program. It may make the machine
	// accept one of the keys for a while.
	Prepare func(ctx context.Context)

	// Through describes, in words, what Dial connects through if no other program can connect the
	// same way, and otherwise returns "". It may be nil.
	Through func() string
}

// ErrNotYet is the error of [Target.Addr] while the machine has no address yet.
var ErrNotYet = errors.New("the machine has no address yet")

// Connect waits until the machine accepts a login, for as long as o allows, and returns the
// connection. It gives up at once if waiting cannot help: on an unexpected host key, or an option
// that cannot work. When ctx ends, the wait ends with the cause of ctx. A builder can thus report
// that the machine is gone. With communicator = "none" Connect returns at once.
func Connect(ctx context.Context, s *step.Scope, o *Options, t Target) (communicator.Communicator, error) {
	if o.Communicator == None {
		return none.Communicator{}, nil
	}
	c, err := newClient(s, o, t)
	if err != nil {
		return nil, err
	}
	s.Say(ctx, "Waiting for SSH to become available...")
	l, err := c.connected(ctx)
	if err != nil {
		return nil, err
	}
	if wait := o.PauseBeforeConnecting; wait > 0 {
		s.Say(ctx, "Reached the machine; pausing %s before connecting again.", wait)
		l.Close()
		if err := delay.For(ctx, wait); err != nil {
			return nil, err
		}
		if _, err := c.connected(ctx); err != nil {
			return nil, err
		}
	}
	s.Say(ctx, "Connected to SSH!")
	return c, nil
}

// Pauses between attempts. A machine on this host is up within a second, one in a cloud within a
// minute or two.
const (
	firstPause = 20 * time.Millisecond
	longPause  = 2 * time.Second

	// Refused logins closer together than this count as one, so that frequent attempts do not use
	// up ssh_handshake_attempts while a machine installs the user's key.
	attemptSpacing = 7 * time.Second

	dialTimeout      = 5 * time.Second  // directly to the machine
	indirectTimeout  = 15 * time.Second // through a bastion, a proxy or the builder
	handshakeTimeout = time.Minute
)

// connect tries until it has a link, the limits of the options are reached, or an error makes
// further attempts pointless. again says that an earlier link has ended.
func (c *Client) connect(ctx context.Context, again bool) (*link, error) {
	timeout, attempts := c.opts.limits()
	var last error
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, errTimeout)
		defer cancel()
	}
	pauses := &backoff.ExponentialBackOff{
		InitialInterval: firstPause, MaxInterval: longPause, Multiplier: 1.3, RandomizationFactor: 0.1,
	}
	pauses.Reset()
	refused, counted := 0, time.Time{}
	told := map[string]bool{} // what the user knows
	for {
		start := time.Now()
		l, err := c.attempt(ctx)
		if err == nil && again && c.shutsDown(ctx, l) {
			l.Close()
			err = errShutdown
		}
		c.log(ctx, l, time.Since(start), err)
		if err == nil {
			return l, nil
		}
		var fatal *fatalError
		if errors.As(err, &fatal) {
			return nil, err
		}
		if context.Cause(ctx) == nil || last == nil {
			last = err // an error after the end only reflects the end
		}
		var auth *authError
		if errors.As(err, &auth) && time.Since(counted) >= attemptSpacing {
			refused, counted = refused+1, time.Now()
		}
		if attempts > 0 && refused >= attempts {
			return nil, err
		}
		if text := waitsFor(err); text != "" && !told[text] {
			c.scope.Say(ctx, "%s", text)
			told[text] = true
		}
		if delay.For(ctx, pauses.NextBackOff()) == nil {
			continue
		}
		if cause := context.Cause(ctx); !errors.Is(cause, errTimeout) {
			return nil, cause
		}
		if mismatch := (*HostKeyError)(nil); errors.As(last, &auth) || errors.As(last, &mismatch) {
			return nil, last
		}
		if errors.Is(last, errShutdown) {
			return nil, fmt.Errorf("timeout waiting for SSH: after %s (ssh_timeout), %w. Raise ssh_timeout, or find out which service on it takes so long to stop", timeout, last)
		}
		return nil, fmt.Errorf("timeout waiting for SSH: the machine could not be reached within %s (ssh_timeout); the last attempt failed: %w. "+
			"Check that its sshd listens on port %d (ssh_port), and that nothing in between blocks it", timeout, last, c.port())
	}
}

var (
	errTimeout  = errors.New("timeout waiting for SSH")
	errShutdown = errors.New("the machine is still shutting down")
)

// waitsFor says what is waited for after an attempt that failed with err, or nothing if that is the
// machine's start.
func waitsFor(err error) string {
	mismatch := (*HostKeyError)(nil)
	switch {
	case errors.Is(err, errShutdown):
		return "The machine is shutting down; waiting until it is up again."
	case errors.As(err, &mismatch):
		return fmt.Sprintf("%s presents a new host key, %s; waiting up to %.0f minutes for the machine's console to show it.",
			mismatch.addr, describe(mismatch.shown), consoleLag.Minutes())
	default:
		return ""
	}
}

// shutdownPatience is how long a machine may take to say whether it is shutting down.
const shutdownPatience = 5 * time.Second

// Restarts implements [communicator.Restarter].
func (c *Client) Restarts(ctx context.Context) bool {
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	if l == nil || l.isDown() { // the next call connects again, and looks itself
		return false
	}
	down := c.shutsDown(ctx, l)
	if down {
		l.Close()
	}
	return down
}

// shutsDown reports whether systemd on the machine is shutting it down. A machine that reboots ends
// the sessions first; for a moment its SSH server still accepts logins, and whatever runs there then
// does not survive the reboot. Soon the bus does not answer any more, but by then logins are
// forbidden. No answer in time counts as no.
func (c *Client) shutsDown(ctx context.Context, l *link) bool {
	ctx, cancel := context.WithTimeout(ctx, shutdownPatience)
	defer cancel()
	s, err := l.newSession(ctx)
	if err != nil {
		return false
	}
	answer, err := c.scriptOver(ctx, l, s, "command -v systemctl >/dev/null || exit 0; systemctl is-system-running 2>/dev/null; test ! -e /run/nologin || echo nologin", nil, nil)
	debuglog.From(ctx).DebugContext(ctx, "state of the system", "answer", answer, "error", err)
	return goesDown(strings.Fields(answer))
}

// goesDown judges the state of systemd, if it told one, and "nologin", if logins are forbidden. They
// are forbidden during the start too, and where systemd does not run, they may be at any time.
func goesDown(answer []string) bool {
	up := func(word string) bool {
		return slices.Contains([]string{"initializing", "starting", "running", "degraded", "maintenance", "offline"}, word)
	}
	return slices.Contains(answer, "stopping") || slices.Contains(answer, "nologin") && !slices.ContainsFunc(answer, up)
}

// fatalError is an error that further attempts do not cure.
type fatalError struct{ error }

func (e *fatalError) Unwrap() error { return e.error }

func fatal(format string, args ...any) error {
	return &fatalError{fmt.Errorf(format, args...)}
}

// authError is a refused login.
type authError struct {
	where, user string
	userOption  string   // the option that names the user
	tried       []string // what could be offered, in words
	said        []string // banners of the host
	imageUser   string   // the image's login user, if known
	err         error
}

func (e *authError) Error() string {
	tried := "there are no credentials to log in with: set ssh_private_key_file, ssh_password or ssh_agent_auth"
	if len(e.tried) > 0 {
		tried = "it was offered " + strings.Join(e.tried, "; ")
	}
	text := fmt.Sprintf("%s did not let user %q in; %s (%v). ", e.where, e.user, tried, e.err)
	if len(e.said) > 0 {
		text += fmt.Sprintf("It says: %q. ", strings.Join(e.said, " "))
	}
	if user := cmp.Or(suggestedUser(strings.Join(e.said, " ")), e.imageUser); user != "" && user != e.user {
		return text + fmt.Sprintf("The image's login user is %q: set %s = %[1]q", user, e.userOption)
	}
	return text + fmt.Sprintf("Check that the user (%s) exists there and may log in this way", e.userOption)
}

// suggestedUser returns the user that a machine's message asks clients to log in as, or "".
func suggestedUser(said string) string {
	if m := suggestion.Get().FindStringSubmatch(said); m != nil {
		return m[1]
	}
	return ""
}

var suggestion = lazyregexp.New(`(?i)log ?in as (?:the )?(?:user )?["']?([a-z_][a-z0-9_.-]*)["']? (?:user )?(?:rather|instead)`)

func (e *authError) Unwrap() error { return e.err }

// log writes the result of an attempt to connect to the debug log.
func (c *Client) log(ctx context.Context, l *link, took time.Duration, err error) {
	args := []any{"user", c.opts.Username, "took", took}
	if err != nil {
		args = append(args, "error", err)
	} else {
		args = append(args, "addr", l.addr)
	}
	debuglog.From(ctx).DebugContext(ctx, "ssh attempt", args...)
}

// attempt connects once.
func (c *Client) attempt(ctx context.Context) (*link, error) {
	host, port, err := c.addr(ctx)
	if errors.Is(err, ErrNotYet) {
		return nil, err
	} else if err != nil {
		return nil, &fatalError{err}
	}
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	l := &link{
		addr: addr, host: host, port: port, down: make(chan struct{}),
		hostKeys: &keyReader{turn: make(chan struct{}, 1)},
	}
	stop := context.AfterFunc(ctx, l.Close) // makes every wait for the machine below fail
	defer stop()
	conn, err := c.dial(ctx, l, addr)
	if err != nil {
		l.Close()
		return nil, explained(ctx, err)
	}
	l.direct = c.opts.BastionHost == "" && c.opts.ProxyHost == "" && direct(conn, addr)
	if c.target.Prepare != nil {
		c.target.Prepare(ctx)
	}
	l.Client, err = c.handshake(ctx, conn, peer{addr, "the machine at " + addr, c.opts.Username, "ssh_username", "ssh_port"}, c.auth, c.hostKeys)
	if err != nil {
		l.Close()
		return nil, explained(ctx, err)
	}
	go func() {
		_ = l.Wait()
		l.Close()
	}()
	if err := c.openTunnels(ctx, l); err != nil {
		l.Close()
		return nil, explained(ctx, err)
	}
	if c.agent.forward {
		// The server may decline; commands that need the agent will report it.
		_, _ = within(ctx, func() (struct{}, error) { return struct{}{}, c.agent.forwardOver(l.Client) }, nil)
	}
	if !stop() { // ctx has ended and closed it, even if no step above has noticed
		return nil, context.Cause(ctx)
	}
	return l, nil
}

// explained returns the cause of ctx, if it has ended, instead of the resulting error of a
// connection.
func explained(ctx context.Context, err error) error {
	var f *fatalError
	if cause := context.Cause(ctx); cause != nil && !errors.As(err, &f) {
		return cause
	}
	return err
}

// port returns the port from the options, or the one that was tried last.
func (c *Client) port() int {
	if c.tried != 0 {
		return c.tried
	}
	return c.opts.Port
}

func (c *Client) addr(ctx context.Context) (host string, port int, err error) {
	host, port = c.opts.Host, c.opts.Port
	if c.target.Addr != nil {
		h, p, err := c.target.Addr(ctx)
		if err != nil {
			return "", 0, err
		}
		if host == "" {
			host = h
		}
		if p != 0 {
			port = p
		}
	}
	c.tried = port
	if host == "" {
		return "", 0, errors.New("there is no host to connect to; set ssh_host")
	}
	return host, port, nil
}

// peer is the other side of a handshake, and the names of the options that concern it.
type peer struct {
	addr, where, user      string
	userOption, portOption string
}

// handshake makes an SSH client from a connection. The end of ctx closes the connection.
func (c *Client) handshake(ctx context.Context, conn net.Conn, p peer, auth *login, keys *hostKeys) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, handshakeTimeout,
		fmt.Errorf("%s did not complete the SSH handshake within %s", p.where, handshakeTimeout))
	defer cancel()
	expected := keys.expected(ctx, p.addr)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	check := keys.checking(ctx, expected)
	ofMachine := auth == c.auth
	auth = auth.anew() // other builds may log in to the bastion host at the same time
	config := &ssh.ClientConfig{
		Config:            ssh.Config{Ciphers: c.opts.Ciphers, KeyExchanges: c.opts.KeyExchangeAlgorithms},
		User:              p.user,
		Auth:              auth.methods(ctx, p.user),
		HostKeyCallback:   check.callback,
		HostKeyAlgorithms: expected.algorithms(),
		BannerCallback:    auth.banner,
	}
	greeting := &overheard{Conn: conn}
	sc, channels, requests, err := ssh.NewClientConn(greeting, p.addr, config)
	if err != nil {
		return nil, c.handshakeError(ctx, err, check.err, p, auth, ofMachine, greeting)
	}
	keys.accept(ctx, c.scope, p.where, check)
	keys.learnProved(ctx, sc, requests)
	if cause := context.Cause(ctx); cause != nil { // ctx has closed the connection
		return nil, cause
	}
	return ssh.NewClient(sc, channels, requests), nil
}

func (c *Client) handshakeError(ctx context.Context, err, hostKeyErr error, p peer, auth *login, ofMachine bool, greeting *overheard) error {
	var negotiation *ssh.AlgorithmNegotiationError
	said, isSSH := greeting.text()
	switch {
	case hostKeyErr != nil:
		return hostKeyErr // err has only its text
	case auth.err != nil && context.Cause(ctx) == nil:
		return auth.err
	case !isSSH && said != "":
		return fmt.Errorf("%s does not answer like an SSH server; it says %q (%w); check %s", p.where, said, err, p.portOption)
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case errors.As(err, &negotiation):
		return &fatalError{noCommon(p.where, negotiation)}
	case strings.Contains(err.Error(), "unable to authenticate"), strings.Contains(err.Error(), "authentication failures"):
		refused := &authError{where: p.where, user: p.user, userOption: p.userOption, tried: auth.offers, said: auth.said, err: err}
		if ofMachine && c.target.User != nil {
			refused.imageUser = c.target.User(ctx)
		}
		if len(auth.offers) > 0 && !auth.hope {
			return &fatalError{refused} // it stays expired
		}
		return refused
	}
	return fmt.Errorf("SSH handshake with %s: %w", p.where, err)
}

// noCommon describes the algorithms that each side offers when they have none in common.
func noCommon(where string, e *ssh.AlgorithmNegotiationError) error {
	list := func(names []string) string {
		names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { // markers of extensions, not algorithms
			return strings.HasPrefix(name, "ext-info-") || strings.HasPrefix(name, "kex-strict-")
		})
		if len(names) == 0 {
			return "none"
		}
		return strings.Join(names, ", ")
	}
	remedy := "use a newer SSH server"
	switch {
	case strings.Contains(e.What, "cipher"):
		remedy = "set ssh_ciphers"
	case strings.Contains(e.What, "key exchange"):
		remedy = "set ssh_key_exchange_algorithms"
	case strings.Contains(e.What, "host key"):
		remedy = "give the server a host key of a type that bake offers"
	}
	return fmt.Errorf("%s and bake have no %s algorithm in common: it offers %s; bake offers %s; %s",
		where, e.What, list(e.RequestedAlgorithms), list(e.SupportedAlgorithms), remedy)
}

// overheard keeps the first bytes that a host sends. They show what the host is if it is not an SSH
// server.
type overheard struct {
	net.Conn
	mu   sync.Mutex
	head []byte
}

// greetingSize is how much of a greeting is kept.
const greetingSize = 512

// Read implements [net.Conn].
func (o *overheard) Read(b []byte) (int, error) {
	n, err := o.Conn.Read(b)
	o.mu.Lock()
	defer o.mu.Unlock()
	if room := greetingSize - len(o.head); room > 0 {
		o.head = append(o.head, b[:min(n, room)]...)
	}
	return n, err
}

// text returns what the host sent as printable text, and whether it announced SSH.
func (o *overheard) text() (said string, isSSH bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for line := range strings.Lines(string(o.head)) {
		if strings.HasPrefix(line, "SSH-") {
			return said, true
		}
		said += line
	}
	return printable(said), false
}

// printable returns the start of an untrusted text, as one line.
func printable(s string) string { return prose.Short(s, 300) }

package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"bake/communicator"
	"bake/internal/delay"
	"bake/step"
)

// Client is a [communicator.Communicator] over SSH.
type Client struct {
	scope  *step.Scope
	opts   Options
	target Target

	auth, bastionAuth         *login
	hostKeys, bastionHostKeys *hostKeys
	agent                     *localAgent

	connecting chan struct{} // holds a token while someone connects
	mu         sync.Mutex
	link       *link // nil: not connected
	closed     bool
	tar        tarKind
}

func newClient(s *step.Scope, o *Options, t Target) (*Client, error) {
	c := &Client{scope: s, opts: *o, target: t, connecting: make(chan struct{}, 1)}
	configured, err := parseHostKeys(o.HostKeys)
	if err != nil {
		return nil, fmt.Errorf("ssh_host_keys: %w", err)
	}
	var known ssh.HostKeyCallback
	if o.KnownHostsFile != "" {
		if known, err = loadKnownHosts(o.KnownHostsFile); err != nil {
			return nil, fmt.Errorf("ssh_known_hosts_file: %w", err)
		}
	}
	strict := o.HostKeyCheck == Strict
	c.hostKeys = &hostKeys{strict: strict, configured: configured, known: known, console: t.HostKeys}
	c.bastionHostKeys = &hostKeys{strict: strict, known: known}

	c.agent = &localAgent{socket: lookup(s.Run.Env, "SSH_AUTH_SOCK")}
	c.agent.forward = c.agent.socket != "" && !o.DisableAgentForwarding
	if (o.AgentAuth || o.BastionHost != "" && o.BastionAgentAuth) && c.agent.socket == "" {
		return nil, errors.New("ssh_agent_auth is set, but no SSH agent runs here: SSH_AUTH_SOCK is not set; start one with: eval $(ssh-agent) && ssh-add")
	}
	if err := c.prepareLogins(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Client) prepareLogins() error {
	o := &c.opts
	c.auth = &login{password: o.Password}
	if o.AgentAuth {
		c.auth.agent = c.agent
	}
	if err := c.auth.addFile(o.PrivateKeyFile, o.CertificateFile); err != nil {
		return fmt.Errorf("ssh_private_key_file: %w", err)
	}
	for _, signer := range c.target.Signers {
		c.auth.keys = append(c.auth.keys, key{"the temporary key of this build", signer})
	}

	if o.BastionHost == "" {
		return nil
	}
	c.bastionAuth = &login{password: o.BastionPassword}
	if o.BastionAgentAuth {
		c.bastionAuth.agent = c.agent
	}
	if o.BastionInteractive {
		c.bastionAuth.ask = askOnTerminal
	}
	keyFile, certFile := o.BastionPrivateKeyFile, o.BastionCertificateFile
	if keyFile == "" {
		keyFile = o.PrivateKeyFile
		if certFile == "" {
			certFile = o.CertificateFile
		}
	}
	if err := c.bastionAuth.addFile(keyFile, certFile); err != nil {
		return fmt.Errorf("ssh_bastion_private_key_file: %w", err)
	}
	return nil
}

func lookup(env []string, name string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// Close ends the connection. Calls that are under way fail.
func (c *Client) Close() error {
	c.mu.Lock()
	l := c.link
	c.link, c.closed = nil, true
	c.mu.Unlock()
	if l != nil {
		l.Close()
	}
	c.agent.close()
	return nil
}

// connected returns the link, which it makes anew if there is none or it is down.
func (c *Client) connected(ctx context.Context) (*link, error) {
	select {
	case c.connecting <- struct{}{}:
		defer func() { <-c.connecting }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	c.mu.Lock()
	l, closed := c.link, c.closed
	c.mu.Unlock()
	if closed {
		return nil, net.ErrClosed
	}
	if l != nil && !l.isDown() {
		return l, nil
	}
	l, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		l.Close()
		return nil, net.ErrClosed
	}
	c.link, c.tar = l, tarUnknown
	return l, nil
}

// session opens a session, on a new link if the one there is turns out to be dead.
func (c *Client) session(ctx context.Context) (*link, *ssh.Session, error) {
	for again := false; ; again = true {
		l, err := c.connected(ctx)
		if err != nil {
			return nil, nil, err
		}
		session, err := l.newSession(ctx)
		if err == nil {
			return l, session, nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return nil, nil, cause
		}
		if again {
			return nil, nil, fmt.Errorf("the machine at %s does not open a session: %w", l.addr, err)
		}
		if refused := (*ssh.OpenChannelError)(nil); !errors.As(err, &refused) {
			l.Close()
			continue
		}
		// Refused, but alive: the sessions it allows may all be in use for a moment.
		if err := delay.For(ctx, time.Second); err != nil {
			return nil, nil, err
		}
	}
}

// newSession opens a session. A link on which that takes longer than a login
// may is dead.
func (l *link) newSession(ctx context.Context) (*ssh.Session, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, handshakeTimeout, errors.New("no answer"))
	defer cancel()
	type result struct {
		session *ssh.Session
		err     error
	}
	done := make(chan result, 1)
	go func() {
		s, err := l.NewSession()
		done <- result{s, err}
	}()
	select {
	case r := <-done:
		return r.session, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				r.session.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// Run implements [communicator.Communicator].
func (c *Client) Run(ctx context.Context, cmd communicator.Command) (communicator.Status, error) {
	return c.run(ctx, cmd, c.opts.Pty)
}

func (c *Client) run(ctx context.Context, cmd communicator.Command, pty bool) (communicator.Status, error) {
	l, session, err := c.session(ctx)
	if err != nil {
		return communicator.Status{}, err
	}
	defer func() { go session.Close() }() // on a dead link it would block
	if pty {
		if err := session.RequestPty("xterm", 40, 80, ssh.TerminalModes{ssh.ECHO: 0}); err != nil {
			return communicator.Status{}, fmt.Errorf("the machine gives no pseudo-terminal (ssh_pty): %w", err)
		}
	}
	if c.agent.forward {
		_ = agent.RequestAgentForwarding(session) // as ssh -A does when the server declines
	}
	unheard := make(chan error, 2)
	out, errOut := &gate{w: cmd.Stdout, failed: unheard}, &gate{w: cmd.Stderr, failed: unheard}
	defer out.shut()
	defer errOut.shut()
	session.Stdout, session.Stderr = out, errOut
	stdin, err := session.StdinPipe()
	if err != nil {
		return communicator.Status{}, err
	}
	if err := session.Start(cmd.Line); err != nil {
		return communicator.Status{}, c.lost(ctx, err)
	}
	go feed(stdin, cmd.Stdin)

	done := make(chan error, 1)
	go func() { done <- session.Wait() }()
	alive, stopAsking := context.WithCancel(ctx)
	defer stopAsking()
	go c.keepAlive(alive, l)
	select {
	case err := <-done:
		return status(err)
	case err := <-unheard:
		return communicator.Status{}, fmt.Errorf("passing on the output of a command: %w", err)
	case <-ctx.Done():
		go func() { _ = session.Signal(ssh.SIGTERM) }()
		return communicator.Status{}, context.Cause(ctx)
	}
}

// lost says that the connection went away, or that ctx took it away.
func (c *Client) lost(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return fmt.Errorf("%w (%w)", communicator.ErrDisconnected, err)
}

// status makes a status of what Session.Wait returns.
func status(err error) (communicator.Status, error) {
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return communicator.Status{}, nil
	case errors.As(err, &exit):
		return communicator.Status{Code: exit.ExitStatus(), Signal: exit.Signal()}, nil
	}
	return communicator.Status{}, fmt.Errorf("%w (%w)", communicator.ErrDisconnected, err)
}

// feed sends r as a command's standard input. A command that ends without
// reading all of it is no error.
func feed(stdin io.WriteCloser, r io.Reader) {
	if r != nil {
		_, _ = io.CopyBuffer(struct{ io.Writer }{stdin}, struct{ io.Reader }{r}, make([]byte, streamBuffer))
	}
	stdin.Close()
}

// streamBuffer is how much is read at once for the channel, which cuts it into packets.
const streamBuffer = 256 << 10

// gate passes writes on until it is shut or one fails. A nil writer drops them.
type gate struct {
	failed chan<- error

	mu sync.Mutex
	w  io.Writer
}

// Write never fails: a session whose output nobody takes would not end.
func (g *gate) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.w != nil {
		if _, err := g.w.Write(b); err != nil {
			g.w = nil
			g.failed <- err
		}
	}
	return len(b), nil
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.w = nil
}

// deadAfter is how long a machine may leave a sign of life unanswered.
const deadAfter = time.Minute

// keepAlive asks for signs of life until ctx is over, and closes a link that
// gives none.
func (c *Client) keepAlive(ctx context.Context, l *link) {
	interval := c.opts.KeepAliveInterval
	if interval <= 0 {
		return
	}
	for delay.For(ctx, interval) == nil {
		answered := make(chan error, 1)
		go func() {
			_, _, err := l.SendRequest("keepalive@openssh.com", true, nil)
			answered <- err
		}()
		t := time.NewTimer(deadAfter)
		select {
		case err := <-answered:
			t.Stop()
			if err == nil {
				continue
			}
			l.Close()
		case <-t.C:
			l.Close()
		case <-ctx.Done():
			t.Stop()
		}
		return
	}
}

// Facts are what a builder knows that a connection does not.
type Facts struct {
	RunID      string
	ID         string // of the machine; empty if the builder gives it none
	PublicKey  string // of the temporary key pair, if there is one
	PrivateKey string // likewise, in PEM
}

// Data returns the values of build.* that all builders have in common. All are
// strings but Port, an int. With the communicator "none", what describes the
// connection is "<unknown>".
func Data(o *Options, conn communicator.Communicator, f Facts) map[string]any {
	const unknown = "<unknown>"
	d := map[string]any{
		"ID": f.ID, "PackerRunUUID": f.RunID,
		"Host": unknown, "Port": unknown, "User": unknown, "Password": unknown, "ConnType": unknown,
		"SSHPublicKey": unknown, "SSHPrivateKey": unknown,
		"PackerHTTPIP":   "ERR_HTTP_IP_NOT_IMPLEMENTED_BY_BUILDER",
		"PackerHTTPPort": "ERR_HTTP_PORT_NOT_IMPLEMENTED_BY_BUILDER",
		"PackerHTTPAddr": "ERR_HTTP_ADDR_NOT_IMPLEMENTED_BY_BUILDER",
		"WinRMPassword":  "",
	}
	if f.ID == "" {
		d["ID"] = "ERR_ID_NOT_IMPLEMENTED_BY_BUILDER"
	}
	if c, ok := conn.(communicator.Describer); ok {
		c.Describe(d)
		d["ConnType"] = string(o.Communicator)
		d["SSHPublicKey"], d["SSHPrivateKey"] = f.PublicKey, f.PrivateKey
	}
	return d
}

// Describe implements [communicator.Describer].
func (c *Client) Describe(data map[string]any) {
	data["Host"], data["Port"] = c.Addr()
	data["User"], data["Password"] = c.opts.Username, c.opts.Password
}

// Addr returns where the machine was last reached.
func (c *Client) Addr() (host string, port int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == nil {
		return c.opts.Host, c.opts.Port
	}
	return c.link.host, c.link.port
}

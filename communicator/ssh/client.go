package ssh

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"bake/communicator"
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

	connecting chan struct{} // lock: holds a token during an attempt to connect
	tried      int           // the port that was last tried; used only while connecting
	mu         sync.Mutex
	link       *link // nil if not connected
	closed     bool
	tar        tarKind
}

func newClient(s *step.Scope, o *Options, t Target) (*Client, error) {
	c := &Client{scope: s, opts: *o, target: t, connecting: make(chan struct{}, 1)}
	c.opts.fill()
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
	c.hostKeys = &hostKeys{mode: o.HostKeyCheck, configured: configured, known: known, console: t.HostKeys}
	c.bastionHostKeys = &hostKeys{mode: o.HostKeyCheck, known: known}

	c.agent = &localAgent{socket: agentSocket(s.Run.Env)}
	c.agent.forward = c.agent.socket != "" && !o.DisableAgentForwarding
	wanted := ""
	switch {
	case o.AgentAuth:
		wanted = "ssh_agent_auth"
	case o.BastionHost != "" && o.BastionAgentAuth:
		wanted = "ssh_bastion_agent_auth"
	}
	if wanted != "" && c.agent.socket == "" {
		return nil, fmt.Errorf("%s is set, but no SSH agent runs here: %s", wanted, startAgent)
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
	if err := c.bastionAuth.addFile(o.bastionKey()); err != nil {
		return fmt.Errorf("ssh_bastion_private_key_file: %w", err)
	}
	return nil
}

// bastionKey is the key for the bastion host and its certificate; both may be "".
func (o *Options) bastionKey() (keyFile, certFile string) {
	if o.BastionPrivateKeyFile != "" {
		return o.BastionPrivateKeyFile, o.BastionCertificateFile
	}
	return o.PrivateKeyFile, cmp.Or(o.BastionCertificateFile, o.CertificateFile)
}

// Close ends the connection. Pending calls fail.
func (c *Client) Close() error {
	c.mu.Lock()
	l := c.link
	c.link, c.closed = nil, true
	c.mu.Unlock()
	if l != nil {
		l.Close()
	}
	return nil
}

// connected returns the link. It makes a new one if there is none or it is down.
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
	l, err := c.connect(ctx, l != nil)
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

// Describe implements [communicator.Describer].
func (c *Client) Describe() communicator.Connection {
	host, port := c.lastAddr()
	return communicator.Connection{Host: host, Port: port, User: c.opts.Username, Password: c.opts.Password}
}

// Access implements [communicator.Accessible].
func (c *Client) Access() communicator.Access {
	o := &c.opts
	a := communicator.Access{
		Port: o.Port, KeyFile: absolute(o.PrivateKeyFile), CertFile: absolute(o.CertificateFile), Agent: o.AgentAuth,
		HostKeys: c.hostKeys.lines(),
	}
	c.mu.Lock()
	a.Direct = c.link != nil && c.link.direct
	c.mu.Unlock()
	if c.target.Through != nil {
		a.Through = c.target.Through()
	}
	switch {
	case o.BastionHost != "":
		a.Proxy = c.bastionCommand()
	case o.ProxyHost != "":
		if p, err := o.proxy(); err == nil {
			a.Through = "the proxy " + p.addr()
		}
	}
	return a
}

// bastionCommand returns an ssh command that connects to the bastion host, which then connects to
// %h at %p. It checks the host key like bake, without asking, because ssh may have no terminal.
func (c *Client) bastionCommand() []string {
	o := &c.opts
	known := "accept-new"
	switch o.HostKeyCheck {
	case Off:
		known = "no"
	case Strict:
		known = "yes"
	}
	args := []string{"ssh", "-o", "StrictHostKeyChecking=" + known, "-o", "LogLevel=ERROR"}
	switch file := optionWord(absolute(o.KnownHostsFile)); {
	case o.HostKeyCheck == Off:
		args = append(args, "-o", "UserKnownHostsFile="+os.DevNull)
	case o.KnownHostsFile != "" && o.HostKeyCheck == Strict:
		args = append(args, "-o", "UserKnownHostsFile="+file)
	case o.KnownHostsFile != "": // ssh adds keys to the first file, which must not be the template's
		args = append(args, "-o", "UserKnownHostsFile=~/.ssh/known_hosts "+file)
	}
	if key, cert := o.bastionKey(); key != "" {
		args = append(args, "-i", absolute(key))
		if cert != "" {
			args = append(args, "-o", "CertificateFile="+optionWord(absolute(cert)))
		}
		if !o.BastionAgentAuth {
			args = append(args, "-o", "IdentitiesOnly=yes")
		}
	}
	if o.BastionPort != 0 && o.BastionPort != 22 {
		args = append(args, "-p", strconv.Itoa(o.BastionPort))
	}
	if o.BastionUsername != "" {
		args = append(args, "-l", o.BastionUsername)
	}
	return append(args, "-W", "[%h]:%p", "--", o.BastionHost)
}

// optionWord quotes a path as one word of a line in ssh_config.
func optionWord(path string) string {
	if strings.ContainsAny(path, " \t") {
		return `"` + path + `"`
	}
	return path
}

// absolute returns the absolute path of a user's file, for programs that start in another
// directory.
func absolute(file string) string {
	if file == "" {
		return ""
	}
	if home, err := ExpandHome(file); err == nil {
		file = home
	}
	if abs, err := filepath.Abs(file); err == nil {
		file = abs
	}
	return file
}

// lastAddr returns where the machine was last reached.
func (c *Client) lastAddr() (host string, port int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == nil {
		return c.opts.Host, c.opts.Port
	}
	return c.link.host, c.link.port
}

// Another implements [communicator.Reopener]. Tunnels stay with c. The two communicators do not log
// in at the same time.
func (c *Client) Another() communicator.Communicator {
	other := &Client{
		scope: c.scope, opts: c.opts, target: c.target, auth: c.auth, bastionAuth: c.bastionAuth,
		hostKeys: c.hostKeys, bastionHostKeys: c.bastionHostKeys, agent: c.agent, connecting: c.connecting,
	}
	other.opts.LocalTunnels, other.opts.RemoteTunnels = nil, nil
	return other
}

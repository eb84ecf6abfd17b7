package ssh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
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

	connecting chan struct{} // holds a token while someone connects
	tried      int           // the port that was last tried, by whom connects
	mu         sync.Mutex
	link       *link // nil: not connected
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
	if (o.AgentAuth || o.BastionHost != "" && o.BastionAgentAuth) && c.agent.socket == "" {
		return nil, errors.New("ssh_agent_auth is set, but no SSH agent runs here: " + startAgent)
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

// Close ends the connection. Calls that are under way fail.
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

// Access implements [communicator.Accessible].
func (c *Client) Access() communicator.Access {
	o := &c.opts
	a := communicator.Access{Port: o.Port, KeyFile: absolute(o.PrivateKeyFile)}
	if c.target.Through != nil {
		a.Through = c.target.Through()
	}
	switch {
	case o.BastionHost != "":
		a.Proxy = []string{"ssh"}
		if key := cmp.Or(o.BastionPrivateKeyFile, o.PrivateKeyFile); key != "" {
			a.Proxy = append(a.Proxy, "-i", absolute(key))
		}
		if o.BastionPort != 0 && o.BastionPort != 22 {
			a.Proxy = append(a.Proxy, "-p", strconv.Itoa(o.BastionPort))
		}
		if o.BastionUsername != "" {
			a.Proxy = append(a.Proxy, "-l", o.BastionUsername)
		}
		a.Proxy = append(a.Proxy, "-W", "[%h]:%p", "--", o.BastionHost)
	case o.ProxyHost != "":
		a.Through = "the SOCKS proxy " + net.JoinHostPort(o.ProxyHost, strconv.Itoa(o.ProxyPort))
	}
	return a
}

// absolute is the path of a file of the user's for programs that start elsewhere.
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

// Addr returns where the machine was last reached.
func (c *Client) Addr() (host string, port int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == nil {
		return c.opts.Host, c.opts.Port
	}
	return c.link.host, c.link.port
}

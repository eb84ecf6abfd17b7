// Package host connects to an existing machine, as the user's own SSH client would.
package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"bake/communicator"
	"bake/communicator/ssh"
	"bake/step"
)

// Options define how to log in.
type Options struct {
	Host       string // ssh://[USER@]HOST[:PORT]
	Bastion    string // likewise, of the bastion; "": none
	KeyFile    string // a private key; "": the keys of the SSH agent, or else the first existing one in ~/.ssh
	KnownHosts string // a known_hosts file; "": ~/.ssh/known_hosts

	HostKeyCheck string // one of KeyChecks; "": the first of them

	Env  []string // with SSH_AUTH_SOCK
	Emit func(step.Event)
}

// KeyChecks returns the policies for host keys: accept only known keys, accept any key if
// none is known, and accept any key.
func KeyChecks() []string { return []string{string(ssh.Strict), string(ssh.Pin), string(ssh.Off)} }

// patience is how long to wait for a host. It is short because the host should be running.
const patience = 30 * time.Second

// Check returns an error if the options are invalid.
func (o Options) Check() error {
	_, err := o.options()
	return err
}

// Connect logs in to the host. The caller closes the communicator.
func Connect(ctx context.Context, o Options) (communicator.Communicator, error) {
	opts, err := o.options()
	if err != nil {
		return nil, err
	}
	scope := step.NewScope(step.Scope{Run: step.Invocation{ID: "host", Env: o.Env}, Emit: o.Emit})
	c, err := ssh.Connect(ctx, scope, &opts, ssh.Target{})
	if err != nil && opts.HostKeyCheck == ssh.Strict && strings.Contains(err.Error(), "is not known") {
		return nil, fmt.Errorf("the host key of %s is not in %s; log in once with ssh and check it, or use -host-key-check=pin (%w)",
			opts.Host, cmp.Or(opts.KnownHostsFile, "~/.ssh/known_hosts, which does not exist"), err)
	}
	return c, err
}

// options returns the options of the communicator.
func (o Options) options() (ssh.Options, error) {
	opts := ssh.Defaults()
	opts.Timeout, opts.HandshakeAttempts = patience, 1
	opts.DisableAgentForwarding = true // root on that host could use the keys
	opts.HostKeyCheck = cmp.Or(ssh.HostKeyCheck(o.HostKeyCheck), ssh.Strict)
	var err error
	if opts.Username, opts.Host, opts.Port, err = parse("-host", o.Host); err != nil {
		return opts, err
	}
	if opts.PrivateKeyFile, opts.AgentAuth, err = o.key(); err != nil {
		return opts, err
	}
	if o.Bastion != "" {
		if opts.BastionUsername, opts.BastionHost, opts.BastionPort, err = parse("-bastion", o.Bastion); err != nil {
			return opts, err
		}
		opts.BastionAgentAuth = opts.AgentAuth
	}
	opts.KnownHostsFile = o.KnownHosts
	if opts.KnownHostsFile == "" {
		if home, err := os.UserHomeDir(); err == nil {
			if file := filepath.Join(home, ".ssh", "known_hosts"); exists(file) {
				opts.KnownHostsFile = file
			}
		}
	}
	return opts, nil
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// key returns the private key to log in with, or that the SSH agent has it.
func (o Options) key() (file string, agent bool, err error) {
	if o.KeyFile != "" {
		return o.KeyFile, false, nil
	}
	for _, v := range o.Env {
		if socket, ok := strings.CutPrefix(v, "SSH_AUTH_SOCK="); ok && socket != "" {
			return "", true, nil
		}
	}
	if home, err := os.UserHomeDir(); err == nil {
		for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} { // in the order of ssh
			if file := filepath.Join(home, ".ssh", name); exists(file) {
				return file, false, nil
			}
		}
	}
	return "", false, errors.New("there is no key to log in with: use -i, or start an SSH agent")
}

// parse parses the value of a flag: an ssh URL, or USER@HOST as ssh takes it.
func parse(flag, text string) (name, host string, port int, err error) {
	bad := func(why string) error {
		return fmt.Errorf("%s: %q %s; it is written ssh://USER@HOST:PORT", flag, text, why)
	}
	full := text
	if !strings.Contains(full, "://") {
		full = "ssh://" + full
	}
	u, err := url.Parse(full)
	switch {
	case err != nil:
		return "", "", 0, bad("is not a URL")
	case u.Scheme != "ssh":
		return "", "", 0, bad("is not a host that SSH is spoken to")
	case u.Hostname() == "":
		return "", "", 0, bad("names no host")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return "", "", 0, bad("has more than a host")
	}
	if _, has := u.User.Password(); has {
		text = u.Redacted()
		return "", "", 0, bad("has a password, which would be seen by others: use a key")
	}
	port = 22
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return "", "", 0, bad("has a port that is none")
		}
		port = int(n)
	}
	if name = u.User.Username(); name == "" {
		me, err := user.Current()
		if err != nil {
			return "", "", 0, bad("names no user")
		}
		name = me.Username
	}
	return name, u.Hostname(), port, nil
}

package ansible

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"bake/communicator"
	"bake/internal/relay"
	"bake/internal/shellquote"
)

// target is the host that Ansible connects to, and the credentials.
type target struct {
	communicator.Connection // of the machine, as bake reached it

	host         string
	port         int
	user         string
	winrm        bool
	keyFile      string   // private key; empty: none, or those of the SSH agent
	passwordFile string   // variables with the password; empty: none
	sshArgs      []string // for ssh, scp and sftp
	hostKeyKnown bool
}

// connectTo determines how Ansible connects to the machine, and creates the files and
// servers that this takes.
func (r *run) connectTo(ctx context.Context) error {
	if d, ok := r.machine.Communicator.(communicator.Describer); ok {
		r.to.Connection = d.Describe()
	}
	asked := r.UseProxy != nil && *r.UseProxy
	switch why := r.notDirect(); {
	case why == "" && r.to.WinRM:
		return r.winRM()
	case why == "":
		return r.direct(ctx)
	case !asked && r.UseProxy != nil:
		r.scope.Warn(ctx, "use_proxy is false, but Ansible cannot connect to the machine itself: %s. It connects through bake.", why)
	case !asked:
		r.scope.Say(ctx, "Ansible connects to the machine through bake: %s", why)
	}
	return r.proxy(ctx)
}

// notDirect returns the reason why Ansible cannot connect to the machine directly; "" if
// it can.
func (r *run) notDirect() string {
	refused := r.UseProxy != nil && !*r.UseProxy
	if r.UseProxy != nil && *r.UseProxy {
		return "use_proxy is set"
	}
	if r.to.WinRM {
		return ""
	}
	reached, ok := r.machine.Communicator.(communicator.Accessible)
	if !ok {
		return "the communicator is not SSH"
	}
	access := reached.Access()
	switch {
	case !access.Direct && len(r.connect) == 0:
		return "the machine can be reached from here only through bake"
	case refused:
		return ""
	case r.LocalPort != 0:
		return "local_port is set"
	case r.User != "" && r.User != r.to.User:
		return fmt.Sprintf("bake logs in as %s, and user is %s", r.to.User, r.User)
	case access.KeyFile == "" && !access.Agent && r.privateKey() == "" && r.to.Password != "":
		if _, err := exec.LookPath("sshpass"); err != nil {
			return "to log in with a password, Ansible needs sshpass, which is not installed here"
		}
	}
	return ""
}

// privateKey returns the private key of the build's temporary key pair, or "".
func (r *run) privateKey() string {
	key := r.machine.Data["SSHPrivateKey"].Text
	if !strings.Contains(key, "PRIVATE KEY") {
		return ""
	}
	return strings.TrimRight(key, "\n") + "\n"
}

// direct makes Ansible connect to the machine directly by SSH.
func (r *run) direct(ctx context.Context) (err error) {
	reached := r.machine.Communicator.(communicator.Accessible)
	access := reached.Access()
	r.to.host, r.to.port, r.to.user = r.to.Host, r.to.Port, cmp.Or(r.User, r.to.User)
	if !access.Direct && (r.to.Host == "localhost" || r.to.port == 0) { // the machine has no address that can be dialed, only a command
		r.to.host, r.to.port = cmp.Or(r.machine.Data["ID"].Text, r.to.Host), cmp.Or(access.Port, 22)
	}
	key := r.privateKey()
	switch {
	case access.KeyFile != "":
		r.to.keyFile = access.KeyFile
		if access.CertFile != "" {
			r.to.sshArgs = append(r.to.sshArgs, "-o", "CertificateFile="+optionWord(access.CertFile))
		}
	case key != "":
		if r.to.keyFile, err = r.write("key", key); err != nil {
			return err
		}
	case access.Agent:
	case r.to.Password != "":
		if err := r.password(); err != nil {
			return err
		}
	}
	if err := r.knownHosts(access.HostKeys); err != nil {
		return err
	}
	if access.Direct {
		return nil
	}
	machine := net.JoinHostPort(r.to.host, strconv.Itoa(r.to.port))
	socket := filepath.Join(r.sockets, "machine")
	err = relay.Serve(ctx, socket, func(ctx context.Context, addr string) (net.Conn, error) {
		if addr == machine {
			return reached.Dial(ctx)
		}
		var d net.Dialer // another host that the playbook connects to
		return d.DialContext(ctx, "tcp", addr)
	})
	if err != nil {
		return fmt.Errorf("connecting Ansible to the machine: %w", err)
	}
	r.to.sshArgs = append(r.to.sshArgs, "-o", "ProxyCommand="+shellquote.Join(append(append([]string(nil), r.connect...), "-through", socket)...))
	return nil
}

// winRM makes Ansible connect to the machine directly by WinRM.
func (r *run) winRM() error {
	r.to.winrm = true
	r.to.host, r.to.port, r.to.user = r.to.Host, r.to.Port, cmp.Or(r.User, r.to.User)
	if r.to.Password == "" {
		return nil
	}
	return r.password()
}

// password writes the machine's password to a file for Ansible, because all users of this
// computer can read arguments.
func (r *run) password() error {
	text, err := json.Marshal(map[string]string{"ansible_password": r.to.Password})
	if err != nil {
		return err
	}
	r.to.passwordFile, err = r.write("password.json", string(text))
	return err
}

// knownHosts makes SSH clients accept only the given keys from the machine. For other hosts
// they use the user's known hosts.
func (r *run) knownHosts(keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	if mentions(append(r.extra, r.env...), "ansible_ssh_common_args") {
		return nil // which replaces the arguments that are made here
	}
	text, err := knownHosts(r.to.host, r.to.port, keys)
	if err != nil {
		return err
	}
	file, err := r.write("known_hosts", text)
	if err != nil {
		return err
	}
	r.to.hostKeyKnown = true
	r.to.sshArgs = append(r.to.sshArgs, "-o", "UserKnownHostsFile="+optionWord(file)+" ~/.ssh/known_hosts ~/.ssh/known_hosts2")
	return nil
}

// knownHosts returns the text of a known_hosts file with the keys of one host.
func knownHosts(host string, port int, keys []string) (string, error) {
	if port != 22 {
		host = fmt.Sprintf("[%s]:%d", host, port)
	}
	var b strings.Builder
	for _, line := range keys {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return "", fmt.Errorf("the host key %q: %w", line, err)
		}
		marker := ""
		if cert, ok := key.(*ssh.Certificate); ok {
			marker, key = "@cert-authority ", cert.SignatureKey
		}
		fmt.Fprintf(&b, "%s%s %s", marker, host, ssh.MarshalAuthorizedKey(key))
	}
	return b.String(), nil
}

// optionWord quotes a path as one word of a line in ssh_config.
func optionWord(path string) string {
	if strings.ContainsAny(path, " \t") {
		return `"` + path + `"`
	}
	return path
}

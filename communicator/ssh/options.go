package ssh

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"bake/config/schema"
	"bake/internal/prose"
)

// Options say how a machine is reached. Builders embed them. What depends on
// where the machine comes from, such as a temporary key pair, is the builder's.
type Options struct {
	// How bake connects to the machine: `ssh`, `winrm`, or not at all (`none`). With `none`,
	// commands succeed without doing anything and file transfers fail.
	Communicator Kind `hcl:"communicator,optional"`

	// How long to wait after the first successful connection before connecting again and
	// provisioning. For machines that restart SSH while they boot.
	PauseBeforeConnecting time.Duration `hcl:"pause_before_connecting,optional"`

	// Host name or address to connect to. The builder sets it for machines that it launches.
	Host string `hcl:"ssh_host,optional"`

	// TCP port of the SSH server.
	Port int `hcl:"ssh_port,optional"`

	// User to log in as. It depends on the image: `admin` for Debian, `ubuntu` for Ubuntu,
	// `ec2-user` for Amazon Linux. Cloud images refuse `root`.
	Username string `hcl:"ssh_username,optional"`

	// Password to log in with. It also answers every question of keyboard-interactive
	// authentication.
	Password string `hcl:"ssh_password,optional,secret"`

	// Private key to log in with: a file in PEM or OpenSSH format, without a passphrase. `~`
	// and `~user` at the start stand for home directories.
	PrivateKeyFile string `hcl:"ssh_private_key_file,optional"`

	// OpenSSH certificate for the key in `ssh_private_key_file`.
	CertificateFile string `hcl:"ssh_certificate_file,optional"`

	// Log in with the keys of the local SSH agent (`SSH_AUTH_SOCK`).
	AgentAuth bool `hcl:"ssh_agent_auth,optional"`

	// Do not forward the local SSH agent to the machine. Not set: it is forwarded if one is
	// running, and root on the machine can use its keys during the build.
	DisableAgentForwarding bool `hcl:"ssh_disable_agent_forwarding,optional"`

	// Ciphers to offer, in order of preference. Not set: a secure default list.
	Ciphers []string `hcl:"ssh_ciphers,optional"`

	// Key exchange algorithms to offer, in order of preference. Not set: a secure default
	// list. Set it for old SSH servers.
	KeyExchangeAlgorithms []string `hcl:"ssh_key_exchange_algorithms,optional"`

	// Which host keys are accepted. `pin`: if a key is known beforehand (from
	// `ssh_host_keys`, `ssh_known_hosts_file`, or the console of the new machine if it can
	// be read in time), that key is required; otherwise the first key seen is trusted and
	// pinned until the build ends. The machine's other keys, and those that it generates
	// during the build, are read over the trusted connection and accepted too. `strict`:
	// only keys known beforehand are accepted; bake waits for the console to show them, up
	// to `ssh_timeout`. `off`: any key is accepted, every time. The log says which key was
	// accepted and why.
	HostKeyCheck HostKeyCheck `hcl:"ssh_host_key_check,optional"`

	// Host keys to accept, each in the form `ssh-ed25519 AAAA...`.
	HostKeys []string `hcl:"ssh_host_keys,optional"`

	// A known_hosts file in OpenSSH's format. If it lists the host (or the bastion host),
	// only the listed keys are accepted.
	KnownHostsFile string `hcl:"ssh_known_hosts_file,optional"`

	// Run each command in a pseudo-terminal, for example for a sudo with `requiretty`.
	// Standard error then appears as part of standard output.
	Pty bool `hcl:"ssh_pty,optional"`

	// How long to try to connect. 5m if neither this nor `ssh_handshake_attempts` is set; no
	// limit if only the other is.
	Timeout time.Duration `hcl:"ssh_timeout,optional"`

	// Deprecated: use `ssh_timeout`. If both are set, this one wins.
	WaitTimeout time.Duration `hcl:"ssh_wait_timeout,optional"`

	// How many failed logins to accept while the machine boots. 10 if neither this nor
	// `ssh_timeout` is set; no limit if only the other is.
	HandshakeAttempts int `hcl:"ssh_handshake_attempts,optional"`

	// How files are transferred. `scp`: as a stream through the machine's shell, a single
	// file through `cat` and several through one `tar`. It is the fastest method and needs
	// only a POSIX shell; without `tar`, files are sent one by one. `sftp`: through the SFTP
	// subsystem, for machines whose shell is not a POSIX shell. It sends each file through
	// one session, holes included: large files take longer to a machine that is far away.
	FileTransferMethod TransferMethod `hcl:"ssh_file_transfer_method,optional"`

	// How often to check that the connection is alive while a command runs. Negative: never.
	// If several checks in a row fail, the connection counts as lost.
	KeepAliveInterval time.Duration `hcl:"ssh_keep_alive_interval,optional"`

	// How long one read or write on the connection may take. 0: no limit.
	ReadWriteTimeout time.Duration `hcl:"ssh_read_write_timeout,optional"`

	// Host to connect through (a jump host). Not together with `ssh_proxy_host`.
	BastionHost string `hcl:"ssh_bastion_host,optional"`

	// TCP port of the bastion host.
	BastionPort int `hcl:"ssh_bastion_port,optional"`

	// User to log in to the bastion host as. Required with `ssh_bastion_host`.
	BastionUsername string `hcl:"ssh_bastion_username,optional"`

	// Password to log in to the bastion host with.
	BastionPassword string `hcl:"ssh_bastion_password,optional,secret"`

	// Private key to log in to the bastion host with. Not set: `ssh_private_key_file`.
	BastionPrivateKeyFile string `hcl:"ssh_bastion_private_key_file,optional"`

	// OpenSSH certificate for the key of the bastion host. Not set: `ssh_certificate_file`,
	// if the key is `ssh_private_key_file`.
	BastionCertificateFile string `hcl:"ssh_bastion_certificate_file,optional"`

	// Log in to the bastion host with the keys of the local SSH agent.
	BastionAgentAuth bool `hcl:"ssh_bastion_agent_auth,optional"`

	// Ask on the terminal for the password of the bastion host and anything else that it
	// asks for.
	BastionInteractive bool `hcl:"ssh_bastion_interactive,optional"`

	// SOCKS5 proxy to connect through, or an HTTP proxy if this is a URL such as
	// `http://proxy.example.com:3128`, which has to allow the method CONNECT to
	// `ssh_port`. Not together with `ssh_bastion_host`.
	ProxyHost string `hcl:"ssh_proxy_host,optional"`

	// TCP port of the proxy, unless `ssh_proxy_host` is a URL that has one.
	ProxyPort int `hcl:"ssh_proxy_port,optional"`

	// User name for the proxy. Not set: no authentication.
	ProxyUsername string `hcl:"ssh_proxy_username,optional"`

	// Password for `ssh_proxy_username`.
	ProxyPassword string `hcl:"ssh_proxy_password,optional,secret"`

	// Ports to forward from this computer to the machine's side (like ssh -L), each as
	// `port:host:hostport`. bake listens on localhost.
	LocalTunnels []Tunnel `hcl:"ssh_local_tunnels,optional"`

	// Ports to forward from the machine to this computer's side (like ssh -R), each as
	// `port:host:hostport`. The machine listens on localhost.
	RemoteTunnels []Tunnel `hcl:"ssh_remote_tunnels,optional"`
}

// Defaults are the options of a template that sets none.
func Defaults() Options {
	return Options{
		Communicator:       SSH,
		Port:               22,
		HostKeyCheck:       Pin,
		FileTransferMethod: Shell,
		KeepAliveInterval:  5 * time.Second,
		BastionPort:        22,
		ProxyPort:          1080,
	}
}

// Kind is a way to reach a machine.
type Kind string

// The kinds of communicator.
const (
	SSH   Kind = "ssh"
	WinRM Kind = "winrm" // implemented in another package
	None  Kind = "none"
)

// Choices implements [schema.Choices].
func (Kind) Choices() []string { return []string{string(SSH), string(WinRM), string(None)} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (k *Kind) UnmarshalText(b []byte) error { return schema.ParseChoice(k, b, k.Choices()) }

// HostKeyCheck determines which host keys are accepted.
type HostKeyCheck string

// The kinds of host key check.
const (
	Pin    HostKeyCheck = "pin"
	Strict HostKeyCheck = "strict"
	Off    HostKeyCheck = "off"
)

// Choices implements [schema.Choices].
func (HostKeyCheck) Choices() []string {
	return []string{string(Pin), string(Strict), string(Off)}
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (h *HostKeyCheck) UnmarshalText(b []byte) error { return schema.ParseChoice(h, b, h.Choices()) }

// KeyType is a type of temporary key pair. A builder may take fewer of them.
type KeyType string

// Choices implements [schema.Choices].
func (KeyType) Choices() []string { return []string{"rsa", "ed25519", "ecdsa", "dsa"} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (k *KeyType) UnmarshalText(b []byte) error { return schema.ParseChoice(k, b, k.Choices()) }

// TransferMethod is the method of file transfers.
type TransferMethod string

// The ways files travel. Shell bears the name it has in templates for historical reasons.
const (
	Shell TransferMethod = "scp"
	SFTP  TransferMethod = "sftp"
)

// Choices implements [schema.Choices].
func (TransferMethod) Choices() []string { return []string{string(Shell), string(SFTP)} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (m *TransferMethod) UnmarshalText(b []byte) error { return schema.ParseChoice(m, b, m.Choices()) }

// Tunnel forwards a port on one side to an address on the other.
type Tunnel struct {
	Port int    // of localhost, where it is listened on
	To   string // host:port
}

// UnmarshalText implements [encoding.TextUnmarshaler]. It reads port:host:hostport.
func (t *Tunnel) UnmarshalText(b []byte) error {
	text := string(b)
	port, to, ok := strings.Cut(text, ":")
	host, toPort, err := net.SplitHostPort(to)
	if !ok || err != nil || host == "" {
		return fmt.Errorf("%q is not of the form port:host:hostport", text)
	}
	for _, p := range []string{port, toPort} {
		if n, err := strconv.Atoi(p); err != nil || !isPort(n) {
			return fmt.Errorf("%q: %q is not a TCP port", text, p)
		}
	}
	t.Port, _ = strconv.Atoi(port)
	t.To = to
	return nil
}

func isPort(n int) bool { return n > 0 && n < 1<<16 }

// Validate reports what is wrong with the options. A struct that embeds them and
// has a Validate method of its own calls this one from it.
func (o *Options) Validate(c *schema.Checker) {
	if o.PauseBeforeConnecting < 0 {
		c.Errorf(&o.PauseBeforeConnecting, "Negative duration", "pause_before_connecting cannot be negative.")
	}
	if o.Communicator != SSH || !c.Known(&o.Communicator) {
		return
	}
	o.fill()
	if o.Username == "" {
		c.Errorf(&o.Username, "Missing ssh_username", "SSH needs the name of the user to log in as. It depends on the source image: admin for Debian, ubuntu for Ubuntu, ec2-user for Amazon Linux.")
	}
	ports := []*int{&o.Port}
	if o.BastionHost != "" {
		ports = append(ports, &o.BastionPort)
	}
	if o.ProxyHost != "" {
		ports = append(ports, &o.ProxyPort)
	}
	for _, p := range ports {
		if !isPort(*p) {
			c.Errorf(p, "Not a TCP port", "%s is %d; ports go from 1 to 65535.", c.Name(p), *p)
		}
	}
	for _, d := range []*time.Duration{&o.Timeout, &o.WaitTimeout, &o.ReadWriteTimeout} {
		if *d < 0 {
			c.Errorf(d, "Negative duration", "%s cannot be negative.", c.Name(d))
		}
	}
	if o.HandshakeAttempts < 0 {
		c.Errorf(&o.HandshakeAttempts, "Negative number", "ssh_handshake_attempts cannot be negative.")
	}
	if c.Set(&o.WaitTimeout) {
		c.Warnf(&o.WaitTimeout, "Deprecated argument", "ssh_wait_timeout is the old name of ssh_timeout.")
	}
	o.validateKeys(c)
	o.validateHostKeys(c)
	o.validateBastion(c)
	if _, err := o.proxy(); err != nil && c.Known(&o.ProxyHost) {
		c.Errorf(&o.ProxyHost, "Unusable proxy", "%s", prose.Sentence(err.Error()))
	}
	algorithms := ssh.SupportedAlgorithms()
	insecure := ssh.InsecureAlgorithms()
	known(c, &o.Ciphers, "cipher", append(algorithms.Ciphers, insecure.Ciphers...))
	known(c, &o.KeyExchangeAlgorithms, "key exchange algorithm", append(algorithms.KeyExchanges, insecure.KeyExchanges...))
}

// fill sets options that are 0 or empty to their defaults: in a template, 0 means that an
// option is not set.
func (o *Options) fill() {
	d := Defaults()
	o.Port = cmp.Or(o.Port, d.Port)
	o.BastionPort = cmp.Or(o.BastionPort, d.BastionPort)
	o.ProxyPort = cmp.Or(o.ProxyPort, d.ProxyPort)
	o.KeepAliveInterval = cmp.Or(o.KeepAliveInterval, d.KeepAliveInterval)
}

func known(c *schema.Checker, list *[]string, what string, all []string) {
	for _, name := range *list {
		if !slices.Contains(all, name) {
			c.Errorf(list, "Unknown "+what, "%q is not a supported %s. Supported: %s.", name, what, strings.Join(all, ", "))
		}
	}
}

func (o *Options) validateKeys(c *schema.Checker) {
	checkKey(c, &o.PrivateKeyFile, &o.CertificateFile, &o.Username)
	if o.CertificateFile != "" && o.PrivateKeyFile == "" && c.Known(&o.PrivateKeyFile) {
		c.Errorf(&o.CertificateFile, "Certificate without a key", "ssh_certificate_file needs ssh_private_key_file, the key that it certifies.")
	}
	if o.BastionHost == "" {
		return // the options for the bastion host are not checked
	}
	checkKey(c, &o.BastionPrivateKeyFile, &o.BastionCertificateFile, &o.BastionUsername)
	if o.BastionCertificateFile != "" && o.BastionPrivateKeyFile == "" && o.PrivateKeyFile == "" {
		c.Errorf(&o.BastionCertificateFile, "Certificate without a key", "ssh_bastion_certificate_file needs ssh_bastion_private_key_file, the key that it certifies.")
	}
}

// checkKey reports a private key or certificate file that cannot be used.
func checkKey(c *schema.Checker, keyFile, certFile, user *string) {
	if *keyFile == "" || !c.Known(keyFile) {
		return
	}
	signer, err := loadKey(*keyFile, "")
	if err != nil {
		c.Errorf(keyFile, "Unusable private key", "%s", prose.Sentence(err.Error()))
		return
	}
	if *certFile == "" {
		return
	}
	certified, err := certify(signer, *certFile)
	if err != nil {
		c.Errorf(certFile, "Unusable certificate", "%s", prose.Sentence(err.Error()))
	} else if doubt := certificateDoubt(certified.PublicKey(), *user, time.Now()); doubt != "" && c.Known(user) {
		c.Warnf(certFile, "Doubtful certificate", "The certificate in %s %s.", *certFile, doubt)
	}
}

func (o *Options) validateHostKeys(c *schema.Checker) {
	if _, err := parseHostKeys(o.HostKeys); err != nil {
		c.Errorf(&o.HostKeys, "Unusable host key", "%s", prose.Sentence(err.Error()))
	}
	if o.KnownHostsFile == "" || !c.Known(&o.KnownHostsFile) {
		return
	}
	if _, err := loadKnownHosts(o.KnownHostsFile); err != nil {
		c.Errorf(&o.KnownHostsFile, "Unusable known_hosts file", "%s", prose.Sentence(err.Error()))
	}
}

func (o *Options) validateBastion(c *schema.Checker) {
	if o.BastionHost == "" {
		return
	}
	if o.ProxyHost != "" {
		c.Errorf(&o.ProxyHost, "Bastion and proxy", "Set either ssh_bastion_host or ssh_proxy_host: the connection goes through one or the other.")
	}
	if o.BastionUsername == "" {
		c.Errorf(&o.BastionUsername, "Missing ssh_bastion_username", "The bastion host needs the name of the user to log in as.")
	}
	key := o.BastionPrivateKeyFile
	if key == "" {
		key = o.PrivateKeyFile
	}
	given := key != "" || o.BastionPassword != "" || o.BastionAgentAuth || o.BastionInteractive
	for _, f := range []any{&o.BastionPrivateKeyFile, &o.PrivateKeyFile, &o.BastionPassword, &o.BastionAgentAuth, &o.BastionInteractive} {
		given = given || !c.Known(f)
	}
	if !given {
		c.Errorf(&o.BastionHost, "No way to log in to the bastion host",
			"Set one of ssh_bastion_private_key_file, ssh_bastion_password, ssh_bastion_agent_auth and ssh_bastion_interactive.")
	}
}

// limits returns how long and how many logins to try; 0 means without limit.
func (o *Options) limits() (timeout time.Duration, attempts int) {
	timeout, attempts = o.Timeout, o.HandshakeAttempts
	if o.WaitTimeout != 0 {
		timeout = o.WaitTimeout
	}
	if timeout == 0 && attempts == 0 {
		return 5 * time.Minute, 10
	}
	return timeout, attempts
}

// ExpandHome replaces ~ and ~user at the start of a path of this machine by the
// home directory.
func ExpandHome(path string) (string, error) {
	if !strings.HasPrefix(path, "~") {
		return path, nil
	}
	name, rest, _ := strings.Cut(filepath.ToSlash(path[1:]), "/")
	if name == "" {
		home, err := os.UserHomeDir()
		return filepath.Join(home, rest), err
	}
	u, err := user.Lookup(name)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return filepath.Join(u.HomeDir, rest), nil
}

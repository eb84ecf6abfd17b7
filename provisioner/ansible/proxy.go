package ansible

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"net"
	"os/user"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"bake/internal/hostpath"
	"bake/provisioner/internal/sshproxy"
)

// portTries is the number of ports, starting at local_port, that are tried.
const portTries = 10

// proxy makes Ansible connect to an SSH server in this process, which forwards
// everything to the machine. The server runs until ctx ends.
func (r *run) proxy(ctx context.Context) error {
	server := &sshproxy.Server{
		Machine: r.machine.Communicator, User: r.proxyUser(), SFTP: r.SFTPCommand, Copy: r.to.WinRM,
	}
	var err error
	if server.HostKey, err = r.proxyHostKey(); err != nil {
		return err
	}
	if server.ClientKey, err = r.proxyClientKey(); err != nil {
		return err
	}
	listener, err := r.listen(ctx)
	if err != nil {
		return err
	}
	r.to.host, r.to.port, r.to.user = "127.0.0.1", listener.Addr().(*net.TCPAddr).Port, server.User
	r.background.Go(func() { server.Serve(ctx, listener) })
	return r.knownHosts([]string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(server.HostKey.PublicKey())))})
}

// proxyUser is the user that Ansible logs in as.
func (r *run) proxyUser() string {
	if name := cmp.Or(r.User, r.to.User); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "bake"
}

func (r *run) listen(ctx context.Context) (net.Listener, error) {
	var config net.ListenConfig
	at := func(port int) (net.Listener, error) {
		return config.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	}
	if r.LocalPort == 0 {
		return at(0)
	}
	var last error
	for port := r.LocalPort; port < min(r.LocalPort+portTries, 1<<16); port++ {
		listener, err := at(port)
		if err == nil {
			return listener, nil
		}
		last = err
	}
	return nil, r.src.Errorf(&r.LocalPort, "No free port", "Neither local_port nor one of the nine after it can be listened on: %s.", last)
}

func (r *run) proxyHostKey() (ssh.Signer, error) {
	if r.SSHHostKeyFile == "" {
		key, err := r.newKey()
		if err != nil {
			return nil, err
		}
		return ssh.NewSignerFromSigner(key)
	}
	text, err := hostpath.Read(r.SSHHostKeyFile, hostpath.Limit)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, r.src.Errorf(&r.SSHHostKeyFile, "Not a private key", "%s: %s.", r.SSHHostKeyFile, err)
	}
	return signer, nil
}

func (r *run) proxyClientKey() (ssh.PublicKey, error) {
	if file := r.SSHAuthorizedKeyFile; file != "" {
		text, err := hostpath.Read(file, hostpath.Limit)
		if err != nil {
			return nil, err
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey(text)
		if err != nil {
			return nil, r.src.Errorf(&r.SSHAuthorizedKeyFile, "Not a public key", "%s: %s.", file, err)
		}
		return key, nil
	}
	key, err := r.newKey()
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return nil, err
	}
	if r.to.keyFile, err = r.write("key", string(pem.EncodeToMemory(block))); err != nil {
		return nil, err
	}
	return ssh.NewPublicKey(key.Public())
}

func (r *run) newKey() (crypto.Signer, error) {
	var key crypto.Signer
	var err error
	if r.AnsibleProxyKeyType == RSA {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return key, nil
}

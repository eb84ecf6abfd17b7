package ssh_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"bake/communicator"
	"bake/communicator/commtest"
	"bake/communicator/ssh"
	"bake/step"
)

// output connects and returns what a command prints.
func output(t *testing.T, s *step.Scope, o *ssh.Options, target ssh.Target, line string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := ssh.Connect(ctx, s, o, target)
	if err != nil {
		return "", err
	}
	defer c.Close()
	var out bytes.Buffer
	_, err = c.Run(ctx, communicator.Command{Line: line, Stdout: &out})
	return out.String(), err
}

func works(t *testing.T, s *step.Scope, o *ssh.Options, target ssh.Target) {
	t.Helper()
	if got, err := output(t, s, o, target, "echo hi"); err != nil || got != "hi\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

func writeKey(t *testing.T, k *commtest.KeyPair) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(k.PrivateKey), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func login(t *testing.T) commtest.Login {
	return commtest.Login{User: "me", HostKey: newKey(t).Signer}
}

// agentScope is a scope whose environment has an SSH agent that holds key.
func agentScope(t *testing.T, key *commtest.KeyPair) *step.Scope {
	t.Helper()
	private, err := gossh.ParseRawPrivateKey([]byte(key.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "agent") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ln.Close()
		os.RemoveAll(dir)
	})
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = agent.ServeAgent(ring, c)
				c.Close()
			}()
		}
	}()
	s := scope(nil)
	s.Run.Env = []string{"SSH_AUTH_SOCK=" + ln.Addr().String()}
	return s
}

func TestLogins(t *testing.T) {
	key := newKey(t)
	l := login(t)
	l.Key, l.Password = key.Signer.PublicKey(), "secret"
	srv := commtest.Serve(t, t.TempDir(), l)

	o := options(srv)
	o.Password = "secret"
	works(t, scope(nil), o, ssh.Target{})

	o = options(srv)
	o.PrivateKeyFile = writeKey(t, key)
	works(t, scope(nil), o, ssh.Target{})

	o = options(srv)
	o.AgentAuth = true
	works(t, agentScope(t, key), o, ssh.Target{})
	if _, err := output(t, scope(nil), o, ssh.Target{}, "true"); err == nil || !strings.Contains(err.Error(), "SSH_AUTH_SOCK") {
		t.Errorf("without an agent: %v", err)
	}

	o = options(srv)
	o.Password, o.HandshakeAttempts = "wrong", 1
	o.PrivateKeyFile = writeKey(t, newKey(t))
	_, err := output(t, scope(nil), o, ssh.Target{}, "true")
	want(t, err, `user "me"`, o.PrivateKeyFile, "the password", srv.Host)
}

// certificate signs a user's key with an authority; change modifies the certificate.
func certificate(t *testing.T, key, authority *commtest.KeyPair, user string, change func(*gossh.Certificate)) string {
	t.Helper()
	cert := &gossh.Certificate{
		Key: key.Signer.PublicKey(), CertType: gossh.UserCert, ValidPrincipals: []string{user},
		ValidBefore: gossh.CertTimeInfinity,
	}
	if change != nil {
		change(cert)
	}
	if err := cert.SignCert(rand.Reader, authority.Signer); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cert")
	if err := os.WriteFile(path, gossh.MarshalAuthorizedKey(cert), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A valid certificate is accepted. The error for an invalid one says that it has expired, or whose
// it is.
func TestCertificate(t *testing.T) {
	authority, key, host := newKey(t), newKey(t), newKey(t)
	trusted := filepath.Join(t.TempDir(), "authority")
	if err := os.WriteFile(trusted, []byte(authority.PublicKey), 0o644); err != nil {
		t.Fatal(err)
	}
	srv := commtest.SSHD(t, newKey(t).Signer.PublicKey(), host.PrivateKey, host.Signer.PublicKey(), "TrustedUserCAKeys "+trusted)
	o := options(srv)
	o.PrivateKeyFile = writeKey(t, key)
	o.CertificateFile = certificate(t, key, authority, srv.User, nil)
	works(t, scope(nil), o, ssh.Target{})

	start := time.Now()
	o.CertificateFile = certificate(t, key, authority, srv.User, func(c *gossh.Certificate) {
		c.ValidAfter, c.ValidBefore = 1, uint64(time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC).Unix())
	})
	_, err := output(t, scope(nil), o, ssh.Target{}, "true")
	want(t, err, "expired on Sat, 03 Feb 2024 04:05:06 UTC", o.PrivateKeyFile)
	between(t, "failing", time.Since(start), 0, 45*time.Second) // not tried for five minutes

	o.HandshakeAttempts = 1
	o.CertificateFile = certificate(t, key, authority, "somebody", nil)
	_, err = output(t, scope(nil), o, ssh.Target{}, "true")
	want(t, err, "is for somebody, not for "+srv.User)
	o.CertificateFile = certificate(t, key, authority, srv.User, func(c *gossh.Certificate) { c.ValidAfter = 5e9 })
	_, err = output(t, scope(nil), o, ssh.Target{}, "true")
	want(t, err, "is not valid before Fri, 11 Jun 2128")
}

// If there is no common algorithm, the error lists those of both sides and the option to set.
func TestNoCommonAlgorithm(t *testing.T) {
	key, host := newKey(t), newKey(t)
	srv := commtest.SSHD(t, key.Signer.PublicKey(), host.PrivateKey, host.Signer.PublicKey(), "Ciphers aes256-ctr", "KexAlgorithms curve25519-sha256", "MACs hmac-sha2-512")
	for _, tt := range []struct {
		set  func(*ssh.Options)
		want []string
	}{
		{func(o *ssh.Options) { o.Ciphers = []string{"aes128-ctr", "aes192-ctr"} },
			[]string{"cipher", "it offers aes256-ctr", "bake offers aes128-ctr, aes192-ctr", "set ssh_ciphers"}},
		{func(o *ssh.Options) { o.KeyExchangeAlgorithms = []string{"ecdh-sha2-nistp256"} },
			[]string{"key exchange", "it offers curve25519-sha256;", "bake offers ecdh-sha2-nistp256;", "set ssh_key_exchange_algorithms"}},
	} {
		o := options(srv)
		tt.set(o)
		_, err := output(t, scope(nil), o, ssh.Target{Signers: []gossh.Signer{key.Signer}}, "true")
		want(t, err, tt.want...)
	}
	o := options(srv)
	o.Ciphers, o.KeyExchangeAlgorithms = []string{"aes128-ctr", "aes256-ctr"}, []string{"curve25519-sha256"}
	works(t, scope(nil), o, ssh.Target{Signers: []gossh.Signer{key.Signer}})
}

func TestAgentForwarding(t *testing.T) {
	if _, err := exec.LookPath("ssh-add"); err != nil {
		t.Skip(err)
	}
	key, host := newKey(t), newKey(t)
	srv := commtest.SSHD(t, key.Signer.PublicKey(), host.PrivateKey, host.Signer.PublicKey())
	for _, disabled := range []bool{false, true} {
		o := options(srv)
		o.AgentAuth, o.DisableAgentForwarding = true, disabled
		c, err := ssh.Connect(t.Context(), agentScope(t, key), o, ssh.Target{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, when := range []string{"at first", "on another connection"} {
			var out bytes.Buffer
			_, err := c.Run(t.Context(), communicator.Command{Line: "ssh-add -L", Stdout: &out})
			if errors.Is(err, communicator.ErrDisconnected) { // the end was not noticed yet
				_, err = c.Run(t.Context(), communicator.Command{Line: "ssh-add -L", Stdout: &out})
			}
			if err != nil || strings.Contains(out.String(), strings.Fields(key.PublicKey)[1]) == disabled {
				t.Errorf("disabled %t, %s: got %q, %v", disabled, when, &out, err)
			}
			srv.Cut()
		}
	}
}

func TestPty(t *testing.T) {
	key, host := newKey(t), newKey(t)
	srv := commtest.SSHD(t, key.Signer.PublicKey(), host.PrivateKey, host.Signer.PublicKey())
	for _, pty := range []bool{false, true} {
		o := options(srv)
		o.Pty = pty
		got, err := output(t, scope(nil), o, ssh.Target{Signers: []gossh.Signer{key.Signer}}, "test -t 1 && stty size; true")
		if err != nil || strings.TrimSpace(got) == "40 80" != pty {
			t.Errorf("pty %t: got %q, %v", pty, got, err)
		}
	}
}

func TestBastion(t *testing.T) {
	key, gate := newKey(t), newKey(t)
	inner, outer := login(t), login(t)
	inner.Key, outer.Key = key.Signer.PublicKey(), gate.Signer.PublicKey()
	machine := commtest.Serve(t, t.TempDir(), inner)
	bastion := commtest.Serve(t, t.TempDir(), outer)
	o := options(machine)
	o.PrivateKeyFile = writeKey(t, key)
	o.BastionHost, o.BastionPort, o.BastionUsername = bastion.Host, bastion.Port, "me"
	o.BastionPrivateKeyFile = writeKey(t, gate)
	var said says
	works(t, scope(said.emit), o, ssh.Target{})
	if bastion.Connections() != 1 || !said.has("Host key of the bastion host") {
		t.Errorf("%d connections to the bastion host; said %q", bastion.Connections(), said.lines)
	}

	// Login with a password, also as the answer to a question, and with the agent.
	o.BastionPrivateKeyFile = ""
	for name, prompts := range map[string]bool{"password": false, "question": true} {
		gated := login(t)
		gated.Password, gated.Prompts = "open", prompts
		b := commtest.Serve(t, t.TempDir(), gated)
		with := *o
		with.BastionPort, with.BastionPassword = b.Port, "open"
		works(t, scope(nil), &with, ssh.Target{})
		if b.Connections() != 1 {
			t.Errorf("%s: %d connections", name, b.Connections())
		}
	}
	with := *o
	with.BastionAgentAuth = true
	works(t, agentScope(t, gate), &with, ssh.Target{})
	// Its host key is checked like the machine's.
	with = *o
	with.BastionPrivateKeyFile = writeKey(t, gate)
	with.KnownHostsFile = knownHosts(t, fmt.Sprintf("[%s]:%d %s", bastion.Host, bastion.Port, gossh.MarshalAuthorizedKey(newKey(t).Signer.PublicKey())))
	if _, err := output(t, scope(nil), &with, ssh.Target{}, "true"); err == nil || !strings.Contains(err.Error(), "listed in ssh_known_hosts_file") {
		t.Errorf("a bastion with another host key: %v", err)
	}

	o.BastionPrivateKeyFile = o.PrivateKeyFile // which it does not accept
	start := time.Now()
	_, err := output(t, scope(nil), o, ssh.Target{}, "true")
	want(t, err, "the bastion host", "did not let user")
	between(t, "failing", time.Since(start), 0, 45*time.Second)
}

// Other programs learn whether they can dial the machine directly and which host keys it has, and
// can get connections made by bake.
func TestDial(t *testing.T) {
	inner, outer := login(t), login(t)
	inner.Password, outer.Password = "inner secret", "outer secret"
	machine := commtest.Serve(t, t.TempDir(), inner)
	bastion := commtest.Serve(t, t.TempDir(), outer)
	for _, through := range []bool{false, true} {
		o := options(machine)
		o.Password = inner.Password
		if through {
			o.BastionHost, o.BastionPort, o.BastionUsername, o.BastionPassword = bastion.Host, bastion.Port, "me", outer.Password
		}
		c, err := ssh.Connect(t.Context(), scope(nil), o, ssh.Target{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		access := c.(communicator.Accessible).Access()
		if key := strings.TrimSpace(string(gossh.MarshalAuthorizedKey(machine.HostKey))); access.Direct == through || len(access.HostKeys) != 1 || access.HostKeys[0] != key {
			t.Errorf("through a bastion host: %t; got %+v", through, access)
		}
		conn, err := c.(communicator.Accessible).Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if banner, err := bufio.NewReader(conn).ReadString('\n'); !strings.HasPrefix(banner, "SSH-2.0-") {
			t.Errorf("through a bastion host: %t; answers %q, %v", through, banner, err)
		}
		conn.Close()
	}
	o := options(machine)
	o.Password, o.HostKeyCheck = inner.Password, ssh.Off
	c, err := ssh.Connect(t.Context(), scope(nil), o, ssh.Target{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if keys := c.(communicator.Accessible).Access().HostKeys; len(keys) > 0 {
		t.Errorf("host keys are not checked, but known: %q", keys)
	}
	// A connection through a session is not a network connection to the machine.
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", net.JoinHostPort(machine.Host, strconv.Itoa(machine.Port)))
	}
	o.Host, o.HostKeyCheck = "192.0.2.1", ssh.Pin
	c, err = ssh.Connect(t.Context(), scope(nil), o, ssh.Target{Dial: dial})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.(communicator.Accessible).Access().Direct {
		t.Error("an address that is not there can be dialed")
	}
}

// The settings for a user's SSH client lead through a bastion host without prompts.
func TestLoginThroughBastion(t *testing.T) {
	client, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("no ssh here; install openssh-client")
	}
	key, gate := newKey(t), newKey(t)
	inner, outer := login(t), login(t)
	inner.Key, outer.Key = key.Signer.PublicKey(), gate.Signer.PublicKey()
	machine := commtest.Serve(t, t.TempDir(), inner)
	bastion := commtest.Serve(t, t.TempDir(), outer)
	o := options(machine)
	o.PrivateKeyFile = writeKey(t, key)
	o.BastionHost, o.BastionPort, o.BastionUsername = bastion.Host, bastion.Port, "me"
	o.BastionPrivateKeyFile = writeKey(t, gate)
	o.KnownHostsFile = filepath.Join(t.TempDir(), "known hosts")
	known := ""
	for _, s := range []*commtest.Server{machine, bastion} {
		known += fmt.Sprintf("[%s]:%d %s", s.Host, s.Port, gossh.MarshalAuthorizedKey(s.HostKey))
	}
	if err := os.WriteFile(o.KnownHostsFile, []byte(known), 0o600); err != nil {
		t.Fatal(err)
	}
	access := func() communicator.Access {
		c, err := ssh.Connect(t.Context(), scope(nil), o, ssh.Target{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.(communicator.Accessible).Access()
	}
	proxy := access().Proxy
	for i, arg := range proxy {
		proxy[i] = strings.NewReplacer("%h", machine.Host, "%p", strconv.Itoa(machine.Port)).Replace(arg)
	}
	cmd := exec.CommandContext(t.Context(), client, append([]string{"-F", "none"}, proxy[1:]...)...)
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK=")
	if _, err := cmd.StdinPipe(); err != nil { // stays open: the server hangs up at the end of the input
		t.Fatal(err)
	}
	answer, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errOut strings.Builder
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	banner, _ := bufio.NewReader(answer).ReadString('\n')
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if !strings.HasPrefix(banner, "SSH-2.0-") {
		t.Errorf("%q answers %q, %s", proxy, banner, errOut.String())
	}
	if files, _ := os.ReadDir(filepath.Dir(o.KnownHostsFile)); len(files) != 1 {
		t.Errorf("ssh has written another file of known hosts: %v", files)
	}

	o.KnownHostsFile = ""
	if got := strings.Join(access().Proxy, " "); !strings.Contains(got, "StrictHostKeyChecking=accept-new") {
		t.Errorf("ssh would ask about the host key: %s", got)
	}
	o.HostKeyCheck = ssh.Off
	if got := strings.Join(access().Proxy, " "); !strings.Contains(got, "StrictHostKeyChecking=no -o LogLevel=ERROR -o UserKnownHostsFile=/dev/null") {
		t.Errorf("ssh would look at the host key: %s", got)
	}
}

// socks is a SOCKS5 proxy with a password.
func socks(t *testing.T, user, password string) (port int, used *bool) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	used = new(bool)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		r := bufio.NewReader(c)
		next := func(n int) []byte {
			b := make([]byte, n)
			if _, err := io.ReadFull(r, b); err != nil {
				t.Error(err)
			}
			return b
		}
		next(int(next(2)[1]))
		c.Write([]byte{5, 2})
		next(1)
		u := string(next(int(next(1)[0])))
		p := string(next(int(next(1)[0])))
		if u != user || p != password {
			c.Write([]byte{1, 1})
			return
		}
		c.Write([]byte{1, 0})
		var host string
		switch next(4)[3] {
		case 1:
			host = net.IP(next(4)).String()
		case 3:
			host = string(next(int(next(1)[0])))
		}
		far, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(binary.BigEndian.Uint16(next(2)))))
		if err != nil {
			t.Error(err)
			return
		}
		defer far.Close()
		*used = true
		c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		go io.Copy(far, r)
		io.Copy(c, far)
	}()
	return ln.Addr().(*net.TCPAddr).Port, used
}

func TestProxy(t *testing.T) {
	key := newKey(t)
	l := login(t)
	l.Key = key.Signer.PublicKey()
	srv := commtest.Serve(t, t.TempDir(), l)
	o := options(srv)
	o.ProxyHost, o.ProxyUsername, o.ProxyPassword = "127.0.0.1", "u", "p"
	var used *bool
	o.ProxyPort, used = socks(t, "u", "p")
	works(t, scope(nil), o, ssh.Target{Signers: []gossh.Signer{key.Signer}})
	if !*used {
		t.Error("the connection did not go through the proxy")
	}
}

// The machine can be reached through an HTTP proxy, whose refusals are explained.
func TestHTTPProxy(t *testing.T) {
	key := newKey(t)
	l := login(t)
	l.Key = key.Signer.PublicKey()
	srv := commtest.Serve(t, t.TempDir(), l)
	used := 0
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth(); !ok || user != "u" || password != "p" {
			http.Error(w, "who are you?", http.StatusProxyAuthRequired)
			return
		}
		if r.Method != http.MethodConnect {
			http.Error(w, "no", http.StatusMethodNotAllowed)
			return
		}
		far, err := net.Dial("tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer far.Close()
		near, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer near.Close()
		used++
		io.WriteString(near, "HTTP/1.1 200 Connection established\r\n\r\n")
		go io.Copy(far, near)
		io.Copy(near, far)
	}))
	defer proxy.Close()
	o := options(srv)
	o.ProxyHost, o.ProxyUsername, o.ProxyPassword = proxy.URL, "u", "p"
	works(t, scope(nil), o, ssh.Target{Signers: []gossh.Signer{key.Signer}})
	if used != 1 {
		t.Errorf("%d connections went through the proxy", used)
	}
	host, port, _ := net.SplitHostPort(strings.TrimPrefix(proxy.URL, "http://"))
	o.ProxyHost = "http://" + host
	o.ProxyPort, _ = strconv.Atoi(port)
	works(t, scope(nil), o, ssh.Target{Signers: []gossh.Signer{key.Signer}})
	o.ProxyPassword = "wrong"
	_, err := output(t, scope(nil), o, ssh.Target{}, "true")
	want(t, err, "through the proxy "+net.JoinHostPort(host, port)+": 407 Proxy Authentication Required who are you?", "check ssh_proxy_username")
}

// A further connection to the machine does not wait for one that is being made.
func TestDialWhileConnecting(t *testing.T) {
	key := newKey(t)
	l := login(t)
	l.Key = key.Signer.PublicKey()
	srv := commtest.Serve(t, t.TempDir(), l)
	type other struct{} // marks the context of the other connection
	var connected atomic.Bool
	stuck := make(chan struct{}, 100)
	c := connect(t, t.Context(), options(srv), ssh.Target{
		Signers: []gossh.Signer{key.Signer},
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if connected.Swap(true) && ctx.Value(other{}) == nil {
				stuck <- struct{}{}
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
	})
	srv.Cut()
	ctx, cancel := context.WithCancel(t.Context())
	again := make(chan struct{})
	go func() {
		defer close(again)
		for ctx.Err() == nil { // the connection may not look lost yet
			_, _ = c.Run(ctx, communicator.Command{Line: "true"})
		}
	}()
	defer func() {
		cancel()
		<-again
	}()
	<-stuck
	hangGuard(t, func() {
		conn, err := c.(communicator.Accessible).Dial(context.WithValue(t.Context(), other{}, true))
		if err != nil {
			t.Error(err)
			return
		}
		conn.Close()
	})
}

// greeter sends a greeting on each connection, and closes it.
func greeter(t *testing.T, text string) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, text)
			c.Close()
		}
	}()
	return ln.Addr().String()
}

func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func TestTunnels(t *testing.T) {
	key := newKey(t)
	l := login(t)
	l.Key = key.Signer.PublicKey()
	srv := commtest.Serve(t, t.TempDir(), l)
	o := options(srv)
	there, here := freePort(t), freePort(t)
	o.LocalTunnels = []ssh.Tunnel{{Port: here, To: greeter(t, "from there")}}
	o.RemoteTunnels = []ssh.Tunnel{{Port: there, To: greeter(t, "from here")}}
	c := connect(t, t.Context(), o, ssh.Target{Signers: []gossh.Signer{key.Signer}})
	lead := func() {
		t.Helper()
		for port, greeting := range map[int]string{here: "from there", there: "from here"} {
			conn, err := net.Dial("tcp", fmt.Sprintf("localhost:%d", port))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(conn); err != nil || string(got) != greeting {
				t.Errorf("got %q, %v, want %q", got, err, greeting)
			}
			conn.Close()
		}
	}
	lead()
	other := c.(communicator.Reopener).Another()
	if status, err := other.Run(t.Context(), communicator.Command{Line: "true"}); err != nil || status.Code != 0 {
		t.Errorf("a second connection: %v, %v", status, err)
	}
	if n := srv.Connections(); n != 2 {
		t.Errorf("%d connections, want a second one", n)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	lead()
	srv.Cut() // as a reboot does
	for {
		_, err := c.Run(t.Context(), communicator.Command{Line: "true"})
		if err == nil {
			break
		} else if !errors.Is(err, communicator.ErrDisconnected) {
			t.Fatal(err)
		}
	}
	lead()
	c.Close()
	if conn, err := net.Dial("tcp", fmt.Sprintf("localhost:%d", here)); err == nil {
		conn.Close()
		t.Error("the tunnel is still open")
	}

	taken, err := net.Listen("tcp", fmt.Sprintf("localhost:%d", here))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = output(t, scope(nil), o, ssh.Target{Signers: []gossh.Signer{key.Signer}}, "true")
	want(t, err, "ssh_local_tunnels: cannot listen on localhost")
}

// A machine that stops answering is given up after ssh_read_write_timeout.
func TestReadWriteTimeout(t *testing.T) {
	key := newKey(t)
	l := login(t)
	l.Key = key.Signer.PublicKey()
	srv := commtest.Serve(t, t.TempDir(), l)
	o := options(srv)
	o.ReadWriteTimeout, o.KeepAliveInterval = time.Second, -1
	c := connect(t, t.Context(), o, ssh.Target{Signers: []gossh.Signer{key.Signer}})
	if _, err := c.Run(t.Context(), communicator.Command{Line: "exec sleep 60"}); !strings.Contains(fmt.Sprint(err), communicator.ErrDisconnected.Error()) {
		t.Errorf("got %v", err)
	}
}

// Machines with a tar other than GNU tar, and with none.
func TestOtherTars(t *testing.T) {
	for name, tar := range map[string]string{
		"plain tar": "#!/bin/sh\ncase $1 in --*) exit 1;; esac\nexec %s \"$@\"\n",
		"no tar":    "",
	} {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			for _, tool := range []string{"sh", "env", "cat", "mkdir", "chmod", "head", "sleep", "mktemp", "rm", "tr"} {
				path, err := exec.LookPath(tool)
				if err != nil {
					t.Skip(err)
				}
				if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
					t.Fatal(err)
				}
			}
			if tar != "" {
				real, err := exec.LookPath("tar")
				if err != nil {
					t.Skip(err)
				}
				if err := os.WriteFile(filepath.Join(bin, "tar"), fmt.Appendf(nil, tar, real), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			key := newKey(t)
			l := login(t)
			l.Key, l.Env = key.Signer.PublicKey(), []string{"PATH=" + bin}
			srv := commtest.Serve(t, t.TempDir(), l)
			commtest.Run(t, func(t *testing.T) commtest.Subject {
				c := connect(t, t.Context(), options(srv), ssh.Target{Signers: []gossh.Signer{key.Signer}})
				return commtest.Subject{Communicator: c, Cut: srv.Cut}
			})
		})
	}
}

package commtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	glssh "github.com/gliderlabs/ssh"
	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"bake/internal/procgroup"
)

// Server is an SSH server on a loopback port, whose connections can be cut.
type Server struct {
	Host    string
	Port    int
	User    string
	HostKey ssh.PublicKey

	mu    sync.Mutex
	ln    net.Listener
	conns map[net.Conn]bool
	count int
}

// Cut closes every connection at once, without any message.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		hangUp(c)
	}
}

// hangUp closes a connection for every process that has it open.
func hangUp(c net.Conn) {
	tcp := c.(*net.TCPConn)
	_ = tcp.CloseWrite()
	_ = tcp.CloseRead()
}

// Connections returns how many connections were made so far.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// serve hands each connection to handle until the test ends.
func serve(t testing.TB, handle func(net.Conn)) *Server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port, ln: ln, conns: map[net.Conn]bool{}}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		s.Cut()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.count++
			s.conns[c] = true
			s.mu.Unlock()
			wg.Go(func() {
				handle(c)
				c.Close()
				s.mu.Lock()
				delete(s.conns, c)
				s.mu.Unlock()
			})
		}
	})
	return s
}

// Login says who may log in to an in-process server.
type Login struct {
	User     string
	Key      ssh.PublicKey // nil: no key
	Password string        // empty: no password
	Prompts  bool          // the password is the answer to a question, and taken no other way
	HostKey  ssh.Signer
	Env      []string // of commands, in addition to that of the test
}

// Serve starts an SSH server inside the test, which runs commands with sh and
// has an SFTP subsystem and port forwarding. Commands start in home.
func Serve(t testing.TB, home string, login Login) *Server {
	t.Helper()
	forward := &glssh.ForwardedTCPHandler{}
	allow := func(glssh.Context, string, uint32) bool { return true }
	srv := &glssh.Server{
		Handler: func(s glssh.Session) { runShell(s, home, login.Env) },
		SubsystemHandlers: map[string]glssh.SubsystemHandler{"sftp": func(s glssh.Session) {
			if fs, err := sftp.NewServer(s, sftp.WithServerWorkingDirectory(home)); err == nil {
				_ = fs.Serve()
			}
		}},
		LocalPortForwardingCallback:   allow,
		ReversePortForwardingCallback: allow,
		ChannelHandlers: map[string]glssh.ChannelHandler{
			"session": glssh.DefaultSessionHandler, "direct-tcpip": glssh.DirectTCPIPHandler,
		},
		RequestHandlers: map[string]glssh.RequestHandler{
			"tcpip-forward": forward.HandleSSHRequest, "cancel-tcpip-forward": forward.HandleSSHRequest,
		},
	}
	if login.Key != nil {
		srv.PublicKeyHandler = func(ctx glssh.Context, key glssh.PublicKey) bool {
			return ctx.User() == login.User && glssh.KeysEqual(key, login.Key)
		}
	}
	switch {
	case login.Password != "" && login.Prompts:
		srv.KeyboardInteractiveHandler = func(ctx glssh.Context, ask ssh.KeyboardInteractiveChallenge) bool {
			answers, err := ask("", "", []string{"Password: ", "Again: "}, []bool{false, false})
			return err == nil && ctx.User() == login.User && slices.Equal(answers, []string{login.Password, login.Password})
		}
	case login.Password != "":
		srv.PasswordHandler = func(ctx glssh.Context, password string) bool {
			return ctx.User() == login.User && password == login.Password
		}
	}
	srv.AddHostKey(login.HostKey)
	s := serve(t, srv.HandleConn)
	s.User, s.HostKey = login.User, login.HostKey.PublicKey()
	return s
}

func runShell(s glssh.Session, home string, env []string) {
	cmd := exec.CommandContext(s.Context(), "/bin/sh", "-c", s.RawCommand())
	cmd.Dir = home
	cmd.Env = append(append(os.Environ(), "HOME="+home), env...)
	cmd.Stdout, cmd.Stderr = s, s.Stderr()
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = procgroup.Start(cmd)
	}
	if err != nil {
		fmt.Fprintln(s.Stderr(), err)
		_ = s.Exit(127)
		return
	}
	go func() {
		_, _ = io.Copy(stdin, s)
		stdin.Close()
	}()
	signals := make(chan glssh.Signal, 1)
	s.Signals(signals)
	go func() {
		for range signals {
			_ = procgroup.Signal(cmd, syscall.SIGTERM)
		}
	}()
	err = cmd.Wait()
	s.Signals(nil)
	close(signals)
	var exit *exec.ExitError
	switch {
	case err == nil:
		_ = s.Exit(0)
	case errors.As(err, &exit) && exit.ExitCode() < 0:
		_ = s.Exit(128 + int(exit.Sys().(syscall.WaitStatus).Signal()))
	case errors.As(err, &exit):
		_ = s.Exit(exit.ExitCode())
	default:
		_ = s.Exit(126)
	}
}

// SSHD starts the system's OpenSSH server for the user who runs the test, or
// skips the test where there is none. extra are more lines for its configuration.
func SSHD(t testing.TB, key ssh.PublicKey, hostKeyPEM string, hostKey ssh.PublicKey, extra ...string) *Server {
	t.Helper()
	program, err := exec.LookPath("sshd")
	if err != nil {
		if program = "/usr/sbin/sshd"; !exists(program) {
			t.Skip("no sshd here; install openssh-server")
		}
	}
	if os.Getuid() == 0 { // where it confines itself to before the login
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Skip(err)
		}
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// Of two lines about the same the first counts.
	config := append(slices.Clone(extra), []string{
		"HostKey " + write("host_key", hostKeyPEM),
		"AuthorizedKeysFile " + write("authorized_keys", string(ssh.MarshalAuthorizedKey(key))),
		"StrictModes no", "UsePAM no", "PasswordAuthentication no", "KbdInteractiveAuthentication no",
		"PermitRootLogin yes", "PidFile none", "Subsystem sftp internal-sftp", "MaxStartups 100", "MaxSessions 100",
		"SetEnv SHLVL=2", // keeps bash from reading the .bashrc of the user who runs the test
	}...)
	file := write("sshd_config", strings.Join(config, "\n")+"\n")
	log := filepath.Join(dir, "log")
	s := serve(t, func(c net.Conn) {
		f, err := c.(*net.TCPConn).File()
		if err != nil {
			return
		}
		defer f.Close()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		cmd := exec.CommandContext(ctx, program, "-i", "-f", file, "-E", log)
		cmd.Stdin, cmd.Stdout = f, f
		_ = cmd.Run()
	})
	t.Cleanup(func() {
		if b, _ := os.ReadFile(log); t.Failed() {
			t.Logf("sshd said:\n%s", b)
		}
	})
	s.User, s.HostKey = me.Username, hostKey
	return s
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

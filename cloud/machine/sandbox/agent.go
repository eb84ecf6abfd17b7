package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/creack/pty"
	"github.com/gliderlabs/ssh"
	"github.com/pkg/sftp"
	gossh "golang.org/x/crypto/ssh"
)

// agentMain is the SSH server for images that have none. It reads users, keys and host keys
// from the same files as sshd, so that sshd can replace it.
func agentMain() error {
	server := &ssh.Server{
		Addr:             ":22",
		Version:          "bake",
		PublicKeyHandler: func(ctx ssh.Context, key ssh.PublicKey) bool { return authorized(ctx.User(), key) },
		Handler:          func(s ssh.Session) { serveSession(s, false) },
		SubsystemHandlers: map[string]ssh.SubsystemHandler{
			"sftp": func(s ssh.Session) { serveSession(s, true) },
		},
		LocalPortForwardingCallback:   func(ssh.Context, string, uint32) bool { return true },
		ReversePortForwardingCallback: func(ssh.Context, string, uint32) bool { return true },
		ChannelHandlers: map[string]ssh.ChannelHandler{
			"session":      ssh.DefaultSessionHandler,
			"direct-tcpip": ssh.DirectTCPIPHandler,
		},
	}
	forwards := &ssh.ForwardedTCPHandler{}
	server.RequestHandlers = map[string]ssh.RequestHandler{
		"tcpip-forward":        forwards.HandleSSHRequest,
		"cancel-tcpip-forward": forwards.HandleSSHRequest,
	}
	keys, err := filepath.Glob("/etc/ssh/ssh_host_*_key")
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		hostname, err := os.Hostname()
		if err != nil {
			return err
		}
		if _, err := newHostKeys("/etc/ssh", hostname); err != nil {
			return err
		}
		if keys, err = filepath.Glob("/etc/ssh/ssh_host_*_key"); err != nil {
			return err
		}
	}
	for _, path := range keys {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		signer, err := gossh.ParsePrivateKey(b)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		server.AddHostKey(signer)
	}
	return server.ListenAndServe()
}

// authorized reports whether key is in the user's authorized_keys.
func authorized(user string, key ssh.PublicKey) bool {
	account, err := lookupAccount(user)
	if err != nil {
		return false
	}
	rest, err := os.ReadFile(filepath.Join(account.home, ".ssh", "authorized_keys"))
	if err != nil {
		return false
	}
	for len(rest) > 0 {
		var known gossh.PublicKey
		if known, _, _, rest, err = gossh.ParseAuthorizedKey(rest); err != nil {
			return false
		}
		if ssh.KeysEqual(key, known) {
			return true
		}
	}
	return false
}

// serveSession serves the client's request with the rights of the user who logged in.
func serveSession(s ssh.Session, transfer bool) {
	account, err := lookupAccount(s.User())
	if err != nil {
		fmt.Fprintln(s.Stderr(), err)
		_ = s.Exit(255)
		return
	}
	cmd := account.command(s.RawCommand(), transfer)
	cmd.Env = append(cmd.Env, s.Environ()...)
	code, err := runSession(s, cmd, transfer)
	if err != nil {
		fmt.Fprintln(s.Stderr(), err)
	}
	_ = s.Exit(code)
}

// command returns the command for a session: the user's shell with a command line, a login
// shell, or the file transfer server.
func (a *account) command(line string, transfer bool) *exec.Cmd {
	var cmd *exec.Cmd
	switch {
	case transfer:
		cmd = self(roleSFTP)
	case line != "":
		cmd = exec.Command(a.shell, "-c", line)
	default:
		cmd = exec.Command(a.shell)
		cmd.Args[0] = "-" + filepath.Base(a.shell)
	}
	path := "/usr/local/bin:/usr/bin:/bin"
	if a.uid == 0 {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	cmd.Env = []string{"PATH=" + path, "HOME=" + a.home, "USER=" + a.name, "LOGNAME=" + a.name, "SHELL=" + a.shell, "LANG=C.UTF-8"}
	if exists(aptConfig) {
		cmd.Env = append(cmd.Env, "APT_CONFIG="+aptConfig)
	}
	cmd.Dir = a.home
	if !exists(cmd.Dir) {
		cmd.Dir = "/"
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if a.uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid), Groups: a.groups}
	}
	return cmd
}

// runSession connects cmd to the client and returns its exit status, in the form of a
// shell.
func runSession(s ssh.Session, cmd *exec.Cmd, transfer bool) (int, error) {
	request, resizes, terminal := s.Pty()
	if terminal && !transfer {
		return runTerminal(s, cmd, request, resizes)
	}
	// A pipe of our own: with the session as Stdin, Wait would last until the
	// client closes its side.
	in, err := cmd.StdinPipe()
	if err != nil {
		return 255, err
	}
	cmd.Stdout, cmd.Stderr = s, s.Stderr()
	if err := cmd.Start(); err != nil {
		return 127, err
	}
	stop := forwardSignals(s, cmd)
	defer stop()
	go func() {
		_, _ = io.Copy(in, s)
		in.Close()
	}()
	return exitCode(cmd.Wait())
}

func runTerminal(s ssh.Session, cmd *exec.Cmd, request ssh.Pty, resizes <-chan ssh.Window) (int, error) {
	cmd.Env = append(cmd.Env, "TERM="+request.Term)
	f, err := pty.StartWithSize(cmd, windowSize(request.Window))
	if err != nil {
		return 127, err
	}
	stop := forwardSignals(s, cmd)
	defer stop()
	go func() {
		for w := range resizes {
			_ = pty.Setsize(f, windowSize(w))
		}
	}()
	go func() { _, _ = io.Copy(f, s) }()
	var shown sync.WaitGroup
	shown.Go(func() { _, _ = io.Copy(s, f) }) // ends with EIO when the last holder has gone
	code, err := exitCode(cmd.Wait())
	shown.Wait()
	f.Close()
	return code, err
}

func windowSize(w ssh.Window) *pty.Winsize {
	return &pty.Winsize{Rows: uint16(w.Height), Cols: uint16(w.Width)}
}

// forwardSignals passes signals from the client on to cmd, and sends it a hangup when the
// client disconnects.
func forwardSignals(s ssh.Session, cmd *exec.Cmd) (stop func()) {
	signals, done := make(chan ssh.Signal, 4), make(chan struct{})
	s.Signals(signals)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-s.Context().Done():
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGHUP)
				return
			case name := <-signals:
				if number, ok := signalNumbers[name]; ok {
					_ = syscall.Kill(-cmd.Process.Pid, number)
				}
			}
		}
	}()
	return func() {
		s.Signals(nil)
		close(done)
	}
}

var signalNumbers = map[ssh.Signal]syscall.Signal{
	ssh.SIGABRT: syscall.SIGABRT, ssh.SIGALRM: syscall.SIGALRM, ssh.SIGHUP: syscall.SIGHUP, ssh.SIGINT: syscall.SIGINT,
	ssh.SIGKILL: syscall.SIGKILL, ssh.SIGQUIT: syscall.SIGQUIT, ssh.SIGTERM: syscall.SIGTERM,
	ssh.SIGUSR1: syscall.SIGUSR1, ssh.SIGUSR2: syscall.SIGUSR2,
}

func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		if err != nil {
			return 255, err
		}
		return 0, nil
	}
	if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// sftpMain serves one file transfer session with the rights of its user.
func sftpMain() error {
	server, err := sftp.NewServer(struct {
		io.Reader
		io.WriteCloser
	}{os.Stdin, os.Stdout})
	if err != nil {
		return err
	}
	if err := server.Serve(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

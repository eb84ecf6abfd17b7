package ssh_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"bake/communicator"
	"bake/communicator/commtest"
	"bake/communicator/ssh"
	"bake/step"
)

// A machine that accepts connections and then stays silent blocks nothing, at any step: waits end
// with their context, or after a time limit.
func TestSilentMachine(t *testing.T) {
	run := func(line string) func(context.Context, *setup) error {
		return func(ctx context.Context, s *setup) error {
			c, err := s.connect(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Run(ctx, communicator.Command{Line: line})
			return err
		}
	}
	transfer := func(ctx context.Context, s *setup) error {
		s.options.FileTransferMethod = ssh.SFTP
		c, err := s.connect(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Put(ctx, "/tmp", communicator.File("x", 0o600, []byte("x")))
	}
	for step, do := range map[string]func(context.Context, *setup) error{
		"version": run("true"),
		"auth":    run("true"),
		"tcpip-forward": func(ctx context.Context, s *setup) error {
			s.options.RemoteTunnels = []ssh.Tunnel{{Port: 8080, To: "localhost:80"}}
			return run("true")(ctx, s)
		},
		"keepalive@openssh.com": func(ctx context.Context, s *setup) error {
			s.More = []gossh.Signer{newKey(t).Signer}
			return run("hang")(ctx, s)
		},
		"hostkeys-prove-00@openssh.com": func(ctx context.Context, s *setup) error {
			s.More = []gossh.Signer{newKey(t).Signer}
			return run("hang")(ctx, s)
		},
		"channel": run("true"),
		"pty-req": func(ctx context.Context, s *setup) error {
			s.options.Pty = true
			return run("true")(ctx, s)
		},
		"exec":      run("true"),
		"subsystem": transfer,
		"sftp":      transfer,
	} {
		t.Run(step, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *setup) {
				s.Silent = step
				why := errors.New("enough")
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(10*time.Second, func() { cancel(why) })
				start := time.Now()
				if err := do(ctx, s); !errors.Is(err, why) {
					t.Errorf("got %v, want the cause", err)
				}
				between(t, "cancelling", time.Since(start), 10*time.Second, 13*time.Second)
			})
			if step == "hostkeys-prove-00@openssh.com" {
				return // this step is optional; the command then runs
			}
			bubble(t, func(t *testing.T, s *setup) {
				s.Silent = step
				start := time.Now()
				if err := do(t.Context(), s); err == nil {
					t.Error("no error")
				}
				between(t, "giving up", time.Since(start), time.Second, 7*time.Minute)
			})
		})
	}
}

// tardy is a context that announces its end slowly: to one listener after the other, with a second
// between them.
type tardy struct {
	context.Context
	mu    sync.Mutex
	over  bool
	after []func()
}

func (c *tardy) Value(any) any { return nil } // so that AfterFunc has to be used
func (c *tardy) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return context.Canceled
	}
	return nil
}

// AfterFunc is how package context watches contexts of foreign types.
func (c *tardy) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := len(c.after)
	c.after = append(c.after, f)
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		had := c.after[i] != nil
		c.after[i] = nil
		return had
	}
}

func (c *tardy) cancel() {
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	for i := 0; ; i++ {
		c.mu.Lock()
		if i == len(c.after) {
			c.mu.Unlock()
			return
		}
		f := c.after[i]
		c.after[i] = nil
		c.mu.Unlock()
		if f != nil {
			f()
			time.Sleep(time.Second)
		}
	}
}

// TestDeadLinks: a server that shuts down accepts two more links and drops them. A third one ends it.
func TestDeadLinks(t *testing.T) {
	for drops, want := range []struct {
		after time.Duration // when the command has run
		fails bool
	}{{0, false}, {0, false}, {time.Second, false}, {time.Second, true}} {
		bubble(t, func(t *testing.T, s *setup) {
			c, err := s.connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			s.drop(drops)
			dials, start := s.count(), time.Now()
			status, err := c.Run(t.Context(), communicator.Command{Line: "true"})
			if (err != nil) != want.fails || err != nil && !strings.Contains(err.Error(), "refuses to open a session") {
				t.Errorf("%d dropped: exit status %d, %v", drops, status.Code, err)
			}
			if n := s.count() - dials; n != min(drops, 2) {
				t.Errorf("%d dropped: %d new links", drops, n)
			}
			between(t, "the command", time.Since(start), want.after, want.after+time.Second/2)
		})
	}
}

// TestStillShuttingDown: a machine that reboots may accept logins after it has ended the sessions. Nothing
// more runs there before it is up again.
func TestStillShuttingDown(t *testing.T) {
	for name, tt := range map[string]struct {
		down  time.Duration // from now on
		asked bool          // before the connection breaks
	}{
		"up again":        {0, false},
		"goes on":         {10 * time.Second, false},
		"asked, up again": {0, true},
		"asked, goes on":  {10 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *setup) {
				c, err := s.connect(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				start := time.Now()
				s.Down = func() bool { return time.Since(start) < tt.down }
				if tt.asked {
					if got := c.(communicator.Restarter).Restarts(t.Context()); got != (tt.down > 0) {
						t.Errorf("restarts: %t", got)
					}
				} else {
					s.cut()
				}
				synctest.Wait()
				if _, err := c.Run(t.Context(), communicator.Command{Line: "true"}); err != nil {
					t.Fatal(err)
				}
				between(t, "the command", time.Since(start), tt.down, tt.down+3*time.Second)
				if s.says.has("The machine is shutting down") != (tt.down > 0) {
					t.Errorf("said %q", s.says.lines)
				}
			})
		})
	}
}

// A machine that does not finish shutting down is not said to lack an SSH server.
func TestNeverDown(t *testing.T) {
	bubble(t, func(t *testing.T, s *setup) {
		s.options.Timeout, s.Down = time.Minute, func() bool { return true }
		c, err := s.connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s.cut()
		synctest.Wait()
		_, err = c.Run(t.Context(), communicator.Command{Line: "true"})
		want(t, err, "after 1m0s (ssh_timeout), the machine is still shutting down. Raise ssh_timeout")
	})
}

// A link that is closed because of a timeout is not taken for a working one, which would be
// reconnected for the same time again.
func TestTimeIsUpDuringHandshake(t *testing.T) {
	bubble(t, func(t *testing.T, s *setup) {
		s.Silent, s.More = "keepalive@openssh.com", []gossh.Signer{s.HostKey}
		s.options.HandshakeAttempts = 1
		done, end := context.WithCancel(t.Context())
		ctx := &tardy{Context: done}
		time.AfterFunc(10*time.Second, func() { ctx.cancel(); end() })
		if c, err := s.connect(ctx); err == nil {
			c.Close()
			t.Error("connected to a machine that has not answered in time")
		}
	})
}

// A dial that ignores its context is given up when that ends.
func TestDialWithoutContext(t *testing.T) {
	bubble(t, func(t *testing.T, s *setup) {
		block := make(chan struct{})
		defer close(block)
		s.target.Dial = func(context.Context, string, string) (net.Conn, error) {
			<-block
			return nil, errors.New("late")
		}
		s.options.Timeout = 20 * time.Second
		start := time.Now()
		if _, err := s.connect(t.Context()); err == nil {
			t.Error("no error")
		}
		between(t, "giving up", time.Since(start), 20*time.Second, 21*time.Second)
	})
}

// agentAt serves an SSH agent at a socket; if serve is nil, it accepts connections and does not
// answer.
func agentAt(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		ln.Close()
		close(done)
	})
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if serve == nil {
					<-done
				} else {
					serve(c)
				}
			}()
		}
	}()
	return socket
}

func scopeWithAgent(socket string) *step.Scope {
	return step.NewScope(step.Scope{
		Run: step.Invocation{Env: []string{"SSH_AUTH_SOCK=" + socket}}, Build: "null.test", SourceType: "null", SourceName: "test", Emit: func(step.Event) {},
	})
}

// hangGuard fails a test whose call does not return.
func hangGuard(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(25 * time.Second): // less than agentPatience
		t.Fatal("this hangs")
	}
}

// Each handshake can use the agent: the second one after a lost connection, and those with bastion
// and target.
func TestAgentAgain(t *testing.T) {
	key := newKey(t)
	raw, err := gossh.ParseRawPrivateKey([]byte(key.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: raw}); err != nil {
		t.Fatal(err)
	}
	socket := agentAt(t, func(c net.Conn) { _ = agent.ServeAgent(ring, c) })
	serve := func() *commtest.Server {
		return commtest.Serve(t, t.TempDir(), commtest.Login{User: "me", Key: key.Signer.PublicKey(), HostKey: newKey(t).Signer})
	}
	srv, bastion := serve(), serve()
	o := options(srv)
	o.AgentAuth, o.Timeout = true, time.Minute
	o.BastionHost, o.BastionPort, o.BastionUsername, o.BastionAgentAuth = bastion.Host, bastion.Port, bastion.User, true
	hangGuard(t, func() {
		c, err := ssh.Connect(t.Context(), scopeWithAgent(socket), o, ssh.Target{})
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		for range 3 {
			if _, err := c.Run(t.Context(), communicator.Command{Line: "true"}); err != nil {
				t.Error(err)
			}
			srv.Cut()
		}
	})
}

// An agent that does not answer delays nothing beyond the context and ssh_timeout.
func TestAgentThatIsSilent(t *testing.T) {
	key := newKey(t)
	srv := commtest.Serve(t, t.TempDir(), commtest.Login{User: "me", Key: key.Signer.PublicKey(), HostKey: newKey(t).Signer})
	socket := agentAt(t, nil)
	o := options(srv)
	o.AgentAuth = true
	hangGuard(t, func() {
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(200*time.Millisecond, func() { cancel(why) })
		if _, err := ssh.Connect(ctx, scopeWithAgent(socket), o, ssh.Target{}); !errors.Is(err, why) {
			t.Errorf("got %v, want the cause", err)
		}
		o.Timeout = 200 * time.Millisecond
		if _, err := ssh.Connect(t.Context(), scopeWithAgent(socket), o, ssh.Target{}); err == nil {
			t.Error("no error")
		}
	})
}

// A background process that keeps the output of an ended command open does not delay the build for
// long.
func TestBackgroundProcess(t *testing.T) {
	for line, limit := range map[string]time.Duration{"background": 7 * time.Second, "chatty": 35 * time.Second} {
		bubble(t, func(t *testing.T, s *setup) {
			c, err := s.connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			var out bytes.Buffer
			start := time.Now()
			st, err := c.Run(t.Context(), communicator.Command{Line: line, Stdout: &out})
			if err != nil || st.Code != 0 {
				t.Errorf("%s: got %+v, %v", line, st, err)
			}
			between(t, line, time.Since(start), 5*time.Second, limit)
			if !s.says.has("a background process that it started still holds its output open") || line == "background" && out.String() != "started\n" {
				t.Errorf("%s: said %q, output %q", line, s.says.lines, &out)
			}
		})
	}
}

// All host keys of a server are pinned: those that it proves to have, those that
// are made on the machine over the connection that is trusted, and those that the
// console shows later.
func TestHostKeysLearned(t *testing.T) {
	for name, tt := range map[string]struct {
		mode    ssh.HostKeyCheck
		prepare func(s *setup, next gossh.Signer)
		change  func(s *setup, next gossh.Signer) // while a command runs
		refused bool
	}{
		"proved":         {ssh.Pin, func(s *setup, next gossh.Signer) { s.More = []gossh.Signer{next} }, nil, false},
		"not proved":     {ssh.Pin, func(s *setup, next gossh.Signer) { s.More, s.Liar = []gossh.Signer{next}, true }, nil, true},
		"made by a role": {ssh.Pin, func(s *setup, _ gossh.Signer) { s.OnDisk = []gossh.PublicKey{s.HostKey.PublicKey()} }, onDisk, false},
		"made by a role, with a limit of silence": {ssh.Pin, func(s *setup, _ gossh.Signer) {
			s.OnDisk, s.options.ReadWriteTimeout = []gossh.PublicKey{s.HostKey.PublicKey()}, time.Hour
		}, onDisk, false},
		"off": {ssh.Off, nil, nil, false},
		"strict, proved": {ssh.Strict, func(s *setup, next gossh.Signer) {
			s.More = []gossh.Signer{next}
			known(s, s.HostKey)
		}, nil, true},
		"strict, made by a role": {ssh.Strict, func(s *setup, _ gossh.Signer) {
			s.OnDisk = []gossh.PublicKey{s.HostKey.PublicKey()}
			known(s, s.HostKey)
		}, onDisk, true},
		"strict, both known": {ssh.Strict, func(s *setup, next gossh.Signer) { known(s, s.HostKey, next) }, nil, false},
		"console, later": {ssh.Pin, func(s *setup, _ gossh.Signer) {
			s.target.HostKeys = func(context.Context) ([]gossh.PublicKey, error) { return []gossh.PublicKey{s.HostKey.PublicKey()}, nil }
		}, nil, false},
		"nowhere": {ssh.Pin, nil, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *setup) {
				other, err := commtest.NewKeyPair("ecdsa", 256, "") // of another type: it has to be offered
				if err != nil {
					t.Fatal(err)
				}
				next := other.Signer
				s.options.HostKeyCheck = tt.mode
				if tt.prepare != nil {
					tt.prepare(s, next)
				}
				c, err := s.connect(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if tt.change != nil {
					time.AfterFunc(time.Second, func() { tt.change(s, next) })
				}
				if _, err := c.Run(t.Context(), communicator.Command{Line: "wait"}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				s.cut()
				synctest.Wait()
				s.HostKey = next
				_, err = c.Run(t.Context(), communicator.Command{Line: "true"})
				var wrong *ssh.HostKeyError
				if tt.refused != errors.As(err, &wrong) || !tt.refused && err != nil {
					t.Errorf("got %v, refused should be %t", err, tt.refused)
				}
			})
		})
	}
}

func onDisk(s *setup, next gossh.Signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.OnDisk = []gossh.PublicKey{next.PublicKey()}
}

func known(s *setup, keys ...gossh.Signer) {
	for _, k := range keys {
		s.options.HostKeys = append(s.options.HostKeys, string(gossh.MarshalAuthorizedKey(k.PublicKey())))
	}
}

// The error of a refused login contains the machine's message, and the login users of its image.
func TestRefusedLoginSays(t *testing.T) {
	for _, tt := range []struct{ banner, image, want string }{
		{"Please login as the user \"ec2-user\" rather than the user \"admin\".\n", "", `set ssh_username = "ec2-user"`},
		{"Go away\n", "ubuntu", `set ssh_username = "ubuntu"`},
		{"Go away\n", "", `It says: "Go away"`},
		{"", "", "(ssh_username)"},
	} {
		bubble(t, func(t *testing.T, s *setup) {
			s.Key, s.Banner, s.options.HandshakeAttempts = nil, tt.banner, 1
			s.target.User = func(context.Context) string { return tt.image }
			_, err := s.connect(t.Context())
			want(t, err, tt.want)
		})
	}
}

// If the server is not an SSH server, the error says so, and which option may be wrong.
func TestNotSSH(t *testing.T) {
	bubble(t, func(t *testing.T, s *setup) {
		s.options.Port, s.options.Timeout = 8080, 10*time.Second
		s.target.Dial = func(context.Context, string, string) (net.Conn, error) {
			near, far := pipe()
			go func() {
				_, _ = far.Read(make([]byte, 256)) // as a server of HTTP does before it answers
				_, _ = far.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
				far.Close()
			}()
			return near, nil
		}
		_, err := s.connect(t.Context())
		want(t, err, "HTTP/1.1 400 Bad Request", "check ssh_port", "port 8080 (ssh_port)")
	})
	bubble(t, func(t *testing.T, s *setup) {
		s.options.Port, s.options.Timeout = 2222, 10*time.Second
		s.target.Dial = refused
		_, err := s.connect(t.Context())
		want(t, err, "port 2222 (ssh_port)")
	})
}

// forced starts an OpenSSH server that runs a command in place of every other.
func forced(t *testing.T, command string, method ssh.TransferMethod) communicator.Communicator {
	t.Helper()
	key, host := newKey(t), newKey(t)
	srv := commtest.SSHD(t, key.Signer.PublicKey(), host.PrivateKey, host.Signer.PublicKey(), "ForceCommand "+command)
	o := options(srv)
	o.FileTransferMethod = method
	return connect(t, t.Context(), o, ssh.Target{Signers: []gossh.Signer{key.Signer}})
}

// A login shell that prints something does not prevent transfers through it, and is named in the
// errors of SFTP.
func TestNoisyShell(t *testing.T) {
	const noisy = `printf 'Welcome to this machine\nLoad: 1'; eval "$SSH_ORIGINAL_COMMAND"`
	c := forced(t, noisy, ssh.Shell)
	dir := t.TempDir()
	for name, text := range map[string]string{"a": "one\n", "b": strings.Repeat("two\n", 100000)} {
		if err := c.Put(t.Context(), dir, communicator.File(name, 0o600, []byte(text))); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != text {
			t.Errorf("uploaded %d bytes, %v; want %d", len(b), err, len(text))
		}
		to := t.TempDir()
		root, err := os.OpenRoot(to)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if err := c.Get(t.Context(), filepath.Join(dir, name), root); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(b) != text {
			t.Errorf("downloaded %d bytes, %v; want %d", len(b), err, len(text))
		}
	}
	failed(t, forced(t, noisy, ssh.SFTP), "sends text where SFTP should begin", "Welcome to this machine", "~/.bashrc", `ssh_file_transfer_method = "scp"`)
}

// failed requires transfers to fail at once with these texts, and not as a lost connection that
// would be retried.
func failed(t *testing.T, c communicator.Communicator, texts ...string) {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, err := range []error{
		c.Put(t.Context(), t.TempDir(), communicator.File("x", 0o600, []byte("x"))),
		c.Get(t.Context(), "/etc/hostname", root),
	} {
		want(t, err, texts...)
		if errors.Is(err, communicator.ErrDisconnected) {
			t.Errorf("%v is taken for a lost connection", err)
		}
	}
}

// If something else runs in place of bake's scripts, its output is quoted with advice.
func TestForcedCommand(t *testing.T) {
	const cloud = `echo 'Please login as the user "admin" rather than the user "root".'; exit 142`
	for _, method := range []ssh.TransferMethod{ssh.Shell, ssh.SFTP} {
		failed(t, forced(t, cloud, method), `Please login as the user \"admin\" rather than the user \"root\".`, `Set ssh_username = "admin"`)
		failed(t, forced(t, "echo This account is not available; exit 1", method), "This account is not available")
	}
	// cloud-init's command keeps the session open for a while afterwards.
	slow := forced(t, strings.Replace(cloud, "exit", "sleep 5; exit", 1), ssh.Shell)
	err := slow.Put(t.Context(), t.TempDir(), communicator.File("x", 0o600, nil))
	want(t, err, `Set ssh_username = "admin"`)
	if !errors.Is(err, communicator.ErrNoCommands) || strings.Contains(err.Error(), "exit status") {
		t.Errorf("%v was waited for", err)
	}
	failed(t, forced(t, "exit 1", ssh.Shell), "Check ssh_username")
	failed(t, forced(t, "exit 1", ssh.SFTP), "ended immediately", "set ssh_file_transfer_method")
}

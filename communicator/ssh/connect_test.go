package ssh_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"bake/communicator"
	"bake/communicator/commtest"
	"bake/communicator/ssh"
	"bake/step"
)

// says collects the messages of a scope.
type says struct {
	mu    sync.Mutex
	lines []string
}

func (s *says) emit(e step.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, e.Text)
}

func (s *says) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.lines, func(l string) bool { return strings.Contains(l, text) })
}

// setup is a fake machine and the options to connect to it.
type setup struct {
	*fake
	options ssh.Options
	target  ssh.Target
	says    says
}

func newSetup(t *testing.T) *setup {
	key := newKey(t)
	s := &setup{fake: &fake{HostKey: newKey(t).Signer, Key: key.Signer.PublicKey()}, options: ssh.Defaults()}
	s.options.Host, s.options.Username = "machine", "admin"
	s.target = ssh.Target{Signers: []gossh.Signer{key.Signer}, Dial: s.dial}
	return s
}

func (s *setup) connect(ctx context.Context) (communicator.Communicator, error) {
	return ssh.Connect(ctx, scope(s.says.emit), &s.options, s.target)
}

// bubble runs a test with a fake clock.
func bubble(t *testing.T, f func(t *testing.T, s *setup)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t)
		f(t, s)
		s.cut()
	})
}

func want(t *testing.T, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %q", err, text)
		}
	}
}

func between(t *testing.T, what string, got, low, high time.Duration) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s took %s, want %s to %s", what, got, low, high)
	}
}

func TestMachineThatComesUp(t *testing.T) {
	for _, after := range []time.Duration{0, 300 * time.Millisecond, 20 * time.Second, 4 * time.Minute} {
		bubble(t, func(t *testing.T, s *setup) {
			start := time.Now()
			s.target.Addr = func(context.Context) (string, int, error) {
				if time.Since(start) < after/2 {
					return "", 0, ssh.ErrNotYet
				}
				return "machine", 0, nil
			}
			s.target.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if time.Since(start) < after {
					return refused(ctx, network, addr)
				}
				return s.dial(ctx, network, addr)
			}
			c, err := s.connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			// It is noticed quickly, especially on a young machine.
			between(t, "connecting", time.Since(start), after, after+after/3+50*time.Millisecond)
		})
	}
}

func TestLimits(t *testing.T) {
	tests := []struct {
		name      string
		timeout   time.Duration
		attempts  int
		login     bool // whether the machine refuses, or is not there
		low, high time.Duration
		text      string
	}{
		{"neither set, not there", 0, 0, false, 5 * time.Minute, 5 * time.Minute, "timeout waiting for SSH"},
		{"neither set, refused", 0, 0, true, 63 * time.Second, 90 * time.Second, `did not let user "admin" in`},
		{"timeout only, refused", 10 * time.Minute, 0, true, 10 * time.Minute, 10 * time.Minute, `did not let user "admin" in`},
		{"timeout only, not there", 20 * time.Second, 0, false, 20 * time.Second, 20 * time.Second, "20s (ssh_timeout)"},
		{"attempts only, refused", 0, 3, true, 14 * time.Second, 20 * time.Second, "temporary key of this build (ssh-ed25519 SHA256:"},
		{"one attempt", time.Hour, 1, true, 0, time.Second, "did not let"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *setup) {
				s.options.Timeout, s.options.HandshakeAttempts = tt.timeout, tt.attempts
				s.Key = nil
				if !tt.login {
					s.target.Dial = refused
				}
				start := time.Now()
				_, err := s.connect(t.Context())
				want(t, err, tt.text)
				between(t, "giving up", time.Since(start), tt.low, tt.high)
			})
		})
	}
}

func TestCancelledConnect(t *testing.T) {
	why := errors.New("enough")
	dead := func(context.Context, string, string) (net.Conn, error) {
		near, _ := pipe() // never sends anything
		return near, nil
	}
	for name, dial := range map[string]dialer{"not there": refused, "mute": dead} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *setup) {
				s.target.Dial = dial
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(10*time.Second, func() { cancel(why) })
				start := time.Now()
				_, err := s.connect(ctx)
				if !errors.Is(err, why) {
					t.Errorf("got %v, want the cause", err)
				}
				between(t, "cancelling", time.Since(start), 10*time.Second, 10*time.Second)
			})
		})
	}
}

// A machine that accepts connections before its sshd answers is not waited for forever.
func TestBannerThatDoesNotCome(t *testing.T) {
	bubble(t, func(t *testing.T, s *setup) {
		first := true
		s.target.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if first {
				first = false
				near, _ := pipe()
				return near, nil
			}
			return s.dial(ctx, network, addr)
		}
		start := time.Now()
		c, err := s.connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		between(t, "connecting", time.Since(start), time.Minute, time.Minute+time.Second)
	})
}

func TestAddressThatCannotBe(t *testing.T) {
	bubble(t, func(t *testing.T, s *setup) {
		gone := errors.New("the instance is terminated")
		s.target.Addr = func(context.Context) (string, int, error) { return "", 0, gone }
		if _, err := s.connect(t.Context()); !errors.Is(err, gone) {
			t.Errorf("got %v", err)
		}
	})
}

func TestPauseBeforeConnecting(t *testing.T) {
	bubble(t, func(t *testing.T, s *setup) {
		s.options.PauseBeforeConnecting = 30 * time.Second
		start := time.Now()
		c, err := s.connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		between(t, "connecting", time.Since(start), 30*time.Second, 31*time.Second)
		if n := s.count(); n != 2 {
			t.Errorf("%d connections, want 2", n)
		}
	})
}

// A connection that breaks silently is noticed while a command runs.
func TestKeepAlive(t *testing.T) {
	bubble(t, func(t *testing.T, s *setup) {
		s.Mute = true
		c, err := s.connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		start := time.Now()
		_, err = c.Run(t.Context(), communicator.Command{Line: "hang"})
		if !errors.Is(err, communicator.ErrDisconnected) {
			t.Errorf("got %v", err)
		}
		between(t, "noticing", time.Since(start), time.Minute, 70*time.Second)
	})
}

// The preparation for a login is repeated before each login.
func TestPrepare(t *testing.T) {
	bubble(t, func(t *testing.T, s *setup) {
		prepared := 0
		s.target.Prepare = func(context.Context) { prepared++ }
		c, err := s.connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s.cut()
		synctest.Wait()
		if _, err := c.Run(t.Context(), communicator.Command{Line: "true"}); err != nil || prepared != 2 {
			t.Errorf("prepared %d times, %v", prepared, err)
		}
		conn, err := c.(communicator.Accessible).Dial(t.Context()) // for a program that makes its own login
		if err != nil || prepared != 3 {
			t.Fatalf("prepared %d times, %v", prepared, err)
		}
		conn.Close()
	})
}

func TestHostKeyPinned(t *testing.T) {
	bubble(t, func(t *testing.T, s *setup) {
		c, err := s.connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if !s.says.has("the first key seen is trusted") {
			t.Errorf("said %q", s.says.lines)
		}
		s.cut()
		synctest.Wait()
		if _, err := c.Run(t.Context(), communicator.Command{Line: "true"}); err != nil {
			t.Errorf("the same machine again: %v", err)
		}
		s.cut()
		synctest.Wait()
		s.HostKey = newKey(t).Signer
		_, err = c.Run(t.Context(), communicator.Command{Line: "true"})
		var wrong *ssh.HostKeyError
		if !errors.As(err, &wrong) {
			t.Errorf("another machine in its place: got %v", err)
		}
		want(t, err, "seen earlier in this build", "is intercepting the connection", "new host keys", `ssh_host_key_check = "off"`)
	})
}

func TestHostKeyOnConsole(t *testing.T) {
	tests := []struct {
		name   string
		check  ssh.HostKeyCheck
		after  time.Duration // when the console shows a key; negative: never
		wrong  bool          // whether it is another one
		said   string
		failed string
	}{
		{"in time", ssh.Pin, 0, false, "printed on the machine's console", ""},
		{"late", ssh.Pin, time.Minute, false, "the first key seen is trusted", ""},
		{"another one", ssh.Pin, 0, true, "", "printed on the machine's console"},
		{"strict, late", ssh.Strict, time.Minute, false, "printed on the machine's console", ""},
		{"strict, another one", ssh.Strict, time.Minute, true, "", "printed on the machine's console"},
		{"strict, never", ssh.Strict, -1, false, "", "not appeared on the machine's console"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *setup) {
				s.options.HostKeyCheck = tt.check
				start, key := time.Now(), s.HostKey.PublicKey()
				if tt.wrong {
					key = newKey(t).Signer.PublicKey()
				}
				s.target.HostKeys = func(context.Context) ([]gossh.PublicKey, error) {
					if tt.after < 0 || time.Since(start) < tt.after {
						return nil, errors.New("no console yet")
					}
					return []gossh.PublicKey{newRSA(t), key}, nil
				}
				c, err := s.connect(t.Context())
				if tt.failed != "" {
					want(t, err, tt.failed)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if !s.says.has(tt.said) {
					t.Errorf("said %q, want %q", s.says.lines, tt.said)
				}
			})
		})
	}
}

// TestNewHostKeyOnConsole: a machine that makes new host keys and reboots may present them before it
// goes down, long before its console shows them.
func TestNewHostKeyOnConsole(t *testing.T) {
	for _, tt := range []struct {
		after time.Duration // when the console shows the new key, after it is first presented
		wrong bool
	}{{0, false}, {100 * time.Second, false}, {time.Hour, true}} {
		bubble(t, func(t *testing.T, s *setup) {
			shown := []gossh.PublicKey{s.HostKey.PublicKey()}
			var changed time.Time
			next := newKey(t).Signer
			s.target.HostKeys = func(context.Context) ([]gossh.PublicKey, error) {
				if !changed.IsZero() && time.Since(changed) >= tt.after {
					return []gossh.PublicKey{next.PublicKey()}, nil
				}
				return shown, nil
			}
			c, err := s.connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			s.cut()
			synctest.Wait()
			s.HostKey, changed = next, time.Now()
			_, err = c.Run(t.Context(), communicator.Command{Line: "true"})
			var wrong *ssh.HostKeyError
			if errors.As(err, &wrong) != tt.wrong || !tt.wrong && err != nil {
				t.Errorf("console after %s: got %v, refused should be %t", tt.after, err, tt.wrong)
			}
			if tt.wrong {
				between(t, "the refusal", time.Since(changed), 2*time.Minute, 2*time.Minute+5*time.Second)
			}
			if tt.after > 0 && !s.says.has("waiting up to 2 minutes for the machine's console to show it") {
				t.Errorf("console after %s: said %q", tt.after, s.says.lines)
			}
		})
	}
}

var newRSA = func() func(t *testing.T) gossh.PublicKey {
	var once sync.Once
	var key gossh.PublicKey
	return func(t *testing.T) gossh.PublicKey {
		once.Do(func() {
			k, err := commtest.NewKeyPair("rsa", 2048, "")
			if err != nil {
				t.Fatal(err)
			}
			key = k.Signer.PublicKey()
		})
		return key
	}
}()

func TestHostKeyConfigured(t *testing.T) {
	line := func(k gossh.PublicKey) string { return string(gossh.MarshalAuthorizedKey(k)) }
	tests := []struct {
		name   string
		set    func(t *testing.T, s *setup)
		said   string
		failed string
	}{
		{"in ssh_host_keys", func(t *testing.T, s *setup) {
			s.options.HostKeys = []string{line(newRSA(t)), line(s.HostKey.PublicKey())}
		}, "listed in ssh_host_keys", ""},
		{"not in ssh_host_keys", func(t *testing.T, s *setup) {
			s.options.HostKeys = []string{line(newKey(t).Signer.PublicKey())}
		}, "", "listed in ssh_host_keys"},
		{"in known hosts", func(t *testing.T, s *setup) {
			s.options.KnownHostsFile = knownHosts(t, knownhosts.Line([]string{"machine"}, s.HostKey.PublicKey()))
			s.options.HostKeyCheck = ssh.Strict
		}, "listed in ssh_known_hosts_file", ""},
		{"another one in known hosts", func(t *testing.T, s *setup) {
			s.options.KnownHostsFile = knownHosts(t, knownhosts.Line([]string{"machine"}, newKey(t).Signer.PublicKey()))
		}, "", "listed in ssh_known_hosts_file"},
		{"not in known hosts", func(t *testing.T, s *setup) {
			s.options.KnownHostsFile = knownHosts(t, knownhosts.Line([]string{"another"}, newKey(t).Signer.PublicKey()))
		}, "the first key seen", ""},
		{"revoked", func(t *testing.T, s *setup) {
			s.options.KnownHostsFile = knownHosts(t, "@revoked * "+line(s.HostKey.PublicKey()))
		}, "", "revoked"},
		{"revoked though in known hosts and ssh_host_keys", func(t *testing.T, s *setup) {
			key := s.HostKey.PublicKey()
			s.options.HostKeys = []string{line(key)}
			s.options.KnownHostsFile = knownHosts(t, knownhosts.Line([]string{"machine"}, key)+"\n@revoked * "+line(key))
		}, "", "revoked"},
		{"the second of its type in known hosts", func(t *testing.T, s *setup) {
			s.options.KnownHostsFile = knownHosts(t, knownhosts.Line([]string{"machine"}, newKey(t).Signer.PublicKey())+"\n"+
				knownhosts.Line([]string{"machine"}, s.HostKey.PublicKey()))
		}, "listed in ssh_known_hosts_file", ""},
		{"strict and nothing known", func(t *testing.T, s *setup) { s.options.HostKeyCheck = ssh.Strict },
			"", "add it to ssh_host_keys or ssh_known_hosts_file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *setup) {
				tt.set(t, s)
				start := time.Now()
				c, err := s.connect(t.Context())
				if tt.failed != "" {
					want(t, err, tt.failed)
					between(t, "failing", time.Since(start), 0, time.Second)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if !s.says.has(tt.said) {
					t.Errorf("said %q, want %q", s.says.lines, tt.said)
				}
			})
		})
	}
}

// A host certificate is accepted if its authority is listed, and an invalid one is an error at
// once, since waiting would not help.
func TestHostCertificate(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := gossh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	authority := &commtest.KeyPair{Signer: signer}
	line := "@cert-authority machine " + string(gossh.MarshalAuthorizedKey(authority.Signer.PublicKey()))
	old := knownhosts.Line([]string{"machine"}, newKey(t).Signer.PublicKey()) + "\n"
	private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	oldSigner, err := gossh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	alike := knownhosts.Line([]string{"machine"}, oldSigner.PublicKey()) + "\n" // of the authority's type
	certify := func(by *commtest.KeyPair, change func(*gossh.Certificate)) func(*testing.T, *setup) {
		return func(t *testing.T, s *setup) {
			cert := &gossh.Certificate{
				Key: s.HostKey.PublicKey(), CertType: gossh.HostCert, ValidPrincipals: []string{"machine"}, ValidBefore: gossh.CertTimeInfinity,
			}
			change(cert)
			signer, err := gossh.NewCertSigner(cert, s.HostKey)
			if err = errors.Join(err, cert.SignCert(rand.Reader, by.Signer)); err != nil {
				t.Fatal(err)
			}
			s.Plain, s.HostKey = s.HostKey, signer
		}
	}
	for name, tt := range map[string]struct {
		set    func(*testing.T, *setup)
		failed string
	}{
		"good": {certify(authority, func(*gossh.Certificate) {}), ""},
		"beside an old key": {func(t *testing.T, s *setup) {
			certify(authority, func(*gossh.Certificate) {})(t, s)
			s.options.KnownHostsFile = knownHosts(t, old+line)
		}, ""},
		"beside an old key of the authority's type": {func(t *testing.T, s *setup) {
			certify(authority, func(*gossh.Certificate) {})(t, s)
			s.options.KnownHostsFile = knownHosts(t, alike+line)
		}, ""},
		"of a revoked authority": {func(t *testing.T, s *setup) {
			certify(authority, func(*gossh.Certificate) {})(t, s)
			s.options.KnownHostsFile = knownHosts(t, line+strings.Replace(line, "@cert-authority machine", "@revoked *", 1))
		}, "marked as revoked"},
		"of a revoked key": {func(t *testing.T, s *setup) {
			certify(authority, func(*gossh.Certificate) {})(t, s)
			s.options.KnownHostsFile = knownHosts(t, line+"@revoked * "+string(gossh.MarshalAuthorizedKey(s.Plain.PublicKey())))
		}, "marked as revoked"},
		"by a stranger":  {certify(newKey(t), func(*gossh.Certificate) {}), "no authorities for hostname"},
		"for another":    {certify(authority, func(c *gossh.Certificate) { c.ValidPrincipals = []string{"other"} }), `"machine" not in the set of valid principals`},
		"expired":        {certify(authority, func(c *gossh.Certificate) { c.ValidBefore = 1 }), "expired"},
		"no certificate": {func(*testing.T, *setup) {}, "set HostCertificate in its sshd_config"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *setup) {
				s.options.KnownHostsFile = knownHosts(t, line)
				tt.set(t, s)
				start := time.Now()
				c, err := s.connect(t.Context())
				if tt.failed != "" {
					want(t, err, tt.failed)
					between(t, "failing", time.Since(start), 0, time.Second)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if !s.says.has("certified by an authority") {
					t.Errorf("said %q", s.says.lines)
				}
			})
		})
	}
}

func knownHosts(t *testing.T, line string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(path, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

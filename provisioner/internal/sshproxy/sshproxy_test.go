package sshproxy_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"bake/communicator"
	"bake/provisioner/internal/sshproxy"
	"bake/provisioner/provisionertest"
)

func newKey(t *testing.T) (ssh.Signer, ed25519.PrivateKey) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer, private
}

// served is a server for a test.
type served struct {
	addr string
	host ssh.PublicKey
	key  ssh.Signer
	file string // with the key of the client
}

func serve(t *testing.T, s *sshproxy.Server) served {
	t.Helper()
	client, private := newKey(t)
	host, _ := newKey(t)
	s.User, s.ClientKey, s.HostKey = "me", client.PublicKey(), host
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { s.Serve(ctx, listener) })
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	return served{listener.Addr().String(), host.PublicKey(), client, file}
}

func (s served) dial(user string, key ssh.Signer) (*ssh.Client, error) {
	return ssh.Dial("tcp", s.addr, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.FixedHostKey(s.host),
	})
}

func (s served) client(t *testing.T) *ssh.Client {
	t.Helper()
	c, err := s.dial("me", s.key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Commands run on the machine, with their input, outputs and exit status.
func TestCommands(t *testing.T) {
	m := provisionertest.NewMachine(t)
	c := serve(t, &sshproxy.Server{Machine: m}).client(t)
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			session, err := c.NewSession()
			if err != nil {
				t.Error(err)
				return
			}
			defer session.Close()
			if err := session.RequestPty("xterm", 40, 80, nil); err != nil {
				t.Error(err)
			}
			var out, errOut bytes.Buffer
			session.Stdin, session.Stdout, session.Stderr = strings.NewReader("some input\n"), &out, &errOut
			err = session.Run(fmt.Sprintf("cat; echo $HOME; echo oops >&2; exit %d", n))
			code := 0
			if exit := (*ssh.ExitError)(nil); errors.As(err, &exit) {
				code = exit.ExitStatus()
			} else if err != nil {
				t.Error(err)
			}
			if code != n || out.String() != "some input\n"+m.Home+"\n" || errOut.String() != "oops\n" {
				t.Errorf("got %d, %q, %q", code, &out, &errOut)
			}
		})
	}
	all.Wait()
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Shell(); err == nil {
		t.Error("a shell without a command is begun")
	}
	if _, err := c.Dial("tcp", "127.0.0.1:22"); err == nil {
		t.Error("a connection is forwarded")
	}
}

// A command whose exit status is unknown gets none, which SSH clients report as a lost connection;
// requests that are not supported are reported.
func TestLostMachine(t *testing.T) {
	m := provisionertest.NewMachine(t)
	m.Fault = func(int, string) error { return communicator.ErrDisconnected }
	session, err := serve(t, &sshproxy.Server{Machine: m}).client(t).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	var errOut bytes.Buffer
	session.Stderr = &errOut
	err = session.Run("true")
	if missing := (*ssh.ExitMissingError)(nil); !errors.As(err, &missing) || !strings.Contains(errOut.String(), "connection to the machine was lost") {
		t.Errorf("got %v, %q", err, &errOut)
	}
}

// When a client disconnects, its commands end.
func TestGoneClient(t *testing.T) {
	m := provisionertest.NewMachine(t)
	ended := make(chan struct{})
	s := serve(t, &sshproxy.Server{Machine: waiting{m, ended}})
	c := s.client(t)
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start("sleep 300"); err != nil {
		t.Fatal(err)
	}
	c.Close()
	<-ended
}

// waiting is a machine whose commands run until they are cancelled.
type waiting struct {
	*provisionertest.Machine
	ended chan struct{}
}

func (w waiting) Run(ctx context.Context, _ communicator.Command) (communicator.Status, error) {
	<-ctx.Done()
	close(w.ended)
	return communicator.Status{}, context.Cause(ctx)
}

// Other keys are refused.
func TestStrangers(t *testing.T) {
	s := serve(t, &sshproxy.Server{Machine: provisionertest.NewMachine(t)})
	other, _ := newKey(t)
	if _, err := s.dial("me", other); err == nil {
		t.Error("another key is let in")
	}
	if _, err := s.dial("root", s.key); err == nil {
		t.Error("another user is let in")
	}
}

// SFTP is that of the machine.
func TestSFTP(t *testing.T) {
	m := provisionertest.NewMachine(t)
	c, err := sftp.NewClient(serve(t, &sshproxy.Server{Machine: m}).client(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := c.Create(filepath.Join(m.Home, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, "text"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if got, err := os.ReadFile(filepath.Join(m.Home, "file")); string(got) != "text" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// The scp of OpenSSH copies files and directories to and from a machine that has no
// scp: through the communicator.
func TestSCP(t *testing.T) {
	scp, err := exec.LookPath("scp")
	if err != nil {
		t.Skip("no scp here; install openssh-client")
	}
	m := provisionertest.NewMachine(t)
	s := serve(t, &sshproxy.Server{Machine: noPrograms{m}, Copy: true})
	_, port, _ := net.SplitHostPort(s.addr)
	local := t.TempDir()
	for name, text := range map[string]string{"a file": "one", "tree/sub/b": "two", "tree/empty": ""} {
		path := filepath.Join(local, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) error {
		args = append([]string{"-O", "-F", "none", "-P", port, "-i", s.file, "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"}, args...)
		out, err := exec.Command(scp, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	at := "me@127.0.0.1:" + m.Home + "/"
	for _, args := range [][]string{
		{filepath.Join(local, "a file"), at + "named"},
		{filepath.Join(local, "a file"), at},
		{"-r", filepath.Join(local, "tree"), at},
		{"-r", filepath.Join(local, "tree"), at + "other"},
		{at + "named", filepath.Join(local, "back")},
		{"-r", at + "tree", filepath.Join(local, "tree-back")},
	} {
		if err := run(args...); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
	for path, want := range map[string]string{
		filepath.Join(m.Home, "named"): "one", filepath.Join(m.Home, "a file"): "one",
		filepath.Join(m.Home, "tree/sub/b"): "two", filepath.Join(m.Home, "other/empty"): "",
		filepath.Join(local, "back"): "one", filepath.Join(local, "tree-back/sub/b"): "two",
	} {
		got, err := os.ReadFile(path)
		info, _ := os.Stat(path)
		if string(got) != want || err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%s: got %q, %v, %v", path, got, info, err)
		}
	}
	if err := run(at+"missing", local); err == nil {
		t.Error("a file that is not there is copied")
	}
	if err := run(filepath.Join(local, "back"), at+"no/such/dir/x"); err == nil {
		t.Error("a file is copied into a directory that is not there")
	}
}

// noPrograms is a machine that runs nothing.
type noPrograms struct{ *provisionertest.Machine }

func (noPrograms) Run(context.Context, communicator.Command) (communicator.Status, error) {
	return communicator.Status{}, communicator.ErrNoCommands
}

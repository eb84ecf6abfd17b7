package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bake/cloud/machine"
	"bake/cloud/network"

	"golang.org/x/crypto/ssh"
)

func TestMain(m *testing.M) {
	if ran, code := Child(os.Args); ran {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// bench is a driver with a base to boot machines of.
type bench struct {
	t      *testing.T
	driver *Driver
	dir    string
	base   string
	key    ssh.Signer
	next   atomic.Int32
}

// newBench unpacks the root file system that BAKE_TEST_ROOTFS names. Tests of
// real machines run only where they are asked for.
func newBench(t *testing.T, o Options) *bench {
	t.Helper()
	if os.Getenv("BAKE_TEST_MACHINES") != "1" {
		t.Skip("set BAKE_TEST_MACHINES=1, and BAKE_TEST_ROOTFS to a root file system in a tar file, to boot machines")
	}
	rootfs := os.Getenv("BAKE_TEST_ROOTFS")
	if rootfs == "" {
		t.Skip("BAKE_TEST_ROOTFS names no root file system")
	}
	dir, err := os.MkdirTemp(os.Getenv("BAKE_TEST_DIR"), "bake-machines-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	o.Dir = dir
	if os.Getenv("BAKE_TEST_LOG") != "" {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		began := time.Now()
		if err := d.Remove(context.Background(), dir); err != nil {
			t.Error(err)
		}
		t.Logf("removed in %v", time.Since(began).Round(time.Millisecond))
	})
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, driver: d, dir: dir, base: filepath.Join(dir, "base"), key: key}
	f, err := os.Open(rootfs)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	began := time.Now()
	if err := d.Unpack(t.Context(), f, b.base); err != nil {
		t.Fatal(err)
	}
	t.Logf("mode %s, unpacked in %v", d.Mode(), time.Since(began).Round(time.Millisecond))
	return b
}

// spec is that of a new instance of the base.
func (b *bench) spec() machine.Spec {
	n := b.next.Add(1)
	id := fmt.Sprintf("i-%d%04d", n, os.Getpid()%10000)
	return machine.Spec{
		ID: id, Dir: filepath.Join(b.dir, id), Layers: []string{b.base}, Hostname: fmt.Sprintf("ip-172-31-0-%d", 10+n),
		First: true, User: "admin", AuthorizedKeys: []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(b.key.PublicKey())))},
		Console: filepath.Join(b.dir, id+".console"),
		Network: network.Config{
			Private: netip.AddrFrom4([4]byte{172, 31, 0, byte(10 + n)}), Subnet: netip.MustParsePrefix("172.31.0.0/20"),
			Public: netip.AddrFrom4([4]byte{127, 11, byte(os.Getpid() % 250), byte(10 + n)}),
		},
	}
}

func (b *bench) start(spec machine.Spec) machine.Machine {
	b.t.Helper()
	m, err := b.driver.Start(b.t.Context(), spec)
	if err != nil {
		b.t.Fatalf("%v\n%s", err, readText(spec.Console))
	}
	b.t.Cleanup(func() {
		m.Kill()
		if b.t.Failed() {
			b.t.Logf("console of %s:\n%s", spec.ID, readText(spec.Console))
		}
	})
	return m
}

// login connects to the machine's public address as soon as it lets us in.
func (b *bench) login(spec machine.Spec) *ssh.Client {
	b.t.Helper()
	config := &ssh.ClientConfig{User: spec.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(b.key)}, HostKeyCallback: consoleKeys(spec.Console), Timeout: 10 * time.Second}
	var last error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		port := "22"
		if os.Geteuid() != 0 {
			port = "20022"
		}
		c, err := ssh.Dial("tcp", net.JoinHostPort(spec.Network.Public.String(), port), config)
		if err == nil {
			b.t.Cleanup(func() { c.Close() })
			return c
		}
		last = err
	}
	b.t.Fatalf("ssh: %v\n%s", last, readText(spec.Console))
	return nil
}

// consoleKeys accepts the host keys that the machine printed on its console.
func consoleKeys(console string) ssh.HostKeyCallback {
	return func(_ string, _ net.Addr, key ssh.PublicKey) error {
		_, block, _ := strings.Cut(readText(console), "-----BEGIN SSH HOST KEY KEYS-----\n")
		block, _, _ = strings.Cut(block, "-----END SSH HOST KEY KEYS-----")
		for line := range strings.Lines(block) {
			known, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
			if err == nil && bytes.Equal(known.Marshal(), key.Marshal()) {
				return nil
			}
		}
		return errors.New("the host key was not on the console")
	}
}

func (b *bench) run(c *ssh.Client, command string) string {
	b.t.Helper()
	out, err := try(c, command)
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

func try(c *ssh.Client, command string) (string, error) {
	s, err := c.NewSession()
	if err != nil {
		return "", err
	}
	defer s.Close()
	out, err := s.CombinedOutput(command)
	return strings.TrimSpace(string(out)), err
}

func readText(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (b *bench) banner(spec machine.Spec) {
	for {
		port := "22"
		if os.Geteuid() != 0 {
			port = "20022"
		}
		c, err := net.Dial("tcp", net.JoinHostPort(spec.Network.Public.String(), port))
		if err == nil {
			line, err := bufio.NewReader(c).ReadString('\n')
			c.Close()
			if err == nil && strings.HasPrefix(line, "SSH-") {
				return
			}
		}
		time.Sleep(3 * time.Millisecond)
	}
}

func TestMeasure(t *testing.T) {
	b := newBench(t, Options{})
	for i := range 3 {
		spec := b.spec()
		spec.Network.Metadata = http.NotFoundHandler()
		began := time.Now()
		m := b.start(spec)
		up := time.Since(began)
		b.banner(spec)
		banner := time.Since(began)
		c := b.login(spec)
		b.run(c, "true")
		first := time.Since(began)
		t.Logf("%d: started %v, banner %v, first command %v", i, up.Round(time.Millisecond), banner.Round(time.Millisecond), first.Round(time.Millisecond))
		if i == 0 {
			t.Log(b.run(c, "systemctl is-system-running; systemctl --failed; cat /proc/uptime; hostname; id; sudo id; ip addr; ip route; cat /etc/resolv.conf; systemd-analyze blame | head -20; systemd-analyze critical-chain ssh.service"))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		began = time.Now()
		m.Stop(ctx)
		cancel()
		t.Logf("stopped in %v: %+v", time.Since(began).Round(time.Millisecond), m.Exit())
		if i == 0 {
			t.Log(readText(spec.Console))
		}
	}
}

var _ = io.EOF

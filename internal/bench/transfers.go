//go:build linux

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// transfers compares the file provisioner with OpenSSH's scp and sftp and with a pipe
// of tar through ssh, to this host's own OpenSSH server: on loopback, or with a round
// trip through a relay that delays.
func (b *bench) transfers(ctx context.Context, rtt time.Duration) error {
	srv, err := newSSHD(b.dir)
	if err != nil {
		return err
	}
	defer srv.stop()
	loads, err := b.loads()
	if err != nil {
		return err
	}
	port, where := srv.port(), "loopback"
	if rtt > 0 {
		at, err := newRelay(rtt, func() (net.Conn, error) { return net.Dial("tcp", srv.addr) })
		if err != nil {
			return err
		}
		defer at.Close()
		port, where = at.port(), rtt.String()
	}
	for _, l := range loads {
		for _, up := range []bool{true, false} {
			if !b.wanted.MatchString(directions[up] + " " + filepath.Base(l.path)) {
				continue
			}
			if err := b.compare(ctx, srv, port, where, l, up); err != nil {
				return fmt.Errorf("%s, %s: %w", l.what, where, err)
			}
		}
	}
	return nil
}

var directions = map[bool]string{true: "up", false: "down"}

// load is a file or directory to transfer.
type load struct {
	what, path string
	sparse     bool
}

func (b *bench) loads() ([]load, error) {
	big, many, sparse := filepath.Join(b.dir, "big"), filepath.Join(b.dir, "many"), filepath.Join(b.dir, "sparse")
	if err := randomFile(big, b.big<<20); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(many, 0o755); err != nil {
		return nil, err
	}
	for i := range 2000 {
		if err := randomFile(filepath.Join(many, fmt.Sprintf("f%04d", i)), 4096); err != nil {
			return nil, err
		}
	}
	f, err := os.Create(sparse)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	part := make([]byte, 1<<20)
	_, _ = rand.Read(part) // never fails
	for _, at := range []int64{0, 300 << 20, 1000 << 20} {
		if _, err := f.WriteAt(part, at); err != nil {
			return nil, err
		}
	}
	return []load{{fmt.Sprintf("%d MB", b.big), big, false}, {"2,000 files of 4 KB", many, false}, {"1 GB, sparse", sparse, true}}, f.Truncate(1 << 30)
}

// compare measures each method, in turns.
func (b *bench) compare(ctx context.Context, srv *sshd, port int, where string, l load, up bool) error {
	options := []string{"-F", "none", "-i", srv.keyFile, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"}
	away, base := filepath.Join(b.dir, "away"), filepath.Base(l.path)
	sh := func(format string, args ...any) *exec.Cmd {
		return exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf(format, args...))
	}
	shell := strings.Join(options, " ")
	there, me := "127.0.0.1", srv.user
	ways := []struct {
		name string
		run  func() *exec.Cmd
	}{
		{"scp", func() *exec.Cmd {
			if up {
				return sh("exec scp -q -r %s -P %d %s %s@%s:%s/", shell, port, l.path, me, there, away)
			}
			return sh("exec scp -q -r %s -P %d %s@%s:%s %s/", shell, port, me, there, l.path, away)
		}},
		{"sftp", func() *exec.Cmd {
			if up {
				return sh("echo put -R %s %s/%s | sftp -q %s -P %d %s@%s", l.path, away, base, shell, port, me, there)
			}
			return sh("echo get -R %s %s/ | sftp -q %s -P %d %s@%s", l.path, away, shell, port, me, there)
		}},
		{"tar", func() *exec.Cmd {
			if up {
				return sh("tar -cSf - -C %s %s | ssh %s -p %d %s@%s tar -xf - -C %s", b.dir, base, shell, port, me, there, away)
			}
			return sh("ssh %s -p %d %s@%s tar -cSf - -C %s %s | tar -xf - -C %s", shell, port, me, there, b.dir, base, away)
		}},
		{"bake", func() *exec.Cmd { return b.command("build", "-color=false", filepath.Join(b.dir, "transfer.pkr.hcl")) }},
	}
	if err := os.WriteFile(filepath.Join(b.dir, "transfer.pkr.hcl"), []byte(transferTemplate(srv, port, l.path, away, up)), 0o644); err != nil {
		return err
	}
	took := map[string][]time.Duration{}
	var held string
	for range b.runs {
		for _, way := range ways {
			if err := errors.Join(os.RemoveAll(away), os.Mkdir(away, 0o755)); err != nil {
				return err
			}
			start := time.Now()
			if out, err := way.run().CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", way.name, err, out)
			}
			took[way.name] = append(took[way.name], time.Since(start))
			if way.name == "bake" && l.sparse {
				out, _ := exec.Command("du", "-m", filepath.Join(away, base)).Output()
				held = ", holds " + strings.Fields(string(out) + " ?")[0] + " MB"
			}
		}
	}
	ours, scp := median(took["bake"]), median(took["scp"])
	best := min(scp, median(took["sftp"]), median(took["tar"]))
	report(fmt.Sprintf("%sload of %s, %s", directions[up], l.what, where),
		fmt.Sprintf("bake %s, scp %s, sftp %s, tar %s", round(ours), round(scp), round(median(took["sftp"])), round(median(took["tar"]))),
		fmt.Sprintf("of the best %.2f, of scp %.2f%s", ours.Seconds()/best.Seconds(), ours.Seconds()/scp.Seconds(), held))
	return os.RemoveAll(away)
}

func transferTemplate(srv *sshd, port int, path, away string, up bool) string {
	direction, from, to := "upload", path, away+"/"
	if !up {
		direction = "download"
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			from += "/"
		}
	}
	return fmt.Sprintf(`
source "null" "machine" {
  ssh_host             = "127.0.0.1"
  ssh_port             = %d
  ssh_username         = %q
  ssh_private_key_file = %q
}
build {
  sources = ["null.machine"]
  provisioner "file" {
    direction   = %q
    source      = %q
    destination = %q
  }
}
`, port, srv.user, srv.keyFile, direction, from, to)
}

// sshd is an instance of this host's OpenSSH server for the current user.
type sshd struct {
	cmd                 *exec.Cmd
	addr, user, keyFile string
}

func newSSHD(dir string) (*sshd, error) {
	program, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		return nil, fmt.Errorf("%w; install openssh-server", err)
	}
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return nil, err
		}
	}
	s := &sshd{user: me.Username, keyFile: filepath.Join(dir, "transfer.key")}
	var public ssh.PublicKey
	for _, file := range []string{filepath.Join(dir, "host.key"), s.keyFile} {
		if public, err = writeKey(file); err != nil {
			return nil, err
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.addr = ln.Addr().String()
	ln.Close()
	authorized, config := filepath.Join(dir, "authorized_keys"), filepath.Join(dir, "sshd_config")
	text := fmt.Sprintf("ListenAddress %s\nHostKey %s\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile none\nSubsystem sftp internal-sftp\nSetEnv SHLVL=2\n",
		s.addr, filepath.Join(dir, "host.key"), authorized)
	if err := errors.Join(os.WriteFile(authorized, ssh.MarshalAuthorizedKey(public), 0o600), os.WriteFile(config, []byte(text), 0o600)); err != nil {
		return nil, err
	}
	s.cmd = exec.Command(program, "-D", "-f", config, "-E", filepath.Join(dir, "sshd.log"))
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for range 100 {
		if conn, err := net.Dial("tcp", s.addr); err == nil {
			conn.Close()
			return s, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.stop()
	return nil, errors.New("sshd does not listen")
}

func (s *sshd) port() int {
	addr, err := net.ResolveTCPAddr("tcp", s.addr)
	if err != nil {
		return 0
	}
	return addr.Port
}

func (s *sshd) stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

func writeKey(file string) (ssh.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "bench")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, err
	}
	return ssh.NewPublicKey(public)
}

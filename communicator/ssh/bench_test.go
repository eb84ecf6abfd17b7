package ssh_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"bake/communicator"
	"bake/communicator/commtest"
	"bake/communicator/ssh"
)

// BenchmarkUpload uploads the same data to the same OpenSSH server in each possible way and with
// the system's scp, and reports the speed relative to scp.
func BenchmarkUpload(b *testing.B) {
	key := newKey(b)
	host := newKey(b)
	srv := commtest.SSHD(b, key.Signer.PublicKey(), host.PrivateKey, host.Signer.PublicKey())
	keyFile := filepath.Join(b.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(key.PrivateKey), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, load := range []struct {
		name  string
		files int
		size  int64
	}{{"512 MB", 1, 512 << 20}, {"2000 x 4 KB", 2000, 4 << 10}} {
		local := filepath.Join(b.TempDir(), "data")
		makeFiles(b, local, load.files, load.size)
		bytes := int64(load.files) * load.size
		upload := func(method ssh.TransferMethod) func(context.Context, string) error {
			o := options(srv)
			o.FileTransferMethod = method
			c := connect(b, b.Context(), o, ssh.Target{Signers: []gossh.Signer{key.Signer}})
			return func(ctx context.Context, dst string) error {
				return c.Put(ctx, dst, communicator.LocalDir("", local))
			}
		}
		scp := func(ctx context.Context, dst string) error {
			out, err := exec.CommandContext(ctx, "scp", "-q", "-r", "-F", "none", "-i", keyFile, "-P", strconv.Itoa(srv.Port),
				"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
				local, fmt.Sprintf("%s@%s:%s", srv.User, srv.Host, dst)).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}
		ways := []struct {
			name string
			run  func(context.Context, string) error
		}{{"scp of OpenSSH", scp}, {"stream", upload(ssh.Shell)}, {"SFTP", upload(ssh.SFTP)}}
		b.Run(load.name, func(b *testing.B) {
			var reference float64
			for _, way := range ways {
				b.Run(way.name, func(b *testing.B) {
					b.SetBytes(bytes)
					for b.Loop() {
						dst := b.TempDir()
						if err := way.run(b.Context(), dst); err != nil {
							b.Fatal(err)
						}
						b.StopTimer()
						os.RemoveAll(dst)
						b.StartTimer()
					}
					perOp := b.Elapsed().Seconds() / float64(b.N)
					if reference == 0 {
						reference = perOp
					}
					b.ReportMetric(reference/perOp, "x-scp")
				})
			}
		})
	}
}

func makeFiles(b *testing.B, dir string, n int, size int64) {
	b.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(i * 7)
	}
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%04d", i)), content, 0o644); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConnect measures the time until the first command has ended.
func BenchmarkConnect(b *testing.B) {
	key := newKey(b)
	host := newKey(b)
	srv := commtest.SSHD(b, key.Signer.PublicKey(), host.PrivateKey, host.Signer.PublicKey())
	for b.Loop() {
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
		c, err := ssh.Connect(ctx, scope(nil), options(srv), ssh.Target{Signers: []gossh.Signer{key.Signer}})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Run(ctx, communicator.Command{Line: "true"}); err != nil {
			b.Fatal(err)
		}
		c.Close()
		cancel()
	}
}

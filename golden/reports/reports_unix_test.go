//go:build unix

package reports_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bake/golden/reports"
)

// TestReadFile: files that never end, and pipes without a writer, are not read.
func TestReadFile(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, "/dev/zero"} {
		if text, err := reports.ReadFile(path, 10); err == nil || !strings.Contains(err.Error(), path+" is not a regular file") {
			t.Errorf("%s: %d bytes, %v", path, len(text), err)
		}
	}
}

// TestLinks: neither reads nor writes follow a link out of the directory of reports.
func TestLinks(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	store := reports.Store{Dir: dir}
	secret := filepath.Join(outside, "secret")
	digest := reports.Digest([]byte("secret"))
	err := errors.Join(os.WriteFile(secret, []byte("secret"), 0o600), os.Symlink(outside, filepath.Join(dir, "logs")), os.Symlink(secret, filepath.Join(dir, "web.json")))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"logs/secret", "web.json"} {
		if text, err := store.ReadNamed(t.Context(), name, digest, 100); err == nil {
			t.Errorf("%s: %q is read", name, text)
		}
	}
	if err := store.Write(t.Context(), "logs/web/x.gz", []byte("x")); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("it is written where logs leads: %v", err)
	}
	if err := store.Write(t.Context(), "web.json", []byte("web")); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(secret); err != nil || string(text) != "secret" {
		t.Errorf("outside: %q, %v", text, err)
	}
	if all, err := os.ReadDir(outside); err != nil || len(all) != 1 {
		t.Errorf("outside: %v, %v", all, err)
	}
}

// TestModes: users who may read the reports in a directory may not read the logs there.
func TestModes(t *testing.T) {
	store := reports.Store{Dir: filepath.Join(t.TempDir(), "reports")}
	old := syscall.Umask(0o022)
	defer syscall.Umask(old)
	for _, name := range []string{"web/report.html", "logs/web/x.gz"} {
		if err := store.Write(t.Context(), name, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]fs.FileMode{"web": 0o755, "web/report.html": 0o644, "logs": 0o700, "logs/web": 0o700, "logs/web/x.gz": 0o600} {
		if info, err := os.Stat(filepath.Join(store.Dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

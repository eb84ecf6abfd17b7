//go:build unix

package wholefile_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bake/internal/wholefile"
)

func text(s string) func(*os.File) error {
	return func(f *os.File) error {
		_, err := f.WriteString(s)
		return err
	}
}

func check(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || string(b) != content {
		t.Errorf("%s holds %q, %v", path, b, err)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm() != mode {
		t.Errorf("mode %04o, want %04o", info.Mode().Perm(), mode)
	}
}

// TestWrite changes the umask of the process: it cannot run beside others.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for umask, want := range map[int]fs.FileMode{0o022: 0o644, 0o002: 0o664, 0o077: 0o600} {
		old := syscall.Umask(umask)
		err := wholefile.Write(path, 0o664, text("new"))
		syscall.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		check(t, path, "new", want)
		os.Remove(path)
	}

	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	why := errors.New("no")
	err := wholefile.Write(path, 0o666, func(f *os.File) error { return errors.Join(text("half")(f), why) })
	if !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	check(t, path, "old", 0o600)

	link := filepath.Join(dir, "link")
	if err := os.Symlink("f", link); err != nil {
		t.Fatal(err)
	}
	if err := wholefile.Write(link, 0o666, text("newer")); err != nil {
		t.Fatal(err)
	}
	check(t, path, "newer", 0o600)
	if to, err := os.Readlink(link); err != nil || to != "f" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
	if err := wholefile.Write(os.DevNull, 0o666, text("x")); err != nil {
		t.Error(err)
	}
}

// TestPipe: a named pipe is written to if somebody reads it, and otherwise not waited for.
func TestPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- wholefile.WriteData(path, 0o666, []byte("x")) }()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "nobody reads") {
			t.Errorf("got %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits for a reader")
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := wholefile.WriteData(path, 0o666, []byte("read")); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(reader); err != nil || string(b) != "read" {
		t.Errorf("read %q, %v", b, err)
	}
}

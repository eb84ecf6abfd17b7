package wire_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bake/cloud/wire"
)

// TestMessage checks that clients do not see paths of the host, wherever in an error they are.
func TestMessage(t *testing.T) {
	full := &os.PathError{Op: "open", Path: `/srv/my cloud: "new"/state/disk`, Err: syscall.ENOSPC}
	for want, err := range map[string]error{
		"open: no space left on device":                               full,
		"make a disk: open: no space left on device":                  fmt.Errorf("make a disk: %w", full),
		"unpack into: open: no space left on device":                  &fs.PathError{Op: "unpack into", Path: "/srv/my cloud", Err: full},
		"rename: file exists":                                         &os.LinkError{Op: "rename", Old: "/srv/my cloud/a", New: "/srv/my cloud/b", Err: syscall.EEXIST},
		"link a b: file exists":                                       &os.LinkError{Op: "link", Old: "a", New: "b", Err: syscall.EEXIST},
		"a: rename: file exists\nopen: no space left on device":       errors.Join(fmt.Errorf("a: %w", &os.LinkError{Op: "rename", Old: "/x y", New: "z", Err: syscall.EEXIST}), full),
		`exec "mkfs": executable file not found in $PATH`:             &exec.Error{Name: "/opt/my tools/mkfs", Err: exec.ErrNotFound},
		"dial unix: connection refused":                               &net.OpError{Op: "dial", Net: "unix", Addr: &net.UnixAddr{Name: "/srv/my cloud/socket", Net: "unix"}, Err: syscall.ECONNREFUSED},
		"dial tcp 127.0.0.1:22: connection refused":                   &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 22}, Err: syscall.ECONNREFUSED},
		"making a file system: open etc/my file: file does not exist": fmt.Errorf("making a file system: %w", &fs.PathError{Op: "open", Path: "etc/my file", Err: fs.ErrNotExist}),
		`making a file system: "etc/a/b": it has 5 bytes`:             errors.New(`making a file system: "etc/a/b": it has 5 bytes`),
		"The bucket '/a/b' is not there":                              fmt.Errorf("put: %w", wire.Errorf("X", "The bucket '/a/b' is not there")),
	} {
		if got := wire.Message(err); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := wire.AsError(full); got.Message != "An internal error has occurred: open: no space left on device" {
		t.Errorf("an internal error is %q", got.Message)
	}
}

// TestMessageOfFiles checks that the standard library's errors have the types that WithoutPaths
// recognizes.
func TestMessageOfFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "my cloud")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f, err := root.Create("file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, do := range map[string]func() error{
		"open":          func() error { _, err := os.Open(filepath.Join(dir, "none")); return err },
		"write":         func() error { return os.WriteFile(dir, nil, 0o600) },
		"rename":        func() error { return os.Rename(filepath.Join(dir, "none"), dir) },
		"truncate":      func() error { return f.Truncate(-1) },
		"read":          func() error { _, err := f.ReadAt(nil, -1); return err },
		"remove all":    func() error { return os.RemoveAll(filepath.Join(dir, ".") + "/.") },
		"temporary":     func() error { _, err := os.MkdirTemp(filepath.Join(dir, "none"), ""); return err },
		"link":          func() error { return os.Link(filepath.Join(dir, "none"), filepath.Join(dir, "new")) },
		"start":         func() error { return exec.Command(filepath.Join(dir, "none")).Start() },
		"not a program": func() error { return exec.Command(filepath.Join(dir, "file")).Start() },
		"listen":        func() error { _, err := net.Listen("unix", filepath.Join(dir, "none", "socket")); return err },
		"dial":          func() error { _, err := net.Dial("unix", filepath.Join(dir, "none")); return err },
	} {
		err := do()
		if err == nil || !strings.Contains(err.Error(), "my cloud") {
			t.Errorf("%s: %v does not name the directory", name, err)
		} else if got := wire.Message(err); strings.Contains(got, "cloud") || got == "" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

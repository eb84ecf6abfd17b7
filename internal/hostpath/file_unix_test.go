//go:build unix

package hostpath_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bake/internal/hostpath"
)

// TestRead: files, the null device and pipes that this process has are read; whatever may
// never end, or never begin, is refused.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	file, pipe, socket := filepath.Join(dir, "file"), filepath.Join(dir, "pipe"), filepath.Join(dir, "socket")
	if err := errors.Join(os.WriteFile(file, []byte("text"), 0o600), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = w.WriteString("piped")
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ path, want, err string }{
		{file, "text", ""},
		{os.DevNull, "", ""},
		{fmt.Sprintf("/dev/fd/%d", r.Fd()), "piped", ""},
		{pipe, "", pipe + " is not a regular file but a named pipe"},
		{socket, "", socket + " is not a regular file but a socket"},
		{dir, "", dir + " is not a regular file but a directory"},
		{"/dev/zero", "", "/dev/zero is not a regular file but a device"},
		{filepath.Join(dir, "absent"), "", "no such file"},
	} {
		text, err := hostpath.Read(test.path, hostpath.Limit)
		if string(text) != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %q, %v", test.path, text, err)
		}
	}
	if _, err := hostpath.Read(filepath.Join(dir, "absent"), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	if err := os.Truncate(file, 1<<20+1); err != nil {
		t.Fatal(err)
	}
	if text, err := hostpath.Read(file, 1<<20); err == nil || !strings.Contains(err.Error(), "larger than the limit of 1 MB") {
		t.Errorf("a long file: %d bytes, %v", len(text), err)
	}
}

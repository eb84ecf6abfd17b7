package local

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestUnusable: an error about the place of the cloud's directory says what to do, also if
// it is about a directory above it; other errors are left alone.
func TestUnusable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(file, "share", "bake", "cloud")
	const dir = "/home/u/.local/share/bake/cloud"
	for _, c := range []struct {
		dir    string
		err    error
		advice string
	}{
		{dir, &fs.PathError{Op: "mkdir", Path: "/home/u/.local", Err: syscall.EACCES}, "set BAKE_CLOUD_DIR"},
		{dir, &fs.PathError{Op: "open", Path: dir + "/lock", Err: syscall.EACCES}, "set BAKE_CLOUD_DIR"},
		{dir, &fs.PathError{Op: "write", Path: dir + "/.record-1", Err: syscall.ENOSPC}, "free some space"},
		{below, os.MkdirAll(below, 0o700), "set BAKE_CLOUD_DIR"},
		{dir, &fs.PathError{Op: "open", Path: "/home/u/.loc", Err: syscall.EACCES}, ""},
		{dir, &fs.PathError{Op: "open", Path: "/dev/net/tun", Err: syscall.EACCES}, ""},
	} {
		got := unusable(c.dir, c.err).Error()
		if !strings.Contains(got, c.advice) || c.advice == "" && got != c.err.Error() {
			t.Errorf("%v: %s, want %q", c.err, got, c.advice)
		}
	}
}

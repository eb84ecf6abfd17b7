//go:build unix

package hostpath_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bake/internal/hostpath"
)

// TestRegular: only regular files are opened, and nothing else is waited for.
func TestRegular(t *testing.T) {
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(file, []byte("text"), 0o600), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	if text, err := hostpath.ReadRegular(os.OpenFile, file, 4); err != nil || string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := hostpath.ReadRegular(os.OpenFile, file, 3); err == nil || !strings.Contains(err.Error(), "larger than the limit") {
		t.Errorf("a long file: %v", err)
	}
	for _, path := range []string{pipe, os.DevNull, dir} {
		if f, err := hostpath.OpenRegular(path); err == nil || !strings.Contains(err.Error(), path+" is not a regular file") {
			t.Errorf("%s: %v, %v", path, f, err)
		}
	}
	if _, err := hostpath.OpenRegular(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

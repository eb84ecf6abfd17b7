package goss

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestNotRegular: files that are not regular, and may be endless, are refused, even if they are
// included.
func TestNotRegular(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, diags := ReadVars([]string{filepath.Join(dir, "pipe.yaml")}, ""); !strings.Contains(diags.Error(), "pipe.yaml is not a regular file but a named pipe") {
		t.Errorf("variables: %v", diags)
	}
	if err := os.Symlink("/dev/zero", filepath.Join(dir, "zero.yaml")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pipe.yaml", "zero.yaml"} {
		including := filepath.Join(dir, "from-"+name[:4]+".yaml")
		if err := os.WriteFile(including, []byte("gossfile:\n  "+name+": {}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{filepath.Join(dir, name), including} {
			if _, diags := Load(path, Options{}); !strings.Contains(diags.Error(), name+" is not a regular file") {
				t.Errorf("%s: %v", path, diags)
			}
		}
	}
}

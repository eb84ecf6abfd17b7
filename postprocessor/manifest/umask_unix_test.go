//go:build unix

package manifest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"bake/builder"
	"bake/step"
)

func TestUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o027))
	path := filepath.Join(t.TempDir(), "m.json")
	if err := process(t, fmt.Sprintf("output = %q", path), step.Invocation{}, &builder.Artifact{}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o640 {
		t.Errorf("the manifest's mode is %o, want 640", got)
	}
}

package bake_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestSize holds the stripped program below a size that it exceeds when the
// linker can no longer tell which actions of the AWS SDK are used.
func TestSize(t *testing.T) {
	if testing.Short() {
		t.Skip("links the program")
	}
	const limit = 45 << 20
	program := filepath.Join(t.TempDir(), "bake")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./cmd/bake")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB", float64(info.Size())/1e6)
	if info.Size() > limit {
		t.Errorf("the program has %.1f MB, more than %d; does a client of the AWS SDK become an interface?", float64(info.Size())/1e6, limit>>20)
	}
}

package communicator_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"bake/communicator"
)

func TestTrees(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "sub/b"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := fstest.TestFS(communicator.File("x", 0o600, []byte("text")), "x"); err != nil {
		t.Error(err)
	}
	if err := fstest.TestFS(communicator.LocalDir("", dir), "a", "sub/b"); err != nil {
		t.Error(err)
	}
	if err := fstest.TestFS(communicator.LocalDir("sub", filepath.Join(dir, "sub")), "sub/b"); err != nil {
		t.Error(err)
	}
	if err := fstest.TestFS(communicator.LocalFile("sub", filepath.Join(dir, "sub/b")), "sub"); err != nil {
		t.Error(err)
	}
}

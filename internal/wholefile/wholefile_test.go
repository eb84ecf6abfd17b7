package wholefile_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"bake/internal/wholefile"
)

// TestReplaceOpen: a file that is open for a moment can be replaced, even on Windows.
func TestReplaceOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, data := range []string{"old", "new"} {
		open, err := os.Open(path)
		if err == nil {
			time.AfterFunc(50*time.Millisecond, func() { open.Close() })
		}
		if err := wholefile.WriteData(path, 0o644, []byte(data)); err != nil {
			t.Fatal(err)
		}
		if got, err := wholefile.Read(path, 1<<20); err != nil || string(got) != data {
			t.Errorf("it holds %q, want %q, %v", got, data, err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestReplaceForbidden: there is no wait for permanent obstacles.
func TestReplaceForbidden(t *testing.T) {
	dir := t.TempDir()
	from, folder, readOnly := filepath.Join(dir, "from"), filepath.Join(dir, "folder"), filepath.Join(dir, "read-only")
	if err := errors.Join(os.WriteFile(from, nil, 0o644), os.Mkdir(folder, 0o755), os.WriteFile(readOnly, nil, 0o444)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(readOnly, 0o644) })
	begun := time.Now()
	if err := wholefile.Rename(from, folder); err == nil {
		t.Error("a file has replaced a directory")
	}
	_ = wholefile.Rename(from, readOnly)                  // it depends on the system
	if took := time.Since(begun); took >= 2*time.Second { // it would have waited for one of them
		t.Errorf("that took %v", took)
	}
}

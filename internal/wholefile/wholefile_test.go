package wholefile_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"bake/internal/wholefile"
)

// TestReplaceOpen: what somebody has open for a moment can be replaced, on Windows too.
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
		if got, err := wholefile.Read(path); err != nil || string(got) != data {
			t.Errorf("it holds %q, want %q, %v", got, data, err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

//go:build unix

package checksum

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestTakeBackOfMoved: a different file now has the name of the file.
func TestTakeBackOfMoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sum")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := f.WriteString("part")
	if err := errors.Join(err, os.Rename(path, path+".1"), os.WriteFile(path, []byte("another's"), 0o600), takeBack(f, n)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{path: "another's", path + ".1": ""} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v; want %q", name, got, err, want)
		}
	}
}

package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"bake/communicator"
)

// TestInfoOf: plugins are told the permissions that other communicators give to a file, from
// Windows too, which reports 0666 and 0777.
func TestInfoOf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d", "f")
	if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), os.Chmod(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("text"), 0o600), os.Chmod(path, 0o644|fs.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{path: 0o644, filepath.Dir(path): fs.ModeDir | 0o755} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := infoOf(communicator.Entry{Name: "f", Info: info}); got.M != want || got.S != info.Size() || got.N != info.Name() {
			t.Errorf("%s: %+v, want mode %v", name, got, want)
		}
	}
}

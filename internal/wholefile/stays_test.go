package wholefile

import (
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"
)

func TestStays(t *testing.T) {
	in := fstest.MapFS{"folder": {Mode: fs.ModeDir | 0o755}, "read-only": {Mode: 0o444}, "file": {Mode: 0o644}}
	for name, want := range map[string]bool{"folder": true, "read-only": true, "file": false, "none": false} {
		there, err := fs.Stat(in, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if got := stays(there, err); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

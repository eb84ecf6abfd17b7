package hostpath

import (
	"io/fs"
	"testing"
)

// TestPerm: files copied from Windows to a machine are not writable by everyone.
func TestPerm(t *testing.T) {
	for _, tt := range []struct {
		system   string
		in, want fs.FileMode
	}{
		{"windows", 0o666, 0o644}, {"windows", fs.ModeDir | 0o777, 0o755}, {"windows", 0o444, 0o444}, {"linux", fs.ModeSetuid | 0o666, 0o666},
	} {
		if got := perm(tt.in, tt.system); got != tt.want {
			t.Errorf("%s: %v is %v, want %v", tt.system, tt.in, got, tt.want)
		}
	}
}

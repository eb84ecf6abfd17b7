package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// What an image says of the unit of its SSH server holds.
func TestOwnServer(t *testing.T) {
	for path, want := range map[string]bool{
		"/etc/systemd/system/ssh.service": true, "/etc/systemd/system/ssh.service.d": true,
		"/usr/lib/systemd/system/ssh.service": false, "/etc/systemd/system/cron.service.d": false,
	} {
		if got := ownServer(func(have string) bool { return have == path }); got != want {
			t.Errorf("with %s: %t", path, got)
		}
	}
}

// Additions to units come before those of the image.
func TestAdditionsAreFirst(t *testing.T) {
	units := t.TempDir()
	if err := (&bootSpec{}).hastenLogin(units); err != nil {
		t.Fatal(err)
	}
	for unit, want := range map[string]bool{"cron.service": true, "ssh.service": !ownServer(exists)} {
		_, err := os.Stat(filepath.Join(units, unit+".d", "00-bake.conf"))
		if (err == nil) != want || err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", unit, err)
		}
	}
}

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

// What cloud-init's units run is run by one process, and nothing else is.
func TestStages(t *testing.T) {
	for unit, want := range map[string]string{
		"[Service]\nExecStart=/usr/bin/cloud-init init --local\nRemainAfterExit=yes\n":         "[Service]\nExecStart=\nExecStart=/usr/bin/python3 -s /x init --local\n",
		"[Service]\nExecStart=/bin/true\n":                                                     "",
		"[Service]\nExecStart=/usr/bin/cloud-init init\nExecStart=/usr/bin/cloud-init clean\n": "",
		"": "",
	} {
		if got := stageOf(unit, "/usr/bin/python3 -s /x"); got != want {
			t.Errorf("%q: %q", unit, got)
		}
	}
	for program, want := range map[string]string{
		"#! /usr/bin/python3 -s\nimport re\n": "/usr/bin/python3 -s", "#!/bin/sh\n": "", "": "", "\x7fELF": "",
	} {
		if got := interpreter(program); got != want {
			t.Errorf("%q: %q", program, got)
		}
	}
}

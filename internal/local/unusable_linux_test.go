package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bake/cloud/machine"
)

// TestUnusable: an error about the place of the cloud's directory says what to do, also if
// it is about a directory above it; other errors are left alone.
func TestUnusable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(file, "share", "bake", "cloud")
	const dir = "/home/u/.local/share/bake/cloud"
	for _, c := range []struct {
		dir    string
		err    error
		advice string
	}{
		{dir, &fs.PathError{Op: "mkdir", Path: "/home/u/.local", Err: syscall.EACCES}, "set BAKE_CLOUD_DIR"},
		{dir, &fs.PathError{Op: "open", Path: dir + "/lock", Err: syscall.EACCES}, "set BAKE_CLOUD_DIR"},
		{dir, &fs.PathError{Op: "write", Path: dir + "/.record-1", Err: syscall.ENOSPC}, "free some space"},
		{below, os.MkdirAll(below, 0o700), "set BAKE_CLOUD_DIR"},
		{"/proc/bake/cloud", os.MkdirAll("/proc/bake/cloud", 0o700), "set BAKE_CLOUD_DIR"},
		{dir, &fs.PathError{Op: "open", Path: dir + "/accounts.json", Err: syscall.ENOENT}, ""},
		{dir, &fs.PathError{Op: "open", Path: "/home/u/.loc", Err: syscall.EACCES}, ""},
		{dir, &fs.PathError{Op: "open", Path: "/dev/net/tun", Err: syscall.EACCES}, ""},
	} {
		got := unusable(c.dir, c.err).Error()
		if !strings.Contains(got, c.advice) || c.advice == "" && got != c.err.Error() {
			t.Errorf("%v: %s, want %q", c.err, got, c.advice)
		}
	}
}

// TestOtherOwners: a cloud whose files belong to other ids than its machines would have is not
// opened, and stays as it is.
func TestOtherOwners(t *testing.T) {
	dir := t.TempDir()
	record := filepath.Join(dir, machine.OwnersFile)
	for name, text := range map[string]string{record: `{"mode":"subid","uids":[{"machine":0,"host":4242,"count":1},{"machine":1,"host":7000000,"count":65536}],"gids":[{"machine":0,"host":4242,"count":1},{"machine":1,"host":7000000,"count":65536}]}`,
		filepath.Join(dir, "images", "layers", "l-1", "etc", "passwd"): "root:x:0:0::/root:/bin/sh\n"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Serve(t.Context(), Options{Dir: dir, Getenv: os.Getenv})
	if err == nil || !strings.Contains(err.Error(), "the files of the machines in "+dir+" belong to the user and group ids 4242, 7000000-7065535") ||
		!strings.Contains(err.Error(), "run bake as the user with the id 4242") || !strings.Contains(err.Error(), "set BAKE_CLOUD_DIR") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "images", "layers", "l-1")); err != nil {
		t.Error(err)
	}
	found, err := Examine(t.Context(), dir, nil)
	last := found[len(found)-1]
	if err != nil || !last.Fatal || last.OK || !strings.Contains(last.Detail, "belong to the user and group ids 4242") || !strings.Contains(last.Remedy, "run bake as the user with the id 4242") {
		t.Errorf("doctor says %v, %v", last, err)
	}
	if err := os.Remove(record); err != nil { // as of an earlier version
		t.Fatal(err)
	}
	c, err := Serve(t.Context(), Options{Dir: dir, Getenv: os.Getenv})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(record); err != nil {
		t.Error(err)
	}
}

// TestMadeWithOneID: machines whose images were made with one id have one id, although their user
// has a range by now.
func TestMadeWithOneID(t *testing.T) {
	dir := t.TempDir()
	record := filepath.Join(dir, machine.OwnersFile)
	made := fmt.Sprintf(`{"mode":"single","uids":[{"machine":0,"host":%d,"count":1}],"gids":[{"machine":0,"host":%d,"count":1}]}`, os.Getuid(), os.Getgid())
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "images", "layers", "l-1"), 0o700), os.WriteFile(record, []byte(made), 0o600)); err != nil {
		t.Fatal(err)
	}
	driver, store, err := open(dir, nil)
	if err != nil || store == nil {
		t.Fatal(err)
	}
	if recorded, err := driver.CheckOwners(true); !recorded || err != nil {
		t.Errorf("other ids than recorded: %v, %v", recorded, err)
	}
	if text, err := os.ReadFile(record); err != nil || string(text) != made {
		t.Errorf("the record is now %s, %v", text, err)
	}
}

// TestTrouble: what was deleted from the directory of a cloud in use is named. disk-full.txtar has
// full disks.
func TestTrouble(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cloud")
	c, err := Serve(t.Context(), Options{Dir: dir, Getenv: os.Getenv})
	if err != nil {
		t.Fatal(err)
	}
	if got := Trouble(c.Dir); got != "" {
		t.Errorf("nothing is wrong: %s", got)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for _, name := range []string{filepath.Join(dir, "images", "layers"), dir} {
		if err := os.RemoveAll(name); err != nil {
			t.Fatal(err)
		}
		if got := Trouble(c.Dir); !strings.HasPrefix(got, name+", which the local cloud needs, was deleted") {
			t.Errorf("without %s: %s", name, got)
		}
	}
}

package sandbox

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestProgramIsOutOfReach lets the machine's root, which owns this program's file as it does on the
// host of an ordinary user, try to change the file.
func TestProgramIsOutOfReach(t *testing.T) {
	b := newBench(t, Options{Init: InitBuiltin})
	bin := filepath.Join(b.dir, "bin")
	program := filepath.Join(bin, "bake")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := copyFile(self, program, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := b.driver.ids.give(program); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	b.driver.executable = program

	spec := b.spec()
	b.start(spec)
	c := b.login(spec)
	// It is the file itself, not a copy.
	if got := b.run(c, "stat -c %u:%Y /run/bake/program; systemctl is-system-running"); got != "0:"+strconv.FormatInt(before.ModTime().Unix(), 10)+"\nrunning" {
		t.Errorf("the program is %q", got)
	}
	for _, command := range []string{
		"mount -o remount,rw,bind /run/bake/program", "mount -o remount,rw /run/bake/program", "chmod 4755 /run/bake/program",
		"touch /run/bake/program", "cp /bin/true /run/bake/program", "chmod 4755 /usr/bin/systemctl", "rm -f /run/bake/program",
		"chmod 4711 /proc/1/exe", "touch /proc/1/exe", "cp /bin/true /proc/1/exe",
	} {
		out, err := try(c, "sudo "+command)
		t.Logf("%s: %v %s", command, err, out)
	}
	after, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	if after.Mode() != before.Mode() || !after.ModTime().Equal(before.ModTime()) || after.Size() != before.Size() {
		t.Errorf("the program was %v %v %d, and is %v %v %d", before.Mode(), before.ModTime(), before.Size(), after.Mode(), after.ModTime(), after.Size())
	}
	if got := b.run(c, "sudo readlink /proc/1/exe"); !strings.HasPrefix(got, "/memfd:") {
		t.Errorf("the first process runs %s", got)
	}
	if own, err := os.Stat(self); err != nil || own.Mode()&os.ModeSetuid != 0 {
		t.Errorf("this program is %v, %v", own.Mode(), err)
	}
}

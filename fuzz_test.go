package bake_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestFuzzTargetsCompileFast: no package with a fuzz target needs a client of the
// SDK, in its tests either, since everything is compiled anew for fuzzing and EC2's
// client alone takes minutes. Such a target belongs in a package with what it tests.
func TestFuzzTargetsCompileFast(t *testing.T) {
	var dirs []string
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if dir := "./" + filepath.Dir(path); bytes.Contains(text, []byte("\nfunc Fuzz")) && (len(dirs) == 0 || dirs[len(dirs)-1] != dir) {
			dirs = append(dirs, dir)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(dirs) < 10 {
		t.Fatalf("only %d packages have fuzz targets; is this the module's root?", len(dirs))
	}
	for _, dir := range dirs {
		list := exec.Command("go", "list", "-deps", "-test", dir)
		list.Stderr = os.Stderr
		out, err := list.Output()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(out), "/aws-sdk-go-v2/service/") {
			t.Errorf("the tests of %s, which has a fuzz target, need a client of the SDK", dir)
		}
	}
}

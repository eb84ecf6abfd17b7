package bake_test

import (
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// TestFuzzTargetsCompileFast: no package with a fuzz target depends on a client of the SDK, not
// even in its tests, since everything is compiled again for fuzzing, and EC2's client alone takes
// minutes. Such a target belongs in a separate package with the code that it tests.
func TestFuzzTargetsCompileFast(t *testing.T) {
	var dirs []string
	for _, s := range sources(t) {
		if dir := "./" + path.Dir(s.name); s.syntax == nil && strings.Contains(s.text, "\nfunc Fuzz") && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
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

//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestTrial: a sweep deletes what a killed bake has left; without the sweep, the leftovers are
// noticed.
func TestTrial(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	dir := t.TempDir()
	bake := filepath.Join(dir, "bake")
	build := exec.Command("go", "build", "-o", bake, "bake/cmd/bake")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lazy := filepath.Join(dir, "lazy")
	script := "#!/bin/sh\n[ \"$1\" = sweep ] || exec '" + bake + "' \"$@\"\n"
	if err := os.WriteFile(lazy, []byte(script), 0o700); err != nil { // it is a program
		t.Fatal(err)
	}
	_, c, err := trial{subject: subjects[0]}.run(t.Context(), bake, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	kill := modes()[1]
	for where, want := range map[point][]string{
		{"CreateImage@us-east-1", 1}: {"instances", "images", "snapshots", "volumes", "key-pairs", "security-groups", "ledger"},
		{"command", 2}:               {"instances", "volumes", "key-pairs", "security-groups", "ledger"},
	} {
		at := trial{subject: subjects[0], mode: kill, point: where}
		v, _, err := at.run(t.Context(), bake, t.TempDir(), c)
		if err != nil || !v.struck || v.bad() || !v.crashed {
			t.Errorf("%s: struck %v, left %q, lost %q, %q, %v\n%s", where, v.struck, v.left, v.lost, v.problems, err, v.said)
		}
		v, _, err = at.run(t.Context(), lazy, t.TempDir(), c)
		for _, kind := range want {
			if err != nil || !slices.ContainsFunc(v.left, func(l string) bool { return strings.HasPrefix(l, kind+" ") }) {
				t.Errorf("%s, without a sweep: %s is not among what is left: %q, %v", where, kind, v.left, err)
			}
		}
	}
}

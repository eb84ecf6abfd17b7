//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bake/internal/turns"
)

// TestPromotion: wherever a promotion is killed or refused, the channel names complete releases
// and reports it if they differ. A promotion that does not move all places is noticed.
func TestPromotion(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	dir := t.TempDir()
	bake := os.Getenv("BAKE")
	if bake == "" {
		bake = filepath.Join(dir, "bake")
		if out, err := exec.Command("go", "build", "-o", bake, "bake/cmd/bake").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for _, m := range turns.One(t, promotions()) {
		if os.Getenv(turns.Variable) == "" && !slices.Contains([]string{"kill-after", "refuse"}, m.name) {
			continue // make torture runs the others
		}
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			p := &promotion{mode: m, bake: bake}
			if err := p.run(t.Context(), t.TempDir()); err != nil {
				t.Fatal(err)
			}
			t.Log(p)
			if p.trials < 10 || len(p.problems) > 0 {
				t.Errorf("%d calls\n%s", p.trials, strings.Join(p.problems, "\n"))
			}
		})
	}
	t.Run("a program that lies", func(t *testing.T) {
		t.Parallel()
		lazy := filepath.Join(dir, "lazy")
		script := "#!/bin/sh\n[ \"$1\" = sweep ] || exec '" + bake + "' images promote \"$3\" candidate stable -no-rules -regions us-east-1 -json\n"
		if err := os.WriteFile(lazy, []byte(script), 0o700); err != nil { // it is a program
			t.Fatal(err)
		}
		p := &promotion{mode: modes()[0], bake: lazy}
		if err := p.run(t.Context(), t.TempDir()); err != nil || len(p.problems) == 0 {
			t.Errorf("one region is not moved, and nobody notices: %v", err)
		}
	})
}

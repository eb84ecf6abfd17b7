package ebs_test

import (
	"path/filepath"
	"strings"
	"testing"

	"bake/builder/amazon/ebs"
	"bake/builder/amazon/internal/amazontest"
)

// TestTraces compares the calls that change something with those that Packer
// makes for the same template.
func TestTraces(t *testing.T) {
	for _, name := range []string{"plain", "distribute", "force", "run-options", "skip-create", "public", "deprecate", "encrypt"} {
		t.Run(name, func(t *testing.T) {
			var w *world
			var foreign string
			dir, err := filepath.Abs(filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			amazontest.Trace(t, ebs.Factory, name, func(made *world) {
				w = made
				if name == "force" {
					w.MustBuild(t, plain(`ami_name = "trace-plain"`))
				}
				foreign = strings.Join(w.Holdings(), "\n")
			})
			demandAllowed(t, amazontest.BlockIn(t, filepath.Join(dir, "template.pkr.hcl")), w.Calls, foreign)
		})
	}
}

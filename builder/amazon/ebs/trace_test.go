package ebs_test

import (
	"testing"

	"bake/builder/amazon/ebs"
	"bake/builder/amazon/internal/amazontest"
)

// TestTraces compares the calls that change something with those that Packer
// makes for the same template, and both with its policy.
func TestTraces(t *testing.T) {
	for _, name := range []string{"plain", "distribute", "force", "run-options", "skip-create", "public", "deprecate", "encrypt"} {
		t.Run(name, func(t *testing.T) {
			var before func(*world)
			if name == "force" {
				before = func(w *world) { w.MustBuild(t, plain(`ami_name = "trace-plain"`)) }
			}
			amazontest.TracePolicy(t, ebs.Factory, name, before)
		})
	}
}

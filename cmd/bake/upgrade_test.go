package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

// TestUpgradedTemplatesAreValid converts the JSON templates that use only built-in components, and
// validates the results.
func TestUpgradedTemplatesAreValid(t *testing.T) {
	files, err := filepath.Glob("../../config/upgrade/testdata/valid-*.json")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d fixtures, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out.pkr.hcl")
			for _, args := range [][]string{{"hcl2_upgrade", "-output-file", out, file}, {"validate", out}} {
				var text bytes.Buffer
				if code := bake(append([]string{"bake"}, args...), []string{"AWS_REGION=eu-west-1"}, strings.NewReader(""), &text, &text); code != 0 {
					t.Fatalf("%q ended with %d:\n%s", args, code, text.String())
				}
			}
		})
	}
}

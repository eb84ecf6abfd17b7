package bake_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestNolintNamesLinters: nolint comments name only linters that run. golangci-lint does not
// report others, so they would stay without need.
func TestNolintNamesLinters(t *testing.T) {
	config, err := os.ReadFile(".golangci.yml")
	if err != nil {
		t.Fatal(err)
	}
	run := []string{"errcheck", "govet", "ineffassign", "staticcheck", "unused"} // the standard ones
	_, enabled, _ := strings.Cut(string(config), "\n  enable:\n")
	for line := range strings.Lines(enabled) {
		name, ok := strings.CutPrefix(line, "    - ")
		if !ok {
			break
		}
		run = append(run, strings.TrimSpace(name))
	}
	if len(run) < 10 {
		t.Fatalf("only %q are enabled; has the file changed its form?", run)
	}
	comment := regexp.MustCompile(`//nolint(:[a-z,]*)?( // .)?`)
	for _, s := range sources(t) {
		if s.name == "lint_test.go" {
			continue
		}
		for _, m := range comment.FindAllStringSubmatch(s.text, -1) {
			if m[2] == "" {
				t.Errorf("%s: %s has no reason", s.name, m[0])
			}
			for name := range strings.SplitSeq(strings.TrimPrefix(m[1], ":"), ",") {
				if !slices.Contains(run, name) {
					t.Errorf("%s: %s is for a linter that does not run", s.name, m[0])
				}
			}
		}
	}
}

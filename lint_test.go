package bake_test

import (
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestNolintNamesLinters: what a comment silences is a linter that runs. golangci-lint says
// nothing about comments for others, and they would stay after what they were about.
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
	err = fs.WalkDir(os.DirFS("."), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == ".git" || path == "bin" || path == "dist" || d.Name() == "node_modules"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || path == "lint_test.go":
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range comment.FindAllStringSubmatch(string(text), -1) {
			if m[2] == "" {
				t.Errorf("%s: %s has no reason", path, m[0])
			}
			for name := range strings.SplitSeq(strings.TrimPrefix(m[1], ":"), ",") {
				if !slices.Contains(run, name) {
					t.Errorf("%s: %s is for a linter that does not run", path, m[0])
				}
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

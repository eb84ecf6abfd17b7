package bake_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestArchitectureListsPackages: the table in docs/architecture.md names every package
// of the module once, and nothing else.
func TestArchitectureListsPackages(t *testing.T) {
	text, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("`([a-z0-9/]+)`")
	var listed []string
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, m := range quoted.FindAllStringSubmatch(cells[1], -1) {
				listed = append(listed, m[1])
			}
		}
	}
	var there []string
	for _, p := range packages(t) {
		if name, ok := p.dir(); ok {
			there = append(there, name)
		}
	}
	for _, name := range there {
		switch n := len(slices.DeleteFunc(slices.Clone(listed), func(l string) bool { return l != name })); n {
		case 1:
		case 0:
			t.Errorf("docs/architecture.md does not list package %s", name)
		default:
			t.Errorf("docs/architecture.md lists package %s %d times", name, n)
		}
	}
	for _, name := range listed {
		if !slices.Contains(there, name) {
			t.Errorf("docs/architecture.md lists %s, which is not a package", name)
		}
	}
}

package bake_test

import (
	"os"
	"os/exec"
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
	out, err := exec.Command("go", "list", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var packages []string
	for name := range strings.FieldsSeq(string(out)) {
		if name = strings.TrimPrefix(name, "bake/"); name != "bake" {
			packages = append(packages, name)
		}
	}
	for _, name := range packages {
		switch n := len(slices.DeleteFunc(slices.Clone(listed), func(l string) bool { return l != name })); n {
		case 1:
		case 0:
			t.Errorf("docs/architecture.md does not list package %s", name)
		default:
			t.Errorf("docs/architecture.md lists package %s %d times", name, n)
		}
	}
	for _, name := range listed {
		if !slices.Contains(packages, name) {
			t.Errorf("docs/architecture.md lists %s, which is not a package", name)
		}
	}
}

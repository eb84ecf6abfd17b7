package bake_test

import (
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestCompatibilityNames: every fixture, script and test that the page about the language names
// exists, so that each rule there has a test.
func TestCompatibilityNames(t *testing.T) {
	const page = "docs/compatibility-language.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	for _, s := range sources(t) {
		if s.syntax != nil {
			continue
		}
		for _, m := range declared.FindAllStringSubmatch(s.text, -1) {
			there[m[1]] = true
		}
	}
	err = fs.WalkDir(os.DirFS("testdata"), ".", func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			there[d.Name()] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile("`([\\w.-]+)`")
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 || strings.HasPrefix(cells[1], "---") || strings.TrimSpace(cells[1]) == "rule" {
			continue
		}
		shown := name.FindAllStringSubmatch(cells[len(cells)-2], -1)
		if len(shown) == 0 {
			t.Errorf("nothing shows: %s", strings.TrimSpace(cells[1]))
		}
		for _, m := range shown {
			if !there[m[1]] {
				t.Errorf("%s is not there, but is to show: %s", m[1], strings.TrimSpace(cells[1]))
			}
		}
	}
}

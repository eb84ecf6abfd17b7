package goss

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestTable: whatever a file can demand, and each matcher, is in both of the files that the
// script goss-table judges on a machine: where it holds, and where it does not.
func TestTable(t *testing.T) {
	archive, err := txtar.ParseFile("../../../testdata/script/goss-table.txtar")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var seen []string
	for _, f := range archive.Files {
		if filepath.Ext(f.Name) != ".yaml" {
			continue
		}
		seen = append(seen, f.Name)
		path := filepath.Join(dir, f.Name)
		if err := os.WriteFile(path, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
		suite, diags := Load(path, Options{})
		if len(diags) > 0 {
			t.Fatal(diags)
		}
		has := map[string]bool{}
		for _, r := range suite.resources {
			if r.key != r.name {
				has[r.kind.kind+" by its "+r.kind.key] = true
			}
			for i, c := range r.checks {
				// If the requirements in that file do not hold, an attribute that others depend on
				// is only tested alone.
				if first := &r.kind.attributes[0]; f.Name == "pass.yaml" || !r.kind.gate || i > 0 || c.attribute.name != first.name || len(r.checks) == 1 {
					has[r.kind.kind+"."+c.attribute.name] = true
				}
				maps.Copy(has, matchersIn(c.expected))
			}
		}
		for _, k := range resourceTypes() {
			for _, a := range k.attributes {
				if !has[k.kind+"."+a.name] {
					t.Errorf("%s has no %s.%s", f.Name, k.kind, a.name)
				}
			}
			if f.Name == "pass.yaml" && k.key != "" && !k.nameIsID && !has[k.kind+" by its "+k.key] {
				t.Errorf("%s has no %s by its %s", f.Name, k.kind, k.key)
			}
		}
		for _, name := range matcherNames {
			if !has[name] {
				t.Errorf("%s has no matcher %s", f.Name, name)
			}
		}
	}
	if !slices.Equal(seen, []string{"pass.yaml", "fail.yaml"}) {
		t.Errorf("the script has %q", seen)
	}
}

// matchersIn returns the names of matchers in requirements.
func matchersIn(expected any) map[string]bool {
	names := map[string]bool{}
	switch v := expected.(type) {
	case map[string]any:
		for name, of := range v {
			names[name] = true
			maps.Copy(names, matchersIn(of))
		}
	case []any:
		for _, of := range v {
			maps.Copy(names, matchersIn(of))
		}
	}
	return names
}

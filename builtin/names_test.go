package builtin

import (
	"os"
	"slices"
	"strings"
	"testing"

	"bake/component"
	"bake/config/schema"
)

// notThere are components and options that are omitted on purpose.
var notThere = map[string]string{}

// TestOptionNames: each component accepts every option that templates may use.
func TestOptionNames(t *testing.T) {
	text, err := os.ReadFile("../testdata/option-names.txt")
	if err != nil {
		t.Fatal(err)
	}
	lists := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if name, options, ok := strings.Cut(line, " = "); ok && line[0] != '#' {
			lists[name] = strings.Fields(options)
		}
	}
	have := map[string][]schema.Doc{}
	all := Parts{}.Catalog()
	optionsOf(t, have, "builder.", all.Builders)
	optionsOf(t, have, "provisioner.", all.Provisioners)
	optionsOf(t, have, "post-processor.", all.PostProcessors)
	optionsOf(t, have, "data.", all.DataSources)
	for name, options := range lists {
		if !strings.Contains(name, ".") {
			continue // options that several components share
		}
		docs, built := have[name]
		if why := notThere[name]; why != "" {
			if built {
				t.Errorf("%s is there, but noted as: %s", name, why)
			}
			continue
		}
		var missing []string
		for _, o := range expand(lists, options) {
			known := slices.ContainsFunc(docs, func(d schema.Doc) bool { return d.Name == o })
			if !known {
				missing = append(missing, o)
			}
		}
		if len(missing) > 0 {
			t.Errorf("%s lacks %s", name, strings.Join(missing, ", "))
		}
	}
	for name := range have {
		if len(lists[name]) == 0 {
			t.Errorf("testdata/option-names.txt does not have %s", name)
		}
	}
}

// expand replaces the name of a list by its options.
func expand(lists map[string][]string, options []string) (all []string) {
	for _, o := range options {
		if group, ok := strings.CutPrefix(o, "@"); ok {
			all = append(all, expand(lists, lists[group])...)
		} else {
			all = append(all, o)
		}
	}
	return all
}

func optionsOf[C any](t *testing.T, have map[string][]schema.Doc, kind string, r component.Registry[C]) {
	for name, f := range r {
		docs, err := f.Docs()
		if err != nil {
			t.Fatal(err)
		}
		have[kind+name] = docs
	}
}

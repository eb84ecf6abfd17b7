// Package reference is the documentation of every component that is built in, made from
// their options.
package reference

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"bake/builtin"
	"bake/component"
	"bake/config/lang"
	"bake/config/schema"
	"bake/golden/bakefile"
)

// Component is what there is to know about a component.
type Component struct {
	Kind    string // such as "post-processor"
	Name    string
	Options []schema.Doc
	Exports map[string]cty.Type
	Plugin  string // the source and version of the plugin that it comes with; empty if it is built in
}

// Of returns what there is to know about all components, by kind and name.
func Of(c builtin.Catalog) ([]Component, error) {
	var all []Component
	return all, errors.Join(
		collect(&all, "builder", c.Builders),
		collect(&all, "provisioner", c.Provisioners),
		collect(&all, "post-processor", c.PostProcessors),
		collect(&all, "data-source", c.DataSources),
		collectBlocks(&all),
	)
}

// collectBlocks adds the blocks of bake files.
func collectBlocks(all *[]Component) error {
	docs, err := bakefile.Docs()
	for _, d := range docs {
		*all = append(*all, Component{Kind: "bake-file", Name: d.Name, Options: d.Options})
	}
	return err
}

func collect[C any](all *[]Component, kind string, r component.Registry[C]) error {
	for _, name := range r.Names() {
		options, err := r[name].Docs()
		if err != nil {
			return fmt.Errorf("%s %s: %w", kind, name, err)
		}
		*all = append(*all, Component{Kind: kind, Name: name, Options: options, Exports: r[name].Exports(schema.Input{}).Types})
	}
	return nil
}

// List writes the names of components.
func List(w io.Writer, refs []Component) {
	kind := ""
	for _, r := range refs {
		if r.Kind != kind {
			kind = r.Kind
			fmt.Fprintf(w, "%ss:\n", strings.ToUpper(kind[:1])+kind[1:])
		}
		fmt.Fprintf(w, "  %s", r.Name)
		if r.Plugin != "" {
			fmt.Fprintf(w, "  (%s)", r.Plugin)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "\nbake docs COMPONENT explains a component's options.")
}

// Named returns the components called name, of whatever kind.
func Named(refs []Component, name string) []Component {
	return slices.DeleteFunc(slices.Clone(refs), func(r Component) bool { return r.Name != name })
}

// Unknown is the error of a name that no component has.
func Unknown(refs []Component, name string) error {
	var names []string
	for _, r := range refs {
		names = append(names, r.Name)
	}
	if hint := lang.DidYouMean(name, names); hint != "" {
		return fmt.Errorf("there is no component %q.%s", name, hint)
	}
	return fmt.Errorf("there is no component %q; bake docs lists them", name)
}

// Described is a component as bake docs -json writes it.
type Described struct {
	Kind    string            `json:"kind"`
	Name    string            `json:"name"`
	Plugin  string            `json:"plugin,omitempty"` // its source and version, if it is not built in
	Options []schema.Doc      `json:"options,omitempty"`
	Values  map[string]string `json:"values,omitempty"` // name -> type of what it gives to what comes after it
}

// Result is what bake docs -json writes.
type Result struct {
	Components []Described `json:"components"`
}

// Describe lists refs, if wanted with all that there is to know about them.
func Describe(refs []Component, details bool) Result {
	out := Result{[]Described{}}
	for _, r := range refs {
		d := Described{Kind: r.Kind, Name: r.Name, Plugin: r.Plugin}
		if details {
			d.Options, d.Values = r.Options, map[string]string{}
			for name, typ := range r.Exports {
				d.Values[name] = typ.FriendlyName()
			}
		}
		out.Components = append(out.Components, d)
	}
	return out
}

// Explain writes the options of components.
func Explain(w io.Writer, refs []Component) {
	for _, r := range refs {
		fmt.Fprintf(w, "%s %s\n", r.Kind, r.Name)
		if r.Plugin != "" {
			fmt.Fprintf(w, "of the plugin %s\n", r.Plugin)
		}
		explainOptions(w, r.Options, "")
		if len(r.Exports) > 0 {
			fmt.Fprintf(w, "\nvalues (%s):\n", r.where())
			for _, n := range slices.Sorted(maps.Keys(r.Exports)) {
				fmt.Fprintf(w, "  %s  (%s)\n", n, r.Exports[n].FriendlyName())
			}
		}
		fmt.Fprintln(w)
	}
}

func explainOptions(w io.Writer, options []schema.Doc, indent string) {
	for _, d := range options {
		fmt.Fprintf(w, "\n%s  %s  (%s)\n", indent, d.Name, traits(d))
		for line := range strings.SplitSeq(d.Text, "\n") {
			fmt.Fprintln(w, strings.TrimRight(indent+"      "+line, " "))
		}
		explainOptions(w, d.Block, indent+"    ")
	}
}

// traits says in few words what kind of value an option takes.
func traits(d schema.Doc) string {
	words := []string{d.Type}
	if d.Required {
		words = append(words, "required")
	}
	if d.Default != "" {
		words = append(words, "default "+d.Default)
	}
	if d.Secret {
		words = append(words, "secret")
	}
	return strings.Join(words, ", ")
}

// where says how a template refers to the values that r exports.
func (r Component) where() string {
	if r.Kind == "builder" {
		return "build.NAME in provisioners and post-processors"
	}
	return "data." + r.Name + ".LABEL.NAME"
}

// WriteMarkdown fills dir with one page per component and an index. Pages of
// components that are no more are deleted.
func WriteMarkdown(dir string, refs []Component) error {
	pages := Markdown(refs)
	for name, text := range pages {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	old, err := filepath.Glob(filepath.Join(dir, "*", "*.md"))
	for _, path := range old {
		name, rerr := filepath.Rel(dir, path)
		if _, ok := pages[name]; rerr == nil && !ok {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

// Markdown returns the pages of the reference, by file name.
func Markdown(refs []Component) map[string]string {
	pages := map[string]string{}
	var index strings.Builder
	index.WriteString("# Options\n\nThe reference of every component, generated by `make docs` from the source.\n`bake docs COMPONENT` prints the same.\n")
	kind := ""
	for _, r := range refs {
		if r.Kind != kind {
			kind = r.Kind
			fmt.Fprintf(&index, "\n## %ss\n\n", strings.ToUpper(kind[:1])+kind[1:])
		}
		page := r.Kind + "s/" + r.Name + ".md"
		fmt.Fprintf(&index, "- [%s](%s)\n", r.Name, page)
		pages[page] = r.page()
	}
	pages["README.md"] = index.String()
	return pages
}

// page is the reference of one component as Markdown.
func (r Component) page() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s `%s`\n", strings.ToUpper(r.Kind[:1])+r.Kind[1:], r.Name)
	writeOptions(&b, r.Options, "")
	if len(r.Exports) > 0 {
		fmt.Fprintf(&b, "\n## Values\n\nFor use as `%s`.\n\n| name | type |\n|---|---|\n", strings.Fields(r.where())[0])
		for _, n := range slices.Sorted(maps.Keys(r.Exports)) {
			fmt.Fprintf(&b, "| `%s` | %s |\n", n, r.Exports[n].FriendlyName())
		}
	}
	return b.String()
}

// writeOptions writes a section for the options of a body, then one for each block in it.
func writeOptions(b *strings.Builder, options []schema.Doc, block string) {
	options = slices.Clone(options)
	sort.SliceStable(options, func(i, j int) bool {
		if options[i].Required != options[j].Required {
			return options[i].Required
		}
		return options[i].Name < options[j].Name
	})
	if block == "" {
		b.WriteString("\n## Options\n")
	} else {
		fmt.Fprintf(b, "\n## Block `%s`\n", block)
	}
	if len(options) == 0 {
		b.WriteString("\nNone.\n")
	}
	for _, d := range options {
		fmt.Fprintf(b, "\n**`%s`** (%s)\n\n%s\n", d.Name, traits(d), d.Text)
	}
	for _, d := range options {
		if d.Block != nil {
			writeOptions(b, d.Block, strings.TrimPrefix(block+"."+d.Name, "."))
		}
	}
}

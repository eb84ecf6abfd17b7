// Package reference is the documentation of every component that is built in, made from
// their options.
package reference

import (
	"errors"
	"fmt"
	"io"
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
	Text    string // what it is for
	Example string // a block of a template
	Options []schema.Doc
	Groups  []Group // the options, as they belong together; none for a plugin's component
	Exports map[string]cty.Type
	Plugin  string // the source and version of the plugin that it comes with; empty if it is built in
}

// kinds are those of components, in the order of a list, and what several are called.
var kinds = [][2]string{
	{"builder", "Builders"},
	{"provisioner", "Provisioners"},
	{"post-processor", "Post-processors"},
	{"data-source", "Data sources"},
	{"block", "Blocks of templates"},
	{"bake-file", "Blocks of bake files"},
}

// Sort sorts components by kind.
func Sort(refs []Component) {
	order := func(r Component) int {
		return slices.IndexFunc(kinds, func(k [2]string) bool { return k[0] == r.Kind })
	}
	sort.SliceStable(refs, func(i, j int) bool { return order(refs[i]) < order(refs[j]) })
}

// heading is what components of a kind are listed under.
func heading(kind string) string {
	for _, k := range kinds {
		if k[0] == kind {
			return k[1]
		}
	}
	return kind
}

// Of returns what there is to know about all components, by kind and name.
func Of(c builtin.Catalog) ([]Component, error) {
	var all []Component
	components, blocks, err := about()
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		collect(&all, "builder", c.Builders),
		collect(&all, "provisioner", c.Provisioners),
		collect(&all, "post-processor", c.PostProcessors),
		collect(&all, "data-source", c.DataSources),
	)
	for _, b := range blocks {
		all = append(all, Component{Kind: b.kind, Name: b.names[0], Options: b.docs})
	}
	return all, errors.Join(err, collectBlocks(&all), arrange(all, append(components, blocks...)))
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

// List writes the names of components, and what each is for.
func List(w io.Writer, refs []Component) {
	kind := ""
	for _, r := range refs {
		if r.Kind != kind {
			kind = r.Kind
			fmt.Fprintf(w, "%s:\n", heading(kind))
		}
		about, _, _ := strings.Cut(r.Text, ". ")
		about = strings.TrimSuffix(about, ".")
		if r.Plugin != "" {
			about = "(" + r.Plugin + ")"
		}
		fmt.Fprintf(w, "  %-22s  %s\n", r.Name, column(about, 26))
	}
	fmt.Fprint(w, `
bake docs COMPONENT         explains a component's options
bake docs COMPONENT OPTION  explains one of them, or a group such as network
bake docs functions         lists the functions of templates
bake docs settings          explains the settings that apply to all templates
bake docs guide             is the guide
bake docs -search TEXT      looks everywhere
`)
}

// Named returns the components called name, of whatever kind.
func Named(refs []Component, name string) []Component {
	return slices.DeleteFunc(slices.Clone(refs), func(r Component) bool { return r.Name != name })
}

// Names returns the names of all components and blocks, each once.
func Names(c builtin.Catalog) ([]string, error) {
	refs, err := Of(c)
	var names []string
	for _, r := range refs {
		names = append(names, r.Name)
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

// OptionNames returns the names of the options of the components called name, each once.
// Arguments of blocks have those of their blocks before them.
func OptionNames(c builtin.Catalog, name string) ([]string, error) {
	refs, err := Of(c)
	var names []string
	var add func(path string, options []schema.Doc)
	add = func(path string, options []schema.Doc) {
		for _, d := range options {
			names = append(names, path+d.Name)
			add(path+d.Name+".", d.Block)
		}
	}
	for _, r := range Named(refs, name) {
		add("", r.Options)
	}
	slices.Sort(names)
	return slices.Compact(names), err
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
	pages := markdown(refs)
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
		if _, ok := pages[filepath.ToSlash(name)]; rerr == nil && !ok {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

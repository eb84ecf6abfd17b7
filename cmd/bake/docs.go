package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/zclconf/go-cty/cty"

	"bake/builtin"
	"bake/component"
	"bake/config/lang"
	"bake/config/schema"
)

func (p *program) docsCommand() *cobra.Command {
	var markdown string
	cmd := &cobra.Command{
		Use:   "docs [COMPONENT]",
		Short: "Explain the options of a component, or list the components",
		Long: `Explain the options of a component of any kind: what each option does, its type and
its default, and the values that the component makes available to the template.
Without a name, list all built-in components.`,
		Example: `  bake docs
  bake docs amazon-ebs`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			refs, err := references(p.parts().Catalog())
			switch {
			case err != nil:
				return err
			case markdown != "":
				return writeMarkdown(markdown, refs)
			case len(args) == 1:
				all := refs
				if refs = named(all, args[0]); len(refs) == 0 {
					return unknownComponent(all, args[0])
				}
			}
			switch {
			case p.json.on:
				p.json.result = describe(refs, len(args) == 1)
			case len(args) == 1:
				explain(p.stdout, refs)
			default:
				listComponents(p.stdout, refs)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&markdown, "markdown", "", "write the reference of every component into the `directory`, which it then fills alone")
	p.jsonFlag(cmd)
	return cmd
}

// reference is what there is to know about a component.
type reference struct {
	kind    string // such as "post-processor"
	name    string
	options []schema.Doc
	exports map[string]cty.Type
}

// references returns those of all components, by kind and name.
func references(c builtin.Catalog) ([]reference, error) {
	var all []reference
	return all, errors.Join(
		collect(&all, "builder", c.Builders),
		collect(&all, "provisioner", c.Provisioners),
		collect(&all, "post-processor", c.PostProcessors),
		collect(&all, "data-source", c.DataSources),
	)
}

func collect[C any](all *[]reference, kind string, r component.Registry[C]) error {
	for _, name := range r.Names() {
		options, err := r[name].Docs()
		if err != nil {
			return fmt.Errorf("%s %s: %w", kind, name, err)
		}
		*all = append(*all, reference{kind, name, options, r[name].Exports()})
	}
	return nil
}

func listComponents(w io.Writer, refs []reference) {
	kind := ""
	for _, r := range refs {
		if r.kind != kind {
			kind = r.kind
			fmt.Fprintf(w, "%ss:\n", strings.ToUpper(kind[:1])+kind[1:])
		}
		fmt.Fprintf(w, "  %s\n", r.name)
	}
	fmt.Fprintln(w, "\nbake docs COMPONENT explains a component's options.")
}

// named returns the components called name, of whatever kind.
func named(refs []reference, name string) []reference {
	return slices.DeleteFunc(slices.Clone(refs), func(r reference) bool { return r.name != name })
}

// unknownComponent is the error of a name that no component has.
func unknownComponent(refs []reference, name string) error {
	var names []string
	for _, r := range refs {
		names = append(names, r.name)
	}
	if hint := lang.DidYouMean(name, names); hint != "" {
		return fmt.Errorf("there is no component %q.%s", name, hint)
	}
	return fmt.Errorf("there is no component %q; bake docs lists them", name)
}

// describedComponent is a component as bake docs -json writes it.
type describedComponent struct {
	Kind    string            `json:"kind"`
	Name    string            `json:"name"`
	Options []schema.Doc      `json:"options,omitempty"`
	Values  map[string]string `json:"values,omitempty"` // name -> type of what it gives to what comes after it
}

// docsResult is what bake docs -json writes.
type docsResult struct {
	Components []describedComponent `json:"components"`
}

// describe lists refs, if wanted with all that there is to know about them.
func describe(refs []reference, details bool) docsResult {
	out := docsResult{[]describedComponent{}}
	for _, r := range refs {
		d := describedComponent{Kind: r.kind, Name: r.name}
		if details {
			d.Options, d.Values = r.options, map[string]string{}
			for name, typ := range r.exports {
				d.Values[name] = typ.FriendlyName()
			}
		}
		out.Components = append(out.Components, d)
	}
	return out
}

// explain writes the options of components.
func explain(w io.Writer, refs []reference) {
	for _, r := range refs {
		fmt.Fprintf(w, "%s %s\n", r.kind, r.name)
		explainOptions(w, r.options, "")
		if len(r.exports) > 0 {
			fmt.Fprintf(w, "\nvalues (%s):\n", r.where())
			for _, n := range slices.Sorted(maps.Keys(r.exports)) {
				fmt.Fprintf(w, "  %s  (%s)\n", n, r.exports[n].FriendlyName())
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
func (r reference) where() string {
	if r.kind == "builder" {
		return "build.NAME in provisioners and post-processors"
	}
	return "data." + r.name + ".LABEL.NAME"
}

// writeMarkdown fills dir with one page per component and an index. Pages of
// components that are no more are deleted.
func writeMarkdown(dir string, refs []reference) error {
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
		if _, ok := pages[name]; rerr == nil && !ok {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

// markdown returns the pages of the reference, by file name.
func markdown(refs []reference) map[string]string {
	pages := map[string]string{}
	var index strings.Builder
	index.WriteString("# Options\n\nThe reference of every component, generated by `make docs` from the source.\n`bake docs COMPONENT` prints the same.\n")
	kind := ""
	for _, r := range refs {
		if r.kind != kind {
			kind = r.kind
			fmt.Fprintf(&index, "\n## %ss\n\n", strings.ToUpper(kind[:1])+kind[1:])
		}
		page := r.kind + "s/" + r.name + ".md"
		fmt.Fprintf(&index, "- [%s](%s)\n", r.name, page)
		pages[page] = r.page()
	}
	pages["README.md"] = index.String()
	return pages
}

// page is the reference of one component as Markdown.
func (r reference) page() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s `%s`\n", strings.ToUpper(r.kind[:1])+r.kind[1:], r.name)
	writeOptions(&b, r.options, "")
	if len(r.exports) > 0 {
		fmt.Fprintf(&b, "\n## Values\n\nFor use as `%s`.\n\n| name | type |\n|---|---|\n", strings.Fields(r.where())[0])
		for _, n := range slices.Sorted(maps.Keys(r.exports)) {
			fmt.Fprintf(&b, "| `%s` | %s |\n", n, r.exports[n].FriendlyName())
		}
	}
	return b.String()
}

// writeOptions writes a section for the options of a body, then one for each block in it.
func writeOptions(b *strings.Builder, options []schema.Doc, block string) {
	options = slices.Clone(options)
	slices.SortStableFunc(options, func(x, y schema.Doc) int {
		if x.Required != y.Required {
			if x.Required {
				return -1
			}
			return 1
		}
		return strings.Compare(x.Name, y.Name)
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

package reference

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"bake/config/lang"
	"bake/config/schema"
	"bake/internal/prose"
)

// Described is a component as bake docs -json writes it.
type Described struct {
	Kind    string            `json:"kind"`
	Name    string            `json:"name"`
	Plugin  string            `json:"plugin,omitempty"` // its source and version, if it is not built in
	Text    string            `json:"text,omitempty"`
	Example string            `json:"example,omitempty"`
	Options []schema.Doc      `json:"options,omitempty"`
	Groups  []DescribedGroup  `json:"groups,omitempty"`
	Values  map[string]string `json:"values,omitempty"` // name -> type of what it gives to what comes after it
}

// DescribedGroup is a group of options as bake docs -json writes it.
type DescribedGroup struct {
	Name    string   `json:"name,omitempty"`
	Text    string   `json:"text,omitempty"`
	Options []string `json:"options"` // their names
	Example string   `json:"example,omitempty"`
}

// Result is what bake docs -json writes.
type Result struct {
	Components []Described `json:"components"`
}

// Describe lists refs, if wanted with all that there is to know about them.
func Describe(refs []Component, details bool) Result {
	out := Result{[]Described{}}
	for _, r := range refs {
		d := Described{Kind: r.Kind, Name: r.Name, Plugin: r.Plugin, Text: r.Text}
		if details {
			d.Example, d.Options, d.Values = r.Example, r.Options, map[string]string{}
			for name, typ := range r.Exports {
				d.Values[name] = typ.FriendlyName()
			}
			for _, g := range r.Groups {
				dg := DescribedGroup{Name: g.Name, Text: g.Text, Example: g.Example, Options: []string{}}
				for _, o := range g.Options {
					dg.Options = append(dg.Options, o.Name)
				}
				d.Groups = append(d.Groups, dg)
			}
		}
		out.Components = append(out.Components, d)
	}
	return out
}

// Width is how many columns the texts of the documentation have, unless a word is wider.
const Width = 92

// Explain writes the options of components.
func Explain(w io.Writer, refs []Component) {
	for _, r := range refs {
		fmt.Fprintf(w, "%s %s\n", r.Kind, r.Name)
		if r.Plugin != "" {
			fmt.Fprintf(w, "of the plugin %s\n", r.Plugin)
		}
		if r.Text != "" {
			fmt.Fprintln(w, prose.Fill(r.Text, "", Width))
		}
		if r.Example != "" {
			fmt.Fprintf(w, "\n%s", indented(r.Example, "  "))
		}
		if len(r.Groups) == 0 {
			explainOptions(w, r.Options, "")
		}
		for _, g := range r.Groups {
			explainGroup(w, g)
		}
		if len(r.Exports) > 0 {
			fmt.Fprintf(w, "\nvalues (%s):\n", r.where())
			for _, n := range slices.Sorted(maps.Keys(r.Exports)) {
				fmt.Fprintf(w, "  %s  (%s)\n", n, r.Exports[n].FriendlyName())
			}
		}
		if r.Example != "" && (r.Kind == "provisioner" || r.Kind == "post-processor") {
			fmt.Fprintf(w, "\nEvery %s also has the arguments that 'bake docs %s' explains.\n", r.Kind, r.Kind)
		}
		fmt.Fprintln(w)
	}
}

func explainGroup(w io.Writer, g Group) {
	if g.Name != "" {
		fmt.Fprintf(w, "\n%s\n%s\n", strings.ToUpper(g.Name), prose.Fill(g.Text, "", Width))
	}
	if g.Example != "" {
		fmt.Fprintf(w, "\n%s", indented(g.Example, "    "))
	}
	explainOptions(w, g.Options, "")
}

func explainOptions(w io.Writer, options []schema.Doc, indent string) {
	for _, d := range options {
		explainOption(w, d, indent)
	}
}

func explainOption(w io.Writer, d schema.Doc, indent string) {
	head := strings.TrimSpace(prose.Fill(d.Name+" ("+traits(d)+")", indent+"      ", Width))
	fmt.Fprintf(w, "\n%s  %s\n", indent, strings.Replace(head, " ", "  ", 1))
	fmt.Fprintln(w, prose.Fill(d.Text, indent+"      ", Width))
	explainOptions(w, d.Block, indent+"    ")
}

// column is a text beside a first column of a width, in lines of its own below each other.
func column(text string, width int) string {
	indent := strings.Repeat(" ", width)
	return strings.TrimPrefix(prose.Fill(text, indent, max(Width, width+40)), indent)
}

// indented is text with each line that is not empty moved to the right.
func indented(text, by string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line != "\n" {
			b.WriteString(by)
		}
		b.WriteString(line)
	}
	return b.String()
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

// Narrow returns refs with nothing but what one name means: an option, an argument of a
// block in them ("source_ami_filter.owners", or "owners" alone), or a group ("network").
func Narrow(refs []Component, name string) ([]Component, error) {
	var found []Component
	var names []string
	for _, r := range refs {
		groups := r.Groups
		if len(groups) == 0 {
			groups = []Group{{Options: r.Options}}
		}
		var about []Group
		for _, g := range groups {
			if g.Name != "" && matches(g.Name, name) {
				about = append(about, g)
				continue
			}
			if options := pick(g.Options, "", name, &names); len(options) > 0 {
				about = append(about, Group{Options: options})
			}
		}
		if len(about) > 0 {
			c := Component{Kind: r.Kind, Name: r.Name, Plugin: r.Plugin, Groups: about}
			for _, g := range about {
				c.Options = append(c.Options, g.Options...)
			}
			found = append(found, c)
		}
	}
	if len(found) == 0 {
		of := refs[0].Kind + " " + refs[0].Name
		if hint := lang.DidYouMean(name, names); hint != "" {
			return nil, fmt.Errorf("%s has no option %q.%s", of, name, hint)
		}
		return nil, fmt.Errorf("%s has no option %q; bake docs %s lists them", of, name, refs[0].Name)
	}
	return found, nil
}

// matches reports whether a group is meant by name: by its own, or by a word of it.
func matches(group, name string) bool {
	return strings.EqualFold(group, name) || slices.ContainsFunc(strings.Fields(group), func(w string) bool {
		return strings.EqualFold(w, name) && len(w) > 3
	})
}

// pick returns what name means among options, and the blocks in them, which are found below
// path. It adds every name to names.
func pick(options []schema.Doc, path, name string, names *[]string) (found []schema.Doc) {
	for _, d := range options {
		*names = append(*names, d.Name)
		full := strings.TrimPrefix(path+"."+d.Name, ".")
		if d.Name == name || full == name {
			d.Name = full
			found = append(found, d)
			continue
		}
		found = append(found, pick(d.Block, full, name, names)...)
	}
	return found
}

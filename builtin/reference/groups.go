package reference

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"bake/config/schema"
	"bake/docs"
)

// Group is options that belong together.
type Group struct {
	Name    string // such as "Network"; empty: the component's options are in one group
	Text    string
	Options []schema.Doc
	Example string // attributes and blocks of a body
}

// section is a part of docs/reference/*.txt about components:
//
//	# KIND NAME NAME ...
//	Text
//	```
//	an example
//	```
//	- option (type, required): Text, for blocks of templates alone
//	## Group
//	Text
//	: option option ...
//	```
//	an example, for components that have all of its arguments
//	```
type section struct {
	kind   string
	names  []string
	group  string
	text   string
	lists  []string     // names of the group's options
	docs   []schema.Doc // of a block
	sample []string
}

// sections reads such a text.
func sections(text string) (all []section) {
	code := false
	for line := range strings.Lines(text) {
		bare := strings.TrimSuffix(line, "\n")
		now := &section{}
		if len(all) > 0 {
			now = &all[len(all)-1]
		}
		switch {
		case bare == "```":
			if code = !code; code {
				now.sample = append(now.sample, "")
			}
		case code:
			now.sample[len(now.sample)-1] += line
		case strings.HasPrefix(bare, "# "):
			words := strings.Fields(bare[2:])
			all = append(all, section{kind: words[0], names: words[1:]})
		case strings.HasPrefix(bare, "## "):
			all = append(all, section{kind: now.kind, names: now.names, group: bare[3:]})
		case strings.HasPrefix(bare, ": "):
			now.lists = strings.Fields(bare[2:])
		case strings.HasPrefix(bare, "- "):
			now.docs = appendArgument(now.docs, bare[2:])
		default:
			now.text = bare
		}
	}
	return all
}

// appendArgument adds "NAME (TYPE, required): TEXT" to docs, or to the block before it that
// NAME starts with.
func appendArgument(docs []schema.Doc, line string) []schema.Doc {
	head, text, _ := strings.Cut(line, "): ")
	name, typ, _ := strings.Cut(head, " (")
	typ, required := strings.CutSuffix(typ, ", required")
	d := schema.Doc{Name: name, Type: typ, Required: required, Text: text}
	if block, inner, ok := strings.Cut(name, "."); ok {
		i := slices.IndexFunc(docs, func(d schema.Doc) bool { return d.Name == block })
		d.Name = inner
		docs[i].Block = append(docs[i].Block, d)
		return docs
	}
	return append(docs, d)
}

// about are the sections on components, and those on blocks of templates.
func about() (components, blocks []section, err error) {
	pages, err := docs.Pages("reference")
	for _, p := range pages {
		if p.Name == "reference/blocks.txt" {
			blocks = sections(p.Text)
		} else {
			components = append(components, sections(p.Text)...)
		}
	}
	return components, blocks, err
}

// arrange puts the options of components into the groups that sections say. One that is in
// no group of a component that has groups is an error.
func arrange(all []Component, from []section) error {
	var errs []error
	for i := range all {
		c := &all[i]
		left := slices.Clone(c.Options)
		for _, s := range from {
			switch {
			case s.kind != c.Kind || !slices.Contains(s.names, c.Name):
			case s.group == "":
				if s.text != "" {
					c.Text = s.text
				}
				if len(s.sample) > 0 {
					c.Example = s.sample[0]
				}
			default:
				g := Group{Name: s.group, Text: s.text, Example: fitting(s.sample, c.Options)}
				g.Options, left = take(left, s.lists)
				if len(g.Options) > 0 {
					c.Groups = append(c.Groups, g)
				}
			}
		}
		if len(c.Groups) == 0 {
			requiredFirst(left)
			c.Groups, left = []Group{{Options: left}}, nil
		}
		for _, d := range left {
			errs = append(errs, fmt.Errorf("%s %s: option %s is in no group of docs/reference/groups.txt", c.Kind, c.Name, d.Name))
		}
	}
	return errors.Join(errs...)
}

// take returns the options with these names, those that are required first and otherwise in
// this order, and the options that are left.
func take(from []schema.Doc, names []string) (taken, left []schema.Doc) {
	for _, name := range names {
		if i := slices.IndexFunc(from, func(d schema.Doc) bool { return d.Name == name }); i >= 0 {
			taken = append(taken, from[i])
		}
	}
	left = slices.DeleteFunc(from, func(d schema.Doc) bool { return slices.Contains(names, d.Name) })
	requiredFirst(taken)
	return taken, left
}

// requiredFirst moves options that are required to the front, and changes nothing else in
// their order.
func requiredFirst(options []schema.Doc) {
	var required, others []schema.Doc
	for _, d := range options {
		if d.Required {
			required = append(required, d)
		} else {
			others = append(others, d)
		}
	}
	copy(options[copy(options, required):], others)
}

// fitting returns the first of the examples all of whose arguments are among options.
func fitting(examples []string, options []schema.Doc) string {
	for _, e := range examples {
		fits := true
		for _, name := range arguments(e) {
			fits = fits && slices.ContainsFunc(options, func(d schema.Doc) bool { return d.Name == name })
		}
		if fits {
			return e
		}
	}
	return ""
}

// arguments are the names of the attributes and blocks of a body that is not indented.
func arguments(body string) (names []string) {
	for line := range strings.Lines(body) {
		if name, _, ok := strings.Cut(line, " "); ok && name != "" && name != "#" && !strings.HasPrefix(line, "}") {
			names = append(names, name)
		}
	}
	return names
}

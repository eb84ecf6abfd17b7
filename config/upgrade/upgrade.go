// Package upgrade converts legacy JSON templates to HCL.
package upgrade

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/hcl/v2"

	"bake/config/format"
	"bake/config/schema"
	"bake/internal/knownplugins"
)

// Options define how to convert.
type Options struct {
	// Annotate adds comments that explain the parts of the result.
	Annotate bool

	// Docs returns the options of a component: kind is "builder", "provisioner",
	// "post-processor" or "data-source". They distinguish blocks from attributes and lists
	// from strings; for an unknown component or option, the shape of the value decides.
	Docs func(kind, typ string) []schema.Doc
}

// Convert converts the JSON template src, which is called filename in
// diagnostics. What cannot be converted is an error at its place, and everything
// else is still in the result. The result is formatted and always parses; it is
// nil if src is not a JSON object, or one with nothing in it.
func Convert(filename string, src []byte, o Options) ([]byte, hcl.Diagnostics) {
	root, ok, diags := parseJSON(filename, src)
	if !ok {
		return nil, diags
	}
	if root.kind != object {
		return nil, problem(head(root.rng), "Not a template", "A template must be a JSON object, not %s.", root.kind)
	}
	c := &converter{o: o, diags: diags, vars: map[string]*variable{}}
	c.convert(root)
	out := c.write()
	if out == "" {
		c.fail(head(root.rng), "Nothing to convert", "This template has no variables and no builders.")
		return nil, c.diags
	}
	sort.SliceStable(c.diags, func(i, j int) bool { return c.diags[i].Subject.Start.Byte < c.diags[j].Subject.Start.Byte })
	return format.Layout([]byte(out)), c.diags
}

// converter is a template that is being converted.
type converter struct {
	o     Options
	diags hcl.Diagnostics

	comments []string              // of the root
	version  string                // packer.required_version
	plugins  []knownplugins.Plugin // required, by name

	vars     map[string]*variable // by their names in JSON
	varOrder []*variable
	stamp    string // name of the local that holds the time; "" if it is not used

	amazon bool // all builders are Amazon's

	data     []block
	sources  []block
	builders []builder
	build    body
}

// variable is a user variable.
type variable struct {
	name      string // in HCL
	value     string // HCL expression of the default; "" if there is none
	literal   *string
	derived   bool // computed from others: a local
	sensitive bool
}

func (v *variable) ref() string {
	if v.derived {
		return "local." + v.name
	}
	return "var." + v.name
}

// builder is a builder as only, except and override know it.
type builder struct {
	name  string // in JSON
	typ   string
	label string // in HCL
}

func (c *converter) fail(at hcl.Range, summary, format string, args ...any) {
	c.diags = append(c.diags, problem(at, summary, format, args...)...)
}

func (c *converter) warn(at hcl.Range, summary, format string, args ...any) {
	d := problem(at, summary, format, args...)[0]
	d.Severity = hcl.DiagWarning
	for _, have := range c.diags {
		if *have.Subject == at && have.Summary == summary && have.Detail == d.Detail {
			return
		}
	}
	c.diags = append(c.diags, d)
}

// head returns the first character of a range, for errors about a multi-line value.
func head(r hcl.Range) hcl.Range {
	if r.Start.Line == r.End.Line {
		return r
	}
	r.End = r.Start
	r.End.Byte++
	r.End.Column++
	return r
}

// rootKeys are the members that a template can have.
var rootKeys = []string{"builders", "description", "error-cleanup-provisioner", "min_packer_version", "post-processors", "provisioners", "sensitive-variables", "variables"}

func (c *converter) convert(root value) {
	for _, m := range root.members {
		switch {
		case strings.HasPrefix(m.name, "_"):
			c.comments = append(c.comments, commentLines(m.value)...)
		case m.name == "push":
			c.fail(m.rng, "Cannot be converted", "The service that push configures no longer exists. It was left out.")
		case !slices.Contains(rootKeys, m.name):
			c.fail(m.rng, "Unknown section", "A template has the sections %s, and comments whose names start with an underscore. This was left out. If this file sets variables, it needs no conversion: pass it to -var-file unchanged.", strings.Join(rootKeys, ", "))
		}
	}
	c.amazon = true
	for _, b := range root.get("builders").items {
		c.amazon = c.amazon && strings.HasPrefix(b.get("type").text, "amazon-")
	}
	c.minVersion(root.get("min_packer_version"))
	c.variables(root)
	builders := c.objects(root.get("builders"), "builders", "a builder")
	c.nameBuilders(builders)
	unnamed := slices.ContainsFunc(c.builders, func(b builder) bool { return b.name == b.typ })
	for i, v := range builders {
		c.source(v, c.builders[i])
	}
	if d := root.get("description"); d.kind != null {
		c.build.attrs = append(c.build.attrs, attribute{"description", quote(c.text(d.text, d.rng, where{block: "build"}))})
	}
	for _, v := range c.objects(root.get("provisioners"), "provisioners", "a provisioner") {
		c.build.add(c.provisioner("provisioner", v, unnamed))
	}
	if v := root.get("error-cleanup-provisioner"); v.kind == object {
		c.build.add(c.provisioner("error-cleanup-provisioner", v, unnamed))
	} else if v.kind != null {
		c.fail(head(v.rng), "Not an object", "error-cleanup-provisioner must be an object, not %s. It was left out.", v.kind)
	}
	c.postProcessors(root.get("post-processors"), unnamed)
}

func (c *converter) minVersion(v value) {
	if v.kind == null {
		return
	}
	min, err := version.NewVersion(v.text)
	if v.kind != text || err != nil {
		c.fail(head(v.rng), "Not a version", "min_packer_version must be a version such as \"1.6.0\". It was left out.")
		return
	}
	c.version = ">= " + min.Core().String()
}

// objects returns the objects of a list, which is part of the root. Others are
// reported.
func (c *converter) objects(v value, name, one string) (out []value) {
	if v.kind == null {
		return nil
	}
	if v.kind != list {
		c.fail(head(v.rng), "Not a list", "%s must be a list, not %s. It was left out.", name, v.kind)
		return nil
	}
	for _, item := range v.items {
		if item.kind != object {
			c.fail(head(item.rng), "Not an object", "%s must be an object here, not %s. It was left out.", one, item.kind)
			continue
		}
		out = append(out, item)
	}
	return out
}

// nameBuilders gives the builders their labels.
func (c *converter) nameBuilders(builders []value) {
	used := map[string]bool{}
	for i, item := range builders {
		typ, name := item.get("type"), item.get("name")
		b := builder{typ: typ.text, name: typ.text, label: fmt.Sprintf("autogenerated_%d", i+1)}
		if name.kind == text && name.text != "" {
			var ok bool
			if b.name, ok = c.constant(name); ok {
				b.label = identifier(b.name)
			}
			if ok && b.label != b.name {
				c.warn(name.rng, "Renamed", "A name in HCL consists of letters, digits, underscores and dashes: the builder %q is now called %q, in {{build_name}} too.", b.name, b.label)
			}
		}
		if i := slices.IndexFunc(c.builders, func(o builder) bool { return o.name == b.name }); i >= 0 && b.name != "" {
			at := name.rng
			if name.kind == null {
				at = typ.rng
			}
			c.fail(head(at), "Duplicate builder", "There is already a builder %q. Give each a unique name; only, except and override cannot tell the two apart.", b.name)
		}
		for base, n := b.label, 2; used[b.typ+"."+b.label]; n++ {
			b.label = fmt.Sprintf("%s_%d", base, n)
		}
		used[b.typ+"."+b.label] = true
		c.builders = append(c.builders, b)
	}
}

// constant returns the name of a builder, for which HCL takes only a constant. ok
// is false if it is none.
func (c *converter) constant(v value) (name string, ok bool) {
	var b strings.Builder
	for _, p := range c.text(v.text, v.rng, where{block: "build"}) {
		if p.expr == "" {
			b.WriteString(p.lit)
			continue
		}
		i := slices.IndexFunc(c.varOrder, func(o *variable) bool { return o.ref() == p.expr && o.literal != nil })
		if i < 0 {
			c.fail(v.rng, "Name is not constant", "The name of a source in HCL must be constant, but this one depends on values that are known only when the template is used. It was replaced.")
			return v.text, false
		}
		c.warn(v.rng, "Name is constant now", "The name of a source in HCL must be constant. This one was built with the default of the variable %q.", c.varOrder[i].name)
		b.WriteString(*c.varOrder[i].literal)
	}
	return b.String(), true
}

// nameChanges warns of a use of build_name where the name was the type.
func (c *converter) nameChanges(at hcl.Range, w where) {
	if w.unnamed {
		c.warn(at, "Different build name", "A build whose builder has no name was named after the builder's type; now it is named after the source, such as autogenerated_1. If that matters, give the builder a name and convert again.")
	}
}

// commentLines returns the lines of a comment, which is any value.
func commentLines(v value) (lines []string) {
	switch v.kind {
	case list:
		for _, item := range v.items {
			lines = append(lines, commentLines(item)...)
		}
	case object:
		for _, m := range v.members {
			for _, line := range commentLines(m.value) {
				lines = append(lines, m.name+": "+line)
			}
		}
	default:
		lines = strings.FieldsFunc(v.text, func(r rune) bool { return r == '\n' || r == '\r' })
	}
	return lines
}

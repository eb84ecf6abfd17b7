package upgrade

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// body is the content of a block.
type body struct {
	comments []string
	attrs    []attribute
	blocks   []block
}

type attribute struct{ name, expr string }

type block struct {
	typ    string
	labels []string
	body   body
}

// add adds a block, if ok.
func (b *body) add(inner block, ok bool) {
	if ok {
		b.blocks = append(b.blocks, inner)
	}
}

func (b body) equal(o body) bool {
	var x, y strings.Builder
	b.write(&x)
	o.write(&y)
	return x.String() == y.String()
}

// write writes the body without indentation; the formatter adds that.
func (b body) write(w *strings.Builder) {
	for _, line := range b.comments {
		comment(w, line)
	}
	for _, a := range b.attrs {
		fmt.Fprintf(w, "%s = %s\n", a.name, a.expr)
	}
	for i, inner := range b.blocks {
		if i > 0 || len(b.attrs) > 0 {
			w.WriteByte('\n')
		}
		inner.write(w)
	}
}

func (b block) write(w *strings.Builder) {
	w.WriteString(b.typ)
	for _, l := range b.labels {
		fmt.Fprintf(w, " %q", l)
	}
	if len(b.body.attrs)+len(b.body.blocks)+len(b.body.comments) == 0 {
		w.WriteString(" {}\n")
		return
	}
	w.WriteString(" {\n")
	b.body.write(w)
	w.WriteString("}\n")
}

func comment(w *strings.Builder, line string) {
	line = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, line)
	w.WriteString(strings.TrimRight("# "+line, " ") + "\n")
}

// writeList writes a list on one line or, if that is long, each element on a separate
// line.
func writeList(items []string) string {
	line := "[" + strings.Join(items, ", ") + "]"
	if len(items) < 2 || len(line) <= 60 && !strings.Contains(line, "\n") {
		return line
	}
	return "[\n" + strings.Join(items, ",\n") + ",\n]"
}

// writeObject writes an object of attributes, each of which is "key = value".
func writeObject(lines []string) string {
	if len(lines) == 0 {
		return "{}"
	}
	return "{\n" + strings.Join(lines, "\n") + "\n}"
}

// write returns the whole file.
func (c *converter) write() string {
	var w strings.Builder
	note := func(lines ...string) {
		if c.o.Annotate {
			for _, l := range lines {
				comment(&w, l)
			}
		}
	}
	part := func() {
		if w.Len() > 0 {
			w.WriteByte('\n')
		}
	}
	note("This template was converted from JSON. Read it through before you use it.",
		"Its blocks may be moved to other files: all files of a folder whose names end in",
		".pkr.hcl are one template.")
	if len(c.comments) > 0 {
		part()
		for _, line := range c.comments {
			comment(&w, line)
		}
	}
	if p := c.packer(); len(p.body.attrs)+len(p.body.blocks) > 0 {
		part()
		note("The version and the plugins that this template needs.")
		p.write(&w)
	}
	first := true
	for _, v := range c.varOrder {
		if v.derived {
			continue
		}
		part()
		if first {
			note("User variables are input variables. They are set with -var, with -var-file, or with",
				"PKR_VAR_name in the environment; one without a default has to be.")
			first = false
		}
		v.block().write(&w)
	}
	c.writeLocals(&w, part, note)
	for i, d := range c.data {
		part()
		if i == 0 {
			note("Data that is looked up before anything is built.")
		}
		d.write(&w)
	}
	for i, s := range c.sources {
		part()
		if i == 0 {
			note("Builders are sources. A source does nothing until a build block names it.")
		}
		s.write(&w)
	}
	if len(c.sources) > 0 || len(c.build.blocks) > 0 {
		part()
		note("A build runs the provisioners and then the post-processors, in this order, for each",
			"of its sources.")
		c.buildBlock().write(&w)
	}
	return w.String()
}

func (c *converter) packer() block {
	p := block{typ: "packer"}
	if c.version != "" {
		p.body.attrs = append(p.body.attrs, attribute{"required_version", quoted(c.version)})
	}
	if len(c.plugins) > 0 {
		req := block{typ: "required_plugins"}
		for _, pl := range c.plugins {
			req.body.attrs = append(req.body.attrs, attribute{pl.Name, writeObject([]string{"source = " + quoted(pl.Source), "version = " + quoted(pl.Version)})})
		}
		p.body.add(req, true)
	}
	return p
}

func (v *variable) block() block {
	b := block{typ: "variable", labels: []string{v.name}}
	b.body.attrs = append(b.body.attrs, attribute{"type", "string"})
	if v.value != "" {
		b.body.attrs = append(b.body.attrs, attribute{"default", v.value})
	}
	if v.sensitive {
		b.body.attrs = append(b.body.attrs, attribute{"sensitive", "true"})
	}
	return b
}

// writeLocals writes the local values. Each secret gets a separate block.
func (c *converter) writeLocals(w *strings.Builder, part func(), note func(...string)) {
	locals := block{typ: "locals"}
	var secret []block
	if c.stamp != "" {
		locals.body.attrs = append(locals.body.attrs, attribute{c.stamp, `regex_replace(timestamp(), "[- TZ:]", "")`})
	}
	for _, v := range c.varOrder {
		switch {
		case !v.derived:
		case v.sensitive:
			secret = append(secret, block{"local", []string{v.name}, body{attrs: []attribute{{"expression", v.value}, {"sensitive", "true"}}}})
		default:
			locals.body.attrs = append(locals.body.attrs, attribute{v.name, v.value})
		}
	}
	all := secret
	if len(locals.body.attrs) > 0 {
		all = slices.Insert(all, 0, locals)
	}
	for i, b := range all {
		part()
		if i == 0 {
			note("Values computed from others. Unlike variables they cannot be set from outside.")
		}
		b.write(w)
	}
}

func (c *converter) buildBlock() block {
	b := block{typ: "build", body: c.build}
	var names []string
	for _, s := range c.sources {
		names = append(names, quoted("source."+s.labels[0]+"."+s.labels[1]))
	}
	b.body.attrs = append(slices.Clone(b.body.attrs), attribute{"sources", writeList(names)})
	return b
}

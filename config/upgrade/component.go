package upgrade

import (
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/config/schema"
)

// source converts a builder.
func (c *converter) source(v value, b builder) {
	if !c.hasType(v, "builder") {
		return
	}
	w := where{block: "builder", typ: b.typ, unnamed: b.name == b.typ}
	docs := c.o.Docs("builder", b.typ)
	out := block{"source", []string{b.typ, b.label}, body{}}
	for _, m := range v.members {
		switch {
		case m.name == "type" || m.name == "name":
		case m.name == "source_ami_filter" && strings.HasPrefix(b.typ, "amazon-") && m.value.kind == object && v.get("source_ami").kind == null:
			out.body.attrs = append(out.body.attrs, attribute{"source_ami", c.sourceAMI(v, m.value, w) + ".id"})
		default:
			c.option(&out.body, m, docs, w)
		}
	}
	c.sources = append(c.sources, out)
	c.requirePlugin(b.typ)
}

// accessOptions are the options of a builder for access to Amazon; the data sources have
// the same.
var accessOptions = []string{
	"access_key", "secret_key", "token", "region", "profile", "shared_credentials_file", "assume_role", "mfa_code",
	"custom_endpoint_ec2", "insecure_skip_tls_verify", "skip_metadata_api_check", "skip_credential_validation",
	"max_retries", "decode_authorization_messages", "vault_aws_engine",
}

// sourceAMI makes the data source that finds the image a builder filters for.
func (c *converter) sourceAMI(builder, filter value, w where) string {
	var b body
	docs := c.o.Docs("data-source", "amazon-ami")
	for _, m := range builder.members {
		if slices.Contains(accessOptions, m.name) {
			c.option(&b, m, docs, w)
		}
	}
	for _, m := range filter.members {
		c.option(&b, m, docs, w)
	}
	return c.dataSource("amazon-ami", b)
}

// provisioner converts a provisioner; blockType is that of its block.
func (c *converter) provisioner(blockType string, v value, unnamed bool) (block, bool) {
	if !c.hasType(v, "provisioner") {
		return block{}, false
	}
	typ := v.get("type").text
	w := where{block: "provisioner", typ: typ, unnamed: unnamed}
	docs := c.o.Docs("provisioner", typ)
	out := block{blockType, []string{typ}, body{}}
	for _, m := range v.members {
		switch m.name {
		case "type":
		case "only", "except":
			c.selection(&out.body, m)
		case "override":
			c.override(&out.body, m, docs, w)
		default:
			c.option(&out.body, m, docs, w)
		}
	}
	c.requirePlugin(typ)
	return out, true
}

// postProcessors converts the post-processors: each is a chain of one, and a nested list
// is one chain.
func (c *converter) postProcessors(v value, unnamed bool) {
	if v.kind == null {
		return
	}
	if v.kind != list {
		c.fail(head(v.rng), "Not a list", "post-processors must be a list, not %s. It was left out.", v.kind)
		return
	}
	for _, item := range v.items {
		if item.kind != list {
			c.build.add(c.postProcessor(item, unnamed))
			continue
		}
		chain := block{"post-processors", nil, body{}}
		for _, link := range item.items {
			chain.body.add(c.postProcessor(link, unnamed))
		}
		if len(chain.body.blocks) > 0 {
			c.build.add(chain, true)
		}
	}
}

// postProcessor converts a post-processor, which may consist of its type alone.
func (c *converter) postProcessor(v value, unnamed bool) (block, bool) {
	if v.kind == text {
		v = value{kind: object, members: []member{{"type", v.rng, v}}, rng: v.rng}
	}
	if v.kind != object {
		c.fail(head(v.rng), "Not a post-processor", "A post-processor must be an object, a name, or a list of these, not %s. It was left out.", v.kind)
		return block{}, false
	}
	if !c.hasType(v, "post-processor") {
		return block{}, false
	}
	typ := v.get("type").text
	w := where{block: "post-processor", typ: typ, unnamed: unnamed}
	docs := c.o.Docs("post-processor", typ)
	out := block{"post-processor", []string{typ}, body{}}
	for _, m := range v.members {
		switch m.name {
		case "type":
		case "only", "except":
			c.selection(&out.body, m)
		default:
			c.option(&out.body, m, docs, w)
		}
	}
	c.requirePlugin(typ)
	return out, true
}

// hasType reports a component without a type that a block could have.
func (c *converter) hasType(v value, what string) bool {
	t := v.get("type")
	switch {
	case t.kind == null:
		c.fail(head(v.rng), "No type", "This %s has no type. It was left out.", what)
	case t.kind != text || !typeName.Get().MatchString(t.text):
		c.fail(head(t.rng), "Not a type", "The type of a %s must be a name such as \"amazon-ebs\" or \"shell\". This %[1]s was left out.", what)
	default:
		return true
	}
	return false
}

// selection converts only and except, which name builders, to names of sources.
func (c *converter) selection(b *body, m member) {
	items := m.value.items
	if m.value.kind == text {
		items = []value{m.value}
	}
	var names []string
	for _, item := range items {
		found := false
		for _, o := range c.builders {
			if item.kind == text && o.name == item.text {
				names = append(names, quoted(o.typ+"."+o.label))
				found = true
			}
		}
		if !found {
			c.fail(head(item.rng), "Unknown builder", "There is no builder with this name%s. It was left out of %s.", c.names(), m.name)
		}
	}
	if len(names) > 0 || m.value.kind == list && len(items) == 0 {
		b.attrs = append(b.attrs, attribute{m.name, writeList(names)})
	} else if m.name == "only" {
		// An empty list would select every build.
		c.fail(head(m.rng), "No builder is left", "All names here are unknown, so it selects no build. Delete this part, or correct the names and convert again.")
		b.attrs = append(b.attrs, attribute{m.name, `["none"]`})
	}
}

func (c *converter) names() string {
	if len(c.builders) == 0 {
		return ""
	}
	var names []string
	for _, b := range c.builders {
		names = append(names, b.name)
	}
	return "; there is " + strings.Join(slices.Compact(names), ", ")
}

// override converts the options that a provisioner has for some builders only.
func (c *converter) override(b *body, m member, docs []schema.Doc, w where) {
	if m.value.kind != object {
		c.fail(head(m.value.rng), "Not an object", "override must have an object of options for each builder, not %s. It was left out.", m.value.kind)
		return
	}
	var lines []string
	for _, o := range m.value.members {
		i := slices.IndexFunc(c.builders, func(b builder) bool { return b.name == o.name })
		switch {
		case i < 0:
			c.fail(o.rng, "Unknown builder", "There is no builder with this name%s. Its override was left out.", c.names())
		case o.value.kind != object:
			c.fail(head(o.value.rng), "Not an object", "override must have an object of options for each builder, not %s. It was left out.", o.value.kind)
		default:
			var inner []string
			for _, opt := range o.value.members {
				if opt.value.kind != null {
					inner = append(inner, objectKey([]piece{{lit: opt.name}})+" = "+c.value(opt.value, find(docs, opt.name).Type, w))
				}
			}
			lines = append(lines, objectKey([]piece{{lit: c.builders[i].label}})+" = "+writeObject(inner))
		}
	}
	b.attrs = append(b.attrs, attribute{m.name, writeObject(lines)})
}

// find returns the documentation of an option.
func find(docs []schema.Doc, name string) schema.Doc {
	for _, d := range docs {
		if d.Name == name {
			return d
		}
	}
	if slices.Contains(lists, name) {
		return schema.Doc{Name: name, Type: "list of string"}
	}
	return schema.Doc{}
}

// option converts one option to an attribute or to blocks.
func (c *converter) option(b *body, m member, docs []schema.Doc, w where) {
	switch {
	case strings.HasPrefix(m.name, "_"):
		b.comments = append(b.comments, commentLines(m.value)...)
		return
	case m.value.kind == null:
		return
	case !hclsyntax.ValidIdentifier(m.name):
		c.fail(m.rng, "Not a name", "Option names in HCL consist of letters, digits, underscores and dashes. This option was left out.")
		return
	}
	doc := find(docs, m.name)
	if bodies, ok := blocks(m, doc); ok {
		for _, v := range bodies {
			out := block{m.name, nil, body{}}
			for _, inner := range v.members {
				c.option(&out.body, inner, doc.Block, where{w.block, w.typ, w.unnamed})
			}
			b.add(out, true)
		}
		return
	}
	if v := m.value; v.kind == text && v.text == "" && (doc.Type == "bool" || doc.Type == "number") {
		return // in JSON that is the same as nothing
	}
	if m.value.kind == text && !strings.Contains(m.value.text, "{{") && (doc.Type == "" || doc.Type == "string") {
		if text := heredoc(m.value.text); text != "" {
			b.attrs = append(b.attrs, attribute{m.name, text})
			return
		}
	}
	b.attrs = append(b.attrs, attribute{m.name, c.value(m.value, doc.Type, w)})
}

// blocks returns the objects of an option that becomes blocks, and whether it does. For an
// unknown option, the shape of its value decides: a list of objects becomes blocks, and so
// does an object that holds more than plain values.
func blocks(m member, doc schema.Doc) ([]value, bool) {
	v := m.value
	objects := v.kind == list && !slices.ContainsFunc(v.items, func(i value) bool { return i.kind != object })
	switch {
	case doc.Type == "block" || doc.Type == "blocks":
		switch {
		case v.kind == object:
			return []value{v}, true
		case objects:
			return v.items, true
		}
		return nil, false
	case doc.Name != "" || slices.Contains(attributes, m.name):
		return nil, false
	case objects && len(v.items) > 0:
		return v.items, true
	case v.kind == object && (slices.Contains(singleBlocks, m.name) || slices.ContainsFunc(v.members, func(m member) bool { return !m.value.scalar() })):
		return []value{v}, true
	}
	return nil, false
}

// value writes a value as an expression of the type that schema.Doc calls typ; "" if that
// is not known. As in JSON templates, a value of another type is converted if possible.
func (c *converter) value(v value, typ string, w where) string {
	elem, isList := strings.CutPrefix(typ, "list of ")
	item, isMap := strings.CutPrefix(typ, "map of ")
	switch v.kind {
	case null:
		return "null"
	case boolean:
		switch {
		case isList:
			return writeList([]string{c.value(v, elem, w)})
		case typ == "string":
			return map[string]string{"true": `"1"`, "false": `"0"`}[v.text] // so a JSON template turns them into strings
		}
		return v.text
	case number:
		switch {
		case isList:
			return writeList([]string{c.value(v, elem, w)})
		case typ == "bool":
			return strconv.FormatBool(strings.Trim(v.text, "-0.") != "")
		}
		return v.text
	case text:
		if isList {
			return c.splitList(v, elem, w)
		}
		if lit, ok := literal(v.text, typ); ok {
			return lit
		}
		return quote(c.text(v.text, v.rng, w))
	case list:
		if isMap {
			return c.mergedMap(v, item, w)
		}
		var items []string
		for _, i := range v.items {
			items = append(items, c.value(i, elem, w))
		}
		return writeList(items)
	}
	var lines []string
	for _, m := range v.members {
		lines = append(lines, objectKey(c.text(m.name, m.rng, w))+" = "+c.value(m.value, item, w))
	}
	return writeObject(lines)
}

// literal writes the text of a number or boolean without quotes.
func literal(s, typ string) (string, bool) {
	switch typ {
	case "bool":
		b, err := strconv.ParseBool(s)
		return strconv.FormatBool(b), err == nil
	case "number":
		n, err := strconv.Atoi(s)
		return strconv.Itoa(n), err == nil
	}
	return "", false
}

// splitList writes a string where a list is wanted: a JSON template splits it at commas.
func (c *converter) splitList(v value, elem string, w where) string {
	if v.text == "" {
		return "[]"
	}
	if elem != "string" || strings.Contains(v.text, "{{") {
		e := quote(c.text(v.text, v.rng, w))
		if strings.HasPrefix(e, `"`) && !strings.Contains(e, ",") && elem == "string" && strings.Contains(e, "{{") {
			return writeList([]string{e})
		}
		return `compact(split(",", ` + e + `))`
	}
	var items []string
	for s := range strings.SplitSeq(v.text, ",") {
		items = append(items, quoted(s))
	}
	return writeList(items)
}

// mergedMap writes a list of objects where a map is wanted.
func (c *converter) mergedMap(v value, elem string, w where) string {
	var lines []string
	for _, i := range v.items {
		if i.kind != object {
			c.fail(head(i.rng), "Not an object", "This option must be an object, not %s. It was left out.", i.kind)
			continue
		}
		for _, m := range i.members {
			lines = append(lines, objectKey(c.text(m.name, m.rng, w))+" = "+c.value(m.value, elem, w))
		}
	}
	return writeObject(lines)
}

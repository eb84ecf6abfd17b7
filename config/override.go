package config

import (
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"bake/config/schema"
)

// overriddenBody is a body in which values take the place of some arguments and
// blocks.
type overriddenBody struct {
	hcl.Body
	values map[string]cty.Value
	at     hcl.Range // where the values were written
}

// Content implements [hcl.Body].
func (b *overriddenBody) Content(want *hcl.BodySchema) (*hcl.BodyContent, hcl.Diagnostics) {
	content, diags := b.Body.Content(b.relaxed(want))
	over, more := b.overrides(want)
	merge(content, over)
	return content, append(diags, more...)
}

// PartialContent implements [hcl.Body].
func (b *overriddenBody) PartialContent(want *hcl.BodySchema) (*hcl.BodyContent, hcl.Body, hcl.Diagnostics) {
	content, remain, diags := b.Body.PartialContent(b.relaxed(want))
	rest := maps.Clone(b.values)
	taken := map[string]cty.Value{}
	for _, name := range schemaNames(want) {
		if v, ok := rest[name]; ok {
			taken[name] = v
			delete(rest, name)
		}
	}
	over, more := (&overriddenBody{values: taken, at: b.at}).overrides(want)
	merge(content, over)
	return content, &overriddenBody{remain, rest, b.at}, append(diags, more...)
}

// JustAttributes implements [hcl.Body].
func (b *overriddenBody) JustAttributes() (hcl.Attributes, hcl.Diagnostics) {
	attrs, diags := b.Body.JustAttributes()
	for name, v := range b.values {
		attrs[name] = b.attribute(name, v)
	}
	return attrs, diags
}

// relaxed returns the schema for the underlying body: overridden arguments may be missing.
func (b *overriddenBody) relaxed(want *hcl.BodySchema) *hcl.BodySchema {
	out := &hcl.BodySchema{Attributes: slices.Clone(want.Attributes), Blocks: want.Blocks}
	for i, a := range out.Attributes {
		if _, ok := b.values[a.Name]; ok {
			out.Attributes[i].Required = false
		}
	}
	return out
}

// overrides returns the values in the form that the schema requires, and reports the ones
// that it does not know.
func (b *overriddenBody) overrides(want *hcl.BodySchema) (*hcl.BodyContent, hcl.Diagnostics) {
	var diags hcl.Diagnostics
	content := &hcl.BodyContent{Attributes: hcl.Attributes{}}
	for _, name := range slices.Sorted(maps.Keys(b.values)) {
		v := b.values[name]
		switch {
		case slices.ContainsFunc(want.Attributes, func(a hcl.AttributeSchema) bool { return a.Name == name }):
			content.Attributes[name] = b.attribute(name, v)
		case slices.ContainsFunc(want.Blocks, func(s hcl.BlockHeaderSchema) bool { return s.Type == name }):
			blocks, more := b.blocks(name, v)
			content.Blocks = append(content.Blocks, blocks...)
			diags = append(diags, more...)
		default:
			diags = append(diags, problem(&b.at, "Unsupported argument", "The override sets %q, which is not an argument here.", name)...)
		}
	}
	return content, diags
}

func (b *overriddenBody) attribute(name string, v cty.Value) *hcl.Attribute {
	return &hcl.Attribute{Name: name, Expr: schema.Loose{Expression: hcl.StaticExpr(v, b.at)}, Range: b.at, NameRange: b.at}
}

// blocks makes a block of an object, and several of a list of objects.
func (b *overriddenBody) blocks(name string, v cty.Value) (all hcl.Blocks, diags hcl.Diagnostics) {
	if v.IsNull() || !v.IsKnown() {
		return nil, nil
	}
	if t := v.Type(); t.IsTupleType() || t.IsListType() {
		for _, e := range v.AsValueSlice() {
			blocks, more := b.blocks(name, e)
			all, diags = append(all, blocks...), append(diags, more...)
		}
		return all, diags
	}
	if !isObject(v) {
		return nil, problem(&b.at, "Invalid override", "The override sets %q, which takes an object, or a list of objects.", name)
	}
	return hcl.Blocks{{
		Type: name, DefRange: b.at, TypeRange: b.at,
		Body: &overriddenBody{hcl.EmptyBody(), v.AsValueMap(), b.at},
	}}, nil
}

// merge replaces items of content by those of over with the same names.
func merge(content, over *hcl.BodyContent) {
	if content.Attributes == nil {
		content.Attributes = hcl.Attributes{}
	}
	maps.Copy(content.Attributes, over.Attributes)
	content.Blocks = slices.DeleteFunc(content.Blocks, func(b *hcl.Block) bool { return len(over.Blocks.OfType(b.Type)) > 0 })
	content.Blocks = append(content.Blocks, over.Blocks...)
}

func schemaNames(s *hcl.BodySchema) []string {
	var names []string
	for _, a := range s.Attributes {
		names = append(names, a.Name)
	}
	for _, b := range s.Blocks {
		names = append(names, b.Type)
	}
	return names
}

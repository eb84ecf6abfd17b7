package config

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/dynblock"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/gocty"

	"bake/config/lang"
)

var buildSchema = &hcl.BodySchema{
	Attributes: []hcl.AttributeSchema{
		{Name: "name"}, {Name: "description"}, {Name: "sources"},
	},
	Blocks: []hcl.BlockHeaderSchema{
		{Type: "source", LabelNames: []string{"reference"}},
		{Type: "provisioner", LabelNames: []string{"type"}},
		{Type: "error-cleanup-provisioner", LabelNames: []string{"type"}},
		{Type: "post-processor", LabelNames: []string{"type"}},
		{Type: "post-processors"},
		{Type: "hcp_packer_registry"},
		{Type: "from", LabelNames: []string{"type"}}, // accepted by Packer, without effect
	},
}

// part is a block of a build, with the body that it came from: the block's own,
// or that of the dynamic block that made it.
type part struct {
	*hcl.Block
	origin hcl.Body
}

// use is one source of a build block.
type use struct {
	typ, name, local string
	builder          *Component
}

// selector is the name that only and except know the source by.
func (u use) selector() string { return u.typ + "." + u.local }

// buildBlock adds the builds of a build block to the template.
func (l *loader) buildBlock(ctx context.Context, block *hcl.Block) hcl.Diagnostics {
	attrs, parts, diags := l.expand(ctx, block.Body, buildSchema)
	s := &steps{loader: l}
	var description string
	diags = append(diags, l.decode(ctx, attrs["name"], &s.name)...)
	diags = append(diags, l.decode(ctx, attrs["description"], &description)...)
	uses, more := l.uses(ctx, attrs["sources"], parts)
	diags = append(diags, more...)
	if len(uses) == 0 && !l.failed && !diags.HasErrors() {
		return append(diags, problem(&block.DefRange, "Build without a source",
			"A build needs at least one source: write sources = [\"source.TYPE.NAME\"], or a source block in it.")...)
	}
	for _, u := range uses {
		s.selectors = append(s.selectors, u.selector())
	}
	diags = append(diags, s.collect(ctx, parts)...)
	var builds []*Build
	for _, u := range uses {
		b := s.build(u)
		b.Description = description
		builds = append(builds, b)
	}
	l.t.Builds = append(l.t.Builds, builds...)
	if l.outline {
		l.blockOutlines = append(l.blockOutlines, s.outline(builds))
	}
	return diags
}

// uses lists the sources of a build block: first those of its list.
func (l *loader) uses(ctx context.Context, list *hcl.Attribute, parts []part) ([]use, hcl.Diagnostics) {
	var uses []use
	var diags hcl.Diagnostics
	if list != nil {
		refs, more := l.references(ctx, list)
		diags = append(diags, more...)
		for _, ref := range refs {
			u, more := l.use(ref.text, ref.at)
			diags = append(diags, more...)
			if !more.HasErrors() {
				uses = append(uses, u)
			}
		}
	}
	for _, p := range parts {
		if p.Type != "source" {
			continue
		}
		u, more := l.use(p.Labels[0], p.LabelRanges[0])
		diags = append(diags, more...)
		if more.HasErrors() {
			continue
		}
		diags = append(diags, l.nestedSource(&u, p)...)
		uses = append(uses, u)
	}
	return uses, diags
}

// reference is the name of a source, and where it was written.
type reference struct {
	text string
	at   hcl.Range
}

func (l *loader) references(ctx context.Context, attr *hcl.Attribute) ([]reference, hcl.Diagnostics) {
	var texts []string
	diags := l.decode(ctx, attr, &texts)
	exprs, _ := hcl.ExprList(attr.Expr) // no list: then errors point at the whole expression
	var refs []reference
	for i, text := range texts {
		at := attr.Expr.Range()
		if len(exprs) == len(texts) {
			at = exprs[i].Range()
		}
		refs = append(refs, reference{text, at})
	}
	return refs, diags
}

// use finds the source that a reference means: TYPE.NAME, or with anything before
// it, which is source as a rule.
func (l *loader) use(ref string, at hcl.Range) (use, hcl.Diagnostics) {
	parts := strings.Split(ref, ".")
	if len(parts) == 3 {
		parts = parts[1:]
	}
	if len(parts) != 2 || !hclsyntax.ValidIdentifier(parts[0]) || !hclsyntax.ValidIdentifier(parts[1]) {
		return use{}, problem(&at, "Invalid source reference",
			"%q must have the form TYPE.NAME or source.TYPE.NAME, and each part must start with a letter or underscore and consist of letters, digits, underscores and dashes.", ref)
	}
	typ, name := parts[0], parts[1]
	block := l.sources[typ+"."+name]
	if block == nil {
		return use{}, problem(&at, "Unknown source", "There is no source %q.%s", typ+"."+name, lang.DidYouMean(typ+"."+name, l.sourceNames()))
	}
	return use{typ: typ, name: name, local: name, builder: &Component{
		Type: typ, TypeRange: block.LabelRanges[0], scope: l.t.scope, block: block,
		body: block.Body, refs: lang.References(block.Body),
	}}, nil
}

// nestedSource adds what a source block within a build says to u.
func (l *loader) nestedSource(u *use, p part) hcl.Diagnostics {
	content, rest, diags := p.Body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "name"}}})
	if attr, ok := content.Attributes["name"]; ok {
		diags = append(diags, localName(attr, &u.local)...)
	}
	top := u.builder.body
	u.builder.block = p.Block
	u.builder.body = hcl.MergeBodies([]hcl.Body{top, rest})
	u.builder.refs = append(u.builder.refs, lang.References(p.origin)...)
	return diags
}

// localName decodes the name that a build gives to one of its sources. It is
// settled before there are any values; only an iterator of a dynamic block, which
// is, may be in it.
func localName(attr *hcl.Attribute, name *string) hcl.Diagnostics {
	val, diags := attr.Expr.Value(nil)
	if diags.HasErrors() {
		rng := attr.Expr.Range()
		return problem(&rng, "Name is not constant",
			"The name of a source in a build must be a literal text, or the value of the dynamic block that makes the source.")
	}
	if err := store(val, name); err != nil || val.IsNull() {
		rng := attr.Expr.Range()
		return problem(&rng, "Unsuitable value", "The name of a source in a build must be a string.")
	}
	return nil
}

// expand returns the content of a body whose dynamic blocks may use var, local
// and data. Only those blocks are expanded: the others may refer to values that
// exist later.
func (l *loader) expand(ctx context.Context, body hcl.Body, want *hcl.BodySchema) (hcl.Attributes, []part, hcl.Diagnostics) {
	raw := &hcl.BodySchema{Attributes: want.Attributes, Blocks: append(slices.Clone(want.Blocks), dynamicBlock)}
	content, diags := body.Content(raw)
	var parts []part
	for _, b := range content.Blocks {
		if b.Type != dynamicBlock.Type {
			parts = append(parts, part{b, b.Body})
			continue
		}
		ec, more := l.t.scope.Context(ctx, lang.References(b.Body))
		diags = append(diags, more...)
		if more.HasErrors() {
			continue
		}
		expanded, more := dynblock.Expand(&singleBlock{hcl.EmptyBody(), b}, ec).Content(&hcl.BodySchema{Blocks: want.Blocks})
		diags = append(diags, l.t.Explain(more)...)
		for _, e := range expanded.Blocks {
			parts = append(parts, part{e, b.Body})
		}
	}
	return content.Attributes, parts, diags
}

var dynamicBlock = hcl.BlockHeaderSchema{Type: "dynamic", LabelNames: []string{"type"}}

// singleBlock is a body that holds one block.
type singleBlock struct {
	hcl.Body
	block *hcl.Block
}

// Content implements [hcl.Body].
func (b *singleBlock) Content(*hcl.BodySchema) (*hcl.BodyContent, hcl.Diagnostics) {
	return &hcl.BodyContent{Blocks: hcl.Blocks{b.block}, MissingItemRange: b.block.DefRange}, nil
}

// decode evaluates attr, which may use var, local and data, and stores the value
// in dst. An absent, null or not yet known value leaves dst as it is.
func (l *loader) decode(ctx context.Context, attr *hcl.Attribute, dst any) hcl.Diagnostics {
	if attr == nil {
		return nil
	}
	ec, diags := l.t.scope.Context(ctx, attr.Expr.Variables())
	if diags.HasErrors() {
		return diags
	}
	val, more := attr.Expr.Value(ec)
	diags = append(diags, l.t.Explain(more)...)
	if more.HasErrors() {
		return diags
	}
	val, _ = val.UnmarkDeep()
	if val.IsNull() || !val.IsWhollyKnown() {
		return diags
	}
	if err := store(val, dst); err != nil {
		rng := attr.Expr.Range()
		diags = append(diags, problem(&rng, "Unsuitable value", "Argument %q: %s.", attr.Name, err)...)
	}
	return diags
}

func store(val cty.Value, dst any) error {
	if d, ok := dst.(*time.Duration); ok {
		var text string
		if err := store(val, &text); err != nil {
			return err
		}
		parsed, err := time.ParseDuration(text)
		if err != nil || parsed < 0 {
			return fmt.Errorf(`%q is not a duration such as "90s" or "5m"`, text)
		}
		*d = parsed
		return nil
	}
	typ, err := gocty.ImpliedType(reflect.ValueOf(dst).Elem().Interface())
	if err != nil {
		return err
	}
	if val, err = convert.Convert(val, typ); err != nil {
		return err
	}
	return gocty.FromCtyValue(val, dst)
}

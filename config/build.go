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
	unsettled        bool // local is not known yet
}

// selector returns the name by which only and except select the source.
func (u use) selector() string { return u.typ + "." + u.local }

// buildBlock adds the builds of a build block to the template.
func (l *loader) buildBlock(ctx context.Context, block *hcl.Block) hcl.Diagnostics {
	attrs, parts, unexpanded, diags := l.expand(ctx, block.Body, buildSchema)
	s := &steps{loader: l}
	var description string
	diags = append(diags, s.readName(ctx, attrs["name"])...)
	diags = append(diags, l.decode(ctx, attrs["description"], &description)...)
	uses, open, more := l.uses(ctx, attrs["sources"], parts)
	diags = append(diags, more...)
	open = open || unexpanded["source"]
	l.t.Open = l.t.Open || open
	if len(uses) == 0 && !open && !l.failed && !diags.HasErrors() {
		return append(diags, problem(&block.DefRange, "Build without a source",
			"A build needs at least one source: write sources = [\"source.TYPE.NAME\"], or a source block in it.")...)
	}
	for _, u := range uses {
		s.selectors = append(s.selectors, u.selector())
		s.locals = append(s.locals, u.local)
		s.unsettled = s.unsettled || u.unsettled
	}
	s.unsettled = s.unsettled || open
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

// uses lists the sources of a build block: first those of its list. open reports that
// there may be others, which are not known yet.
func (l *loader) uses(ctx context.Context, list *hcl.Attribute, parts []part) (uses []use, open bool, diags hcl.Diagnostics) {
	if list != nil {
		refs, unknown, more := l.references(ctx, list)
		open = unknown
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
	return uses, open, diags
}

// reference is the name of a source, and where it was written.
type reference struct {
	text string
	at   hcl.Range
}

// references reads a list of sources. open reports that a part of it is not known yet.
func (l *loader) references(ctx context.Context, attr *hcl.Attribute) (refs []reference, open bool, diags hcl.Diagnostics) {
	val, diags := l.value(ctx, attr.Expr, nil)
	if diags.HasErrors() || val.IsNull() {
		return nil, false, diags
	}
	rng := attr.Expr.Range()
	list, err := convert.Convert(val, cty.List(cty.String))
	if err != nil {
		return nil, false, append(diags, problem(&rng, "Invalid value", "Argument %q: %s.", attr.Name, err)...)
	}
	if !list.IsKnown() {
		return nil, true, append(diags, l.notYet(rng, "The sources of this build are")...)
	}
	exprs, _ := hcl.ExprList(attr.Expr) // no list: then errors point at the whole expression
	for i, v := range list.AsValueSlice() {
		at := rng
		if len(exprs) == list.LengthInt() {
			at = exprs[i].Range()
		}
		switch {
		case !v.IsKnown():
			open = true
			diags = append(diags, l.notYet(at, "A source of this build is")...)
		case v.IsNull():
			diags = append(diags, problem(&at, "Null value", "The name of a source cannot be null.")...)
		default:
			refs = append(refs, reference{v.AsString(), at})
		}
	}
	return refs, open, diags
}

// notYet warns of a value that only data sources can provide, so that it cannot be
// checked. Once they have been read, it is an error. If an error was reported already, it
// may be the cause, so notYet reports nothing.
func (l *loader) notYet(at hcl.Range, what string) hcl.Diagnostics {
	if l.failed {
		return nil
	}
	if l.o.ReadData {
		return problem(&at, "Value not known", "%s unknown, even after the data sources were read.", what)
	}
	return warning(&at, "Not known yet", "%s known only after data sources are read, and cannot be checked before that; use -evaluate-datasources to read them.", what)
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
		body: block.Body, refs: lang.References(block.Body), origins: []hcl.Body{block.Body},
	}}, nil
}

// nestedSource adds the contents of a source block within a build to u.
func (l *loader) nestedSource(u *use, p part) hcl.Diagnostics {
	content, rest, diags := p.Body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "name"}}})
	if attr, ok := content.Attributes["name"]; ok {
		diags = append(diags, l.localName(attr, u)...)
	}
	top := u.builder.body
	u.builder.block = p.Block
	u.builder.body = hcl.MergeBodies([]hcl.Body{top, rest})
	u.builder.refs = append(u.builder.refs, lang.References(p.origin)...)
	u.builder.origins = append(u.builder.origins, p.origin)
	return diags
}

// localName decodes the name that a build gives to one of its sources. It is
// settled before there are any values; only an iterator of a dynamic block, which
// is, may be in it.
func (l *loader) localName(attr *hcl.Attribute, u *use) hcl.Diagnostics {
	val, diags := attr.Expr.Value(nil)
	if diags.HasErrors() {
		rng := attr.Expr.Range()
		return problem(&rng, "Name is not constant",
			"The name of a source in a build must be a literal string, or the value of the dynamic block that makes the source.")
	}
	if !val.IsKnown() && !l.o.ReadData {
		u.local, u.unsettled = lang.Unknown, true
		return nil
	}
	if err := store(val, &u.local); err != nil || val.IsNull() {
		rng := attr.Expr.Range()
		return problem(&rng, "Invalid value", "The name of a source in a build must be a string.")
	}
	return nil
}

// expand returns the content of a body whose dynamic blocks may use var, local
// and data. Only those blocks are expanded: the others may refer to values that
// exist later. unexpanded are the types of blocks whose labels are not known yet.
func (l *loader) expand(ctx context.Context, body hcl.Body, want *hcl.BodySchema) (attrs hcl.Attributes, parts []part, unexpanded map[string]bool, diags hcl.Diagnostics) {
	raw := &hcl.BodySchema{Attributes: want.Attributes, Blocks: append(slices.Clone(want.Blocks), dynamicBlock)}
	content, diags := body.Content(raw)
	unexpanded = map[string]bool{}
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
		if unknownLabel(more) && !l.o.ReadData {
			unexpanded[b.Labels[0]] = true
			diags = append(diags, l.notYet(*more[0].Subject, "This label is")...)
			continue
		}
		diags = append(diags, l.t.Explain(more)...)
		for _, e := range expanded.Blocks {
			parts = append(parts, part{e, b.Body})
		}
	}
	return content.Attributes, parts, unexpanded, diags
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

// unknownLabel reports whether a dynamic block could not be expanded only because the
// labels of its blocks are not known.
func unknownLabel(diags hcl.Diagnostics) bool {
	return len(diags) > 0 && !slices.ContainsFunc(diags, func(d *hcl.Diagnostic) bool {
		return d.Summary != "Invalid dynamic block label" || !strings.HasPrefix(d.Detail, "This value is not yet known")
	})
}

// value evaluates expr, which may use var, local and data, and the given values.
func (l *loader) value(ctx context.Context, expr hcl.Expression, values map[string]cty.Value) (cty.Value, hcl.Diagnostics) {
	ec, diags := l.t.scope.Context(ctx, expr.Variables())
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	if values != nil {
		ec = ec.NewChild()
		ec.Variables = values
	}
	val, more := expr.Value(ec)
	val, _ = val.UnmarkDeep()
	return val, append(diags, l.t.Explain(more)...)
}

// decode evaluates attr, which may use var, local and data, and stores the value
// in dst. An absent, null or not yet known value leaves dst as it is.
func (l *loader) decode(ctx context.Context, attr *hcl.Attribute, dst any) hcl.Diagnostics {
	return l.decodeWith(ctx, attr, nil, dst)
}

// decodeWith is decode for an attribute that may also use the given values.
func (l *loader) decodeWith(ctx context.Context, attr *hcl.Attribute, values map[string]cty.Value, dst any) hcl.Diagnostics {
	if attr == nil {
		return nil
	}
	val, diags := l.value(ctx, attr.Expr, values)
	if diags.HasErrors() || val.IsNull() || !val.IsWhollyKnown() {
		return diags
	}
	if err := store(val, dst); err != nil {
		rng := attr.Expr.Range()
		diags = append(diags, problem(&rng, "Invalid value", "Argument %q: %s.", attr.Name, err)...)
	}
	return diags
}

// store stores val, which is neither null nor unknown, in dst. An empty text leaves
// a dst that is no text as it is: it means that nothing is set.
func store(val cty.Value, dst any) error {
	if _, list := dst.(*[]string); !list && val.Type() == cty.String && val.AsString() == "" {
		return nil
	}
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

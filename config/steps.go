package config

import (
	"context"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"bake/config/lang"
)

// steps are the steps of a build block, applied to each of its sources.
type steps struct {
	*loader
	name      string
	buildName cty.Value // name, or unknown
	locals    []string  // the sources' names in the build, as override writes them
	selectors []string  // of the sources, as only and except write them
	unsettled bool      // some names of sources are not known yet

	provisioners []provisionerBlock
	errorCleanup *provisionerBlock
	chains       [][]postProcessorBlock
}

// readName reads the name of the build. Until it is known, a placeholder appears in the
// names of its sources.
func (s *steps) readName(ctx context.Context, attr *hcl.Attribute) hcl.Diagnostics {
	s.buildName = cty.StringVal("")
	if attr == nil {
		return nil
	}
	val, diags := s.value(ctx, attr.Expr, nil)
	if !diags.HasErrors() && !val.IsKnown() {
		s.name, s.buildName, s.unsettled = lang.Unknown, cty.UnknownVal(cty.String), true
		return diags
	}
	diags = s.loader.decode(ctx, attr, &s.name)
	s.buildName = cty.StringVal(s.name)
	return diags
}

// decode is the loader's decode for arguments which may also use build.name.
func (s *steps) decode(ctx context.Context, attr *hcl.Attribute, dst any) hcl.Diagnostics {
	return s.decodeWith(ctx, attr, map[string]cty.Value{"build": cty.ObjectVal(map[string]cty.Value{"name": s.buildName})}, dst)
}

// filter holds only and except of a block.
type filter struct{ only, except []string }

// admits reports whether the block is one for u, or may be.
func (f filter) admits(u use) bool {
	switch {
	case u.unsettled:
		return true
	case len(f.only) > 0:
		return slices.Contains(f.only, u.selector())
	}
	return !slices.Contains(f.except, u.selector())
}

type provisionerBlock struct {
	filter
	Provisioner
	override hcl.Expression
}

type postProcessorBlock struct {
	filter
	PostProcessor
}

// collect reads the provisioners and post-processors of a build block.
func (s *steps) collect(ctx context.Context, parts []part) hcl.Diagnostics {
	var diags hcl.Diagnostics
	var registries hcl.Blocks
	for _, p := range parts {
		switch p.Type {
		case "provisioner":
			b, more := s.provisioner(ctx, p)
			diags = append(diags, more...)
			s.provisioners = append(s.provisioners, b)
		case "error-cleanup-provisioner":
			if s.errorCleanup != nil {
				diags = append(diags, problem(&p.DefRange, "Duplicate error-cleanup-provisioner",
					"A build has at most one error-cleanup-provisioner; the first one is at %s.", s.errorCleanup.block.DefRange)...)
				continue
			}
			b, more := s.provisioner(ctx, p)
			diags = append(diags, more...)
			s.errorCleanup = &b
		case "post-processor":
			b, more := s.postProcessor(ctx, p)
			diags = append(diags, more...)
			s.chains = append(s.chains, []postProcessorBlock{b})
		case "post-processors":
			chain, more := s.chain(ctx, p)
			diags = append(diags, more...)
			s.chains = append(s.chains, chain)
		case "hcp_packer_registry":
			registries = append(registries, p.Block)
		}
	}
	return append(diags, s.registry(ctx, registries)...)
}

var provisionerSchema = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{
	{Name: "name"}, {Name: "only"}, {Name: "except"}, {Name: "override"},
	{Name: "pause_before"}, {Name: "timeout"}, {Name: "max_retries"}, {Name: "continue_on_error"},
}}

func (s *steps) provisioner(ctx context.Context, p part) (provisionerBlock, hcl.Diagnostics) {
	content, rest, diags := p.Body.PartialContent(provisionerSchema)
	attrs := content.Attributes
	b := provisionerBlock{Provisioner: Provisioner{Component: s.component(p, rest)}}
	if attr, ok := attrs["override"]; ok {
		b.override = attr.Expr
	}
	var more hcl.Diagnostics
	b.filter, more = s.filter(ctx, attrs)
	diags = append(diags, more...)
	diags = append(diags, s.decode(ctx, attrs["name"], &b.Name)...)
	diags = append(diags, s.decode(ctx, attrs["pause_before"], &b.PauseBefore)...)
	diags = append(diags, s.decode(ctx, attrs["timeout"], &b.Timeout)...)
	diags = append(diags, s.decode(ctx, attrs["max_retries"], &b.MaxRetries)...)
	diags = append(diags, s.decode(ctx, attrs["continue_on_error"], &b.ContinueOnError)...)
	if b.MaxRetries < 0 {
		rng := attrs["max_retries"].Expr.Range()
		diags = append(diags, problem(&rng, "Invalid value", "max_retries cannot be negative.")...)
	}
	return b, diags
}

var postProcessorSchema = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{
	{Name: "name"}, {Name: "only"}, {Name: "except"}, {Name: "keep_input_artifact"},
}}

func (s *steps) postProcessor(ctx context.Context, p part) (postProcessorBlock, hcl.Diagnostics) {
	content, rest, diags := p.Body.PartialContent(postProcessorSchema)
	attrs := content.Attributes
	b := postProcessorBlock{PostProcessor: PostProcessor{Component: s.component(p, rest)}}
	var more hcl.Diagnostics
	b.filter, more = s.filter(ctx, attrs)
	diags = append(diags, more...)
	diags = append(diags, s.decode(ctx, attrs["name"], &b.Name)...)
	diags = append(diags, s.decode(ctx, attrs["keep_input_artifact"], &b.KeepInput)...)
	return b, diags
}

func (s *steps) chain(ctx context.Context, p part) ([]postProcessorBlock, hcl.Diagnostics) {
	schema := &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "post-processor", LabelNames: []string{"type"}}}}
	_, parts, _, diags := s.expand(ctx, p.Body, schema)
	var chain []postProcessorBlock
	for _, p := range parts {
		b, more := s.postProcessor(ctx, p)
		diags = append(diags, more...)
		chain = append(chain, b)
	}
	return chain, diags
}

func (s *steps) component(p part, body hcl.Body) *Component {
	return &Component{
		Type: p.Labels[0], TypeRange: p.LabelRanges[0], scope: s.t.scope, block: p.Block,
		body: body, refs: lang.References(p.origin), origins: []hcl.Body{p.origin}, build: s.buildName, locals: s.locals, unsettled: s.unsettled,
	}
}

// filter reads only and except. A name that no source of the build has is
// a warning: the block would be left out, or kept, unnoticed.
func (s *steps) filter(ctx context.Context, attrs hcl.Attributes) (filter, hcl.Diagnostics) {
	var f filter
	diags := s.decode(ctx, attrs["only"], &f.only)
	diags = append(diags, s.decode(ctx, attrs["except"], &f.except)...)
	if len(f.only) > 0 && len(f.except) > 0 {
		diags = append(diags, problem(&attrs["except"].NameRange, "Both only and except", "A block can have either only or except, not both.")...)
	}
	for _, list := range []struct {
		attr  string
		names []string
	}{{"only", f.only}, {"except", f.except}} {
		for _, name := range list.names {
			if !s.unsettled && !slices.Contains(s.selectors, name) {
				rng := attrs[list.attr].Expr.Range()
				diags = append(diags, warning(&rng, "Unknown source in "+list.attr, "No source of this build has the name %q.%s",
					name, lang.DidYouMean(name, s.selectors))...)
			}
		}
	}
	return f, diags
}

// build returns the build of one source: with the blocks that apply to it.
func (s *steps) build(u use) *Build {
	name := cty.StringVal(u.local)
	if u.unsettled {
		name = cty.UnknownVal(cty.String)
	}
	source := cty.ObjectVal(map[string]cty.Value{"type": cty.StringVal(u.typ), "name": name})
	u.builder.source = source
	b := &Build{Unsettled: u.unsettled || !s.buildName.IsKnown(), Block: s.name, Type: u.typ, Source: u.name, Local: u.local, Name: u.selector(), Builder: u.builder}
	if s.name != "" {
		b.Name = s.name + "." + b.Name
	}
	mine := func(shared *Component, override hcl.Expression) *Component {
		c := *shared
		c.source, c.local, c.override = source, u.local, override
		return &c
	}
	provisioner := func(p provisionerBlock) *Provisioner {
		q := p.Provisioner
		q.Component = mine(q.Component, p.override)
		return &q
	}
	for _, p := range s.provisioners {
		if p.admits(u) {
			b.Provisioners = append(b.Provisioners, provisioner(p))
		}
	}
	if p := s.errorCleanup; p != nil && p.admits(u) {
		b.ErrorCleanup = provisioner(*p)
	}
	for _, blocks := range s.chains {
		var chain Chain
		for _, p := range blocks {
			if p.admits(u) {
				q := p.PostProcessor
				q.Component = mine(q.Component, nil)
				chain = append(chain, &q)
			}
		}
		if len(chain) > 0 {
			b.PostProcessors = append(b.PostProcessors, chain)
		}
	}
	return b
}

package config

import (
	"context"
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/dynblock"
	"github.com/zclconf/go-cty/cty"

	"bake/config/lang"
	"bake/config/schema"
)

// sourceBlocks collects the top-level source blocks.
func (l *loader) sourceBlocks() hcl.Diagnostics {
	var diags hcl.Diagnostics
	l.sources = map[string]*hcl.Block{}
	for _, b := range l.blocks["source"] {
		name := b.Labels[0] + "." + b.Labels[1]
		if first := l.sources[name]; first != nil {
			diags = append(diags, duplicate(&b.DefRange, "source", name, first.DefRange)...)
			continue
		}
		l.sources[name] = b
	}
	return diags
}

func (l *loader) sourceNames() []string { return slices.Sorted(maps.Keys(l.sources)) }

// Component is the block of one component in one build. Its options are not decoded: only
// the component knows their schema.
type Component struct {
	Type      string    // such as "shell"
	TypeRange hcl.Range // of the type in the template

	scope    *lang.Scope
	block    *hcl.Block
	body     hcl.Body        // without the arguments that the engine itself reads
	refs     []hcl.Traversal // all that body and override may refer to
	source   cty.Value       // source.*
	build    cty.Value       // build.name
	local    string          // key of override
	origins  []hcl.Body      // the source bodies, with dynamic blocks unexpanded
	override hcl.Expression  // nil if there is none

	locals    []string // keys that override may have
	unsettled bool     // there may be others
}

// Data returns the addresses of the data sources that the component's block refers to,
// also by way of local values, in the order of the references.
func (c *Component) Data() (addresses []string) {
	seen := map[*lang.Node]bool{}
	var visit func(refs []hcl.Traversal)
	visit = func(refs []hcl.Traversal) {
		for _, ref := range refs {
			for _, n := range c.scope.Find(ref) {
				if seen[n] {
					continue
				}
				if seen[n] = true; n.IsData() {
					addresses = append(addresses, n.Address)
				} else {
					visit(n.Refs)
				}
			}
		}
	}
	visit(c.refs)
	return addresses
}

// Input returns the input for decoding the component's options, without Render and Secret.
// build is the value of build.*, of which parts or the whole may be unknown in a check. It
// is [cty.NilVal] for builders, which run before these values exist. Input reads data
// sources that the block refers to if they have not been read.
func (c *Component) Input(ctx context.Context, build cty.Value) (schema.Input, hcl.Diagnostics) {
	parent, diags := c.scope.Context(ctx, c.refs)
	ec := parent.NewChild()
	ec.Variables = map[string]cty.Value{"source": c.source}
	if build != cty.NilVal {
		if build.IsKnown() {
			values := build.AsValueMap()
			if values == nil {
				values = map[string]cty.Value{}
			}
			values["name"] = c.build
			build = cty.ObjectVal(values)
		}
		ec.Variables["build"] = build
	}
	body := dynblock.Expand(c.body, ec)
	if c.override != nil {
		values, more := c.overrides(ec)
		diags = append(diags, more...)
		if len(values) > 0 {
			body = &overriddenBody{body, values, c.override.Range()}
		}
	}
	return schema.Input{Body: body, Context: ec}, diags
}

// overrides returns the values that override has for this build.
func (c *Component) overrides(ec *hcl.EvalContext) (map[string]cty.Value, hcl.Diagnostics) {
	val, diags := c.override.Value(ec)
	if diags.HasErrors() || val.IsNull() || !val.IsKnown() {
		return nil, c.scope.Explain(diags)
	}
	rng := c.override.Range()
	if !isObject(val) {
		return nil, problem(&rng, "Invalid override", "An override must be an object with an object of arguments for each source: override = { NAME = { ... } }.")
	}
	all := val.AsValueMap()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		switch v := all[name]; {
		case !v.IsNull() && v.IsKnown() && !isObject(v):
			diags = append(diags, problem(&rng, "Invalid override",
				"override.%s is not an object. An override must have an object of arguments for each source: override = { NAME = { ... } }.", name)...)
		case !c.unsettled && !slices.Contains(c.locals, name):
			diags = append(diags, warning(&rng, "Unknown source in override", "No source of this build has the name %q.%s", name, lang.DidYouMean(name, c.locals))...)
		}
	}
	mine, ok := all[c.local]
	if diags.HasErrors() || !ok || mine.IsNull() || !mine.IsKnown() {
		return nil, diags
	}
	return mine.AsValueMap(), diags
}

func isObject(v cty.Value) bool { return v.Type().IsObjectType() || v.Type().IsMapType() }

// Refers reports whether the component's options refer to a value below root,
// such as "build".
func (c *Component) Refers(root string) bool {
	return slices.ContainsFunc(c.refs, func(t hcl.Traversal) bool { return t.RootName() == root })
}

// Block identifies the block in the template, which several builds may share.
func (c *Component) Block() any { return c.block }

// Overridden reports whether an override may change the block for this build.
func (c *Component) Overridden() bool { return c.override != nil }

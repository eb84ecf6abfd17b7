package host

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/zclconf/go-cty/cty"

	"bake/config/schema"
	"bake/plugin/wire"
)

// kind is a kind of component as plugins name it.
type kind string

const (
	builderKind       kind = "builder"
	provisionerKind   kind = "provisioner"
	postProcessorKind kind = "post-processor"
	dataSourceKind    kind = "datasource"
)

// service is the name under which a plugin serves its component.
func (k kind) service() string {
	switch k {
	case builderKind:
		return "Builder"
	case provisionerKind:
		return "Provisioner"
	case postProcessorKind:
		return "PostProcessor"
	}
	return "Datasource"
}

// part is one component of a plugin.
type part struct {
	plugin *Plugin
	kind   kind
	label  string // in templates
	name   string // in the plugin

	// ctx ends what a check starts: factories are asked without a context.
	ctx context.Context

	mu       sync.Mutex
	spec     hcldec.ObjectSpec // nil until the plugin was asked
	outputs  map[string]cty.Type
	prepared map[[32]byte]preparation
	warned   map[string]bool
}

// Limits on calls that only query options.
const (
	slowCall     = 10 * time.Second // after which the user learns what bake waits for
	describeCall = 30 * time.Second
	prepareCall  = 10 * time.Minute // a plugin may download a checksum, or run a program for its version
)

func (p *part) start(ctx context.Context, keep bool, env ...string) (*process, error) {
	return p.plugin.start(ctx, string(p.kind), p.name, keep, env...)
}

// limited makes a call with a time limit.
func (p *part) limited(ctx context.Context, proc *process, limit time.Duration, method string, args, reply any) error {
	method = p.kind.service() + "." + method
	ctx, done := p.plugin.limited(ctx, limit, p.label+": ", method, "has not answered "+method)
	defer done()
	return proc.call(ctx, method, args, reply)
}

// limited returns ctx with a time limit for a call, and what releases it when the call has ended. The
// cause of its end is that the plugin failed to do something, such as "did not answer". After
// slowCall, the user learns what bake waits for; that begins with label.
func (p *Plugin) limited(ctx context.Context, limit time.Duration, label, method, failed string) (_ context.Context, done func()) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the plugin %s %s within %s", p.Source, failed, limit))
	warn := p.options.Warn
	if warn == nil {
		return ctx, cancel
	}
	slow := time.AfterFunc(slowCall, func() {
		warn(ctx, "%sthe plugin %s has not answered %s for %s; bake waits for it up to %s", label, p.Source, method, slowCall, limit)
	})
	return ctx, func() {
		slow.Stop()
		cancel()
	}
}

// describe returns the plugin's description of the component's options. proc is a process to ask;
// if nil, one is started if necessary.
func (p *part) describe(ctx context.Context, proc *process) (hcldec.ObjectSpec, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spec != nil {
		return p.spec, nil
	}
	if proc == nil {
		var err error
		if proc, err = p.start(ctx, false); err != nil {
			return nil, err
		}
		defer proc.drop()
	}
	var reply struct{ ConfigSpec []byte }
	if err := p.limited(ctx, proc, describeCall, "ConfigSpec", nil, &reply); err != nil {
		return nil, err
	}
	spec, err := wire.DecodeSpec(reply.ConfigSpec, p.plugin.form())
	if err != nil {
		return nil, fmt.Errorf("the plugin %s gives an invalid description of the options of %s: %w", p.plugin.Source, p.label, err)
	}
	p.spec = spec
	return spec, nil
}

// docs returns documentation of the options. A plugin's description contains no text.
func docs(spec hcldec.ObjectSpec) (out []schema.Doc) {
	for name, s := range spec {
		d := schema.Doc{Name: name, Text: "See the documentation of the plugin."}
		switch s := s.(type) {
		case *hcldec.AttrSpec:
			d.Name, d.Type, d.Required, d.Secret = s.Name, s.Type.FriendlyNameForConstraint(), s.Required, isSecret(s.Name)
		case *hcldec.BlockSpec:
			d.Name, d.Type, d.Required, d.Block = s.TypeName, "block", s.Required, nested(s.Nested)
		case *hcldec.BlockListSpec:
			d.Name, d.Type, d.Block = s.TypeName, "blocks", nested(s.Nested)
		default:
			d.Type = "block"
		}
		out = append(out, d)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

func nested(s hcldec.Spec) []schema.Doc {
	o, _ := s.(hcldec.ObjectSpec)
	return docs(o)
}

// isSecret guesses whether the value of an option must not be shown: plugins do not say.
func isSecret(name string) bool {
	for _, word := range []string{"password", "passphrase", "secret", "token", "secret_key", "private_key", "api_key", "credentials"} {
		if name == word || strings.HasSuffix(name, "_"+word) {
			return true
		}
	}
	return false
}

// decoded are the options of a block.
type decoded struct {
	value cty.Value
	build schema.Build

	block hcl.Range
	where map[string]hcl.Range // of the options in the template, by name
	late  map[string]hcl.Range // of those options whose values are not known yet
}

// decode reads a block according to the plugin's description of it.
func decode(in schema.Input, spec hcldec.ObjectSpec) (*decoded, hcl.Diagnostics) {
	d := &decoded{block: in.Body.MissingItemRange(), build: in.Build, where: map[string]hcl.Range{}, late: map[string]hcl.Range{}}
	body := &looseBody{in.Body, spec}
	val, diags := hcldec.Decode(body, spec, in.Context)
	d.locate(body, spec, map[string]int{})
	if diags.HasErrors() {
		return d, diags
	}
	val, _ = val.UnmarkDeep()
	d.value = val
	for name, v := range val.AsValueMap() {
		if !v.IsWhollyKnown() {
			at, ok := d.where[name]
			if !ok {
				at = d.block
			}
			d.late[name] = at
		}
	}
	if in.Secret != nil {
		_ = cty.Walk(val, func(path cty.Path, v cty.Value) (bool, error) {
			if !v.IsKnown() || v.IsNull() || v.Type() != cty.String {
				return true, nil
			}
			for _, step := range path {
				if attr, ok := step.(cty.GetAttrStep); ok && isSecret(attr.Name) {
					in.Secret(v.AsString())
				}
			}
			return true, nil
		})
	}
	return d, diags
}

// locate records the positions of the options of a body. A name that occurs in several blocks has
// no position.
func (d *decoded) locate(body hcl.Body, spec hcldec.ObjectSpec, seen map[string]int) {
	content, _, _ := body.PartialContent(hcldec.ImpliedSchema(spec))
	if content == nil {
		return
	}
	outer := len(seen) == 0
	for name, a := range content.Attributes {
		d.found(name, a.Expr.Range(), outer, seen)
	}
	for _, b := range content.Blocks {
		d.found(b.Type, b.DefRange, outer, seen)
	}
	for _, b := range content.Blocks {
		var inner hcldec.Spec
		switch s := spec[b.Type].(type) {
		case *hcldec.BlockSpec:
			inner = s.Nested
		case *hcldec.BlockListSpec:
			inner = s.Nested
		}
		if o, ok := inner.(hcldec.ObjectSpec); ok {
			d.locate(b.Body, o, seen)
		}
	}
}

const outermost = 1 << 20 // more than one

func (d *decoded) found(name string, at hcl.Range, outer bool, seen map[string]int) {
	if seen[name]++; seen[name] == 1 {
		d.where[name] = at
	} else if seen[name] < outermost {
		delete(d.where, name)
	}
	if outer && seen[name] < outermost {
		d.where[name], seen[name] = at, outermost
	}
}

// unknowns returns an error for every value that is still unknown when values are needed.
func (d *decoded) unknowns() (diags hcl.Diagnostics) {
	for name, at := range d.late {
		diags = append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagError, Summary: "Value not known", Subject: at.Ptr(),
			Detail: fmt.Sprintf("The value of argument %q is needed here, but it depends on a value that is never known here.", name),
		})
	}
	sort.Slice(diags, func(i, j int) bool { return diags[i].Subject.Start.Byte < diags[j].Subject.Start.Byte })
	return diags
}

// looseBody is a body in which a single element may stand for a list where that is
// allowed, see [schema.Loose].
type looseBody struct {
	hcl.Body
	spec hcldec.ObjectSpec
}

// Content implements [hcl.Body].
func (b *looseBody) Content(s *hcl.BodySchema) (*hcl.BodyContent, hcl.Diagnostics) {
	content, diags := b.Body.Content(s)
	b.loosen(content)
	return content, diags
}

// PartialContent implements [hcl.Body].
func (b *looseBody) PartialContent(s *hcl.BodySchema) (*hcl.BodyContent, hcl.Body, hcl.Diagnostics) {
	content, rest, diags := b.Body.PartialContent(s)
	b.loosen(content)
	return content, rest, diags
}

func (b *looseBody) loosen(content *hcl.BodyContent) {
	if content == nil {
		return
	}
	for name, a := range content.Attributes {
		loose, ok := a.Expr.(schema.Loose)
		spec, isAttr := b.spec[name].(*hcldec.AttrSpec)
		if !ok || !isAttr || !spec.Type.IsListType() {
			continue
		}
		if v, diags := loose.Value(nil); !diags.HasErrors() && v.IsKnown() && !v.IsNull() && !v.CanIterateElements() {
			a.Expr = hcl.StaticExpr(cty.TupleVal([]cty.Value{v}), loose.Range())
		}
	}
}

// stand replaces unknown values with Packer's placeholders, which plugins recognize.
func stand(v cty.Value) (cty.Value, error) {
	return cty.Transform(v, func(_ cty.Path, v cty.Value) (cty.Value, error) {
		switch {
		case v.IsKnown():
			return v, nil
		case v.Type() == cty.Number:
			return cty.Zero, nil
		case v.Type() == cty.Bool:
			return cty.False, nil
		case v.Type() == cty.String, v.Type() == cty.DynamicPseudoType:
			return cty.StringVal(notKnown), nil
		}
		return cty.NullVal(v.Type()), nil
	})
}

const notKnown = "<unknown>"

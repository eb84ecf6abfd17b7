package host

import (
	"context"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"bake/builder"
	"bake/component"
	"bake/config/schema"
	"bake/datasource"
	"bake/postprocessor"
	"bake/provisioner"
)

// Components are the components of a plugin.
type Components struct {
	Builders       []component.Factory[builder.Builder]
	Provisioners   []component.Factory[provisioner.Provisioner]
	PostProcessors []component.Factory[postprocessor.PostProcessor]
	DataSources    []component.Factory[datasource.DataSource]
}

// Components returns the plugin's components. name is what templates call the plugin;
// the types of its components begin with it. The end of ctx ends what factories ask the
// plugin while templates are checked.
func (p *Plugin) Components(ctx context.Context, name string) Components {
	var c Components
	d := p.Description
	for _, n := range d.Builders {
		c.Builders = append(c.Builders, &factory[builder.Builder]{p.part(ctx, builderKind, name, n), func(h hosted) builder.Builder { return hostedBuilder{h} }})
	}
	for _, n := range d.Provisioners {
		c.Provisioners = append(c.Provisioners, &factory[provisioner.Provisioner]{p.part(ctx, provisionerKind, name, n), func(h hosted) provisioner.Provisioner { return hostedProvisioner{h} }})
	}
	for _, n := range d.PostProcessors {
		c.PostProcessors = append(c.PostProcessors, &factory[postprocessor.PostProcessor]{p.part(ctx, postProcessorKind, name, n), func(h hosted) postprocessor.PostProcessor { return hostedPostProcessor{h} }})
	}
	for _, n := range d.DataSources {
		c.DataSources = append(c.DataSources, &factory[datasource.DataSource]{p.part(ctx, dataSourceKind, name, n), func(h hosted) datasource.DataSource { return hostedDataSource{h} }})
	}
	return c
}

func (p *Plugin) part(ctx context.Context, k kind, name, inner string) *part {
	label := name + "-" + inner
	if inner == unnamed {
		label = name
	}
	return &part{plugin: p, kind: k, label: label, name: inner, ctx: ctx, prepared: map[[32]byte]preparation{}, warned: map[string]bool{}}
}

// hosted is a component of a plugin with its options.
type hosted struct {
	*part
	options *decoded
}

// factory implements [component.Factory] for a component of a plugin. The components that
// it makes hold no process: the plugin is started when the component is used.
type factory[C any] struct {
	*part
	make func(hosted) C
}

// Name implements [component.Factory].
func (f *factory[C]) Name() string { return f.label }

// Version implements [component.Versioned].
func (f *factory[C]) Version() string { return f.plugin.Version + " " + f.plugin.SHA256 }

// Docs implements [component.Factory]. A plugin reports the names and types of its options,
// but no descriptions.
func (f *factory[C]) Docs() ([]schema.Doc, error) {
	spec, err := f.part.describe(f.ctx, nil)
	return docs(spec), err
}

// Exports implements [component.Factory].
func (f *factory[C]) Exports(in schema.Input) component.Exports {
	switch {
	case f.kind == dataSourceKind:
		types, err := f.part.output(f.ctx)
		return component.Exports{Types: types, Open: err != nil}
	case f.kind != builderKind:
		return component.Exports{}
	case in.Body == nil:
		return component.Exports{Open: true}
	}
	spec, err := f.part.describe(f.ctx, nil)
	if err != nil {
		return component.Exports{Open: true}
	}
	d, diags := decode(in, spec)
	if diags.HasErrors() {
		return component.Exports{Open: true}
	}
	p, err := f.checked(f.ctx, nil, d)
	if err != nil || p.err != nil {
		return component.Exports{Open: true}
	}
	types := map[string]cty.Type{}
	for _, name := range p.generated {
		types[name] = cty.DynamicPseudoType
	}
	return component.Exports{Types: types}
}

// Check implements [component.Factory].
func (f *factory[C]) Check(in schema.Input) hcl.Diagnostics {
	_, diags := f.Outline(in)
	return diags
}

// Outline implements [component.Factory].
func (f *factory[C]) Outline(in schema.Input) (c C, diags hcl.Diagnostics) {
	d, diags := f.part.outline(in)
	return f.make(hosted{f.part, d}), diags
}

func (p *part) outline(in schema.Input) (*decoded, hcl.Diagnostics) {
	failed := &decoded{block: in.Body.MissingItemRange()}
	p.mu.Lock()
	known := p.spec != nil
	p.mu.Unlock()
	var proc *process
	var err error
	if !known { // one process answers both
		if proc, err = p.start(p.ctx, false); err != nil {
			return failed, failed.blame(p.label, err)
		}
		defer proc.drop()
	}
	spec, err := p.describe(p.ctx, proc)
	if err != nil {
		return failed, failed.blame(p.label, err)
	}
	d, diags := decode(in, spec)
	if diags.HasErrors() {
		return d, diags
	}
	said, err := p.checked(p.ctx, proc, d)
	if err == nil {
		err = said.err
	}
	p.mu.Lock()
	for _, w := range said.warnings {
		p.warned[w] = true
	}
	p.mu.Unlock()
	diags = append(diags, d.warnings(p.label, said.warnings)...)
	return d, append(diags, d.blame(p.label, err)...)
}

// New implements [component.Factory]. The plugin sees the options when it is used.
func (f *factory[C]) New(in schema.Input) (c C, diags hcl.Diagnostics) {
	spec, err := f.part.describe(f.ctx, nil)
	if err != nil {
		failed := &decoded{block: in.Body.MissingItemRange()}
		return c, failed.blame(f.label, err)
	}
	d, diags := decode(in, spec)
	if !diags.HasErrors() {
		diags = append(diags, d.unknowns()...)
	}
	if diags.HasErrors() {
		return c, diags
	}
	return f.make(hosted{f.part, d}), diags
}

package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"bake/builder"
	"bake/component"
	"bake/config"
	"bake/config/schema"
	"bake/internal/gotemplate"
	"bake/step"
)

// checker decodes components without creating them.
type checker struct {
	*maker
	done     map[checked]hcl.Diagnostics
	files    map[checked][]string // files that the component reads
	material map[*config.Build]*Materials
}

// checked is the key of a checked block. A block whose options do not depend on the build needs to
// be checked only once.
type checked struct {
	block   any
	exports string // the builder's type and exports, if the block refers to build
	build   string // the build, if the block refers to source or is overridden
}

func newChecker(t *config.Template, c Components, o Options) *checker {
	m := &maker{template: t, components: c, options: o, exports: map[*config.Build]component.Exports{}}
	return &checker{maker: m, done: map[checked]hcl.Diagnostics{}, files: map[checked][]string{}, material: map[*config.Build]*Materials{}}
}

// build checks every component of one build, and determines what its builder exports. A
// diagnostic that occurs in several builds is returned only once.
func (ck *checker) build(ctx context.Context, b *config.Build) hcl.Diagnostics {
	diags := ck.builder(ctx, b)
	build := expected(ck.exports[b])
	for _, p := range b.Provisioners {
		diags = append(diags, check(ctx, ck, b, p.Component, ck.components.Provisioners, "provisioner", build)...)
	}
	if p := b.ErrorCleanup; p != nil {
		diags = append(diags, check(ctx, ck, b, p.Component, ck.components.Provisioners, "provisioner", build)...)
	}
	if pipeline := ck.pipeline(b); pipeline != nil {
		for _, p := range pipeline.Provisioners {
			diags = append(diags, check(ctx, ck, b, p.Component, ck.components.Provisioners, "provisioner", build)...)
		}
	}
	for _, chain := range b.PostProcessors {
		for _, p := range chain {
			diags = append(diags, check(ctx, ck, b, p.Component, ck.components.PostProcessors, "post-processor", build)...)
		}
	}
	return diags
}

// builder checks the builder of b. A missing builder may export any value.
func (ck *checker) builder(ctx context.Context, b *config.Build) hcl.Diagnostics {
	f, diags := config.Find(ck.template, ck.components.Builders, "builder", b.Type, b.Builder.TypeRange)
	if f == nil {
		ck.exports[b] = withCommon(component.Exports{Open: true})
		return diags
	}
	in, more := ck.input(ctx, b, b.Builder, cty.NilVal)
	diags = append(diags, more...)
	var files []string
	in.Reads = func(path string) { files = append(files, path) }
	wrong := f.Check(in)
	in.Reads = nil
	ck.materials(b).note("builder", b.Type, f, files)
	if !wrong.HasErrors() {
		wrong = append(wrong, ck.pipelineOf(b, f, in)...)
	}
	diags = append(diags, ck.template.Explain(wrong)...)
	ck.exports[b] = withCommon(f.Exports(in))
	return diags
}

func check[C any](ctx context.Context, ck *checker, b *config.Build, c *config.Component, r component.Finder[C], what string, build cty.Value) hcl.Diagnostics {
	key := checked{block: c.Block()}
	if c.Refers("build") {
		exports := ck.exports[b]
		key.exports = fmt.Sprint(b.Type, exports.Open, slices.Sorted(maps.Keys(exports.Types)))
	}
	if c.Refers("source") || c.Overridden() {
		key.build = b.Name
	}
	f, diags := config.Find(ck.template, r, what, c.Type, c.TypeRange)
	if diags, ok := ck.done[key]; ok {
		ck.materials(b).note(what, c.Type, f, ck.files[key])
		return diags
	}
	if f != nil {
		var files []string
		in, more := ck.input(ctx, b, c, build)
		in.Reads = func(path string) { files = append(files, path) }
		diags = append(diags, more...)
		diags = append(diags, ck.template.Explain(f.Check(in))...)
		ck.files[key] = files
		ck.materials(b).note(what, c.Type, f, files)
	}
	ck.done[key] = diags
	return diags
}

// maker creates components from blocks.
type maker struct {
	template   *config.Template
	components Components
	options    Options
	exports    map[*config.Build]component.Exports // of builders that have been checked
}

// input returns the input for decoding the options of a component.
func (m *maker) input(ctx context.Context, b *config.Build, c *config.Component, build cty.Value) (schema.Input, hcl.Diagnostics) {
	in, diags := c.Input(ctx, build)
	in.Secret = m.secret
	in.Build = schema.Build{
		Name: b.Source, Type: b.Type, Force: m.options.Run.Force, Debug: m.options.Run.Debug, OnError: string(m.options.OnError), Run: m.options.Run.ID,
	}
	for _, v := range m.template.Variables {
		if v.Sensitive {
			in.Build.Sensitive = append(in.Build.Sensitive, v.Name)
		}
	}
	in.Render = config.Render(gotemplate.Context{
		BuildName: b.Source, BuildType: b.Type, Start: m.options.Start, Version: config.LanguageVersion,
	})
	return in, diags
}

// secret registers a value of an option or a machine as secret. The template does not mark it as
// sensitive, and it may be a common word such as "root".
func (m *maker) secret(s string) {
	m.template.Secrets().AddRare(s)
	if m.options.Secret != nil {
		m.options.Secret(s)
	}
}

// newComponent decodes a component's options with the current values of build.* and creates the
// component. The caller closes it. The error is hcl.Diagnostics.
func newComponent[C any](ctx context.Context, m *maker, b *config.Build, c *config.Component, r component.Finder[C], build cty.Value) (made C, err error) {
	in, diags := m.input(ctx, b, c, build)
	if diags.HasErrors() {
		return made, diags
	}
	f, diags := config.Find(m.template, r, "component", c.Type, c.TypeRange)
	if f == nil {
		return made, diags
	}
	made, more := f.New(in)
	if more.HasErrors() {
		return made, m.template.Explain(more)
	}
	return made, nil
}

// commonExports are the values of build.* that exist for every builder.
var commonExports = map[string]cty.Type{
	"ID": cty.String, "Host": cty.String, "Port": cty.Number, "User": cty.String, "Password": cty.String,
	"ConnType": cty.String, "PackerRunUUID": cty.String,
	"PackerHTTPPort": cty.String, "PackerHTTPIP": cty.String, "PackerHTTPAddr": cty.String,
	"SSHPublicKey": cty.String, "SSHPrivateKey": cty.String, "SSHAgentAuth": cty.Bool, "WinRMPassword": cty.String,
}

// withCommon adds the values of build.* that exist for every builder.
func withCommon(e component.Exports) component.Exports {
	all := maps.Clone(commonExports)
	maps.Copy(all, e.Types)
	e.Types = all
	return e
}

// expected returns the values of build.* before the build has started.
func expected(exports component.Exports) cty.Value {
	if exports.Open {
		return cty.DynamicVal
	}
	values := map[string]cty.Value{}
	for name, typ := range exports.Types {
		values[name] = cty.UnknownVal(typ)
	}
	return cty.ObjectVal(values)
}

// actual returns the values of build.* during a build: those in data, in which later ones take
// precedence, and a placeholder for every other exported value.
func actual(exports component.Exports, run step.Invocation, data ...builder.Data) cty.Value {
	values := map[string]cty.Value{}
	for name := range exports.Types {
		values[name] = ctyValue(builder.Absent(name))
	}
	values["PackerRunUUID"] = cty.StringVal(run.ID)
	for _, d := range data {
		for name, v := range d {
			values[name] = ctyValue(v)
		}
	}
	return cty.ObjectVal(values)
}

func ctyValue(v builder.Value) cty.Value {
	if v.Number {
		if n, err := cty.ParseNumberVal(v.Text); err == nil {
			return n
		}
	}
	return cty.StringVal(v.Text)
}

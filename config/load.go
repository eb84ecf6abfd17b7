package config

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"bake/component"
	"bake/config/lang"
	"bake/datasource"
	"bake/internal/debuglog"
	"bake/internal/envvar"
	"bake/internal/limits"
	"bake/internal/redact"
)

var fileSchema = &hcl.BodySchema{
	Blocks: []hcl.BlockHeaderSchema{
		{Type: "packer"},
		{Type: "variable", LabelNames: []string{"name"}},
		{Type: "variables"},
		{Type: "local", LabelNames: []string{"name"}},
		{Type: "locals"},
		{Type: "data", LabelNames: []string{"type", "name"}},
		{Type: "source", LabelNames: []string{"type", "name"}},
		{Type: "build"},
		{Type: "hcp_packer_registry"},
		{Type: "communicator", LabelNames: []string{"type", "name"}}, // accepted by Packer, without effect
	},
}

// Load reads a template and computes its variables, the structure of its builds,
// and every local value that needs no data source. Without ReadData, all locals
// and data sources are checked. The template is never nil, so that its Files can
// be shown with the diagnostics, which hold no secrets; it is complete if they
// hold no error.
func Load(ctx context.Context, o Options) (*Template, hcl.Diagnostics) {
	l := newLoader(ctx, o)
	var diags hcl.Diagnostics
	if err := limits.Run(ctx, func() { diags = l.load(ctx) }); err != nil {
		stopped := &Template{secrets: l.t.secrets, scope: lang.NewScope(nil, nil)}
		return stopped, problem(nil, "Cannot evaluate the template", "%s: %s.", o.Path, err)
	}
	return l.t, l.t.secrets.Diagnostics(diags)
}

// loader is a template that is being read.
type loader struct {
	o      Options
	reader *reader
	t      *Template

	blocks  map[string]hcl.Blocks // of all files, by type
	sources map[string]*hcl.Block // by "type.name"
	pipes   *lang.Pipes           // that the template has read
	failed  bool                  // some value is unknown only because it could not be computed

	outline       bool // read only an [Outline]
	blockOutlines []Block
}

func newLoader(ctx context.Context, o Options) *loader {
	if o.DataSources == nil {
		o.DataSources = component.Registry[datasource.DataSource]{}
	}
	r := &reader{cwd: o.Cwd, files: map[string]*hcl.File{}, log: debuglog.From(ctx)}
	secrets := cmp.Or(o.Secrets, new(redact.Set))
	return &loader{o: o, reader: r, pipes: new(lang.Pipes), t: &Template{files: r.files, secrets: secrets, scope: lang.NewScope(nil, nil), cwd: o.Cwd, instance: o.Instance}}
}

// load continues after errors as far as possible: what could not be read counts as
// unknown, so that every error is reported once.
func (l *loader) load(ctx context.Context) hcl.Diagnostics {
	diags := l.declarations()
	if l.blocks == nil || l.o.SyntaxOnly { // nil: there is nothing to check
		return l.together(inPlace(diags))
	}
	l.failed = diags.HasErrors()
	return l.together(Merge(diags, l.rest(ctx)))
}

// declarations reads the files, their declarations, and the values given to variables. It
// leaves blocks nil if nothing further can be checked.
func (l *loader) declarations() hcl.Diagnostics {
	where, diags := l.reader.find(l.o.Path)
	if diags.HasErrors() {
		return diags
	}
	l.t.Root = where.root
	beside := diags // warnings
	syntax, diags := l.parse(where.names)
	syntax = append(syntax, l.bakeFiles(where.bakeFiles)...)
	diags = slices.Concat(beside, syntax, diags)

	// The required version is checked first, because a template for another version may
	// cause further errors.
	switch wrong := l.requiredVersions(); {
	case wrong.HasErrors():
		l.blocks = nil
		return wrong
	case syntax.HasErrors():
		l.blocks = nil
		return diags
	}
	diags = append(diags, l.plugins()...)
	diags = append(diags, l.variables(where.varFiles)...)
	l.openScope()
	return append(diags, l.values()...)
}

// rest computes the values and takes the builds apart.
func (l *loader) rest(ctx context.Context) hcl.Diagnostics {
	diags := l.checkVariables()
	diags = append(diags, l.sourceBlocks()...)
	diags = append(diags, l.compute(ctx)...)
	diags = append(diags, l.registry(ctx, l.blocks["hcp_packer_registry"])...)
	l.failed = l.failed || diags.HasErrors()
	for _, block := range l.blocks["build"] {
		diags = append(diags, l.buildBlock(ctx, block)...)
	}
	return diags
}

// Merge joins the diagnostics of [Load] and of later steps: each error once, sorted by
// place.
func Merge(a, b hcl.Diagnostics) hcl.Diagnostics {
	return inPlace(lang.AppendNew(lang.AppendNew(nil, a), b))
}

// inPlace sorts diagnostics by their places: first those without a place.
func inPlace(diags hcl.Diagnostics) hcl.Diagnostics {
	sort.SliceStable(diags, func(i, j int) bool {
		a, b := diags[i].Subject, diags[j].Subject
		if a == nil || b == nil {
			return a == nil && b != nil
		}
		return cmp.Or(strings.Compare(a.Filename, b.Filename), a.Start.Byte-b.Start.Byte) < 0
	})
	return diags
}

// parse reads the template files and sorts their blocks by type. It returns
// mistakes of syntax apart from other ones.
func (l *loader) parse(names []string) (syntax, diags hcl.Diagnostics) {
	l.blocks = map[string]hcl.Blocks{}
	for _, name := range names {
		f, more := l.reader.parse(name)
		syntax = append(syntax, more...)
		if f == nil {
			continue
		}
		if strings.HasSuffix(name, ".json") {
			if at, ok := legacySection(name, f.Bytes); ok {
				diags = append(diags, legacyProblem(name, at)...)
				continue
			}
		}
		content, more := f.Body.Content(fileSchema)
		if at := onlyValues(f, content); at != nil {
			more = problem(at, "Values in place of a template", "%s has no blocks, only values. If these are for variables, name it with -var-file; a file called *.auto.pkrvars.hcl is read with its folder.", name)
		}
		diags = append(diags, more...)
		for _, b := range content.Blocks {
			l.blocks[b.Type] = append(l.blocks[b.Type], b)
		}
	}
	return syntax, diags
}

// onlyValues returns the range of the first value in a file that contains nothing but
// values, or nil.
func onlyValues(f *hcl.File, content *hcl.BodyContent) *hcl.Range {
	values, diags := f.Body.JustAttributes()
	if len(content.Blocks) > 0 || diags.HasErrors() {
		return nil
	}
	var first *hcl.Range
	for _, v := range values {
		if first == nil || v.NameRange.Start.Byte < first.Start.Byte {
			first = &v.NameRange
		}
	}
	return first
}

func (l *loader) requiredVersions() hcl.Diagnostics {
	var diags hcl.Diagnostics
	for _, block := range l.blocks["packer"] {
		content, _, _ := block.Body.PartialContent(packerSchema) // reported by packerBlock
		if attr, ok := content.Attributes["required_version"]; ok {
			diags = append(diags, requiredVersion(attr)...)
		}
	}
	return diags
}

func (l *loader) plugins() hcl.Diagnostics {
	var diags hcl.Diagnostics
	for _, block := range l.blocks["packer"] {
		plugins, more := packerBlock(block)
		diags = append(diags, more...)
		for _, p := range plugins {
			i := slices.IndexFunc(l.t.Plugins, func(q Plugin) bool { return q.Name == p.Name })
			if i >= 0 {
				var more hcl.Diagnostics
				l.t.Plugins[i], more = also(l.t.Plugins[i], p)
				diags = append(diags, more...)
				continue
			}
			l.t.Plugins = append(l.t.Plugins, p)
		}
	}
	sort.Slice(l.t.Plugins, func(i, j int) bool { return l.t.Plugins[i].Name < l.t.Plugins[j].Name })
	return diags
}

// variables declares the variables and gives them their values: each place in
// turn overrides the ones before it.
func (l *loader) variables(autoFiles []string) hcl.Diagnostics {
	in := &inputs{byName: map[string]*Variable{}, reader: l.reader, secrets: l.t.secrets}
	diags := l.declare(in)
	for _, name := range in.names() {
		l.t.Variables = append(l.t.Variables, in.byName[name])
	}
	diags = append(diags, in.fromEnv(l.o.Env)...)
	for _, name := range slices.Concat(autoFiles, l.o.VarFiles) {
		diags = append(diags, in.fromFile(name, l.o.WarnUndeclared)...)
	}
	diags = append(diags, in.fromImages(l.t, lang.DefaultFunctions(l.getenv))...)
	for _, arg := range l.o.Vars {
		diags = append(diags, in.fromArgument(arg)...)
	}
	for _, v := range l.t.Variables {
		if v.Value == cty.NilVal {
			v.unset = true
			v.Value = cty.UnknownVal(v.Type)
		}
		if v.Sensitive {
			lang.Strings(v.Value, l.t.secrets.Add)
			l.t.weak.check("variable", v.Name, v.Range, v.Value)
			for _, rng := range v.refused {
				l.t.secrets.Add(l.reader.text(rng))
			}
		}
	}
	return diags
}

// checkVariables holds the variables to having a value that their rules allow.
func (l *loader) checkVariables() hcl.Diagnostics {
	var diags hcl.Diagnostics
	funcs := lang.Functions(l.world(""))
	for _, v := range l.t.Variables {
		switch {
		case v.failed:
		case v.unset:
			if !l.o.AllowUnset {
				diags = append(diags, problem(&v.Range, "Unset variable",
					"The variable %q has no default, so it must be given a value: with -var '%[1]s=...', in a file named with -var-file, or as PKR_VAR_%[1]s in the environment.", v.Name)...)
			}
		default:
			diags = append(diags, v.validate(funcs)...)
		}
	}
	return diags
}

// declare collects the variable and variables blocks.
func (l *loader) declare(in *inputs) hcl.Diagnostics {
	var diags hcl.Diagnostics
	ec := &hcl.EvalContext{Functions: lang.DefaultFunctions(l.getenv)}
	add := func(v *Variable) {
		if first := in.byName[v.Name]; first != nil {
			diags = append(diags, duplicate(&v.Range, "variable", v.Name, first.Range)...)
			return
		}
		in.byName[v.Name] = v
	}
	for _, block := range l.blocks["variable"] {
		v, more := variableBlock(block, ec)
		diags = append(diags, more...)
		add(v)
	}
	for _, block := range l.blocks["variables"] {
		attrs, more := block.Body.JustAttributes()
		diags = append(diags, more...)
		for _, attr := range inOrder(attrs) {
			v := &Variable{Name: attr.Name, Range: attr.Range}
			diags = append(diags, v.setDefault(attr, ec, false)...)
			add(v)
		}
	}
	return diags
}

// getenv reads an environment variable.
func (l *loader) getenv(name string) string {
	return envvar.Get(l.o.Env, name)
}

// remoteTimeout is how long a function may wait for a server of values.
const remoteTimeout = time.Minute

func (l *loader) world(base string) lang.World {
	w := lang.World{BaseDir: base, Cwd: l.o.Cwd, Getenv: l.getenv, Start: l.o.Now, Now: time.Now, Secret: l.t.secrets.Add, Read: l.t.reads.note, Pipes: l.pipes}
	if look := l.o.SecretsManager; look != nil {
		w.SecretsManager = func(name string) (string, error) {
			ctx, cancel := context.WithTimeout(context.Background(), remoteTimeout)
			defer cancel()
			return look(ctx, name)
		}
	}
	return w
}

// openScope makes the scope that holds the variables.
func (l *loader) openScope() {
	vars := map[string]cty.Value{}
	for _, v := range l.t.Variables {
		vars[v.Name] = l.marked(v.Value, v.Sensitive)
	}
	l.t.scope = lang.NewScope(lang.Functions(l.world(l.t.Root)), map[string]cty.Value{
		"var": cty.ObjectVal(vars),
		"path": cty.ObjectVal(map[string]cty.Value{
			"root": cty.StringVal(l.t.Root),
			"cwd":  cty.StringVal(filepath.ToSlash(l.o.Cwd)),
		}),
		"packer": cty.ObjectVal(map[string]cty.Value{
			"version":            cty.StringVal(LanguageVersion),
			"iterationID":        cty.UnknownVal(cty.String),
			"versionFingerprint": cty.UnknownVal(cty.String),
		}),
	})
	l.t.scope.Before = l.reader.before
}

// values defines the locals and data sources.
func (l *loader) values() hcl.Diagnostics {
	var diags hcl.Diagnostics
	for _, block := range l.blocks["data"] {
		diags = append(diags, l.dataBlock(block)...)
	}
	for _, block := range l.blocks["locals"] {
		diags = append(diags, l.localsBlock(block)...)
	}
	for _, block := range l.blocks["local"] {
		diags = append(diags, l.localBlock(block)...)
	}
	return diags
}

// compute computes everything that does not require running a data source that is not
// needed yet.
func (l *loader) compute(ctx context.Context) hcl.Diagnostics {
	var diags hcl.Diagnostics
	for _, n := range l.t.scope.Nodes() {
		if !l.o.AllData && (l.t.scope.IsFutile(n) || l.o.ReadData && l.t.scope.NeedsData(n)) {
			continue
		}
		_, more := l.t.scope.Value(ctx, n)
		diags = append(diags, more...)
	}
	return diags
}

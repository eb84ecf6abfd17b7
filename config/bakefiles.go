package config

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"bake/config/lang"
	"bake/config/schema"
)

// bakeSuffix is the ending of the names of bake files. Packer does not read them.
const bakeSuffix = ".bake.hcl"

// BakeFile is a file next to the template with blocks that templates cannot hold. Its
// blocks are not decoded.
type BakeFile struct {
	Name string
	Body *hclsyntax.Body
}

// bakeFilesOf finds the bake files next to a template that is a single file.
func (r *reader) bakeFilesOf(template string) ([]string, hcl.Diagnostics) {
	dir := filepath.Dir(template)
	entries, err := os.ReadDir(r.abs(dir))
	if err != nil { // the template was found, so the directory exists
		return nil, warning(nil, "Cannot look for bake files", "Files whose names end in %s are not used: %s.", bakeSuffix, err)
	}
	return named(dir, entries, bakeSuffix), nil
}

// bakeFiles reads the bake files, and returns their syntax errors.
func (l *loader) bakeFiles(names []string) hcl.Diagnostics {
	var diags hcl.Diagnostics
	for _, name := range names {
		f, more := l.reader.parse(name)
		diags = append(diags, more...)
		if f == nil || more.HasErrors() {
			continue
		}
		if body, ok := f.Body.(*hclsyntax.Body); ok {
			l.t.BakeFiles = append(l.t.BakeFiles, BakeFile{name, body})
		}
	}
	return diags
}

// Input returns the input for decoding a block of a bake file, which can use the
// variables, local values, data sources and functions of the template. It reads data
// sources that the block refers to if they have not been read.
func (t *Template) Input(ctx context.Context, body hcl.Body) (schema.Input, hcl.Diagnostics) {
	ec, diags := t.scope.Context(ctx, lang.References(body))
	ec = ec.NewChild()
	ec.Variables, ec.Functions = t.imageValues(), imageFunctions()
	return schema.Input{Body: body, Context: ec}, diags
}

// verifySchema are the arguments that make no sense for a single source.
var verifySchema = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "only"}, {Name: "except"}, {Name: "override"}}}

// Provisioner reads a provisioner block of a bake file as one of the build b. Its options
// are not decoded.
func (t *Template) Provisioner(ctx context.Context, block *hcl.Block, b *Build) (*Provisioner, hcl.Diagnostics) {
	strange, rest, diags := block.Body.PartialContent(verifySchema)
	for _, attr := range inOrder(strange.Attributes) {
		diags = append(diags, problem(&attr.NameRange, "Unsupported argument", "The provisioners of a verify block have no %q: they run on machines of their image only.", attr.Name)...)
	}
	known := *block
	known.Body = rest
	s := &steps{loader: &loader{t: t}, name: b.Block, buildName: cty.StringVal(b.Block), locals: []string{b.Local}, unsettled: b.Unsettled}
	p, more := s.provisioner(ctx, part{Block: &known, origin: block.Body})
	p.source, p.local = b.Builder.source, b.Local
	return &p.Provisioner, append(diags, more...)
}

// fromImages takes the values of variables from the image blocks of bake files.
func (in *inputs) fromImages(t *Template, functions map[string]function.Function) hcl.Diagnostics {
	var diags hcl.Diagnostics
	given := map[string]hcl.Range{}
	for _, f := range t.BakeFiles {
		for _, b := range f.Body.Blocks {
			attr := b.Body.Attributes["vars"]
			if b.Type != "image" || attr == nil || t.instance != nil && (len(b.Labels) != 1 || b.Labels[0] != t.instance.Image) {
				continue
			}
			at := attr.Expr.Range()
			val, more := attr.Expr.Value(&hcl.EvalContext{Functions: functions, Variables: t.imageValues()})
			diags = append(diags, more...)
			switch {
			case more.HasErrors():
				continue
			case val.IsNull() || !val.IsKnown() || !isObject(val):
				diags = append(diags, problem(&at, "Invalid vars", "vars must be an object with values for variables, such as { release = \"12\" }.")...)
				continue
			}
			values := val.AsValueMap()
			for _, name := range slices.Sorted(maps.Keys(values)) {
				v := in.byName[name]
				first, again := given[name]
				switch {
				case v == nil:
					diags = append(diags, problem(&at, "Undeclared variable", "vars sets %q, but the template declares no such variable.%s", name, lang.DidYouMean(name, in.names()))...)
					continue
				case again && !v.Value.RawEquals(v.converted(values[name])):
					diags = append(diags, problem(&at, "Two values for a variable", "The variable %q has another value at %s. The images of a template have their variables in common.", name, first)...)
					continue
				}
				given[name] = at
				diags = append(diags, v.set(values[name], at)...)
			}
		}
	}
	return diags
}

// converted returns a value converted to the variable's type, or unchanged if that is not
// possible.
func (v *Variable) converted(val cty.Value) cty.Value {
	c := *v
	if c.set(val, hcl.Range{}).HasErrors() {
		return val
	}
	return c.Value
}

package config

import (
	"context"
	"os"
	"path/filepath"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/config/lang"
	"bake/config/schema"
)

// bakeSuffix is how the names of bake files end. Packer does not read them.
const bakeSuffix = ".bake.hcl"

// BakeFile is a file beside the template that says what templates cannot. Its blocks
// are not decoded.
type BakeFile struct {
	Name string
	Body *hclsyntax.Body
}

// bakeFilesOf looks for the bake files beside a template that is a single file.
func (r *reader) bakeFilesOf(template string) ([]string, hcl.Diagnostics) {
	dir := filepath.Dir(template)
	entries, err := os.ReadDir(r.abs(dir))
	if err != nil { // the template was found, so that the directory is there
		return nil, warning(nil, "Cannot look for bake files", "Files whose names end in %s are not used: %s.", bakeSuffix, err)
	}
	return named(dir, entries, bakeSuffix), nil
}

// bakeFiles reads the bake files. What it returns are mistakes of syntax.
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

// Input returns what a block of a bake file is decoded from: it can use the variables,
// local values, data sources and functions of the template. Data sources that it refers
// to are read if they have not been.
func (t *Template) Input(ctx context.Context, body hcl.Body) (schema.Input, hcl.Diagnostics) {
	ec, diags := t.scope.Context(ctx, lang.References(body))
	return schema.Input{Body: body, Context: ec}, diags
}

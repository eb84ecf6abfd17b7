package config

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/json"

	"bake/internal/bound"
	"bake/internal/hcljson"
)

// reader reads files and remembers them for diagnostics, under the names that
// the user knows them by.
type reader struct {
	cwd   string
	files map[string]*hcl.File
	log   *slog.Logger
}

// abs returns where the file that the user calls name is.
func (r *reader) abs(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(r.cwd, name)
}

// parse reads a file in the syntax that its name ends in.
func (r *reader) parse(name string) (*hcl.File, hcl.Diagnostics) {
	src, err := os.ReadFile(r.abs(name))
	if err != nil {
		return nil, problem(nil, "Cannot read file", "%s.", err)
	}
	if err := bound.Source(src); err != nil {
		r.files[name] = &hcl.File{Body: hcl.EmptyBody(), Bytes: src}
		return nil, problem(&hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}, "Cannot read file", "%s: %s.", name, err)
	}
	r.log.Debug("file read", "name", name, "bytes", len(src))
	var f *hcl.File
	var diags hcl.Diagnostics
	if strings.HasSuffix(name, ".json") {
		f, diags = json.Parse(hcljson.Source(src), name)
	} else {
		f, diags = hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	}
	if f == nil {
		f = &hcl.File{Body: hcl.EmptyBody(), Bytes: src}
	}
	r.files[name] = f
	return f, diags
}

// text is what is written at rng.
func (r *reader) text(rng hcl.Range) string {
	if f := r.files[rng.Filename]; f != nil && rng.CanSliceBytes(f.Bytes) {
		return string(rng.SliceBytes(f.Bytes))
	}
	return ""
}

// template is where a template's files are.
type template struct {
	root     string   // path.root
	names    []string // template files, in the order they are read
	varFiles []string // *.auto.pkrvars.*, in the order they are read
}

// find looks at what the user has named as the template.
func (r *reader) find(path string) (template, hcl.Diagnostics) {
	info, err := os.Stat(r.abs(path))
	if err != nil {
		return template{}, problem(nil, "Template not found", "%s.", err)
	}
	if !info.IsDir() {
		if !isTemplate(path) {
			return template{}, r.notHCL(path)
		}
		return template{root: filepath.ToSlash(filepath.Dir(path)), names: []string{path}}, nil
	}
	entries, err := os.ReadDir(r.abs(path))
	if err != nil {
		return template{}, problem(nil, "Cannot read the template directory", "%s.", err)
	}
	t := template{root: filepath.ToSlash(path)}
	pick := func(suffix string) (names []string) {
		for _, e := range entries { // ReadDir sorts by name
			if !e.IsDir() && strings.HasSuffix(e.Name(), suffix) {
				names = append(names, filepath.Join(path, e.Name()))
			}
		}
		return names
	}
	t.names = slices.Concat(pick(".pkr.hcl"), pick(".pkr.json"))
	t.varFiles = slices.Concat(pick(".auto.pkrvars.hcl"), pick(".auto.pkrvars.json"))
	if len(t.names) == 0 {
		if diags := r.legacyIn(path, entries); diags != nil {
			return t, diags
		}
		return t, problem(nil, "No template files", "The directory %s holds no file that ends in .pkr.hcl or .pkr.json.", path)
	}
	return t, nil
}

func isTemplate(path string) bool {
	return strings.HasSuffix(path, ".pkr.hcl") || strings.HasSuffix(path, ".pkr.json")
}

// problem makes an error diagnostic.
func problem(at *hcl.Range, summary, format string, args ...any) hcl.Diagnostics {
	return hcl.Diagnostics{{
		Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: at,
	}}
}

// warning makes a warning diagnostic.
func warning(at *hcl.Range, summary, format string, args ...any) hcl.Diagnostics {
	diags := problem(at, summary, format, args...)
	diags[0].Severity = hcl.DiagWarning
	return diags
}

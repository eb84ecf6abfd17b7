package config

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/json"

	"bake/internal/hcljson"
	"bake/internal/hostpath"
	"bake/internal/limits"
	"bake/internal/prose"
)

// reader reads files and keeps them for diagnostics, under the names that the user has
// given.
type reader struct {
	cwd   string
	files map[string]*hcl.File
	log   *slog.Logger
}

// abs returns the absolute path of a file that the user has named.
func (r *reader) abs(name string) string {
	return hostpath.In(r.cwd, name)
}

// parse reads a file in the syntax that its extension indicates or, for a pipe of this process,
// its content.
func (r *reader) parse(name string) (*hcl.File, hcl.Diagnostics) {
	src, err := hostpath.Read(r.abs(name), hostpath.Limit)
	if err != nil {
		return nil, problem(nil, "Cannot read file", "%s.", err)
	}
	syntax := limits.HCL
	if strings.HasSuffix(name, ".json") || hostpath.OfProcess(name) && bytes.HasPrefix(bytes.TrimSpace(src), []byte("{")) {
		syntax, src = limits.JSON, hcljson.Source(src)
	}
	if err := limits.Source(src, syntax); err != nil {
		r.files[name] = &hcl.File{Body: hcl.EmptyBody(), Bytes: src}
		return nil, problem(placeOf(err, name), "Cannot read file", "%s: %s.", name, err)
	}
	r.log.Debug("file read", "name", name, "bytes", len(src))
	var f *hcl.File
	var diags hcl.Diagnostics
	if syntax == limits.JSON {
		f, diags = json.Parse(src, name)
		diags = withoutRoot(diags)
	} else {
		f, diags = hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	}
	if f == nil {
		f = &hcl.File{Body: hcl.EmptyBody(), Bytes: src}
	}
	r.files[name] = f
	return f, LimitSyntaxErrors(diags)
}

// placeOf returns the place of an error of [limits.Source] about the file, or the value, called
// name: its start, if nothing more is known.
func placeOf(err error, name string) *hcl.Range {
	at := hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}
	if wrong, ok := errors.AsType[*limits.NumberError](err); ok {
		at.Start, at.End = wrong.At.Start, wrong.At.End
	}
	return &at
}

// withoutRoot removes from the errors of a JSON file the one that the parser adds whenever it
// could not read the outermost value.
func withoutRoot(diags hcl.Diagnostics) hcl.Diagnostics {
	if len(diags) < 2 {
		return diags
	}
	return slices.DeleteFunc(diags, func(d *hcl.Diagnostic) bool { return d.Summary == "Root value must be object" })
}

// maxSyntax is the maximum number of syntax errors that are shown for a file.
const maxSyntax = 5

// LimitSyntaxErrors removes syntax errors of a file that are probably consequences of another
// one, and adds their number to the rest. After a missing quotation mark, the parser treats
// each string in the rest of the file as text between two strings.
func LimitSyntaxErrors(diags hcl.Diagnostics) hcl.Diagnostics {
	diags = inPlace(diags)
	shown := min(len(diags), maxSyntax)
	if i := slices.IndexFunc(diags[:shown], func(d *hcl.Diagnostic) bool { return d.Summary == "Invalid multi-line string" }); i >= 0 {
		shown = i + 1
	}
	if shown == len(diags) {
		return diags
	}
	last := *diags[shown-1]
	last.Detail += fmt.Sprintf("\n\nMore errors in the rest of the file, likely caused by this, are not shown: %d.", len(diags)-shown)
	return append(diags[:shown-1:shown-1], &last)
}

// text returns the source text at rng.
func (r *reader) text(rng hcl.Range) string {
	if f := r.files[rng.Filename]; f != nil && rng.CanSliceBytes(f.Bytes) {
		return string(rng.SliceBytes(f.Bytes))
	}
	return ""
}

// before returns the bytes before rng, a few of them.
func (r *reader) before(rng hcl.Range) string {
	return r.text(hcl.Range{Filename: rng.Filename, Start: hcl.Pos{Byte: max(0, rng.Start.Byte-8)}, End: rng.Start})
}

// template lists the files of a template.
type template struct {
	root     string   // path.root
	names    []string // template files, in the order they are read
	varFiles []string // *.auto.pkrvars.*, in the order they are read

	bakeFiles []string // *.bake.hcl, likewise
}

// find finds the files of the template at the path that the user has given.
func (r *reader) find(path string) (template, hcl.Diagnostics) {
	if path == "" {
		return template{}, problem(nil, "No template", "The path of the template is empty; it must name a file or a directory.")
	}
	info, err := os.Stat(r.abs(path))
	if err != nil {
		return template{}, problem(nil, "Template not found", "%s.", err)
	}
	if !info.IsDir() {
		if !isTemplate(path) {
			return template{}, r.notHCL(path)
		}
		bakeFiles, diags := r.bakeFilesOf(path)
		return template{root: filepath.ToSlash(filepath.Dir(path)), names: []string{path}, bakeFiles: bakeFiles}, diags
	}
	entries, err := os.ReadDir(r.abs(path))
	if err != nil {
		return template{}, problem(nil, "Cannot read the template directory", "%s.", err)
	}
	t := template{root: filepath.ToSlash(path)}
	pick := func(suffix string) []string { return named(path, entries, suffix) }
	t.names = slices.Concat(pick(".pkr.hcl"), pick(".pkr.json"))
	t.varFiles = slices.Concat(pick(".auto.pkrvars.hcl"), pick(".auto.pkrvars.json"))
	t.bakeFiles = pick(bakeSuffix)
	if len(t.names) == 0 {
		if diags := r.legacyIn(path, entries); diags != nil {
			return t, diags
		}
		return t, problem(nil, "No template files", "The directory %s contains no file that ends in .pkr.hcl or .pkr.json.", path)
	}
	return t, nil
}

// named returns the paths of the entries of dir that are files whose names end in
// suffix, by name.
func named(dir string, entries []os.DirEntry, suffix string) (paths []string) {
	for _, e := range entries { // ReadDir sorts by name
		if !e.IsDir() && strings.HasSuffix(e.Name(), suffix) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths
}

func isTemplate(path string) bool {
	return strings.HasSuffix(path, ".pkr.hcl") || strings.HasSuffix(path, ".pkr.json")
}

// problem makes an error diagnostic.
func problem(at *hcl.Range, summary, format string, args ...any) hcl.Diagnostics {
	return hcl.Diagnostics{{
		Severity: hcl.DiagError, Summary: summary, Detail: prose.Sprintf(format, args...), Subject: at,
	}}
}

// duplicate reports a second declaration of a name; the first is at first.
func duplicate(at *hcl.Range, what, name string, first hcl.Range) hcl.Diagnostics {
	diags := problem(at, "Duplicate "+what, "There is already a %s %q, at %s.", what, name, first)
	diags[0].Extra = again{fmt.Sprintf("%s %q", what, name), first}
	return diags
}

// again describes a name that is declared twice.
type again struct {
	what  string
	first hcl.Range
}

// If several files declare manyAgain names or more, only maxAgain are shown: the files are
// probably separate templates.
const (
	manyAgain = 5
	maxAgain  = 3
)

// together reports that the files of a folder do not belong to one template. Other errors
// are then irrelevant, so the template has no builds.
func (l *loader) together(diags hcl.Diagnostics) hcl.Diagnostics {
	var shared hcl.Diagnostics
	for _, d := range diags {
		if a, ok := d.Extra.(again); ok && a.first.Filename != d.Subject.Filename {
			shared = append(shared, d)
		}
	}
	if len(shared) < manyAgain {
		return diags
	}
	l.t.Builds = nil
	example := shared[0].Extra.(again)
	lead := problem(nil, "Files that do not belong together",
		"All template files in a folder form one template, but in the folder %s names are declared more than once, %d times in all; for example %s in both %s and %s. "+
			"If each file is a template of its own, name one of them on the command line, such as %[4]s. The first %[6]d duplicates follow.",
		l.o.Path, len(shared), example.what, example.first.Filename, shared[0].Subject.Filename, maxAgain)
	return append(lead, shared[:maxAgain]...)
}

// warning makes a warning diagnostic.
func warning(at *hcl.Range, summary, format string, args ...any) hcl.Diagnostics {
	diags := problem(at, summary, format, args...)
	diags[0].Severity = hcl.DiagWarning
	return diags
}

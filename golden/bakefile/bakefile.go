// Package bakefile reads the *.bake.hcl files next to a template, which define what
// Packer's language cannot express. Packer ignores them, so the template remains valid for
// Packer.
package bakefile

import (
	"context"
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/builder"
	"bake/config"
	"bake/config/lang"
	"bake/config/schema"
	"bake/docs"
	"bake/internal/limits"
)

// Settings are the contents of a template's bake files. They are zero if the template has
// none.
type Settings struct {
	build   placed[Build]
	uploads []placed[Upload]
	tool    placed[Tool]

	images    []placed[Image]
	pipelines []Pipeline

	fleets           []placed[Fleet]
	engine           placed[Engine]
	blocks           []FleetBlock
	duplicateRegions hcl.Diagnostics // for images that two cells would put into the same region
}

// placed is the options of a block, with the place where they were written.
type placed[O any] struct {
	options *O // nil: there is no such block
	src     *schema.Source
	block   *hcl.Block
	context *hcl.EvalContext // in which they were evaluated
}

// kind is a kind of block.
type kind struct {
	name   string
	labels []string
	once   bool // at most one block in all files
	docs   func() ([]schema.Doc, error)
	decode func(s *Settings, b *hcl.Block, in schema.Input) (*schema.Source, hcl.Diagnostics)
}

// kinds are the kinds of blocks in bake files. Blocks of the first kind are checked
// before all others, because a file for another release of bake may cause further
// errors.
func kinds() []kind {
	return []kind{
		define("bake", nil, true, func(s *Settings, b placed[Tool]) { s.tool = b }),
		define("build", nil, true, func(s *Settings, b placed[Build]) { s.build = b }),
		define("upload", []string{"path"}, false, func(s *Settings, b placed[Upload]) { s.uploads = append(s.uploads, b) }),
		define("image", []string{"name"}, false, func(s *Settings, b placed[Image]) { s.images = append(s.images, b) }),
		define("fleet", []string{"name"}, false, func(s *Settings, b placed[Fleet]) { s.fleets = append(s.fleets, b) }),
		define("engine", []string{"type"}, true, func(s *Settings, b placed[Engine]) { s.engine = b }),
	}
}

// define describes a kind of block whose options are an O.
func define[O any](name string, labels []string, once bool, put func(*Settings, placed[O])) kind {
	return kind{
		name: name, labels: labels, once: once,
		docs: func() ([]schema.Doc, error) { return docs.Options(*new(O)) },
		decode: func(s *Settings, b *hcl.Block, in schema.Input) (*schema.Source, hcl.Diagnostics) {
			o := new(O)
			src, diags := schema.Decode(in, o)
			put(s, placed[O]{o, src, b, in.Context})
			return src, diags
		},
	}
}

// Doc is the reference documentation of a kind of block.
type Doc struct {
	Name    string
	Options []schema.Doc
}

// Docs documents every kind of block.
func Docs() ([]Doc, error) {
	var all []Doc
	for _, k := range kinds() {
		options, err := k.docs()
		if err != nil {
			return nil, fmt.Errorf("%s block: %w", k.name, err)
		}
		all = append(all, Doc{k.name, options})
	}
	return all, nil
}

// Check checks the bake files of a template without using them: values that depend on
// data sources may be unknown.
func Check(ctx context.Context, t *config.Template) (*Settings, hcl.Diagnostics) {
	return read(ctx, t, false)
}

// Read reads the bake files of a template that is about to be run.
func Read(ctx context.Context, t *config.Template) (*Settings, hcl.Diagnostics) {
	return read(ctx, t, true)
}

// read returns diagnostics without secrets.
func read(ctx context.Context, t *config.Template, now bool) (*Settings, hcl.Diagnostics) {
	if len(t.BakeFiles) == 0 {
		return new(Settings), nil
	}
	r := &reader{t: t, now: now, reads: map[*hcl.Block][]string{}}
	if err := limits.Run(ctx, func() { r.files(ctx) }); err != nil {
		return new(Settings), hcl.Diagnostics{{
			Severity: hcl.DiagError, Summary: "Cannot evaluate the bake files", Detail: fmt.Sprintf("%s: %s.", t.BakeFiles[0].Name, err),
		}}
	}
	return &r.settings, t.Secrets().Diagnostics(t.Explain(r.diags))
}

// reader reads the bake files of a template.
type reader struct {
	t        *config.Template
	now      bool // unknown values are errors
	settings Settings
	reads    map[*hcl.Block][]string // files that image blocks name
	diags    hcl.Diagnostics
}

func (r *reader) files(ctx context.Context) {
	all := kinds()
	blocks := map[string]hcl.Blocks{}
	for _, f := range r.t.BakeFiles {
		r.sort(f, all, blocks)
	}
	strange := r.diags
	r.diags = nil
	for _, k := range all {
		for j, b := range blocks[k.name] {
			if j > 0 && k.once {
				r.complain(&b.DefRange, "Duplicate block", "There can be only one %q block in the bake files of a template; the first one is at %s.", k.name, blocks[k.name][0].DefRange)
				continue
			}
			if i := r.t.Instance(); k.name == "image" && i != nil && b.Labels[0] != i.Image && !r.again(b) {
				continue
			}
			r.block(ctx, k, b)
		}
		if slices.ContainsFunc(r.diags, func(d *hcl.Diagnostic) bool { return d.Summary == otherVersion }) {
			return
		}
	}
	r.join(ctx)
	r.fleets(ctx)
	r.diags = append(strange, r.diags...)
}

// sort assigns the blocks of a file to their kinds, and reports everything else.
func (r *reader) sort(f config.BakeFile, all []kind, blocks map[string]hcl.Blocks) {
	want := &hcl.BodySchema{}
	var names []string
	for _, k := range all {
		want.Blocks = append(want.Blocks, hcl.BlockHeaderSchema{Type: k.name, LabelNames: k.labels})
		names = append(names, k.name)
	}
	for _, b := range f.Body.Blocks {
		if !slices.Contains(names, b.Type) {
			r.unknown(b, names)
		}
	}
	content, _, diags := f.Body.PartialContent(want)
	r.diags = append(r.diags, diags...)
	for _, b := range content.Blocks {
		blocks[b.Type] = append(blocks[b.Type], b)
	}
	attrs := make([]*hclsyntax.Attribute, 0, len(f.Body.Attributes))
	for _, a := range f.Body.Attributes {
		attrs = append(attrs, a)
	}
	sort.Slice(attrs, func(i, j int) bool { return attrs[i].NameRange.Start.Byte < attrs[j].NameRange.Start.Byte })
	for _, a := range attrs {
		r.complain(&a.NameRange, "Unsupported argument", "A bake file holds blocks, and no arguments outside of them. There are these blocks: %s.", strings.Join(names, ", "))
	}
}

// ofTemplates are the kinds of blocks that belong into templates and not into bake
// files.
var ofTemplates = []string{"packer", "variable", "variables", "local", "locals", "data", "source", "provisioner", "post-processor", "post-processors", "hcp_packer_registry"}

// unknown reports a block of an unknown kind.
func (r *reader) unknown(b *hclsyntax.Block, names []string) {
	at := b.DefRange()
	if slices.Contains(ofTemplates, b.Type) {
		r.complain(&at, "Block of a template", "A %q block belongs in the template, which bake files share their variables and local values with. Bake files have these blocks: %s.", b.Type, strings.Join(names, ", "))
		return
	}
	r.complain(&at, "Unsupported block type", "Bake files have no %q block.%s They have these: %s.", b.Type, lang.DidYouMean(b.Type, names), strings.Join(names, ", "))
}

func (r *reader) complain(at *hcl.Range, summary, format string, args ...any) {
	r.diags = append(r.diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: at})
}

func (r *reader) block(ctx context.Context, k kind, b *hcl.Block) {
	in, diags := r.t.Input(ctx, b.Body)
	r.diags = lang.AppendNew(r.diags, diags)
	if diags.HasErrors() {
		return
	}
	in.Secret = r.t.Secrets().AddRare
	switch k.name {
	case "upload":
		r.pattern(b)
	case "image":
		in.Reads = func(path string) { r.reads[b] = append(r.reads[b], path) }
	}
	src, diags := k.decode(&r.settings, b, in)
	r.diags = append(r.diags, diags...)
	if r.now && !diags.HasErrors() {
		r.diags = append(r.diags, src.Unknowns()...)
	}
}

// afterTimeout is how much longer than its run a machine that terminates itself lives:
// until then, bake or a sweep deletes it.
const afterTimeout = 2 * time.Hour

// Reports returns the directory for reports, or s3://BUCKET/PREFIX, and where that is written; empty
// if none is set.
func (s *Settings) Reports() (string, *hcl.Range) {
	if s.tool.options == nil || s.tool.options.Reports == "" {
		return "", nil
	}
	return s.tool.options.Reports, s.tool.src.Range(&s.tool.options.Reports)
}

// Limits returns how long a run may take, and how long after its start its machines
// terminate themselves; 0 means never. flag is the time limit set by the user: 0 if none
// was set, negative for no limit.
func (s *Settings) Limits(flag time.Duration) (timeout, end time.Duration, diags hcl.Diagnostics) {
	b := s.build
	if b.options == nil {
		b.options = new(Build)
	}
	if timeout = max(0, flag); flag == 0 {
		timeout = b.options.Timeout
	}
	end = b.options.TerminateAfter
	switch {
	case end == 0 && timeout > 0:
		end = timeout + afterTimeout
	case end > 0 && end <= timeout:
		diags = hcl.Diagnostics{{
			Severity: hcl.DiagError, Summary: endsBefore, Detail: b.options.endsBefore(timeout), Subject: b.src.Range(&b.options.TerminateAfter),
		}}
	}
	return timeout, end, diags
}

// pattern reports the label of an upload block that is not a valid path pattern.
func (r *reader) pattern(b *hcl.Block) {
	if _, err := path.Match(b.Labels[0], ""); err != nil || b.Labels[0] == "" {
		r.complain(&b.LabelRanges[0], "Invalid path", "%q is not a path on the machine, in which * and ? and [...] can stand for names.", b.Labels[0])
	}
}

// Uploads returns the rules for uploads, in the order in which they were written.
func (s *Settings) Uploads() []*builder.Upload {
	var rules []*builder.Upload
	for _, u := range s.uploads {
		o := u.options
		rules = append(rules, &builder.Upload{
			Pattern: path.Clean(u.block.Labels[0]), Owner: o.Owner, Group: o.Group, Mode: o.Mode, DirectoryMode: o.DirectoryMode,
		})
	}
	return rules
}

// Unused warns about rules, returned by [Settings.Uploads], that had no effect.
func (s *Settings) Unused(rules []*builder.Upload) hcl.Diagnostics {
	var diags hcl.Diagnostics
	for i, r := range rules {
		if !r.Used() {
			diags = append(diags, &hcl.Diagnostic{
				Severity: hcl.DiagWarning, Summary: "Nothing was uploaded there", Subject: &s.uploads[i].block.DefRange,
				Detail: fmt.Sprintf("No file provisioner has uploaded anything to %s, so that this block had no effect.", r.Pattern),
			})
		}
	}
	return diags
}

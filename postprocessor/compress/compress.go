// Package compress is the post-processor that packs the artifact's files into an
// archive, or compresses a single file.
package compress

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bake/builder"
	"bake/component"
	"bake/config/schema"
	"bake/internal/gotemplate"
	"bake/internal/wholefile"
	"bake/postprocessor"
	"bake/step"
)

// Options are the arguments of a compress post-processor.
type Options struct {
	// File to write. Its extension selects an archive (`.zip`, `.tar`), a compressed archive
	// (`.tar.gz`), or a single compressed file (`.gz`). The compression formats are `gz`,
	// `bgzf`, `bz2`, `xz` and `lz4`. With any other extension, the file is a tar archive
	// compressed with gzip. The name can use `{{.BuildName}}` and `{{.BuilderType}}`.
	Output string `hcl:"output,optional,deferred"`

	// Output format, as an extension such as `tar.gz`, if `output` has no known extension.
	Format string `hcl:"format,optional"`

	// Archive format, `tar` or `zip`. It overrides the extension of `output`.
	Archive string `hcl:"archive,optional"`

	// Compression: `gz` (or `gzip`, `pgzip`), `bgzf`, `bzip2` (or `bz2`), `xz` or `lz4`. It
	// overrides the extension of `output`. Ignored for `zip`, which has its own compression.
	Algorithm string `hcl:"algorithm,optional"`

	// Compression level, from 1 (fastest) to 9 (smallest). Not set or 0: the default of the
	// algorithm. No effect on `xz`.
	Level int `hcl:"compression_level,optional"`
}

func defaults() Options {
	return Options{Output: "packer_{{.BuildName}}_{{.BuilderType}}", Level: -1}
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	if o.Level < -1 {
		c.Errorf(&o.Level, "Invalid level", "compression_level must be a number from 1 to 9, or 0 for the default.")
	}
	if o.Archive != "" && o.Archive != "tar" && o.Archive != "zip" {
		c.Errorf(&o.Archive, "Unknown kind of archive", "archive must be tar or zip, not %q.", o.Archive)
	}
	if o.Algorithm != "" && !slices.Contains(algorithms, canonical(o.Algorithm)) {
		c.Errorf(&o.Algorithm, "Unknown algorithm", "%q is not one of %s.", o.Algorithm, strings.Join(algorithms, ", "))
	}
	if o.Archive == "zip" && o.Algorithm != "" {
		c.Errorf(&o.Algorithm, "Algorithm of a zip archive", "A zip archive is compressed in its own way. Leave out algorithm, or set archive = \"tar\".")
	}
}

// Factory returns the factory of the compress post-processor.
func Factory() component.Factory[postprocessor.PostProcessor] {
	return component.Define("compress", defaults,
		func(o *Options, src *schema.Source) postprocessor.PostProcessor { return &compress{o, src} })
}

type compress struct {
	*Options
	src *schema.Source
}

// form is the format of an output file.
type form struct {
	archive   string // "tar", "zip", or "" for a single file
	algorithm string // "" for none
}

// canonical returns the name that [algorithms] has for an algorithm.
func canonical(name string) string {
	switch name {
	case "gzip", "pgzip":
		return "gz"
	case "bz2":
		return "bzip2"
	}
	return name
}

// formOf determines the form from the extension of a name.
func formOf(name string) form {
	parts := strings.Split(filepath.Base(name), ".")[1:]
	last, before := "", ""
	if n := len(parts); n > 0 {
		last = parts[n-1]
	}
	if n := len(parts); n > 1 {
		before = parts[n-2]
	}
	if last == "bz2" {
		last = canonical(last)
	}
	switch {
	case last == "tar" || last == "zip":
		return form{archive: last}
	case !slices.Contains(algorithms, last):
		return form{"tar", "gz"}
	case before == "tar":
		return form{"tar", last}
	}
	return form{"", last}
}

// form returns the format of the output: that of its extension, unless an option
// overrides it.
func (o *Options) form(output string) form {
	if o.Format != "" {
		output += "." + o.Format
	}
	f := formOf(output)
	if o.Archive != "" {
		f.archive = o.Archive
	}
	if o.Algorithm != "" {
		f.algorithm = canonical(o.Algorithm)
		if f.archive == "zip" { // that of the extension, since Validate refuses both options together
			f.archive = ""
		}
	}
	if f.archive == "zip" {
		f.algorithm = ""
	}
	return f
}

// Process implements [postprocessor.PostProcessor]. The new artifact is the output
// file. An input artifact without files is not part of it, and so is kept.
func (p *compress) Process(ctx context.Context, s *step.Scope, in *builder.Artifact) (*builder.Artifact, postprocessor.Keep, error) {
	out, err := p.process(ctx, s, in)
	if len(in.Files) == 0 {
		return out, postprocessor.Kept, err
	}
	return out, postprocessor.Discard, err
}

func (p *compress) process(ctx context.Context, s *step.Scope, in *builder.Artifact) (*builder.Artifact, error) {
	s.Handle(builder.FilePrefix, step.DestroyerFunc(builder.DestroyFile))
	t := gotemplate.Context{BuildName: s.SourceName, BuildType: s.SourceType, Start: s.Run.Start, Version: s.Run.Version}
	output, err := t.RenderAll(p.Output, map[string]any{"BuildName": s.SourceName, "BuilderType": s.SourceType})
	if err != nil {
		return nil, p.src.Errorf(&p.Output, "Invalid output", "%s.", err)
	}
	form := p.form(output)
	if form.archive == "" && len(in.Files) > 1 {
		return nil, p.src.Errorf(&p.Output, "One file for several files",
			"%s is a single compressed file, but the artifact has %d files. Name it %s to make an archive.",
			output, len(in.Files), strings.TrimSuffix(output, "."+form.algorithm)+".tar."+form.algorithm)
	}
	result, err := builder.File(output)
	if err != nil {
		return nil, err
	}
	if same, ok := builder.SameFile(output, in.Files); ok {
		return nil, p.src.Errorf(&p.Output, "The output is an input", "%s is one of the artifact's files.", same)
	}
	for _, pair := range namesakes(in.Files) {
		s.Warn(ctx, "The archive holds two files of the same name, %s and %s: unpacking it leaves only one of them.", pair[0], pair[1])
	}
	switch {
	case len(in.Files) == 0:
		s.Warn(ctx, "The artifact has no files: %s will be empty.", output)
	case form.archive != "":
		s.Say(ctx, "Packing %s into %s", strings.Join(in.Files, ", "), output)
	default:
		s.Say(ctx, "Compressing %s to %s", strings.Join(in.Files, ", "), output)
	}
	if err := p.write(ctx, output, form, in.Files); err != nil {
		return nil, fmt.Errorf("output %s: %w", output, err)
	}
	return &builder.Artifact{
		BuilderID: "packer.post-processor.compress", Files: []string{output},
		Text: "compressed artifacts in: " + output, Resources: []step.Resource{result},
	}, nil
}

// namesakes returns pairs of files that would have the same name in an archive, which
// has no directories.
func namesakes(files []string) (pairs [][2]string) {
	first := map[string]string{}
	for _, f := range files {
		switch before, ok := first[filepath.Base(f)]; {
		case !ok:
			first[filepath.Base(f)] = f
		case filepath.Clean(before) != filepath.Clean(f):
			pairs = append(pairs, [2]string{before, f})
		}
	}
	return pairs
}

// write creates the output from the files. The output gets its name only once it is
// complete.
func (p *compress) write(ctx context.Context, output string, as form, files []string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return err
	}
	return wholefile.Write(output, 0o666, func(f *os.File) error { return encode(ctx, f, as, p.Level, files) })
}

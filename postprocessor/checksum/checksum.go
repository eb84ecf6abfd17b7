// Package checksum is the post-processor that writes the checksums of the artifact's
// files to files.
package checksum

import (
	"context"
	"crypto/md5"  // asked for by name
	"crypto/sha1" // asked for by name
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bake/builder"
	"bake/component"
	"bake/config/schema"
	"bake/internal/delay"
	"bake/internal/gotemplate"
	"bake/internal/hostpath"
	"bake/postprocessor"
	"bake/step"
)

// Options are the arguments of a checksum post-processor.
type Options struct {
	// Algorithms: `md5`, `sha1`, `sha224`, `sha256`, `sha384` and `sha512`. md5 and sha1
	// do not protect against tampering.
	ChecksumTypes []string `hcl:"checksum_types,optional"`

	// File to append the checksums to, one line per file. It can use `{{.BuildName}}`,
	// `{{.BuilderType}}` and `{{.ChecksumType}}`.
	Output string `hcl:"output,optional,deferred"`
}

func defaults() Options {
	return Options{
		ChecksumTypes: []string{"md5"},
		Output:        "packer_{{.BuildName}}_{{.BuilderType}}_{{.ChecksumType}}.checksum",
	}
}

func algorithm(name string) func() hash.Hash {
	return map[string]func() hash.Hash{
		"md5": md5.New, "sha1": sha1.New, "sha224": sha256.New224,
		"sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New,
	}[name]
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	for _, name := range o.ChecksumTypes {
		if algorithm(name) == nil {
			c.Errorf(&o.ChecksumTypes, "Unknown checksum", "%q is not one of md5, sha1, sha224, sha256, sha384 and sha512.", name)
		}
	}
}

// Factory returns the factory of the checksum post-processor.
func Factory() component.Factory[postprocessor.PostProcessor] {
	return component.Define("checksum", defaults,
		func(o *Options, src *schema.Source) postprocessor.PostProcessor { return &checksum{o, src} })
}

type checksum struct {
	*Options
	src *schema.Source
}

// Process implements [postprocessor.PostProcessor]. The new artifact has the files of the
// old one and the checksum files. An artifact without files is returned unchanged.
func (p *checksum) Process(ctx context.Context, s *step.Scope, in *builder.Artifact) (*builder.Artifact, postprocessor.Keep, error) {
	if len(in.Files) == 0 {
		s.Say(ctx, "The artifact has no files: no checksum is written.")
		return in, postprocessor.MustKeep, nil
	}
	out, err := p.process(ctx, s, in)
	return out, postprocessor.MustKeep, err
}

func (p *checksum) process(ctx context.Context, s *step.Scope, in *builder.Artifact) (*builder.Artifact, error) {
	s.Handle(builder.FilePrefix, step.DestroyerFunc(builder.DestroyFile))
	types := p.ChecksumTypes
	if len(types) == 0 {
		types = defaults().ChecksumTypes
	}
	outputs, err := p.outputs(s, types, in.Files)
	if err != nil {
		return nil, err
	}
	// Everything is read before anything is written.
	lines := make([]string, len(types))
	for _, file := range in.Files {
		sums, err := sum(ctx, file, types)
		if err != nil {
			return nil, fmt.Errorf("checksum: %w", err)
		}
		for i := range types {
			lines[i] += fmt.Sprintf("%x\t%s\n", sums[i], filepath.Base(file))
		}
	}
	out := &builder.Artifact{BuilderID: "packer.post-processor.checksum", Files: slices.Clone(in.Files)}
	for i, path := range outputs {
		if err := add(path, lines[i]); err != nil {
			return nil, p.src.Errorf(&p.Output, "Cannot write the checksums", "%s.", err)
		}
		if !slices.Contains(out.Files, path) {
			out.Files = append(out.Files, path)
		}
	}
	seen := map[string]step.Resource{}
	for _, path := range out.Files {
		r, err := builder.File(path)
		if err != nil {
			return nil, err
		}
		seen[r.Key] = r
	}
	for _, key := range slices.Sorted(maps.Keys(seen)) {
		out.Resources = append(out.Resources, seen[key])
	}
	out.Text = "Created artifact from files: " + strings.Join(out.Files, ", ")
	return out, nil
}

// outputs returns the files to write to, one for each type. It is an error if one of
// them is a file of the artifact.
func (p *checksum) outputs(s *step.Scope, types, files []string) (paths []string, err error) {
	t := gotemplate.Context{BuildName: s.SourceName, BuildType: s.SourceType, Start: s.Run.Start, Version: s.Run.Version}
	for _, name := range types {
		path, err := t.RenderAll(p.Output, map[string]any{"BuildName": s.SourceName, "BuilderType": s.SourceType, "ChecksumType": name})
		if err != nil {
			return nil, p.src.Errorf(&p.Output, "Invalid output", "%s.", err)
		}
		if same, ok := builder.SameFile(path, files); ok {
			return nil, p.src.Errorf(&p.Output, "The output is an input", "%s is one of the artifact's files.", same)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// add appends text to a file, completely or not at all.
func add(path, text string) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	n, err := f.WriteString(text)
	if err != nil && n > 0 {
		err = errors.Join(err, takeBack(f, n))
	}
	return errors.Join(err, f.Close())
}

// takeBack removes the last n bytes that were appended to a file. If another build has
// appended more meanwhile, everything stays.
func takeBack(f *os.File, n int) error {
	end, err := f.Seek(0, io.SeekCurrent) // just after the written data
	if err != nil {
		return nil // not a file on a disk
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() != end {
		return err
	}
	return truncate(f, end-int64(n))
}

// sum returns the checksums of a file, reading it once.
func sum(ctx context.Context, path string, types []string) ([][]byte, error) {
	f, err := hostpath.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	hashes, writers := make([]hash.Hash, len(types)), make([]io.Writer, len(types))
	for i, name := range types {
		hashes[i] = algorithm(name)()
		writers[i] = hashes[i]
	}
	if _, err := io.Copy(io.MultiWriter(writers...), delay.Reader(ctx, f)); err != nil {
		return nil, err
	}
	sums := make([][]byte, len(types))
	for i, h := range hashes {
		sums[i] = h.Sum(nil)
	}
	return sums, nil
}

// Package checksum is the post-processor that writes down checksums of the
// artifact's files.
package checksum

import (
	"context"
	"crypto/md5"  //nolint:gosec // asked for by name
	"crypto/sha1" //nolint:gosec // asked for by name
	"crypto/sha256"
	"crypto/sha512"
	_ "embed"
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
	"bake/internal/gotemplate"
	"bake/postprocessor"
	"bake/step"
)

//go:embed checksum.go
var source string

// Options are the arguments of a checksum post-processor.
type Options struct {
	// Algorithms: `md5`, `sha1`, `sha224`, `sha256`, `sha384` and `sha512`. Do not rely on
	// md5 and sha1 against tampering.
	ChecksumTypes []string `hcl:"checksum_types,optional"`

	// File to append the checksums to, one line for each file. `{{.BuildName}}`,
	// `{{.BuilderType}}` and `{{.ChecksumType}}` can be used in it.
	Output string `hcl:"output,optional,deferred"`
}

// GoSource implements [schema.Documented].
func (*Options) GoSource() string { return source }

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

// Component describes the checksum post-processor.
func Component() component.Factory[postprocessor.PostProcessor] {
	return component.Define("checksum", defaults,
		func(o *Options, _ *schema.Source) postprocessor.PostProcessor { return &checksum{o} })
}

type checksum struct{ *Options }

// Process implements [postprocessor.PostProcessor]. The new artifact has the
// files of the old one and the files of checksums. An artifact without files goes
// on as it is.
func (p *checksum) Process(ctx context.Context, s *step.Scope, in *builder.Artifact) (*builder.Artifact, postprocessor.Keep, error) {
	if len(in.Files) == 0 {
		s.Say(ctx, "The artifact has no files: no checksum is written.")
		return in, postprocessor.MustKeep, nil
	}
	s.Handle(builder.FilePrefix, step.DestroyerFunc(builder.DestroyFile))
	t := gotemplate.Context{BuildName: s.SourceName, BuildType: s.SourceType, Start: s.Run.Start, Version: s.Run.Version}
	out := &builder.Artifact{BuilderID: "packer.post-processor.checksum", Files: slices.Clone(in.Files)}
	types := p.ChecksumTypes
	if len(types) == 0 {
		types = defaults().ChecksumTypes
	}
	for _, name := range types {
		path, err := t.RenderAll(p.Output, map[string]any{"BuildName": s.SourceName, "BuilderType": s.SourceType, "ChecksumType": name})
		if err != nil {
			return nil, postprocessor.MustKeep, fmt.Errorf("output: %w", err)
		}
		if err := write(path, algorithm(name), in.Files); err != nil {
			return nil, postprocessor.MustKeep, err
		}
		if !slices.Contains(out.Files, path) {
			out.Files = append(out.Files, path)
		}
	}
	seen := map[string]step.Resource{}
	for _, path := range out.Files {
		r, err := builder.File(path)
		if err != nil {
			return nil, postprocessor.MustKeep, err
		}
		seen[r.Key] = r
	}
	for _, key := range slices.Sorted(maps.Keys(seen)) {
		out.Resources = append(out.Resources, seen[key])
	}
	out.Text = "Created artifact from files: " + strings.Join(out.Files, ", ")
	return out, postprocessor.MustKeep, nil
}

// write appends the checksums of files to the file at path.
func write(path string, algorithm func() hash.Hash, files []string) error {
	var lines strings.Builder
	for _, file := range files {
		sum, err := sum(file, algorithm())
		if err != nil {
			return fmt.Errorf("checksum: %w", err)
		}
		fmt.Fprintf(&lines, "%x\t%s\n", sum, filepath.Base(file))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("checksum: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("checksum: %w", err)
	}
	_, err = f.WriteString(lines.String())
	return errors.Join(err, f.Close())
}

func sum(path string, h hash.Hash) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

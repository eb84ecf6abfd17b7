// Package artifice is the post-processor that replaces the artifact with existing local
// files.
package artifice

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"bake/builder"
	"bake/component"
	"bake/config/schema"
	"bake/postprocessor"
	"bake/step"
)

// Options are the arguments of an artifice post-processor.
type Options struct {
	// Files of the new artifact, which replaces the input artifact. The wildcards `*`, `?`
	// and `[` are expanded when the post-processor runs. A pattern without a match is
	// ignored, but it is an error if none matches.
	Files []string `hcl:"files"`
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	if len(o.Files) == 0 {
		c.Errorf(&o.Files, "No files", "files cannot be empty.")
	}
	for _, pattern := range o.Files {
		if _, err := filepath.Match(pattern, ""); err != nil {
			c.Errorf(&o.Files, "Not a pattern", "%q has a bracket that does not close.", pattern)
		}
	}
}

// Factory returns the factory of the artifice post-processor.
func Factory() component.Factory[postprocessor.PostProcessor] {
	return component.Define("artifice", func() Options { return Options{} },
		func(o *Options, src *schema.Source) postprocessor.PostProcessor { return &artifice{o, src} })
}

type artifice struct {
	*Options
	src *schema.Source
}

// Process implements [postprocessor.PostProcessor]. The new artifact consists of
// the files only.
func (p *artifice) Process(ctx context.Context, s *step.Scope, _ *builder.Artifact) (*builder.Artifact, postprocessor.Keep, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, postprocessor.Kept, err
	}
	s.Handle(builder.FilePrefix, step.DestroyerFunc(builder.DestroyFile))
	a := &builder.Artifact{BuilderID: "packer.post-processor.artifice"}
	var errs []error
	for _, pattern := range p.Files {
		matches, err := filepath.Glob(pattern)
		errs = append(errs, err)
		for _, path := range matches {
			r, err := builder.File(path)
			errs = append(errs, err)
			if slices.ContainsFunc(a.Resources, func(has step.Resource) bool { return has.Key == r.Key }) {
				continue // matched by several patterns
			}
			a.Files, a.Resources = append(a.Files, path), append(a.Resources, r)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, postprocessor.Kept, fmt.Errorf("looking for the files of the artifact: %w", err)
	}
	if len(a.Files) == 0 {
		return nil, postprocessor.Kept, p.src.Errorf(&p.Files, "No file found", "No file matches any of %s.", strings.Join(p.Files, ", "))
	}
	a.Text = "Created artifact from files: " + strings.Join(a.Files, ", ")
	return a, postprocessor.Kept, nil
}

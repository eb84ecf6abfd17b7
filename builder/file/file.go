// Package file is a builder that makes a file instead of an image.
package file

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"bake/builder"
	"bake/communicator/none"
	"bake/component"
	"bake/config/schema"
	"bake/internal/delay"
	"bake/internal/hostpath"
	"bake/internal/wholefile"
	"bake/step"
)

// Options are the arguments of a file source.
type Options struct {
	// Path of the file to create. Missing directories are created.
	Target string `hcl:"target"`

	// File to copy. Not together with `content`.
	Source string `hcl:"source,optional"`

	// Text to write. Not together with `source`.
	Content string `hcl:"content,optional"`
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	if o.Target == "" {
		c.Errorf(&o.Target, "Missing target", "target cannot be empty.")
	}
	switch {
	case o.Source != "" && o.Content != "":
		c.Errorf(&o.Source, "Source and content", "Set source or content, not both.")
	case o.Source == "" && o.Content == "" && c.Known(&o.Source) && c.Known(&o.Content):
		c.Warnf(&o.Target, "Empty file", "Neither source nor content is set, so the file will be empty.")
	}
}

// Factory returns the factory of the file builder.
func Factory() component.Factory[builder.Builder] {
	return component.Define("file", func() Options { return Options{} },
		func(o *Options, src *schema.Source) builder.Builder { return &file{o, src} }).
		Exporting(map[string]cty.Type{})
}

type file struct {
	*Options
	src *schema.Source
}

// Build implements [builder.Builder]. Provisioners run without a machine, once the file
// exists. An existing file is replaced, and is not deleted if the build fails.
func (b *file) Build(ctx context.Context, s *step.Scope, hooks builder.Hooks) (*builder.Artifact, error) {
	target, err := builder.File(b.Target)
	if err != nil {
		return nil, err
	}
	s.Handle(builder.FilePrefix, step.DestroyerFunc(builder.DestroyFile))
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if _, err = os.Lstat(b.Target); err == nil {
		err = step.Run(ctx, s, "write "+b.Target, b.write)
	} else {
		_, err = step.Acquire(ctx, s, "write "+b.Target, target, func(ctx context.Context) (string, struct{}, error) {
			return target.ID, struct{}{}, b.write(ctx)
		})
	}
	if err != nil {
		return nil, err
	}
	machine := builder.Machine{Communicator: none.Communicator{}, Data: builder.Data{"ID": builder.Text("File"), "PackerRunUUID": builder.Text(s.Run.ID)}}
	if err := hooks.Provision(ctx, machine); err != nil {
		return nil, err
	}
	if err := s.Keep(ctx, target.Key); err != nil {
		return nil, err
	}
	return &builder.Artifact{
		BuilderID: "packer.file",
		ID:        "File",
		Text:      "Stored file: " + b.Target,
		Files:     []string{b.Target},
		Data:      builder.Data{"ID": builder.Text("File")},
		Resources: []step.Resource{target},
	}, nil
}

// write writes the target, completely or not at all.
func (b *file) write(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(b.Target), 0o755); err != nil {
		return b.src.Errorf(&b.Target, "Cannot create the file", "%s.", err)
	}
	in := io.NopCloser(strings.NewReader(b.Content))
	perm := os.FileMode(0o600)
	if b.Source != "" {
		f, err := hostpath.Open(b.Source)
		if err != nil {
			return b.src.Errorf(&b.Source, "Cannot read the source", "%s.", err)
		}
		defer f.Close()
		in, perm = f, 0o666
	}
	err := wholefile.Write(b.Target, perm, func(f *os.File) error {
		defer in.Close() // before the target is replaced: it may be the source, and Windows does not replace an open file
		_, err := io.Copy(f, delay.Reader(ctx, in))
		return err
	})
	if err != nil && context.Cause(ctx) == nil {
		return b.src.Errorf(&b.Target, "Cannot create the file", "%s.", err)
	}
	return err
}

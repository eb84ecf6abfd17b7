// Package manifest is the post-processor that records builds in a JSON file.
package manifest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"bake/builder"
	"bake/component"
	"bake/config/schema"
	"bake/internal/delay"
	"bake/internal/hostpath"
	"bake/internal/wholefile"
	"bake/postprocessor"
	"bake/step"
)

// Options are the arguments of a manifest post-processor.
type Options struct {
	// Path of the manifest, a JSON file. Builds are added to an existing manifest; with
	// `-force`, a run starts a new one.
	Output string `hcl:"output,optional"`

	// Record file names without their directories.
	StripPath bool `hcl:"strip_path,optional"`

	// Do not record when the build finished, so that identical builds have identical
	// manifests.
	StripTime bool `hcl:"strip_time,optional"`

	// Additional values to record with the build. Do not put secrets in it: the manifest is
	// a plain file.
	CustomData map[string]string `hcl:"custom_data,optional"`
}

func defaults() Options { return Options{Output: "packer-manifest.json"} }

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	if o.Output == "" {
		c.Errorf(&o.Output, "Missing output", "output cannot be empty.")
	}
}

// Factory returns the factory of the manifest post-processor. now is the clock.
func Factory(now func() time.Time) component.Factory[postprocessor.PostProcessor] {
	return component.Define("manifest", defaults,
		func(o *Options, src *schema.Source) postprocessor.PostProcessor { return &manifest{o, src, now} })
}

type manifest struct {
	*Options
	src *schema.Source
	now func() time.Time
}

// document is the content of the file.
type document struct {
	Builds      []json.RawMessage `json:"builds"` // entries of other programs are kept unchanged
	LastRunUUID string            `json:"last_run_uuid"`
}

type build struct {
	Name          string            `json:"name"` // label of the source block
	BuilderType   string            `json:"builder_type"`
	BuildTime     int64             `json:"build_time,omitempty"` // Unix time
	Files         []file            `json:"files"`
	ArtifactID    string            `json:"artifact_id"`
	PackerRunUUID string            `json:"packer_run_uuid"`
	CustomData    map[string]string `json:"custom_data"`
}

type file struct {
	Name string `json:"name"`
	Size int64  `json:"size"` // bytes
}

// Process implements [postprocessor.PostProcessor]. It passes the artifact on unchanged.
func (p *manifest) Process(ctx context.Context, s *step.Scope, in *builder.Artifact) (*builder.Artifact, postprocessor.Keep, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, postprocessor.MustKeep, err
	}
	entry, err := p.entry(s, in)
	if err != nil {
		return nil, postprocessor.MustKeep, err
	}
	unlock, err := p.lock(ctx)
	if err != nil {
		return nil, postprocessor.MustKeep, err
	}
	defer unlock()
	if err := p.add(s, entry); err != nil {
		return nil, postprocessor.MustKeep, err
	}
	return in, postprocessor.MustKeep, nil
}

func (p *manifest) entry(s *step.Scope, in *builder.Artifact) (build, error) {
	b := build{
		Name: s.SourceName, BuilderType: s.SourceType, ArtifactID: in.ID, PackerRunUUID: s.Run.ID, CustomData: p.CustomData,
	}
	if !p.StripTime {
		b.BuildTime = p.now().Unix()
	}
	for _, path := range in.Files {
		info, err := os.Stat(path)
		if err != nil {
			return b, fmt.Errorf("a file of the artifact: %w", err)
		}
		name := path
		if p.StripPath {
			name = filepath.Base(path)
		}
		b.Files = append(b.Files, file{name, info.Size()})
	}
	return b, nil
}

// A lock is held for milliseconds. If it cannot be taken within lockPatience, its holder
// is assumed to be dead. lockPause is the pause between attempts.
const (
	lockPause    = 20 * time.Millisecond
	lockPatience = 3 * time.Second
)

// lock takes the lock that keeps builds from writing the manifest at the same time.
// Other programs that write the file use the same lock.
func (p *manifest) lock(ctx context.Context) (unlock func(), err error) {
	path := p.Output + ".lock"
	unlock = func() { os.Remove(path) }
	for range lockPatience / lockPause {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err == nil {
			return unlock, f.Close()
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, p.src.Errorf(&p.Output, "Cannot write the manifest", "%s.", err)
		}
		if err := delay.For(ctx, lockPause); err != nil {
			return nil, err
		}
	}
	return unlock, nil
}

func (p *manifest) add(s *step.Scope, entry build) error {
	var d document
	switch text, err := hostpath.Read(p.Output, hostpath.Limit); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return p.src.Errorf(&p.Output, "Cannot read the manifest", "%s.", err)
	case len(text) > 0:
		if err := json.Unmarshal(text, &d); err != nil {
			return p.src.Errorf(&p.Output, "Not a manifest", "%s exists, but is not a manifest that can be added to: %s. Move it away, or choose another output.", p.Output, err)
		}
	}
	if s.Run.Force && d.LastRunUUID != s.Run.ID {
		d.Builds = nil
	}
	one, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	d.Builds, d.LastRunUUID = append(d.Builds, one), s.Run.ID
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	err = wholefile.WriteData(p.Output, 0o664, text)
	if err != nil {
		return p.src.Errorf(&p.Output, "Cannot write the manifest", "%s.", err)
	}
	return nil
}

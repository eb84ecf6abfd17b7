package pipeline

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"bake/golden/changes"
	"bake/golden/contents"
	"bake/golden/reports"
	"bake/internal/prose"
	"bake/step"
)

// reportsOf returns the location of the reports about an image with these tags.
func (p *pipeline) reportsOf(tags map[string]string) reports.Store {
	if run := reports.RunOf(tags); p.Earlier != nil && run != "" {
		return p.Earlier(run)
	}
	return p.Reports
}

// announceEarlier logs which documents exist about a reused image, so that the report of
// the run includes them too. It leaves out documents that no longer exist. It does nothing
// in a plan.
func (p *pipeline) announceEarlier(ctx context.Context, s *step.Scope, tags map[string]string) {
	if p.OpenDistributor == nil {
		return
	}
	in := p.reportsOf(tags)
	r, err := changes.RecordOf(ctx, in, tags)
	if err != nil {
		s.Warn(ctx, "The reports about the image are not shown: %s", err)
	}
	if r == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(r.Documents)) {
		digest := r.Documents[name]
		path, err := filepath.Abs(in.Path(digest))
		if err != nil || filepath.Base(path) != digest {
			continue
		}
		if _, err := in.Read(ctx, digest, maxManifest); err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				s.Warn(ctx, "The report %s about the image is not shown: %s", prose.Excerpt(name), err)
			}
			continue
		}
		title, kind := kindOf(about(r, name))
		s.Reported(ctx, step.Report{Name: title, Kind: kind, Path: path, SHA256: digest})
	}
}

// about returns the subject of a document in the record, from its file name: the name
// without the title of the build that made the image, which may be a different build.
func about(r *changes.Record, file string) string {
	name := readable(file)
	build := r.Build + "."
	if r.Place != "" {
		build += r.Place + "."
	}
	for _, title := range []string{r.Image + "." + build, build} {
		if rest, ok := strings.CutPrefix(name, title); ok {
			return rest
		}
	}
	return name
}

// kindOf returns the title of a document, and its kind in the log, from its file name.
func kindOf(name string) (title, kind string) {
	for _, f := range []contents.Format{contents.CycloneDX, contents.SPDX} {
		if title, ok := strings.CutSuffix(name, f.Extension()); ok {
			return title + " (" + string(f) + ")", string(f)
		}
	}
	switch title, ok := strings.CutSuffix(name, ".json"); {
	case "."+name == changes.Extension:
		return title, changes.Extension
	case "."+name == attested:
		return attestation, attested
	case ok && title != "image":
		return title, step.FindingsReport
	}
	return name, filepath.Ext(name)
}

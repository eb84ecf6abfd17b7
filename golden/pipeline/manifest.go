package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"bake/builder"
	"bake/golden/findings"
	"bake/golden/manifest"
	"bake/golden/reports"
	"bake/step"
)

// maxManifest is the maximum size of the file with the manifest.
const maxManifest = 256 << 20

// listsFiles reports whether the image block needs the list of the image's files.
func (p *pipeline) listsFiles() bool {
	i := p.image.Image
	return len(i.Verify) > 0 || i.SBOM != nil || i.Provenance != nil
}

// listFiles lists the files of the machine just before it becomes an image.
func (p *pipeline) listFiles(ctx context.Context, s *step.Scope, m builder.Machine) error {
	if !p.listsFiles() {
		return nil
	}
	return step.Run(ctx, s, "list the files", func(ctx context.Context) error {
		within, cancel := context.WithTimeoutCause(ctx, readLimit, fmt.Errorf("the files were not listed within %s", readLimit))
		defer cancel()
		all, err := manifest.Read(within, m)
		if err != nil {
			return closed(ctx, err)
		}
		var b bytes.Buffer
		if err := all.Write(&b); err != nil {
			return err
		}
		digest, err := p.keep(ctx, s, p.title(s), manifest.Extension, b.Bytes())
		if err != nil {
			return fmt.Errorf("writing the list of files: %w", err)
		}
		if err := p.announce(ctx, s, "files", manifest.Extension, digest); err != nil {
			return err
		}
		p.addTag(s, reports.Manifest, digest)
		s.Say(ctx, "The image has %d files", all.Len())
		return nil
	})
}

// listed returns the manifest of the image that was written.
func (p *pipeline) listed(ctx context.Context, s *step.Scope) (*manifest.Manifest, error) {
	tags, err := p.imageTags(ctx, s)
	if err != nil {
		return nil, err
	}
	digest := tags[reports.Manifest]
	if digest == "" {
		return nil, errors.New("nothing is known of the files of the machine that the image was made of")
	}
	text, err := p.Reports.Read(ctx, digest, maxManifest)
	if err != nil {
		return nil, err
	}
	return manifest.Parse(bytes.NewReader(text))
}

// shownChanges is the maximum number of changed files that are listed.
const shownChanges = 20

// sameFiles compares the files of a machine launched from the image with those of the
// build's machine. Files that match the patterns may differ.
func (p *pipeline) sameFiles(s *step.Scope, patterns []string) func(context.Context, builder.Machine) (findings.Finding, error) {
	return func(ctx context.Context, m builder.Machine) (findings.Finding, error) {
		f := findings.Finding{ID: "verify-files", Title: "Files are those of the machine that the image was made of", Severity: findings.Critical, Result: findings.Pass}
		before, err := p.listed(ctx, s)
		if err != nil {
			return f, err
		}
		after, err := manifest.Read(ctx, m)
		if err != nil {
			return f, err
		}
		changes := manifest.Compare(before, after, manifest.Own(patterns))
		if len(changes) > 0 {
			f.Result, f.Evidence = findings.Fail, changed(changes)
			f.Fix = "list what the machine itself changes in may_change of the verify block"
		}
		return f, nil
	}
}

// changed lists changes, but only the first of many.
func changed(changes []manifest.Change) string {
	var all []string
	for i, c := range changes {
		if i == shownChanges {
			all = append(all, fmt.Sprintf("and %d more", len(changes)-i))
			break
		}
		all = append(all, c.String())
	}
	return strings.Join(all, "; ")
}

package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"bake/builder"
	"bake/golden/asroot"
	"bake/golden/contents"
	"bake/golden/reports"
	"bake/internal/prose"
	"bake/step"
)

// readLimit is the time limit for reading the contents of a machine.
const readLimit = 10 * time.Minute

// maxUnread limits the warnings about files that could not be read; the document lists all
// of them.
const maxUnread = 20

// sbom writes the SBOM of the machine.
func (p *pipeline) sbom(ctx context.Context, s *step.Scope, m builder.Machine) error {
	o := p.image.Image.SBOM
	if o == nil {
		return nil
	}
	return step.Run(ctx, s, "write the SBOM", func(ctx context.Context) error {
		within, cancel := context.WithTimeoutCause(ctx, readLimit, fmt.Errorf("the machine was not read within %s", readLimit))
		defer cancel()
		all, err := contents.FromMachine(within, shell(m), "/")
		if err != nil {
			return closed(ctx, fmt.Errorf("there is no SBOM: %w", err))
		}
		for i, problem := range all.Problems {
			if i == maxUnread {
				s.Warn(ctx, "Missing in the SBOM: %d more, which are listed in it", len(all.Problems)-i)
				break
			}
			s.Warn(ctx, "Missing in the SBOM: %s", prose.Excerpt(problem))
		}
		for i, format := range o.Formats {
			f := contents.Format(format)
			var b bytes.Buffer
			if err := all.Write(&b, f, contents.Document{Name: p.image.Name, Time: p.Now(), Version: p.Version}); err != nil {
				return err
			}
			digest, err := p.keep(ctx, s, p.sbomName(s), f.Extension(), b.Bytes())
			if err != nil {
				return fmt.Errorf("writing the SBOM: %w", err)
			}
			if err := p.announce(ctx, s, "sbom ("+format+")", format, digest); err != nil {
				return err
			}
			if i == 0 {
				p.addTag(s, reports.SBOM, digest)
			}
		}
		s.Say(ctx, "The SBOM lists %d packages", len(all.Packages))
		return nil
	})
}

// sbomName returns the name of the SBOM of the image.
func (p *pipeline) sbomName(s *step.Scope) string { return p.title(s) + ".sbom" }

// sbomPath returns the path of the image's SBOM.
func (p *pipeline) sbomPath(s *step.Scope, f contents.Format) string {
	return filepath.Join(p.Reports.Dir, fileName(p.sbomName(s))+f.Extension())
}

// shell returns a root shell on a machine.
func shell(m builder.Machine) contents.Shell {
	return func(ctx context.Context, script string, out io.Writer) error {
		return asroot.Stream(ctx, m, script, out)
	}
}

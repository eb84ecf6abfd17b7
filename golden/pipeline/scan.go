package pipeline

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/golden/bakefile"
	"bake/golden/contents"
	"bake/golden/findings"
	"bake/golden/plan"
	"bake/golden/scan"
	"bake/internal/hostpath"
	"bake/internal/prose"
	"bake/step"
	"bake/step/onhost"
)

// scanner is a scan block with the files that it names.
type scanner struct {
	block              *bakefile.Scan
	content, tailoring *scan.Content
	gate               findings.Gate
}

// loadScans reads the content and the waivers of scans.
func (p *pipeline) loadScans() (diags hcl.Diagnostics) {
	for i := range p.image.Image.Scan {
		block := &p.image.Image.Scan[i]
		one := scanner{block: block}
		complain := func(option any, summary, format string, args ...any) {
			diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: prose.Sprintf(format, args...), Subject: p.image.Src.Range(option)})
		}
		read := func(path *string) *scan.Content {
			c, err := scan.ReadContent(*path, p.Now())
			if err != nil {
				complain(path, "Cannot read SCAP content", "%s.", err)
			}
			return c
		}
		if block.Content != "" {
			one.content = read(&block.Content)
		}
		if block.Tailoring != "" {
			one.tailoring = read(&block.Tailoring)
		}
		if c := one.content; c != nil {
			if block.SHA256 != "" && !strings.EqualFold(block.SHA256, c.SHA256) {
				complain(&block.SHA256, "Other content", "The SHA-256 digest of %s is %s, and not what sha256 says. If the new content is the right one, set sha256 to that.", block.Content, c.SHA256)
			}
			known := c.Profiles
			if t := one.tailoring; t != nil {
				known = append(t.Profiles, known...)
			}
			switch {
			case block.DataStream != "" && !slices.Contains(c.Streams, block.DataStream):
				complain(&block.DataStream, "No such data stream", "There is no data stream %q in %s. There are: %s.", block.DataStream, block.Content, some(c.Streams))
			case block.DataStream == "" && len(c.Streams) > 1:
				complain(&block.Content, "Several data streams", "%s holds several data streams. Set data_stream to one of them: %s.", block.Content, some(c.Streams))
			}
			limit := time.Duration(block.MaxAge)
			switch old := p.Now().Sub(c.Dated); {
			case limit == 0 || old <= limit:
			case c.Dated.IsZero():
				complain(&block.MaxAge, "Content without a date", "%s does not say how old it is. Remove max_age, or take content that does.", block.Content)
			default:
				complain(&block.MaxAge, "Old content", "%s is %s old, and max_age is %s. Take newer content.", block.Content, plan.Span(old), block.MaxAge)
			}
			if (block.Tailoring == "" || one.tailoring != nil) && !(&scan.Content{Profiles: known}).Has(block.Profile) {
				complain(&block.Profile, "No such profile", "There is no profile %q in %s. There are: %s.", block.Profile, block.Content, some(known))
			}
		}
		gate, more := p.gate(block.Gate)
		one.gate, diags = gate, append(diags, more...)
		p.scanners = append(p.scanners, one)
	}
	return diags
}

// scripts returns the files in the template's directory, or the current directory, that
// commands on this host name: their content is an input of the scan. Programs of the host
// are not included.
func (p *pipeline) scripts() (all []string) {
	within := func(path string) bool {
		for _, dir := range []string{p.Template.Cwd(), p.Template.Root} {
			if rel, err := filepath.Rel(hostpath.In(p.Template.Cwd(), dir), path); err == nil && filepath.IsLocal(rel) {
				return true
			}
		}
		return false
	}
	for _, one := range p.scanners {
		if one.block.Kind != bakefile.Command || one.block.On != bakefile.OnHost {
			continue
		}
		for _, word := range strings.FieldsFunc(one.block.Command, func(c rune) bool { return strings.ContainsRune(" \t\n\"'`=;|&()<>", c) }) {
			path := hostpath.In(p.Template.Cwd(), word)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && within(path) {
				all = append(all, path)
			}
		}
	}
	return all
}

// some returns the first names.
func some(names []string) string {
	const most = 20
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// scan runs the scans on the machine of the build, and asks their gates.
func (p *pipeline) scan(ctx context.Context, s *step.Scope, m builder.Machine) error {
	for _, one := range p.scanners {
		name := "scan." + one.block.FullName()
		err := step.Run(ctx, s, "scan the machine ("+one.block.FullName()+")", func(ctx context.Context) error {
			report, err := p.scanned(ctx, s, m, one, name)
			if err != nil {
				if context.Cause(ctx) == nil {
					err = fmt.Errorf("%s: the gate is closed, because the scan did not take place: %w", name, err)
				}
				return closed(ctx, err)
			}
			return p.judge(ctx, s, name, s.Build, one.gate, []findings.Report{report})
		})
		if err != nil {
			return err
		}
		p.passed(s, name)
	}
	return nil
}

func (p *pipeline) scanned(ctx context.Context, s *step.Scope, m builder.Machine, one scanner, name string) (findings.Report, error) {
	b := one.block
	if b.Kind == bakefile.OpenSCAP {
		return scan.OpenSCAP{Name: name, Content: one.content, Tailoring: one.tailoring, Profile: b.Profile, Stream: b.DataStream, Timeout: b.Timeout}.Run(ctx, m.Communicator)
	}
	c := scan.Command{Name: name, Command: b.Command, Format: findings.Format(b.Format), Timeout: b.Timeout, Codes: b.ExitCodes}
	if b.On != bakefile.OnHost {
		return c.OnMachine(ctx, m.Communicator)
	}
	if err := os.MkdirAll(p.Reports.Dir, 0o755); err != nil { // its parent directory controls who may read it
		return findings.Report{}, err
	}
	env := append(append([]string(nil), s.Run.Env...), "BAKE_BUILD_NAME="+s.Build, "BAKE_REPORTS="+p.Reports.Dir)
	if o := p.image.Image.SBOM; o != nil {
		env = append(env, "BAKE_SBOM="+p.sbomPath(s, contents.Format(o.Formats[0])))
	}
	return c.OnHost(ctx, scan.Host{Env: env, Exec: func(cmd *exec.Cmd) error { return onhost.Run(s, cmd) }})
}

package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/builtin"
	"bake/golden/bakefile"
	"bake/golden/findings"
	"bake/golden/report"
	"bake/golden/reports"
	"bake/internal/prose"
	"bake/internal/s3uri"
	"bake/step"
)

// Report describes the course and result of a run, as its log has them. Documents that no
// longer exist are listed as missing.
func (s State) Report(run, version string) (*report.Report, error) {
	b := report.New(run, version, document)
	if err := s.Events(run, b.Handle); err != nil {
		return nil, err
	}
	return b.Report(), nil
}

// document reads a document that is listed in a log.
func document(d step.Report) ([]byte, error) {
	text, err := reports.ReadFile(d.Path, findings.MaxRead)
	if err != nil {
		return nil, err
	}
	if reports.Digest(text) != d.SHA256 {
		return nil, fmt.Errorf("%s has changed since the run wrote it", d.Path)
	}
	return text, nil
}

// page writes the report of a run, as HTML and JSON, next to its other documents.
func (o Options) page(ctx context.Context, run string, in reports.Store) error {
	b := report.New(run, o.Version, func(d step.Report) ([]byte, error) {
		text, err := document(d)
		if err != nil { // it may have been written on another host
			kerr := inTime(ctx, func(ctx context.Context) (err error) {
				text, err = in.Read(ctx, d.SHA256, findings.MaxRead)
				return err
			})
			if kerr == nil {
				return text, nil
			}
		}
		return text, err
	})
	incomplete := o.allEvents(ctx, run, in, b.Handle)
	r := b.Report()
	prefix := ""
	if o.sharedReports(in, run) { // with other images, or the same image in other places
		prefix = o.pageDir()
	}
	var html, text bytes.Buffer
	if err := errors.Join(r.HTML(&html), r.JSON(&text)); err != nil {
		return err
	}
	write := func(name string, page []byte) error {
		return inTime(ctx, func(ctx context.Context) error { return in.Write(ctx, prefix+name, page) })
	}
	return errors.Join(incomplete, write("report.html", html.Bytes()), write("report.json", text.Bytes()))
}

// documentLimit is the time limit for reading or writing one document at the end of a
// run.
const documentLimit = time.Minute

// inTime calls do, which reads or writes one document, with a limit of [documentLimit]. The
// context of do does not end with ctx, so documents are written after a cancellation too.
func inTime(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), documentLimit)
	defer cancel()
	return do(ctx)
}

// pageDir returns the directory, with a trailing slash, for the report of an image that is
// built separately, or of a run that is restricted to an account and region. Otherwise it
// returns "".
func (o Options) pageDir() string {
	var names []string
	if of := o.Template.Instance; of != nil {
		names = append(names, strings.ReplaceAll(of.Name(), "/", "."))
	}
	if place := o.place(); place != "" {
		names = append(names, place)
	}
	if len(names) == 0 {
		return ""
	}
	return strings.Join(names, ".") + "/"
}

// place returns the account and region that the run is restricted to, for file names;
// empty if it is not.
func (o Options) place() string {
	if o.Within == nil {
		return ""
	}
	return o.Within.Account + "." + o.Within.Region
}

// sharedReports reports whether other runs have their reports in the same place.
func (o Options) sharedReports(in reports.Store, run string) bool {
	return in.Bucket != nil || in.Dir != o.State.Reports(run)
}

// reports returns the stores for the reports of each run, as the bake files set them. A
// bucket is opened, and tested, before the run incurs costs.
func (o Options) reports(ctx context.Context, settings *bakefile.Settings, parts builtin.Parts) (of func(run string) reports.Store, diags hcl.Diagnostics) {
	place, at := settings.Reports()
	if o.planOnly && strings.HasPrefix(place, s3uri.Scheme) {
		place = "" // a plan neither reads nor writes reports
	}
	of, err := o.State.OpenReports(ctx, parts.Cloud, parts.Env, place)
	if bucket := of("").Bucket; err == nil && bucket != nil {
		err = bucket.Put(ctx, "README.txt", []byte(aboutReports))
	}
	if err != nil {
		diags = hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Reports cannot be written", Detail: prose.Sprintf("Nothing can be kept in %s: %s.", place, err), Subject: at}}
	}
	return of, diags
}

// aboutReports is the README.txt of a bucket with reports.
const aboutReports = `Reports that bake has written about images. Files named after a build are about its newest
image; sha256/ contains all files by their SHA-256. The tags bake:report, bake:sbom,
bake:manifest and bake:attestation of an image refer to its files. logs/ contains the logs
of fleet runs.
`

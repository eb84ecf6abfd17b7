package run

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/builtin"
	"bake/golden/bakefile"
	"bake/golden/findings"
	"bake/golden/report"
	"bake/golden/reports"
	"bake/internal/s3uri"
	"bake/step"
)

// Report tells what became of a run, from its log. Documents that are not where they were
// any more are named as missing.
func (s State) Report(run, version string) (*report.Report, error) {
	b := report.New(run, version, document)
	if err := s.Events(run, b.Handle); err != nil {
		return nil, err
	}
	return b.Report(), nil
}

// document reads a document that a log names.
func document(d step.Report) ([]byte, error) {
	info, err := os.Stat(d.Path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > findings.MaxRead:
		return nil, fmt.Errorf("%s is not a file of at most %d MB", d.Path, findings.MaxRead>>20)
	}
	text, err := os.ReadFile(d.Path)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != d.SHA256 {
		return nil, fmt.Errorf("%s is not what it was when the run wrote it", d.Path)
	}
	return text, nil
}

// page writes the report of a run among the others, for people and for programs.
func (o Options) page(ctx context.Context, run string, in reports.Store) error {
	// The run may have ended because it was cancelled, and what it was is told all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pageLimit)
	defer cancel()
	b := report.New(run, o.Version, func(d step.Report) ([]byte, error) {
		text, err := document(d)
		if err != nil { // another host has written it
			if kept, kerr := in.Read(ctx, d.SHA256, findings.MaxRead); kerr == nil {
				return kept, nil
			}
		}
		return text, err
	})
	incomplete := o.allEvents(ctx, run, in, b.Handle)
	r := b.Report()
	prefix := ""
	if o.sharedReports(in, run) { // those of other images, and of the same ones elsewhere, have pages too
		prefix = o.pageDir()
	}
	var html, text bytes.Buffer
	if err := errors.Join(r.HTML(&html), r.JSON(&text)); err != nil {
		return err
	}
	return errors.Join(incomplete, in.Write(ctx, prefix+"report.html", html.Bytes()), in.Write(ctx, prefix+"report.json", text.Bytes()))
}

// pageLimit is how long writing the report of a run may take.
const pageLimit = time.Minute

// pageDir is the directory of the pages of an image among those of others, with a slash, or empty.
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

// place is the account and region that the run is held to, as they are in names of files; empty
// if it is not.
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

// reports is where the reports of each run are kept, as the bake files say. A bucket is opened,
// and tried, before anything is paid for.
func (o Options) reports(ctx context.Context, settings *bakefile.Settings, parts builtin.Parts) (of func(run string) reports.Store, diags hcl.Diagnostics) {
	place, at := settings.Reports()
	if o.planOnly && strings.HasPrefix(place, s3uri.Scheme) {
		place = "" // a plan reads and writes none
	}
	of, err := o.State.OpenReports(ctx, parts.Cloud, parts.Env, place)
	if bucket := of("").Bucket; err == nil && bucket != nil {
		err = bucket.Put(ctx, "README.txt", []byte(aboutReports))
	}
	if err != nil {
		diags = hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Reports cannot be written", Detail: fmt.Sprintf("Nothing can be kept in %s: %s.", place, err), Subject: at}}
	}
	return of, diags
}

// aboutReports is what a bucket says about the reports in it.
const aboutReports = `Reports of bake about images: under the names of their builds those of the newest, and in
sha256/ all of them by their SHA-256. Those of an image are found by its tags bake:report,
bake:sbom, bake:manifest and bake:attestation. In logs/ are those of the runs of fleets.
`

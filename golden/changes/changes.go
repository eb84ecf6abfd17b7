// Package changes compares two images by their packages, their files, and the findings of
// their checks, as far as these are known.
package changes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"strings"

	"bake/golden/contents"
	"bake/golden/findings"
	"bake/golden/manifest"
	"bake/golden/reports"
	"bake/internal/prose"
)

// Known is what is known about an image.
type Known struct {
	Packages *contents.Contents // nil: nothing is known
	Files    *manifest.Manifest // likewise
	Checks   map[string]string  // result of each check by its report and ID; nil: likewise
}

// Set holds all changes from one image to another. A part that is not known for both
// images has no changes.
type Set struct {
	Packages []contents.Change `json:"packages"`
	Files    []manifest.Change `json:"files"`
	Checks   []CheckChange     `json:"checks"`

	// Unknown describes what could not be compared.
	Unknown []string `json:"unknown"`
}

// CheckChange is a check whose result has changed. A check that was not run has no result.
type CheckChange struct {
	Check  string `json:"check"` // its report and ID
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// Between compares what is known about two images.
func Between(a, b Known) Set {
	s := Set{Packages: []contents.Change{}, Files: []manifest.Change{}, Checks: []CheckChange{}, Unknown: []string{}}
	if a.Packages != nil && b.Packages != nil {
		s.Packages = append(s.Packages, contents.Compare(a.Packages, b.Packages)...)
	} else {
		s.Unknown = append(s.Unknown, "packages")
	}
	if a.Files != nil && b.Files != nil {
		s.Files = append(s.Files, manifest.Compare(a.Files, b.Files, manifest.Own(nil))...)
	} else {
		s.Unknown = append(s.Unknown, "files")
	}
	if a.Checks == nil || b.Checks == nil {
		s.Unknown = append(s.Unknown, "checks")
		return s
	}
	all := map[string]bool{}
	for _, m := range []map[string]string{a.Checks, b.Checks} {
		for check := range m {
			all[check] = true
		}
	}
	for check := range all {
		if a.Checks[check] != b.Checks[check] {
			s.Checks = append(s.Checks, CheckChange{check, a.Checks[check], b.Checks[check]})
		}
	}
	sort.Slice(s.Checks, func(i, j int) bool { return s.Checks[i].Check < s.Checks[j].Check })
	return s
}

// The limits of documents.
const (
	maxRecord = 4 << 20
	maxOther  = 256 << 20
)

// Extension is the end of the name of a document of changes, and its kind in the log.
const Extension = ".changes.json"

// Record lists the documents about an image. Its digest is in the tag [reports.Record].
type Record struct {
	Version   int               `json:"version"`
	Image     string            `json:"image"` // name of the image block
	Build     string            `json:"build"`
	Place     string            `json:"place,omitempty"` // in the names of documents, if the image is made elsewhere too
	Run       string            `json:"run"`
	Documents map[string]string `json:"documents"` // SHA-256 by name
}

// RecordOf reads the record of an image with these tags. It returns nil if the reports contain
// none.
func RecordOf(ctx context.Context, in reports.Store, tags map[string]string) (*Record, error) {
	if tags[reports.Record] == "" {
		return nil, nil
	}
	text, err := in.Read(ctx, tags[reports.Record], maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	r := new(Record)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("the record of the image: %w", err)
	}
	return r, nil
}

// FromReports reads what the reports contain about an image with these tags. Missing
// documents are treated as unknown; a document that was modified or cannot be read is an
// error.
func FromReports(ctx context.Context, in reports.Store, tags map[string]string) (k Known, err error) {
	get := func(tag string, limit int64) []byte {
		if tags[tag] == "" || err != nil {
			return nil
		}
		text, wrong := in.Read(ctx, tags[tag], limit)
		if wrong != nil && !errors.Is(wrong, fs.ErrNotExist) {
			err = wrong
		}
		return text
	}
	if text := get(reports.SBOM, maxOther); text != nil {
		k.Packages, err = contents.Parse(text)
	}
	if text := get(reports.Manifest, maxOther); text != nil {
		k.Files, err = manifest.Parse(bytes.NewReader(text))
	}
	if err != nil {
		return k, err
	}
	r, err := RecordOf(ctx, in, tags)
	if r == nil || err != nil {
		return k, err
	}
	k.Checks = map[string]string{}
	gone := false
	for name, digest := range r.Documents {
		switch err := k.results(ctx, in, name, digest); {
		case errors.Is(err, fs.ErrNotExist):
			gone = true
		case err != nil:
			return k, err
		}
	}
	if gone { // with only some of the results, all others would look changed
		k.Checks = nil
	}
	return k, nil
}

// others are the name endings of documents that are not reports of checks.
func others() []string {
	return []string{contents.CycloneDX.Extension(), contents.SPDX.Extension(), manifest.Extension, ".provenance.json", ".image.json", Extension}
}

// results reads the results of checks from a document.
func (k *Known) results(ctx context.Context, in reports.Store, name, digest string) error {
	for _, end := range others() {
		if strings.HasSuffix(name, end) {
			return nil
		}
	}
	if !strings.HasSuffix(name, ".json") {
		return nil
	}
	text, err := in.Read(ctx, digest, maxOther)
	if err != nil {
		return err
	}
	var d struct {
		Reports []struct {
			Name     string `json:"name"`
			Findings []struct {
				ID     string `json:"id"`
				Result string `json:"result"`
			} `json:"findings"`
		} `json:"reports"`
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return fmt.Errorf("the report %s: %w", name, err)
	}
	for _, r := range d.Reports {
		for _, f := range r.Findings {
			check := r.Name + " " + f.ID
			if worse(f.Result, k.Checks[check]) { // it was run on several machines
				k.Checks[check] = f.Result
			}
		}
	}
	return nil
}

// worse reports whether a result is worse than another one, or than none.
func worse(a, b string) bool {
	rank := func(r string) int { return findings.Rank(findings.Worst(), findings.Result(r)) }
	return b == "" || rank(a) < rank(b)
}

// shown is the maximum number of changes of a kind that are shown, and longest the
// maximum number of characters of each.
const shown, longest = 100, 1000

// Text formats the changes for people, with text from machines escaped.
func (s Set) Text() string {
	var b strings.Builder
	section := func(what string, n int, line func(int) string) {
		if n == 0 {
			return
		}
		fmt.Fprintf(&b, "%s: %d\n", what, n)
		for i := range min(n, shown) {
			fmt.Fprintf(&b, "  %s\n", prose.Cut(prose.Printable(line(i)), longest))
		}
		if n > shown {
			fmt.Fprintf(&b, "  and %d more\n", n-shown)
		}
	}
	section("Packages that differ", len(s.Packages), func(i int) string { return s.Packages[i].String() })
	section("Files that differ", len(s.Files), func(i int) string { return s.Files[i].String() })
	section("Checks that turned", len(s.Checks), func(i int) string {
		c := s.Checks[i]
		return c.Check + ": " + or(c.Before) + " is now " + or(c.After)
	})
	if len(s.Packages)+len(s.Files)+len(s.Checks) == 0 && len(s.Unknown) < 3 {
		fmt.Fprintln(&b, "What is known of both has no differences in it.")
	}
	if len(s.Unknown) > 0 {
		fmt.Fprintf(&b, "Not known of both, and not compared: %s\n", strings.Join(s.Unknown, ", "))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func or(result string) string {
	if result == "" {
		return "not checked"
	}
	return result
}

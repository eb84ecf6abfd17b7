package report

import (
	"encoding/json"
	"strings"

	"bake/golden/changes"
	"bake/golden/contents"
	"bake/golden/findings"
	"bake/step"
)

// The limits of lists in a report, and of a text in them. The documents themselves are
// complete.
const (
	maxRows = 10_000
	maxText = 512
)

// Contents lists what is installed in the image, according to the SBOM.
type Contents struct {
	Document string         `json:"document"`          // its name
	Missing  string         `json:"missing,omitempty"` // why it cannot be shown
	Count    int            `json:"count"`
	Counts   map[string]int `json:"counts"`   // by kind
	Packages []Package      `json:"packages"` // at most maxRows
}

// Package is an installed package.
type Package struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Arch    string `json:"arch,omitempty"`
}

// contents reads an SBOM.
func (b *Builder) contents(d step.Report) *Contents {
	c := &Contents{Document: d.Name, Counts: map[string]int{}, Packages: []Package{}}
	text, err := b.read(d)
	var all *contents.Contents
	if err == nil {
		all, err = contents.Parse(text)
	}
	if err != nil {
		c.Missing = err.Error()
		return c
	}
	c.Count = len(all.Packages)
	for _, p := range all.Packages {
		c.Counts[short(string(p.Kind))]++
		if len(c.Packages) < maxRows {
			version := p.Version
			if p.Epoch != "" {
				version = p.Epoch + ":" + version
			}
			c.Packages = append(c.Packages, Package{short(string(p.Kind)), short(p.Name), short(version), short(p.Arch)})
		}
	}
	return c
}

// Changes are the differences from the previous image of the same name.
type Changes struct {
	Before  string `json:"before,omitempty"`  // its ID
	Missing string `json:"missing,omitempty"` // why the document cannot be shown
	Omitted int    `json:"omitted,omitempty"` // number of changes that are only in the document
	changes.Set
}

// changes reads a document of changes.
func (b *Builder) changes(d step.Report) *Changes {
	var doc struct {
		Before  string      `json:"before"`
		Changes changes.Set `json:"changes"`
	}
	text, err := b.read(d)
	if err == nil {
		err = json.Unmarshal(text, &doc)
	}
	c := &Changes{Before: short(doc.Before)}
	if err != nil {
		c.Before, c.Missing, doc.Changes = "", err.Error(), changes.Set{}
	}
	c.Packages, c.Files = cut(doc.Changes.Packages, &c.Omitted), cut(doc.Changes.Files, &c.Omitted)
	c.Checks, c.Unknown = cut(doc.Changes.Checks, &c.Omitted), cut(doc.Changes.Unknown, &c.Omitted)
	for i := range c.Packages {
		one := &c.Packages[i]
		one.Kind, one.Name, one.Arch, one.Before, one.After = contents.Kind(short(string(one.Kind))), short(one.Name), short(one.Arch), short(one.Before), short(one.After)
	}
	for i := range c.Files {
		c.Files[i].Path, c.Files[i].What = short(c.Files[i].Path), short(c.Files[i].What)
	}
	for i := range c.Checks {
		one := &c.Checks[i]
		one.Check, one.Before, one.After = short(one.Check), short(one.Before), short(one.After)
	}
	for i := range c.Unknown {
		c.Unknown[i] = short(c.Unknown[i])
	}
	return c
}

// cut returns the beginning of a list, never nil, and adds the length of the rest to
// omitted.
func cut[T any](all []T, omitted *int) []T {
	if all == nil {
		return []T{}
	}
	if len(all) > maxRows {
		*omitted += len(all) - maxRows
		all = all[:maxRows]
	}
	return all
}

// short converts a text from a machine to one line that can be shown, and cuts a long text.
func short(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return findings.Line(s)
}

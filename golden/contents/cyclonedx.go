package contents

import (
	"encoding/json"
	"io"
	"time"
)

// The parts of CycloneDX 1.6 that are written; see https://cyclonedx.org/docs/1.6/json.
type (
	cdxDocument struct {
		Schema       string         `json:"$schema"`
		Format       string         `json:"bomFormat"`
		SpecVersion  string         `json:"specVersion"`
		SerialNumber string         `json:"serialNumber"`
		Version      int            `json:"version"`
		Metadata     cdxMetadata    `json:"metadata"`
		Components   []cdxComponent `json:"components"`
	}
	cdxMetadata struct {
		Timestamp  string        `json:"timestamp"`
		Tools      cdxTools      `json:"tools"`
		Component  cdxComponent  `json:"component"`
		Properties []cdxProperty `json:"properties,omitempty"`
	}
	cdxTools struct {
		Components []cdxComponent `json:"components"`
	}
	cdxComponent struct {
		Ref      string       `json:"bom-ref,omitempty"`
		Type     string       `json:"type"`
		Supplier *cdxSupplier `json:"supplier,omitempty"`
		Name     string       `json:"name"`
		Version  string       `json:"version,omitempty"`
		Licenses []cdxLicense `json:"licenses,omitempty"`
		CPE      string       `json:"cpe,omitempty"`
		PURL     string       `json:"purl,omitempty"`
		Evidence *cdxEvidence `json:"evidence,omitempty"`
	}
	cdxSupplier struct {
		Name string `json:"name"`
	}
	cdxLicense struct { // one of the two
		License    *cdxNamedLicense `json:"license,omitempty"`
		Expression string           `json:"expression,omitempty"`
	}
	cdxNamedLicense struct { // one of the two
		ID   string `json:"id,omitempty"`
		Name string `json:"name,omitempty"`
	}
	cdxEvidence struct {
		Occurrences []cdxOccurrence `json:"occurrences"`
	}
	cdxOccurrence struct {
		Location string `json:"location"`
	}
	cdxProperty struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
)

// cdxFormat is the format name in a CycloneDX document.
const cdxFormat = "CycloneDX"

// cycloneDX writes CycloneDX 1.6.
func (c *Contents) cycloneDX(w io.Writer, d Document) error {
	id, err := c.id(CycloneDX, d)
	if err != nil {
		return err
	}
	bom := cdxDocument{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: cdxFormat, SpecVersion: "1.6", SerialNumber: id.URN(), Version: 1,
		Metadata: cdxMetadata{
			Timestamp: d.Time.Format(time.RFC3339),
			Tools:     cdxTools{[]cdxComponent{{Type: "application", Name: "bake", Version: d.Version}}},
			Component: cdxComponent{Type: "operating-system", Ref: "os", Name: d.Name, Version: c.OS.VersionID, CPE: c.OS.CPE},
		},
		Components: make([]cdxComponent, 0, len(c.Packages)),
	}
	for _, p := range c.Problems {
		bom.Metadata.Properties = append(bom.Metadata.Properties, cdxProperty{Name: "bake:unread", Value: p})
	}
	for _, p := range c.Packages {
		purl := p.URL(c.OS)
		one := cdxComponent{Type: "library", Ref: purl, Name: p.Name, Version: p.Version, Licenses: cycloneLicenses(p.Licenses), PURL: purl}
		if p.Epoch != "" {
			one.Version = p.Epoch + ":" + p.Version
		}
		if p.Supplier != "" {
			one.Supplier = &cdxSupplier{p.Supplier}
		}
		if len(p.Paths) > 0 {
			one.Evidence = &cdxEvidence{}
			for _, path := range p.Paths {
				one.Evidence.Occurrences = append(one.Evidence.Occurrences, cdxOccurrence{"/" + path})
			}
		}
		bom.Components = append(bom.Components, one)
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(bom)
}

// cycloneLicenses are identifiers and names, or one expression if it is the only one.
func cycloneLicenses(list []string) (out []cdxLicense) {
	for _, l := range list {
		switch {
		case licenses.load().ids[l]:
			out = append(out, cdxLicense{License: &cdxNamedLicense{ID: l}})
		case isSPDX(l) && len(list) == 1:
			out = append(out, cdxLicense{Expression: l})
		default:
			out = append(out, cdxLicense{License: &cdxNamedLicense{Name: l}})
		}
	}
	return out
}

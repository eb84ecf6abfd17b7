package bakefile

import (
	"slices"

	"bake/config/lang"
	"bake/config/schema"
	"bake/golden/contents"
)

// SBOM are the arguments of an sbom block.
type SBOM struct {
	// Formats to write: `cyclonedx` (1.6) and `spdx` (2.3). Not set: `cyclonedx`. The tag
	// `bake:sbom` of the image holds the SHA-256 of the first one.
	Formats []string `hcl:"formats,optional"`
}

// SetDefaults implements [schema.Defaulter].
func (o *SBOM) SetDefaults() { o.Formats = []string{string(contents.CycloneDX)} }

// Validate implements [schema.Validator].
func (o *SBOM) Validate(c *schema.Checker) {
	known := []string{string(contents.CycloneDX), string(contents.SPDX)}
	if len(o.Formats) == 0 && c.Known(&o.Formats) {
		c.Errorf(&o.Formats, "No format", "List at least one format: cyclonedx or spdx.")
	}
	for i, f := range o.Formats {
		switch {
		case !slices.Contains(known, f):
			c.Errorf(&o.Formats, "Unknown format", "There is no SBOM format %q.%s There are cyclonedx and spdx.", f, lang.DidYouMean(f, known))
		case slices.Contains(o.Formats[:i], f):
			c.Errorf(&o.Formats, "Duplicate format", "The format %s is listed twice.", f)
		}
	}
}

package pipeline

import "testing"

// The name of a document says what it is, as the log says it when it is written.
func TestKindOf(t *testing.T) {
	for name, want := range map[string][2]string{
		"sbom.cdx.json":                    {"sbom (cyclonedx)", "cyclonedx"},
		"sbom.spdx.json":                   {"sbom (spdx)", "spdx"},
		"changes.json":                     {"changes", ".changes.json"},
		"checks.web.json":                  {"checks.web", "findings"},
		"verify.boot.ami-0123456789.json":  {"verify.boot.ami-0123456789", "findings"},
		"image.json":                       {"image.json", ".json"},
		"provenance.json":                  {"provenance.json", ".json"},
		"files.gz":                         {"files.gz", ".gz"},
		"checks.changes.json":              {"checks.changes", "findings"},
		"verify.boot.checks.ami-0123.json": {"verify.boot.checks.ami-0123", "findings"},
	} {
		if title, kind := kindOf(name); title != want[0] || kind != want[1] {
			t.Errorf("%s is %q of kind %q", name, title, kind)
		}
	}
}

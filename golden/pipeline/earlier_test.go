package pipeline

import (
	"strings"
	"testing"

	"bake/golden/changes"
)

// The name of a document describes its content, as in the log.
func TestKindOf(t *testing.T) {
	for name, want := range map[string][2]string{
		"sbom.cdx.json":                    {"sbom (cyclonedx)", "cyclonedx"},
		"sbom.spdx.json":                   {"sbom (spdx)", "spdx"},
		"changes.json":                     {"changes", ".changes.json"},
		"checks.web.json":                  {"checks.web", "findings"},
		"verify.boot.ami-0123456789.json":  {"verify.boot.ami-0123456789", "findings"},
		"image.json":                       {"image.json", ".json"},
		"provenance.json":                  {"attestation", ".provenance.json"},
		"checks.provenance.json":           {"checks.provenance", "findings"},
		"files.gz":                         {"files.gz", ".gz"},
		"checks.changes.json":              {"checks.changes", "findings"},
		"verify.boot.checks.ami-0123.json": {"verify.boot.checks.ami-0123", "findings"},
	} {
		if title, kind := kindOf(name); title != want[0] || kind != want[1] {
			t.Errorf("%s is %q of kind %q", name, title, kind)
		}
	}
}

// The files of documents have escaped names, of which the log has what people know: also of an
// image that another build has made.
func TestAbout(t *testing.T) {
	r := &changes.Record{Image: "web", Build: "amazon-ebs.größe eins"}
	long := strings.Repeat("x y", 100)
	for name, want := range map[string]string{
		r.Build + ".checks.my rules":      "checks.my rules.json",
		"web." + r.Build + ".100%25":      "100%25.json",
		"web." + r.Build + ".provenance":  "provenance.json",
		"another.checks.a/b":              "another.checks.a/b.json",
		"web." + r.Build + ".a." + "%2":   "a.%2.json",
		"web." + r.Build + ".20%x":        "20%x.json",
		"web." + r.Build + ".scan." + "é": "scan.é.json",
	} {
		if got := about(r, fileName(name)+".json"); got != want {
			t.Errorf("%s is about %q, want %q", name, got, want)
		}
	}
	got := about(r, fileName(r.Build+"."+long)+".cdx.json")
	r.Place = "111111111111.us-east-1"
	if got := about(r, fileName("web."+r.Build+"."+r.Place+".leftovers")+".json"); got != "leftovers.json" {
		t.Errorf("of one of several places it is about %q", got)
	}
	begin, ok := strings.CutSuffix(got, "….cdx.json")
	if !ok || !strings.HasPrefix(begin, "x yx yx y") || strings.Contains(begin, "%20") {
		t.Errorf("a long name is %q", got)
	}
}

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// TestRun describes this test program, whose modules are those of this tool.
func TestRun(t *testing.T) {
	write := func() string {
		var out bytes.Buffer
		if err := run([]string{os.Args[0], "tool", "1.2.3"}, "86400", &out); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	text := write()
	if again := write(); again != text {
		t.Error("the second text is another one")
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(strings.NewReader(text), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	if c := bom.Metadata.Component; c.Name != "tool" || c.Version != "1.2.3" || bom.Metadata.Timestamp != "1970-01-02T00:00:00Z" {
		t.Errorf("%+v at %s", c, bom.Metadata.Timestamp)
	}
	found := map[string]bool{}
	for _, c := range *bom.Components {
		found[c.Name] = true
		if c.Name != "std" && (c.Hashes == nil || !strings.HasPrefix(c.PackageURL, "pkg:golang/"+c.Name+"@v")) {
			t.Errorf("%+v", c)
		}
	}
	if !found["std"] || !found["github.com/CycloneDX/cyclonedx-go"] {
		t.Errorf("components are %v", found)
	}
	if err := run([]string{"/nonexistent", "x", "1"}, "1", &bytes.Buffer{}); err == nil {
		t.Error("a program that is not there has an SBOM")
	}
	if err := run([]string{os.Args[0], "x", "1"}, "", &bytes.Buffer{}); err == nil {
		t.Error("there is no time, and no error")
	}
}

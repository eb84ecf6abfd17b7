package changes_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bake/golden/changes"
	"bake/golden/contents"
	"bake/golden/findings"
	"bake/golden/reports"
)

// build writes the reports of a build, and returns the tags of its image.
func build(t *testing.T, dir, version string, results ...findings.Result) map[string]string {
	t.Helper()
	keep := func(name string, write func(*bytes.Buffer) error) string {
		t.Helper()
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		digest, err := reports.Store{Dir: dir}.Keep(t.Context(), name, b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	record := changes.Record{Version: 1, Image: "web", Documents: map[string]string{"web.provenance.json": strings.Repeat("0", 64)}}
	for i, r := range results { // of one check, on so many machines
		name := strings.Repeat("x", i+1) + ".json"
		record.Documents[name] = keep(name, func(b *bytes.Buffer) error {
			return findings.Document{Reports: []findings.Report{{Name: "verify.boot", Findings: []findings.Finding{
				{ID: "sshd", Severity: findings.High, Result: r}, {ID: "same", Severity: findings.High, Result: findings.Pass},
			}}}}.Write(b, findings.JSON)
		})
	}
	c := contents.Contents{OS: contents.OS{ID: "debian"}, Packages: []contents.Package{{Kind: contents.Deb, Name: "nginx", Version: version, Arch: "amd64"}}}
	return map[string]string{
		reports.SBOM: keep("web.sbom.cdx.json", func(b *bytes.Buffer) error {
			return c.Write(b, contents.CycloneDX, contents.Document{Time: time.Unix(0, 0)})
		}),
		reports.Record: keep("web.image.json", func(b *bytes.Buffer) error { return json.NewEncoder(b).Encode(record) }),
	}
}

// Two builds in one directory are told apart by the digests in the tags of their images.
func TestReports(t *testing.T) {
	dir := t.TempDir()
	old := build(t, dir, "1.22", findings.Pass, findings.Fixed)
	recent := build(t, dir, "1.26", findings.Fail, findings.Pass)
	between := func() string {
		t.Helper()
		var known [2]changes.Known
		for i, tags := range []map[string]string{old, recent} {
			var err error
			if known[i], err = changes.FromReports(t.Context(), reports.Store{Dir: dir}, tags); err != nil {
				t.Fatal(err)
			}
		}
		return changes.Between(known[0], known[1]).Text()
	}
	want := `Packages that differ: 1
  deb nginx:amd64 1.22 is now 1.26
Checks that turned: 1
  verify.boot sshd: fixed is now fail
Not known of both, and not compared: files`
	if got := between(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// Without the results of one machine, the checks are not known, whichever it is.
	for _, tags := range []map[string]string{old, recent} {
		text, err := reports.Store{Dir: dir}.Read(t.Context(), tags[reports.Record], 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		var record changes.Record
		if err := json.Unmarshal(text, &record); err != nil {
			t.Fatal(err)
		}
		results := filepath.Join(dir, "sha256", record.Documents["x.json"])
		if err := os.Rename(results, results+".gone"); err != nil {
			t.Fatal(err)
		}
		if got := between(); strings.Contains(got, "verify.boot") || !strings.Contains(got, "not compared: files, checks") {
			t.Errorf("without results:\n%s", got)
		}
		if err := os.Rename(results+".gone", results); err != nil {
			t.Fatal(err)
		}
	}
	// Missing documents count as unknown, and modified ones are errors.
	sbom := filepath.Join(dir, "sha256", old[reports.SBOM])
	if err := os.Remove(sbom); err != nil {
		t.Fatal(err)
	}
	if got := between(); !strings.Contains(got, "not compared: packages, files") {
		t.Errorf("without an SBOM:\n%s", got)
	}
	if err := os.WriteFile(sbom, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := changes.FromReports(t.Context(), reports.Store{Dir: dir}, old); err == nil {
		t.Error("an SBOM that was changed is read")
	}
	if _, err := changes.FromReports(t.Context(), reports.Store{Dir: dir}, map[string]string{reports.Record: "../../etc/passwd"}); err == nil {
		t.Error("a tag leads out of the directory")
	}
}

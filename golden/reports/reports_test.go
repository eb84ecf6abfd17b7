package reports_test

import (
	"os"
	"path/filepath"
	"testing"

	"bake/golden/reports"
)

// A document is found by its digest, also when another one has its name; one that was changed
// is not it.
func TestKeep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "reports")
	one, err := reports.Keep(dir, "web.json", []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reports.Keep(dir, "web.json", []byte("two")); err != nil {
		t.Fatal(err)
	}
	if text, err := reports.Read(dir, one, 3); err != nil || string(text) != "one" {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "web.json")); err != nil || string(text) != "two" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := reports.Read(dir, one, 2); err == nil {
		t.Error("a document above the limit is read")
	}
	for _, digest := range []string{"", "../web.json", reports.Digest([]byte("three"))} {
		if text, err := reports.Read(dir, digest, 100); err == nil {
			t.Errorf("%s: %q", digest, text)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "sha256", one), []byte("One"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := reports.Read(dir, one, 100); err == nil {
		t.Errorf("what was changed is read: %q", text)
	}
}

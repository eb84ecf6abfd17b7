package docs

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write packed.gz")

// maxPacked is how much room the documentation may take in the program.
const maxPacked = 60 << 10

// TestPacked: the program says what the documents say.
func TestPacked(t *testing.T) {
	var want []Page
	for _, pattern := range []string{"functions.md", "guide/*.md", "reference/*"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("there is no %s: %v", pattern, err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, Page{filepath.ToSlash(name), string(text)})
		}
	}
	var b bytes.Buffer
	if err := pack(&b, want); err != nil {
		t.Fatal(err)
	}
	if b.Len() > maxPacked {
		t.Errorf("the documents take %d bytes in the program; the limit is %d", b.Len(), maxPacked)
	}
	if *update {
		packed = b.String()
		if err := os.WriteFile("packed.gz", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := unpack(packed)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the program has other documents than docs has; write them with: make docs\n%s", diff)
	}
}

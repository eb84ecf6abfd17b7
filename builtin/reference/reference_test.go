package reference

import (
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bake/builtin"
)

var update = flag.Bool("update", false, "write docs/options")

// TestReference compares docs/options with the options themselves.
func TestReference(t *testing.T) {
	dir := filepath.Join("..", "..", "docs", "options")
	refs, err := Of(builtin.Parts{}.Catalog())
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := WriteMarkdown(dir, refs); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]string{}
	err = fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, path))
		got[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(markdown(refs), got); diff != "" {
		t.Errorf("docs/options is not what the options say; write it with: make docs\n%s", diff)
	}
}

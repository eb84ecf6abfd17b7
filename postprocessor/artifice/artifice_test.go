package artifice_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bake/builder"
	"bake/postprocessor"
	"bake/postprocessor/artifice"
	"bake/postprocessor/postprocessortest"
)

func TestConformance(t *testing.T) {
	postprocessortest.Suite{Factory: artifice.Factory(), Body: `files = ["DIR/*"]`, Untouched: true}.Run(t)
}

func TestArtifice(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.box", "b.box", "c"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a, keep, err := postprocessortest.Process(t, artifice.Factory(), fmt.Sprintf("files = [\"%[1]s/*.box\", \"%[1]s/c\", \"%[1]s/none*\", \"%[1]s/a*\"]", filepath.ToSlash(dir)), &builder.Artifact{ID: "old"})
	if err != nil || keep != postprocessor.Kept {
		t.Fatalf("got %v, %v", keep, err)
	}
	want := "Created artifact from files: " + filepath.Join(dir, "a.box") + ", " + filepath.Join(dir, "b.box") + ", " + filepath.ToSlash(dir) + "/c"
	if a.Text != want || len(a.Files) != 3 || len(a.Resources) != 3 || a.ID != "" {
		t.Errorf("artifact %+v", a)
	}
}

func TestFailures(t *testing.T) {
	for body, want := range map[string]string{
		``: "files", `files = []`: "cannot be empty", `files = ["["]`: "bracket", `files = ["/no/such/*"]`: "No file found",
	} {
		if _, _, err := postprocessortest.Process(t, artifice.Factory(), body, &builder.Artifact{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", body, err, want)
		}
	}
}

package artifice_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/builder"
	"bake/config/schema"
	"bake/postprocessor"
	"bake/postprocessor/artifice"
	"bake/step"
)

// process runs the post-processor that a body makes on an artifact.
func process(t *testing.T, body string, in *builder.Artifact) (*builder.Artifact, postprocessor.Keep, error) {
	t.Helper()
	f, diags := hclsyntax.ParseConfig([]byte(body), "t.pkr.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	p, diags := artifice.Component().New(schema.Input{Body: f.Body, Context: &hcl.EvalContext{}})
	if diags.HasErrors() {
		return nil, 0, diags
	}
	s := step.NewScope(step.Scope{Run: step.Run{Env: os.Environ()}, SourceType: "null", SourceName: "web", Emit: func(step.Event) {}})
	return p.Process(t.Context(), s, in)
}

func TestDocs(t *testing.T) {
	if _, err := artifice.Component().Docs(); err != nil {
		t.Error(err)
	}
}

func TestArtifice(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.box", "b.box", "c"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a, keep, err := process(t, fmt.Sprintf("files = [\"%[1]s/*.box\", \"%[1]s/c\", \"%[1]s/none*\"]", dir), &builder.Artifact{ID: "old"})
	if err != nil || keep != postprocessor.Kept {
		t.Fatalf("got %v, %v", keep, err)
	}
	want := fmt.Sprintf("Created artifact from files: %[1]s/a.box, %[1]s/b.box, %[1]s/c", dir)
	if a.Text != want || len(a.Files) != 3 || len(a.Resources) != 3 || a.ID != "" {
		t.Errorf("artifact %+v", a)
	}
}

func TestFailures(t *testing.T) {
	for body, want := range map[string]string{
		``: "files", `files = []`: "cannot be empty", `files = ["["]`: "bracket", `files = ["/no/such/*"]`: "No file found",
	} {
		if _, _, err := process(t, body, &builder.Artifact{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", body, err, want)
		}
	}
}

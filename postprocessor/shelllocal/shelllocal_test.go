package shelllocal_test

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
	"bake/postprocessor/shelllocal"
	"bake/step"
)

// process runs the post-processor that a body makes on an artifact.
func process(t *testing.T, body string, in *builder.Artifact) (*builder.Artifact, postprocessor.Keep, error) {
	t.Helper()
	f, diags := hclsyntax.ParseConfig([]byte(body), "t.pkr.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	p, diags := shelllocal.Component().New(schema.Input{Body: f.Body, Context: &hcl.EvalContext{}})
	if diags.HasErrors() {
		return nil, 0, diags
	}
	s := step.NewScope(step.Scope{Run: step.Run{Env: os.Environ()}, SourceType: "null", SourceName: "web", Emit: func(step.Event) {}})
	return p.Process(t.Context(), s, in)
}

func TestDocs(t *testing.T) {
	if _, err := shelllocal.Component().Docs(); err != nil {
		t.Error(err)
	}
}

func TestShellLocal(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	in := &builder.Artifact{ID: "x", Data: map[string]any{"ID": "i-1"}}
	for _, body := range []string{
		fmt.Sprintf(`inline = ["printf '%%s' \"$PACKER_BUILD_NAME {{.ID}}\" > %s"]`, out),
		fmt.Sprintf("inline = [\"true\"]\nexecute_command = [\"printf '%%s' 'web {{.ID}}' > %s\"]", out),
	} {
		a, keep, err := process(t, body, in)
		if err != nil || a != in || keep != postprocessor.MustKeep {
			t.Errorf("%s\ngot %v, %v, %v", body, a, keep, err)
		}
		if b, err := os.ReadFile(out); err != nil || string(b) != "web i-1" {
			t.Errorf("%s\nwrote %q, %v", body, b, err)
		}
		os.Remove(out)
	}
	if _, _, err := process(t, `inline = ["exit 2"]`, in); err == nil || !strings.Contains(err.Error(), "status: 2") {
		t.Errorf("got %v", err)
	}
}

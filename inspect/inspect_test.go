package inspect_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bake/config"
	"bake/inspect"
)

func TestOf(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "t.pkr.hcl")
	if err := os.WriteFile(path, []byte(`
variable "secret" {
  default   = "hunter2"
  sensitive = true
}
variable "unset" { type = string }
locals { greeting = "uses hunter2" }
source "null" "a" { communicator = "none" }
source "null" "b" { communicator = "none" }
build {
  name    = "x"
  sources = ["null.a", "null.b"]
  provisioner "shell-local" {
    only   = ["null.b"]
    inline = ["true"]
  }
  provisioner "sleep" { duration = "1s" }
}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	outline, diags := config.ReadOutline(t.Context(), config.Options{Path: path, Cwd: dir})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	got, diags := inspect.Of(outline, []string{"x.null.a"}, nil)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if len(got.Variables) != 2 || !got.Variables[0].Sensitive || got.Variables[0].Text != "<sensitive>" || got.Variables[1].Known {
		t.Errorf("the variables are %+v", got.Variables)
	}
	if len(got.Locals) != 1 || strings.Contains(got.Locals[0].Text, "hunter2") {
		t.Errorf("the local values are %+v", got.Locals)
	}
	name := []string{"x.null.a"}
	want := []inspect.Build{{
		Name: "x", Sources: []inspect.Step{{Type: "null", Name: "a", For: name}},
		Provisioners: []inspect.Step{{Type: "sleep", For: name}}, PostProcessors: [][]inspect.Step{},
	}}
	if diff := cmp.Diff(want, got.Builds); diff != "" {
		t.Errorf("builds (-want +got):\n%s", diff)
	}
	var b strings.Builder
	got.Write(&b)
	if text := b.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, `var.secret: "<sensitive>"`) || strings.Contains(text, "shell-local") {
		t.Errorf("for people:\n%s", text)
	}
	if _, diags := inspect.Of(outline, []string{"["}, nil); !diags.HasErrors() {
		t.Error("a glob that is none is not an error")
	}
}

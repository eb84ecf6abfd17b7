package file_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/builder"
	"bake/builder/buildertest"
	"bake/builder/file"
	"bake/config/schema"
	"bake/step"
)

func input(t *testing.T, body string) schema.Input {
	t.Helper()
	f, diags := hclsyntax.ParseConfig([]byte(body), "t.pkr.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return schema.Input{Body: f.Body, Context: &hcl.EvalContext{}}
}

// build builds, and tears down the resources that the build still owns.
func build(t *testing.T, body string, provisioned error) (*builder.Artifact, error) {
	t.Helper()
	b, diags := file.Factory().New(input(t, body))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	ledger, err := step.CreateLedger(t.TempDir(), step.Header{Run: "run"})
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	s := step.NewScope(step.Scope{Build: "file.x", Ledger: ledger, Emit: func(step.Event) {}, Grace: time.Minute})
	a, err := b.Build(t.Context(), s, builder.Hooks{Provision: func(context.Context, builder.Machine) error { return provisioned }})
	if err := s.Close(t.Context(), t.Context()); err != nil {
		t.Error(err)
	}
	return a, err
}

func TestBuild(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(dir, "from")
	if err := os.WriteFile(from, []byte("copied"), 0o600); err != nil {
		t.Fatal(err)
	}
	for body, want := range map[string]string{
		`content = "text"`:               "text",
		fmt.Sprintf("source = %q", from): "copied",
		``:                               "",
	} {
		target := filepath.Join(t.TempDir(), "new/target")
		a, err := build(t, fmt.Sprintf("target = %q\n%s", target, body), nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(target); err != nil || string(b) != want {
			t.Errorf("got %q, %v, want %q", b, err, want)
		}
		if a.ID != "File" || a.BuilderID != "packer.file" || a.Text != "Stored file: "+target || len(a.Resources) != 1 {
			t.Errorf("artifact %+v", a)
		}
		if err := builder.DestroyFile(t.Context(), a.Resources[0]); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(target); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after deleting the artifact: %v", err)
		}
	}
}

func TestFailedProvisioning(t *testing.T) {
	failed := errors.New("failed")
	for _, before := range []bool{false, true} {
		target := filepath.Join(t.TempDir(), "target")
		if before {
			if err := os.WriteFile(target, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := build(t, fmt.Sprintf("target = %q\ncontent = \"x\"", target), failed); !errors.Is(err, failed) {
			t.Errorf("got %v", err)
		}
		if _, err := os.Stat(target); (err == nil) != before {
			t.Errorf("was there before %t: now %v", before, err)
		}
	}
}

func TestFailures(t *testing.T) {
	for body, want := range map[string]string{
		"target = \"/dev/null/x\"\ncontent = \"x\"":                                             "Cannot create the file",
		fmt.Sprintf("target = %q\nsource = \"/no/such/file\"", filepath.Join(t.TempDir(), "x")): "Cannot read the source",
	} {
		if _, err := build(t, body, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", body, err, want)
		}
	}
}

func TestInvalid(t *testing.T) {
	for body, want := range map[string]string{
		``: "target", `target = ""`: "cannot be empty", "target = \"x\"\nsource = \"a\"\ncontent = \"b\"": "not both",
	} {
		if diags := file.Factory().Check(input(t, body)); !diags.HasErrors() || !strings.Contains(diags.Error(), want) {
			t.Errorf("%q: got %v, want %q", body, diags, want)
		}
	}
	if diags := file.Factory().Check(input(t, `target = "x"`)); len(diags) != 1 || diags.HasErrors() {
		t.Errorf("an empty file: %v, want a warning", diags)
	}
	if _, err := file.Factory().Docs(); err != nil {
		t.Error(err)
	}
}

func TestConformance(t *testing.T) {
	dir, from := t.TempDir(), filepath.Join(t.TempDir(), "from")
	if err := os.WriteFile(from, []byte(strings.Repeat("x", 100_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{`content = "text"`, fmt.Sprintf("source = %q", from)} {
		buildertest.Suite{Factory: file.Factory(), Body: fmt.Sprintf("target = %q\n%s", filepath.Join(dir, "out"), what), Dir: dir}.Run(t)
	}
}

// A file that is its own source does not change.
func TestOwnSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := build(t, fmt.Sprintf("target = %q\nsource = %[1]q", path), nil); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "text" {
		t.Errorf("it holds %q, %v", b, err)
	}
}

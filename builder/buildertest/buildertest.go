// Package buildertest is the conformance suite of builders that need no cloud.
package buildertest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/builder"
	"bake/component"
	"bake/config/schema"
	"bake/internal/conformance"
	"bake/step"
)

// Suite checks the requirements on every builder.
type Suite struct {
	Factory component.Factory[builder.Builder]
	Body    string // of a valid source block
	Dir     string // contains everything that the builder makes
}

// Run checks that a builder documents its options; that, cancelled at any check of its
// context, it returns the cause; that it returns the error of the provisioners unchanged;
// that after each of these nothing is left, in Dir or as a goroutine, and the builder can
// be called again; and that deleting its artifact leaves Dir as it was.
func (suite Suite) Run(t *testing.T) {
	t.Helper()
	if _, err := suite.Factory.Docs(); err != nil {
		t.Error(err)
	}
	before := list(t, suite.Dir)
	unchanged := func(what string) {
		t.Helper()
		if diff := cmp.Diff(before, list(t, suite.Dir)); diff != "" {
			t.Errorf("%s: what is left behind (-before +after):\n%s", what, diff)
		}
		if left := conformance.Goroutines("bake/builder/", "bake/communicator/"); left != "" {
			t.Errorf("%s: goroutines are left:\n%s", what, left)
		}
	}
	again := func(what string) {
		t.Helper()
		a, err := suite.build(t, t.Context(), func(context.Context, builder.Machine) error { return nil })
		if err != nil || a == nil || a.Text == "" || a.BuilderID == "" {
			t.Fatalf("%s: again: %+v, %v", what, a, err)
		}
		destroy(t, a)
		unchanged(what + ": again")
	}

	conformance.Cancel(t, func(ctx context.Context) error {
		a, err := suite.build(t, ctx, func(ctx context.Context, _ builder.Machine) error { return context.Cause(ctx) })
		if err == nil {
			destroy(t, a)
		}
		return err
	}, func(what string, err error) {
		unchanged(what)
		if err != nil {
			again(what)
		}
	})

	failed := errors.New("failed")
	if _, err := suite.build(t, t.Context(), func(context.Context, builder.Machine) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("a provisioner failed: got %v", err)
	}
	unchanged("a provisioner failed")
	again("a provisioner failed")
}

// destroy deletes the resources of an artifact, and closes it.
func destroy(t *testing.T, a *builder.Artifact) {
	t.Helper()
	for _, r := range a.Resources {
		if err := builder.DestroyFile(t.Context(), r); err != nil {
			t.Error(err)
		}
	}
	if a.Live == nil {
		return
	}
	for range 2 { // deleting twice is not an error
		if err := a.Live.Destroy(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := a.Live.Close(); err != nil {
		t.Error(err)
	}
}

// build runs a build, and tears down the resources that it still owns.
func (suite Suite) build(t *testing.T, ctx context.Context, provision builder.Provision) (*builder.Artifact, error) {
	t.Helper()
	f, diags := hclsyntax.ParseConfig([]byte(suite.Body), "t.pkr.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	b, diags := suite.Factory.New(schema.Input{Body: f.Body, Context: &hcl.EvalContext{}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	ledger, err := step.CreateLedger(t.TempDir(), step.Header{Run: "run"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ledger.Close() }) // the files of an artifact are below it
	s := step.NewScope(step.Scope{Build: "test.x", Ledger: ledger, Emit: func(step.Event) {}, Grace: time.Minute, Run: step.Invocation{ID: "run", Env: os.Environ()}})
	a, err := b.Build(ctx, s, builder.Hooks{Provision: provision})
	if err := s.Close(context.WithoutCancel(t.Context()), context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	return a, err
}

// list returns the files below a directory, and their contents.
func list(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			b, fault := os.ReadFile(path)
			files[path], err = string(b), fault
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

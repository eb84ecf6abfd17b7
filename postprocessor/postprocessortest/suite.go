package postprocessortest

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bake/builder"
	"bake/component"
	"bake/internal/conformance"
	"bake/postprocessor"
	"bake/step"
)

// Suite checks the requirements on every post-processor.
type Suite struct {
	Factory component.Factory[postprocessor.PostProcessor]

	// Body is the body of a valid block. DIR in it is replaced by a directory of the test
	// with the artifact's files, DIR/one and DIR/two.
	Body string

	// Unwritable is the body of a block that writes to DIR/one/x, which is impossible, and
	// a text that the error must contain. Empty: the post-processor writes nothing.
	Unwritable, Names string

	// Untouched means that the post-processor does not read the artifact's files.
	Untouched bool
}

// Run checks that a post-processor documents its options; that, if it is cancelled at any
// point where it checks its context, it returns the cause and leaves neither files nor
// goroutines behind; that an error names the file or option that it is about; and that it
// can be called again after each of these.
func (suite Suite) Run(t *testing.T) {
	t.Helper()
	if _, err := suite.Factory.Docs(); err != nil {
		t.Error(err)
	}
	dir := t.TempDir()
	in := &builder.Artifact{ID: "web", Files: []string{filepath.Join(dir, "one"), filepath.Join(dir, "two")}}
	for _, path := range in.Files {
		if err := os.WriteFile(path, []byte(strings.Repeat(path, 1_500)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := list(t, dir)
	process := func(ctx context.Context, body string, in *builder.Artifact) error {
		p, diags := instance(t, suite.Factory, strings.ReplaceAll(body, "DIR", filepath.ToSlash(dir)))
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		s := step.Scope{Run: step.Invocation{ID: "run", Env: os.Environ()}, SourceType: "null", SourceName: "web", Emit: func(step.Event) {}}
		_, _, err := p.Process(ctx, step.NewScope(s), in)
		if left := conformance.Goroutines("bake/postprocessor/", "klauspost/"); left != "" {
			t.Errorf("goroutines are left:\n%s", left)
		}
		return err
	}
	unchanged := func(what string) {
		t.Helper()
		if diff := cmp.Diff(before, list(t, dir)); diff != "" {
			t.Errorf("%s: what is left behind (-before +after):\n%s", what, diff)
		}
	}
	again := func(what string) {
		t.Helper()
		if err := process(t.Context(), suite.Body, in); err != nil {
			t.Errorf("%s: again: %v", what, err)
		}
		for name := range list(t, dir) {
			if _, ok := before[name]; !ok {
				if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}

	conformance.Cancel(t, func(ctx context.Context) error { return process(ctx, suite.Body, in) }, func(what string, err error) {
		if err != nil {
			unchanged(what)
		}
		again(what)
	})
	again("after a success")

	if !suite.Untouched {
		missing := filepath.Join(dir, "missing")
		err := process(t.Context(), suite.Body, &builder.Artifact{Files: append(slices.Clone(in.Files), missing)})
		if err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("a file is missing: got %v", err)
		}
		unchanged("a file is missing")
		again("a file is missing")
	}
	if suite.Unwritable != "" {
		err := process(t.Context(), suite.Unwritable, in)
		if err == nil || !strings.Contains(err.Error(), suite.Names) || !strings.Contains(filepath.ToSlash(err.Error()), filepath.ToSlash(dir)+"/one") {
			t.Errorf("the output cannot be written: got %v, which does not name %s", err, suite.Names)
		}
		unchanged("the output cannot be written")
		again("the output cannot be written")
	}
}

// list returns the files of a directory, with their contents.
func list(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, _ := os.ReadFile(filepath.Join(dir, e.Name()))
		files[e.Name()] = string(b)
	}
	return files
}

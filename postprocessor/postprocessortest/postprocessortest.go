// Package postprocessortest has the conformance suite of post-processors, and helpers
// to run them in tests.
package postprocessortest

import (
	"os"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/builder"
	"bake/component"
	"bake/config/schema"
	"bake/postprocessor"
	"bake/step"
)

// Process runs the post-processor with this body on in, in a build of a source "null"
// "web". It also returns an error if body is invalid.
func Process(t *testing.T, f component.Factory[postprocessor.PostProcessor], body string, in *builder.Artifact) (*builder.Artifact, postprocessor.Keep, error) {
	t.Helper()
	return ProcessIn(t, f, body, step.Scope{Run: step.Invocation{Env: os.Environ()}, SourceType: "null", SourceName: "web"}, in)
}

// ProcessIn is Process in the given build.
func ProcessIn(t *testing.T, f component.Factory[postprocessor.PostProcessor], body string, s step.Scope, in *builder.Artifact) (*builder.Artifact, postprocessor.Keep, error) {
	t.Helper()
	p, diags := instance(t, f, body)
	if diags.HasErrors() {
		return nil, 0, diags
	}
	if s.Emit == nil {
		s.Emit = func(step.Event) {}
	}
	return p.Process(t.Context(), step.NewScope(s), in)
}

// instance makes a post-processor from the body of its block.
func instance(t *testing.T, f component.Factory[postprocessor.PostProcessor], body string) (postprocessor.PostProcessor, hcl.Diagnostics) {
	t.Helper()
	file, diags := hclsyntax.ParseConfig([]byte(body), "t.pkr.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return f.New(schema.Input{Body: file.Body, Context: &hcl.EvalContext{}})
}

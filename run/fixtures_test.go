package run_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/builtin"
	"bake/config"
	"bake/internal/fixtures"
	"bake/run"
)

// TestInvalidComponents: the real components report the errors in the fixtures. The fixtures of
// the language itself are checked with few components, in engine.
func TestInvalidComponents(t *testing.T) {
	fixtures.Invalid(t, "../testdata/invalid/components/*.pkr.hcl", validateFixture)
}

// TestValidComponents: the real components report no errors.
func TestValidComponents(t *testing.T) {
	fixtures.Valid(t, "../testdata/valid/components/*.pkr.hcl", validateFixture)
}

func validateFixture(t *testing.T, path string) hcl.Diagnostics {
	t.Helper()
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	found, err := run.Check(t.Context(), run.Template{Options: config.Options{Path: path, Cwd: cwd, Now: start}}, builtin.Parts{}.Catalog().Components())
	var broken *run.TemplateError
	if err != nil && !errors.As(err, &broken) {
		t.Fatal(err)
	}
	return found.Diags
}

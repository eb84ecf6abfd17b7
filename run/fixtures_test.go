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

// TestInvalidComponents: the real components complain as the fixtures say. The
// fixtures of the language itself are run with few components, by engine.
func TestInvalidComponents(t *testing.T) {
	fixtures.Invalid(t, "../testdata/invalid/components/*.pkr.hcl", validateFixture)
}

// TestValidComponents: the real components have nothing to complain about.
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

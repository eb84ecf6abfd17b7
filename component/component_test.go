package component_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"bake/component"
	"bake/config/schema"
)

type options struct {
	Name string `hcl:"name"`
	Size int    `hcl:"size,optional"`
}

// thing is what the factory makes.
type thing struct {
	options *options
	where   *schema.Source
}

func define() component.Factory[*thing] {
	return component.Define("thing", func() options { return options{Size: 8} },
		func(o *options, where *schema.Source) *thing { return &thing{o, where} }).
		Exporting(map[string]cty.Type{"ID": cty.String})
}

func input(t *testing.T, text string) schema.Input {
	t.Helper()
	f, diags := hclsyntax.ParseConfig([]byte(text), "t.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return schema.Input{Body: f.Body, Context: &hcl.EvalContext{Variables: map[string]cty.Value{"later": cty.UnknownVal(cty.String)}}}
}

func TestFactory(t *testing.T) {
	f := define()
	if f.Name() != "thing" || f.Exports(schema.Input{}).Types["ID"] != cty.String {
		t.Errorf("Name and Exports = %q, %v, want thing with a string ID", f.Name(), f.Exports(schema.Input{}))
	}
	if docs, err := f.Docs(); err == nil || !strings.Contains(err.Error(), "options.Name has no doc comment") {
		t.Errorf("Docs = %v, %v, want an error: the program knows the comments of its own options only", docs, err)
	}
	made, diags := f.New(input(t, "name = \"x\""))
	if diags.HasErrors() || made.options.Name != "x" || made.options.Size != 8 {
		t.Errorf("New = %+v, want name x and the default size 8; diagnostics: %v", made, diags)
	}
	if rng := made.where.Range(&made.options.Name); rng.Start.Line != 1 {
		t.Errorf("Range = %v, want line 1", rng)
	}
	other, diags := f.New(input(t, "name = \"y\"\nsize = 9"))
	if diags.HasErrors() || other.options == made.options || made.options.Size != 8 {
		t.Error("two components share their options")
	}
}

// TestUnknown: unknown values are accepted in a check, and are errors in use.
func TestUnknown(t *testing.T) {
	f := define()
	if diags := f.Check(input(t, "name = later")); len(diags) > 0 {
		t.Errorf("Check of an unknown value: %v", diags)
	}
	made, diags := f.New(input(t, "name = later"))
	if made != nil || !diags.HasErrors() || diags[0].Summary != "Value not known" || diags[0].Subject.Start.Line != 1 {
		t.Errorf("New of an unknown value = %v, want an error in line 1; diagnostics: %v", made, diags)
	}
}

func TestWrong(t *testing.T) {
	f := define()
	if diags := f.Check(input(t, "size = 1")); !diags.HasErrors() {
		t.Error("checked")
	}
	if made, diags := f.New(input(t, "name = \"x\"\ncolor = 1")); made != nil || !diags.HasErrors() {
		t.Error("made")
	}
}

func TestRegistry(t *testing.T) {
	other := component.Define("another", func() options { return options{} }, func(*options, *schema.Source) *thing { return nil })
	r := component.NewRegistry(define(), other)
	if !slices.Equal(r.Names(), []string{"another", "thing"}) {
		t.Errorf("Names = %q, want another and thing", r.Names())
	}
	defer func() {
		if recover() == nil {
			t.Error("two factories share a name")
		}
	}()
	component.NewRegistry(define(), define())
}

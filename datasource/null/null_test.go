package null_test

import (
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/config/schema"
	"bake/datasource/null"
)

func TestRead(t *testing.T) {
	f, _ := hclsyntax.ParseConfig([]byte(`input = "a ${1 + 1}"`), "t.pkr.hcl", hcl.InitialPos)
	d, diags := null.Factory().New(schema.Input{Body: f.Body, Context: &hcl.EvalContext{}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	v, err := d.Read(t.Context())
	if err != nil || v.GetAttr("output").AsString() != "a 2" {
		t.Errorf("%#v, %v", v, err)
	}
	if _, err := null.Factory().Docs(); err != nil {
		t.Error(err)
	}
}

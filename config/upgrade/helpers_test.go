package upgrade_test

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// validText reports whether JSON and HCL both keep s unchanged: it is UTF-8 in composed form.
func validText(s string) bool {
	return utf8.ValidString(s) && cty.NormalizeString(s) == s
}

func jsonString(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// evaluate returns the value of a in the only source of out.
func evaluate(t *testing.T, out []byte) string {
	t.Helper()
	f, diags := hclsyntax.ParseConfig(out, "out.pkr.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatalf("%s\n%s", diags, out)
	}
	ec := &hcl.EvalContext{Functions: map[string]function.Function{"chomp": stdlib.ChompFunc}}
	for _, b := range f.Body.(*hclsyntax.Body).Blocks {
		if b.Type == "source" {
			v, diags := b.Body.Attributes["a"].Expr.Value(ec)
			if diags.HasErrors() {
				t.Fatalf("%s\n%s", diags, out)
			}
			return v.AsString()
		}
	}
	t.Fatalf("no source in\n%s", out)
	return ""
}

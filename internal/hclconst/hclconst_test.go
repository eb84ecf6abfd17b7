package hclconst_test

import (
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/internal/hclconst"
)

func TestDecode(t *testing.T) {
	for src, want := range map[string]struct {
		text, textProblem string
		yes               bool
		boolProblem       string
	}{
		`"true"`:    {text: "true", yes: true},
		`true`:      {text: "true", yes: true},
		`1.50`:      {text: "1.5", boolProblem: "Unsuitable value type"},
		`"${1}x"`:   {text: "1x", boolProblem: "Unsuitable value type"},
		`null`:      {text: "before", textProblem: "Unsuitable value type", boolProblem: "Unsuitable value type"},
		`["x"]`:     {text: "before", textProblem: "Unsuitable value type", boolProblem: "Unsuitable value type"},
		`var.x`:     {text: "before", textProblem: "Variables not allowed", boolProblem: "Variables not allowed"},
		`lower("")`: {text: "before", textProblem: "Function calls not allowed", boolProblem: "Function calls not allowed"},
	} {
		expr, diags := hclsyntax.ParseExpression([]byte(src), "x.hcl", hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		text, yes := "before", false
		check := func(diags hcl.Diagnostics, want string) {
			t.Helper()
			switch {
			case want == "" && len(diags) > 0:
				t.Errorf("%s: %v", src, diags)
			case want != "" && (len(diags) != 1 || diags[0].Summary != want || diags[0].Subject == nil || diags[0].Subject.Filename != "x.hcl"):
				t.Errorf("%s: %v, want %q", src, diags, want)
			}
		}
		check(hclconst.Decode(expr, &text), want.textProblem)
		check(hclconst.Decode(expr, &yes), want.boolProblem)
		if text != want.text || yes != want.yes {
			t.Errorf("%s: %q and %v, want %q and %v", src, text, yes, want.text, want.yes)
		}
	}
}

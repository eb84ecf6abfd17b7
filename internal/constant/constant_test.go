package constant_test

import (
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/internal/constant"
)

func TestConstant(t *testing.T) {
	for src, want := range map[string]struct {
		text            string
		isText, yes, is bool
	}{
		`"true"`: {"true", true, true, true}, `true`: {"true", true, true, true}, `false`: {"false", true, false, true},
		`1`: {text: "1", isText: true}, `"a${1 + 1}"`: {text: "a2", isText: true}, `"é\n"`: {text: "é\n", isText: true}, `""`: {isText: true},
		`null`: {}, `[]`: {}, `{}`: {}, `var.x`: {}, `upper("a")`: {},
	} {
		expr, diags := hclsyntax.ParseExpression([]byte(src), "t.hcl", hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		text, diags := constant.String(expr)
		if text != want.text || diags.HasErrors() == want.isText {
			t.Errorf("%s as a string is %q, %v; want %q, %t", src, text, diags, want.text, want.isText)
		}
		if diags.HasErrors() && diags[0].Subject.Filename != "t.hcl" {
			t.Errorf("%s: %v is nowhere", src, diags)
		}
		if yes, diags := constant.Bool(expr); yes != want.yes || diags.HasErrors() == want.is {
			t.Errorf("%s as a bool is %t, %v; want %t, %t", src, yes, diags, want.yes, want.is)
		}
	}
}

// TestQuote: what is quoted is read as it was.
func TestQuote(t *testing.T) {
	for _, s := range []string{"", "a b", `"\`, "${x} %{y} $${z}", "\r\n\t", "é – 日本", "$", "%{"} {
		expr, diags := hclsyntax.ParseExpression([]byte(constant.Quote(s)), "t.hcl", hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		if got, diags := constant.String(expr); got != s || diags.HasErrors() {
			t.Errorf("%q is read as %q, %v", s, got, diags)
		}
	}
}

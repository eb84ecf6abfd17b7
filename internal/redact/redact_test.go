package redact_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"bake/internal/redact"
)

func TestRedact(t *testing.T) {
	tests := []struct {
		secrets    []string
		text, want string
	}{
		{nil, "text", "text"},
		{[]string{"pass"}, "password=pass", "<sensitive>word=<sensitive>"},
		{[]string{"pass", "password"}, "password=pass", "<sensitive>=<sensitive>"},
		{[]string{""}, "text", "text"},
		{[]string{"one-line\r\nother-line\r\n"}, "only other-line here", "only <sensitive> here"},
		{[]string{"one-line\r\nother-line\r\n"}, "one-line\nother-line\n", "<sensitive>"},
		{[]string{"one-line\r\nother-line\r\n"}, "one-line\nother-line.", "<sensitive>."},
		{[]string{"{\n  \"key\": 1\n}"}, "a { b }", "a { b }"},
		{[]string{"{\n  \"key\": 1\n}"}, "is \"key\": 1 there", "is <sensitive> there"},
		{[]string{"\n \n"}, "a\n \nb", "a\n \nb"},
	}
	for _, test := range tests {
		var set redact.Set
		for _, s := range test.secrets {
			set.Add(s)
		}
		if got := set.Redact(test.text); got != test.want {
			t.Errorf("%q: %q becomes %q, want %q", test.secrets, test.text, got, test.want)
		}
	}
}

func TestError(t *testing.T) {
	var set redact.Set
	set.Add("hunter2")
	if set.Error(nil) != nil {
		t.Error("an error out of nothing")
	}
	if set.Error(fs.ErrExist) != fs.ErrExist {
		t.Error("an error without secrets is not returned as it is")
	}
	err := set.Error(errors.Join(fs.ErrExist, errors.New("with hunter2")))
	if strings.Contains(err.Error(), "hunter2") || !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
}

// TestDiagnostics: neither the text nor the values that are shown with it.
func TestDiagnostics(t *testing.T) {
	var set redact.Set
	set.Add("hunter2")
	expr, parsed := hclsyntax.ParseExpression([]byte("var.a + var.b"), "x.hcl", hcl.InitialPos)
	if parsed.HasErrors() {
		t.Fatal(parsed)
	}
	print := func(a string) (string, hcl.Diagnostics) {
		rng := expr.Range()
		in := hcl.Diagnostics{{
			Severity: hcl.DiagError, Summary: "S hunter2", Detail: "D hunter2.", Subject: &rng, Expression: expr,
			EvalContext: &hcl.EvalContext{Variables: map[string]cty.Value{"var": cty.ObjectVal(map[string]cty.Value{
				"a": cty.StringVal(a), "b": cty.StringVal("visible"),
			})}},
		}}
		var b strings.Builder
		files := map[string]*hcl.File{"x.hcl": {Bytes: []byte("var.a + var.b")}}
		out := set.Diagnostics(in)
		if err := hcl.NewDiagnosticTextWriter(&b, files, 80, false).WriteDiagnostics(out); err != nil {
			t.Fatal(err)
		}
		return b.String(), in
	}
	got, in := print("a hunter2 b")
	if strings.Contains(got, "hunter2") || !strings.Contains(got, "S <sensitive>") {
		t.Error(got)
	}
	if got, _ := print("harmless"); !strings.Contains(got, "harmless") {
		t.Errorf("values that are no secrets are missing:\n%s", got)
	}
	var diags hcl.Diagnostics
	if err := set.Error(fmt.Errorf("wrapped: %w", in)); !errors.As(err, &diags) || diags[0].Summary != "S <sensitive>" || diags[0].EvalContext != nil {
		t.Errorf("%v, %v", err, diags)
	}
}

func TestBlank(t *testing.T) {
	var set redact.Set
	set.Add("hunter2")
	if got := string(set.Blank([]byte("a hunter2 b"))); got != "a ******* b" {
		t.Error(got)
	}
}

func TestConcurrent(t *testing.T) {
	var set redact.Set
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			secret := strings.Repeat(string(rune('a'+i)), 9)
			set.Add(secret)
			if got := set.Redact(secret); got != redact.Mask {
				t.Error(got)
			}
		})
	}
	wg.Wait()
	if n := len(set.Values()); n != 8 {
		t.Error(n)
	}
}

// FuzzRedact: no secret is left in what comes out, unless the masks make it up.
func FuzzRedact(f *testing.F) {
	f.Add("secret", "cre", "a secret text")
	f.Add("aa", "aaa", "aaaaa")
	f.Add("line one\nline two", "x", "line two")
	f.Fuzz(func(t *testing.T, a, b, text string) {
		var set redact.Set
		set.Add(a)
		set.Add(b)
		got := strings.ReplaceAll(set.Redact(text), redact.Mask, "\x00")
		for _, s := range set.Values() {
			if !strings.Contains(s, "\x00") && strings.Contains(got, s) {
				t.Errorf("%q is left in %q", s, got)
			}
		}
	})
}

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
		{[]string{"pa55-word"}, "pa55-word1=pa55-word", "<sensitive>1=<sensitive>"},
		{[]string{"pa55-word", "pa55-word1"}, "pa55-word1=pa55-word", "<sensitive>=<sensitive>"},

		// Short texts, words and numbers are masked only as separate words.
		{[]string{"pass"}, "password=pass; pass_pass-pass PASS(pass)", "password=<sensitive>; pass_pass-pass PASS(<sensitive>)"},
		{[]string{"y"}, "type y, [y/n], you, süßy yü", "type <sensitive>, [<sensitive>/n], you, süßy yü"},
		{[]string{"80"}, "80 8080 :80", "<sensitive> 8080 :<sensitive>"},
		{[]string{"p!"}, "p! up! p!p!", "<sensitive> up! <sensitive><sensitive>"},
		{[]string{"sensitive", "pa55-word"}, "pa55-word is sensitive", "<sensitive> is <sensitive>"},
		{[]string{"pa55-word", "word"}, "pa55-word word", "<sensitive> <sensitive>"},
		{[]string{"administrator"}, "administrators: administrator", "administrators: <sensitive>"},
		{[]string{"iloveyousomuchreally"}, "xiloveyousomuchreally", "x<sensitive>"},
		{[]string{"XkQpLmZw"}, "xXkQpLmZwx", "x<sensitive>x"},

		// An ordinary line of a text is masked as a line.
		{[]string{"root\npa55-word\n"}, "root\nroot: root\n root \npa55-word", "<sensitive>\nroot: root\n <sensitive> \n<sensitive>"},
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
	if !errors.Is(set.Error(fs.ErrExist), fs.ErrExist) {
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
		t.Errorf("printed %q, want the secret masked", got)
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
	set.Add("long-enough")
	set.Add("packer")
	const text, want = `packer { a = "hunter2 packer", b = "xlong-enough", c = "packer" }`, `packer { a = "******* packer", b = "x***********", c = "******" }`
	if got := string(set.Blank([]byte(text))); got != want {
		t.Errorf("Blank = %q, want %q", got, want)
	}
}

// No word of bake's own is ever masked.
func TestRedactMessage(t *testing.T) {
	for _, test := range []struct{ secret, text, want string }{
		{"file", "Upload of a file: no such file", "Upload of a file: no such file"},
		{"file", `"file" is not a number`, `"<sensitive>" is not a number`},
		{"file", "'file' and `file`", "'<sensitive>' and `<sensitive>`"},
		{"file", "file", "<sensitive>"},
		{"a file", "this is a file", "this is a file"},
		{"secret ", "a secret of", "a secret of"},
		{"y", "Retry it by typing", "Retry it by typing"},
		{"1", "exit status 1", "exit status 1"},
		{"t0k", "exit status t0k, t0ken", "exit status <sensitive>, t0ken"},
		{"pa55-word", "pa55-words", "<sensitive>s"},
		{"provision\nsecond-line", "provision with shell\nprovision", "provision with shell\nprovision"},
	} {
		var set redact.Set
		set.Add(test.secret)
		if got := set.RedactMessage(test.text); got != test.want {
			t.Errorf("%q: %q becomes %q, want %q", test.secret, test.text, got, test.want)
		}
	}
}

// Values that are not marked as secret are masked only if they are long and rare.
func TestAddRare(t *testing.T) {
	for text, rare := range map[string]bool{
		"packer": false, "root": false, "p": false, "": false, "Administrator": false, "password": false, "12345678": false,
		"not found": false, "secret ": false, "s3cr3t-pw": true, "correct horse battery": true, "123456789012": true,
	} {
		var set redact.Set
		set.AddRare(text)
		if got := len(set.Values()) > 0; got != rare {
			t.Errorf("%q is a secret: %t, want %t", text, got, rare)
		}
	}
}

// Each form in which programs quote a text is masked.
func TestQuotations(t *testing.T) {
	const text = "a<b>&\"c\"\\'d'\té"
	for name, form := range map[string]string{
		"Go":                      `a<b>&\"c\"\\'d'\té`,
		"Go in ASCII":             `a<b>&\"c\"\\'d'\t\u00e9`,
		"JSON":                    `a<b>&\"c\"\\'d'\té`,
		"JSON for HTML":           `a\u003cb\u003e\u0026\"c\"\\'d'\té`,
		"query of a URL":          "a%3Cb%3E%26%22c%22%5C%27d%27%09%C3%A9",
		"path of a URL":           "a%3Cb%3E&%22c%22%5C%27d%27%09%C3%A9",
		"shell, with a backslash": "a<b>&\"c\"\\'\\''d'\\''\té",
		"shell, in double quotes": "a<b>&\"c\"\\'\"'\"'d'\"'\"'\té",
	} {
		var set redact.Set
		set.Add(text)
		if got := set.Redact("<" + form + ">"); got != "<"+redact.Mask+">" {
			t.Errorf("%s: %s stays %s", name, form, got)
		}
	}
	// Where JSON and Go differ: control characters, and the line ends of JavaScript.
	for text, form := range map[string]string{"bell\a-secret": `bell\u0007-secret`, "line\u2028-secret": `line\u2028-secret`, "del\x7f&-secret": "del\x7f\\u0026-secret"} {
		var set redact.Set
		set.Add(text)
		if got := set.Redact(form); got != redact.Mask {
			t.Errorf("JSON: %s stays %s", form, got)
		}
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
				t.Errorf("Redact(%q) = %q, want %q", secret, got, redact.Mask)
			}
		})
	}
	wg.Wait()
	if n := len(set.Values()); n != 8 {
		t.Errorf("the set has %d values, want 8", n)
	}
}

// TestOverlap: nothing is left of overlapping secrets, nor of one that contains another.
func TestOverlap(t *testing.T) {
	var set redact.Set
	for _, secret := range []string{"hunter2-alpha", "alpha-centauri-9", "centauri-9", "hunter2-alphabet"} {
		set.Add(secret)
	}
	for text, want := range map[string]string{
		"<hunter2-alpha-centauri-9>":        "<" + redact.Mask + ">",
		"hunter2-alphabet":                  redact.Mask,
		"hunter2-alphahunter2-alpha":        redact.Mask + redact.Mask,
		"hunter2-alph hunter2-alpha":        "hunter2-alph " + redact.Mask,
		"a centauri-9 and an alpha-centaur": "a " + redact.Mask + " and an alpha-centaur",
	} {
		if got := set.Redact(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
		if got := set.Blank([]byte(text)); len(got) != len(text) {
			t.Errorf("%s: blank it is %s", text, got)
		}
	}
}

// BenchmarkKeys adds one key for each of many builds, and searches some output for all of them.
func BenchmarkKeys(b *testing.B) {
	for b.Loop() {
		var set redact.Set
		for i := range 500 {
			set.Add(fmt.Sprintf("-----BEGIN KEY-----\n%032x\n%032x\n-----END KEY-----\n", i*7919, i*104729))
			for range 20 {
				set.Redact("Setting up libnginx-mod-http-geoip2 (1.22.1-9+deb12u3) on host 10.0.0.1 ...")
			}
		}
	}
}

// FuzzRedact: no secret is left in the output, unless the masks form it.
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
			if redact.Rare(s) && !strings.Contains(s, "\x00") && strings.Contains(got, s) {
				t.Errorf("%q is left in %q", s, got)
			}
		}
	})
}

package config_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"bake/config"
	"bake/config/lang"
)

func outline(t testing.TB, template string) *config.Outline {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "t.pkr.hcl"), []byte(template), 0o600); err != nil {
		t.Fatal(err)
	}
	out, diags := config.ReadOutline(t.Context(), config.Options{Path: "t.pkr.hcl", Cwd: dir, Now: time.Unix(0, 0)})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return out
}

const consoleTemplate = `
variable "region" { default = "eu-west-1" }
variable "unset" { type = number }
variable "password" {
  default   = "hunter2"
  sensitive = true
}
data "http" "x" {}
locals {
  list  = ["a", "b"]
  login = base64encode(var.password)
  body  = data.http.x.body
}
build { sources = [local.body] }
`

func TestOutlineGoesOn(t *testing.T) {
	out := outline(t, strings.Replace(consoleTemplate, `["a", "b"]`, "[]", 1)+"locals {\n  bad = nosuch()\n  good = 1\n}\n")
	if len(out.Incomplete) == 0 {
		t.Error("nothing is doubtful")
	}
	var names []string
	for _, v := range out.Locals {
		names = append(names, v.Name+"="+lang.Show(v.Value))
	}
	if got := strings.Join(names, " "); got != "bad=<unknown> body=<unknown> good=1 list=[] login=<sensitive>" {
		t.Errorf("locals = %q, want bad and body unknown, and login sensitive", got)
	}
	if len(out.Data) != 1 || out.Data[0] != "data.http.x" {
		t.Errorf("data sources = %q, want data.http.x alone", out.Data)
	}
}

func TestEvaluate(t *testing.T) {
	out := outline(t, consoleTemplate)
	for _, test := range []struct{ text, want string }{
		{`var.region`, "eu-west-1"},
		{`local.list`, "[\n  \"a\",\n  \"b\",\n]"},
		{`var.unset + 1`, lang.Unknown},
		{`local.body`, lang.Unknown},
		{`{ a = var.password, b = null, c = true }`, "{\n  \"a\" = <sensitive>\n  \"c\" = true\n}"},
		{`var.password == "x" ? 1 : 2`, "<sensitive>"},
		{`{}`, "{}"},
		{`1e30`, "1e+30"},
		{`1e9999`, "1e+9999"},
		{`"line\nline"`, "line\nline"},
	} {
		val, diags, err := out.Evaluate(t.Context(), test.text)
		if got := lang.Show(val); err != nil || diags.HasErrors() || got != test.want {
			t.Errorf("%s is %q, want %q (%v)", test.text, got, test.want, diags)
		}
	}
	for text, want := range map[string]string{
		"build.ID": "console", "data.http.x.body": "console", "source.name": "console",
		"{{user `x`}}": "legacy JSON", "1 +": "", "": "", "1e10001": "at most 1e10000",
		strings.Repeat("(", 201): "brackets", strings.Repeat("x", 70000): "bytes",
	} {
		if _, diags, _ := out.Evaluate(t.Context(), text); !diags.HasErrors() || !strings.Contains(diags.Error()+diags[0].Detail, want) {
			t.Errorf("%.20s: %v", text, diags)
		}
	}
}

func TestIncomplete(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "1": false, "[": true, "[1,\n2]": false, "f(": true, "{ a = (": true, `"("`: false, `"${`: true,
		`"${ f( )`: true, "]": false, "<<EOT\nx": true, "<<EOT\nx\nEOT\n": false,
	} {
		if got := config.Incomplete(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// FuzzEvaluate: any input gets an answer, which contains no secret.
func FuzzEvaluate(f *testing.F) {
	for _, text := range []string{
		"var.password", `"${var.password}"`, "local.list[0]", `format("%5s", "x")`, "[for x in local.list : upper(x)]",
		"{", "((((", "1e5 * 1e5", "<<EOT\n${var.region}\nEOT\n", `try(nosuch(), var.password)`, "{{user `x`}}", "local.*", "data",
		`jsonencode({ a = var.password })`, "var", "[1, 2][var.unset]", "\x00\xff", `regex("(", "x")`, `"%{ if true }x%{ endif }"`,
	} {
		f.Add(text)
	}
	out := outline(f, consoleTemplate)
	f.Fuzz(func(t *testing.T, text string) {
		if expensive(text) {
			t.Skip()
		}
		late := time.AfterFunc(10*time.Second, func() { panic(fmt.Sprintf("%q takes too long", text)) })
		defer late.Stop()
		config.Incomplete(text)
		val, diags, err := out.Evaluate(context.Background(), text)
		if err != nil {
			t.Fatal(err)
		}
		shown := lang.Show(val)
		if !strings.Contains(text, "hunter2") && strings.Contains(shown+diags.Error(), "hunter2") {
			t.Errorf("%q tells the secret: %q, %v", text, shown, diags)
		}
		if utf8.ValidString(text) && !utf8.ValidString(shown) {
			t.Errorf("%q is %q", text, shown)
		}
	})
}

// expensive reports whether an expression makes requests, or can take an arbitrary time.
func expensive(text string) bool {
	for _, word := range []string{"bcrypt", "file", "vault", "consul", "aws_", "template", "format", "range", "rsadecrypt"} {
		if strings.Contains(text, word) && text != `format("%5s", "x")` {
			return true
		}
	}
	return false
}

// TestLookupInLocals: a lookup in all locals finds those that do not depend on it, and is not a
// cycle.
func TestLookupInLocals(t *testing.T) {
	out := outline(t, `locals {
		b     = lookup(local, "a", "none")
		of_b  = upper("b${local.b}")
		other = lookup(local, "of_b", "none")
		n     = length(local)
		a     = "1"
	}`)
	if len(out.Incomplete) != 0 {
		t.Errorf("incomplete = %v, want nothing", out.Incomplete)
	}
	var got []string
	for _, v := range out.Locals {
		got = append(got, v.Name+"="+lang.Show(v.Value))
	}
	if s := strings.Join(got, " "); s != "a=1 b=1 n=4 of_b=B1 other=B1" {
		t.Errorf("locals = %q, want a=1 b=1 n=4 of_b=B1 other=B1", s)
	}
}

// TestShownNumbers: numbers are shown with the digits that Packer shows.
func TestShownNumbers(t *testing.T) {
	out := outline(t, "")
	for text, want := range map[string]string{
		"1/3": "0.3333333333333333", "1.1*1.1": "1.21", "1-0.9": "0.1", "1e30": "1e+30", "1e100": "1e+100", "-0": "0", "0*-1": "0",
		"1000000": "1000000", "9007199254740993": "9007199254740993", "1234567.5": "1.2345675e+06", "0.00001": "1e-05", "1/0": "+Inf",
		"[1.1*1.1, null, { a = null, b = 1/3 }]": "[\n  1.21,\n  null,\n  {\n    \"b\" = 0.3333333333333333\n  },\n]",
		`"${1/4}"`:                               "0.25",
	} {
		val, diags, err := out.Evaluate(t.Context(), text)
		if got := lang.Show(val); err != nil || diags.HasErrors() || got != want {
			t.Errorf("%s is %q, want %q (%v)", text, got, want, diags)
		}
	}
}

package config_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"bake/config"
)

// write makes a directory of files and returns its path.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// load loads the template in dir and fails the test on errors.
func load(t *testing.T, o config.Options) *config.Template {
	t.Helper()
	o.Now = now
	template, diags := config.Load(t.Context(), o)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return template
}

// text joins diagnostics into one text per line.
func text(diags hcl.Diagnostics) string {
	var lines []string
	for _, d := range diags {
		kind := "error"
		if d.Severity == hcl.DiagWarning {
			kind = "warning"
		}
		lines = append(lines, kind+": "+d.Summary+": "+d.Detail)
	}
	return strings.Join(lines, "\n")
}

// attribute decodes one attribute of a component.
func attribute(t *testing.T, c *config.Component, name string, build map[string]cty.Value) cty.Value {
	t.Helper()
	values := cty.NilVal
	if build != nil {
		values = cty.ObjectVal(build)
	}
	in, diags := c.Input(t.Context(), values)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	content, _, diags := in.Body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: name}}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	attr := content.Attributes[name]
	if attr == nil {
		return cty.NilVal
	}
	val, diags := attr.Expr.Value(in.Context)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return val
}

func variable(t *testing.T, template *config.Template, name string) cty.Value {
	t.Helper()
	for _, v := range template.Variables {
		if v.Name == name {
			return v.Value
		}
	}
	t.Fatalf("no variable %q", name)
	return cty.NilVal
}

// TestPrecedence: each place overrides the ones before it.
func TestPrecedence(t *testing.T) {
	dir := write(t, map[string]string{
		"t.pkr.hcl": `
variable "a" { default = "default" }
variable "b" { default = "default" }
variable "c" { default = "default" }
variable "d" { default = "default" }
variable "e" { default = "default" }
variable "f" { default = "default" }
variable "g" { default = "default" }
`,
		"z.auto.pkrvars.hcl":  `c = "auto z"` + "\n" + `d = "auto z"` + "\n" + `e = "auto z"` + "\n" + `f = "auto z"` + "\n" + `g = "auto z"`,
		"a.auto.pkrvars.hcl":  `c = "auto a"` + "\n" + `d = "auto a"`,
		"a.auto.pkrvars.json": `{"d": "auto json", "e": "auto json", "f": "auto json", "g": "auto json"}`,
		"one.hcl":             `e = "one"` + "\n" + `f = "one"`,
		"two.json":            `{"f": "two", "g": "two"}`,
	})
	template := load(t, config.Options{
		Path: ".", Cwd: dir,
		Env:      []string{"PKR_VAR_b=env", "PKR_VAR_c=env", "PKR_VAR_g=env", "PKR_VAR_undeclared=x", "OTHER=y"},
		VarFiles: []string{"one.hcl", "two.json"},
		Vars:     []string{"g=first", "g=argument=with=equals"},
	})
	for name, want := range map[string]string{
		"a": "default", "b": "env", "c": "auto z", "d": "auto json", "e": "one", "f": "two", "g": "argument=with=equals",
	} {
		if got := variable(t, template, name); got != cty.StringVal(want) {
			t.Errorf("%s = %#v, want %q", name, got, want)
		}
	}
}

// TestAutoFilesNeedDirectory: a single template file takes no auto var files.
func TestAutoFilesNeedDirectory(t *testing.T) {
	dir := write(t, map[string]string{
		"t.pkr.hcl":          `variable "a" { default = "default" }`,
		"x.auto.pkrvars.hcl": `a = "auto"`,
	})
	template := load(t, config.Options{Path: "t.pkr.hcl", Cwd: dir})
	if got := variable(t, template, "a"); got.AsString() != "default" {
		t.Errorf("a = %#v", got)
	}
}

// TestVariableText: how values of variables are parsed from text.
func TestVariableText(t *testing.T) {
	list := func(vs ...string) cty.Value {
		var vals []cty.Value
		for _, v := range vs {
			vals = append(vals, cty.StringVal(v))
		}
		return cty.ListVal(vals)
	}
	tests := []struct {
		declared string // body of the variable block
		text     string
		want     cty.Value
		err      string
	}{
		{`type = string`, `plain "text" = ${x}`, cty.StringVal(`plain "text" = ${x}`), ""},
		{`type = string`, ``, cty.StringVal(""), ""},
		{`type = string`, `["a"]`, cty.StringVal(`["a"]`), ""},
		{`type = number`, `12.5`, cty.NumberFloatVal(12.5), ""},
		{`type = number`, `many`, cty.NilVal, "a number is required"},
		{`type = number`, `1e100000000`, cty.NilVal, "at most 1e10000"},
		{`type = number`, `-1e-10001`, cty.NilVal, "at most 1e10000"},
		{`type = list(number)`, `[1, "1e10001"]`, cty.NilVal, "at most 1e10000"},
		{`type = list(string)`, `[1, 1e100000000]`, cty.NilVal, "at most 1e10000"},
		{`type = bool`, `true`, cty.True, ""},
		{`type = bool`, `"false"`, cty.False, ""},
		{`type = bool`, `yes`, cty.NilVal, "strings in it need quotes"},
		{`type = list(string)`, `["x", "y"]`, list("x", "y"), ""},
		{`type = list(string)`, `abc`, cty.NilVal, "strings in it need quotes"},
		{`type = list(string)`, `[upper("x")]`, cty.NilVal, "Function calls not allowed"},
		{`type = list(string)`, `["x"`, cty.NilVal, "Unterminated tuple"},
		{`type = set(number)`, `[1, 1, 2]`, cty.SetVal([]cty.Value{cty.NumberIntVal(1), cty.NumberIntVal(2)}), ""},
		{`type = map(string)`, `{ a = 1 }`, cty.MapVal(map[string]cty.Value{"a": cty.StringVal("1")}), ""},
		{`type = object({ a = string, b = optional(number, 7) })`, `{ a = "x" }`,
			cty.ObjectVal(map[string]cty.Value{"a": cty.StringVal("x"), "b": cty.NumberIntVal(7)}), ""},
		{`type = object({ a = string })`, `{ b = "x" }`, cty.NilVal, `attribute "a" is required`},
		{`type = tuple([string, bool])`, `["x", true]`, cty.TupleVal([]cty.Value{cty.StringVal("x"), cty.True}), ""},
		{`type = any`, `["x"]`, cty.StringVal(`["x"]`), ""},
		{``, `["x"]`, cty.StringVal(`["x"]`), ""},
		{`default = {}`, `{ a = 1 }`, cty.StringVal(`{ a = 1 }`), ""},
		{`default = []`, `x`, cty.StringVal(`x`), ""},
		{`default = true`, `false`, cty.False, ""},
		{`default = 3`, `4`, cty.NumberIntVal(4), ""},
		{`default = ["a", "b"]`, `["c", "d"]`, cty.TupleVal([]cty.Value{cty.StringVal("c"), cty.StringVal("d")}), ""},
		{`default = ["a", "b"]`, `["c"]`, cty.NilVal, "does not fit its type"},
		{`default = null`, `x`, cty.StringVal("x"), ""},
	}
	for _, test := range tests {
		dir := write(t, map[string]string{"t.pkr.hcl": "variable \"v\" {\n" + test.declared + "\n}\n"})
		for place, o := range map[string]config.Options{
			"-var":    {Vars: []string{"v=" + test.text}},
			"PKR_VAR": {Env: []string{"PKR_VAR_v=" + test.text}},
		} {
			o.Path, o.Cwd = "t.pkr.hcl", dir
			template, diags := config.Load(t.Context(), o)
			switch {
			case test.err != "":
				if !strings.Contains(text(diags), test.err) {
					t.Errorf("%s: %s with %q: %q, want %q", place, test.declared, test.text, text(diags), test.err)
				}
			case diags.HasErrors():
				t.Errorf("%s: %s with %q: %s", place, test.declared, test.text, text(diags))
			default:
				if got := variable(t, template, "v"); !got.RawEquals(test.want) {
					t.Errorf("%s: %s with %q = %#v, want %#v", place, test.declared, test.text, got, test.want)
				}
			}
		}
	}
}

func TestInputsFromOutside(t *testing.T) {
	const declared = `variable "region" { default = "x" }`
	tests := []struct {
		name  string
		o     config.Options
		files map[string]string
		want  string // in the diagnostics; empty: there are none
	}{
		{name: "no equals sign", o: config.Options{Vars: []string{"region"}}, want: `"region" must have the form name=value`},
		{name: "undeclared", o: config.Options{Vars: []string{"regoin=y"}}, want: `no such variable. Did you mean "region"?`},
		{name: "no such file", o: config.Options{VarFiles: []string{"absent.hcl"}}, want: "error: Cannot read file"},
		{name: "format", o: config.Options{VarFiles: []string{"v.txt"}}, files: map[string]string{"v.txt": ""}, want: "its format is unknown"},
		{name: "undeclared in file", o: config.Options{VarFiles: []string{"v.hcl"}}, files: map[string]string{"v.hcl": "regoin = 1"}},
		{name: "undeclared in file, warned of", o: config.Options{VarFiles: []string{"v.hcl"}, WarnUndeclared: true},
			files: map[string]string{"v.hcl": "regoin = 1"}, want: `warning: Undeclared variable: No variable "regoin" is declared, so this value is not used. Did you mean "region"?`},
		{name: "declaration in file", o: config.Options{VarFiles: []string{"v.hcl"}},
			files: map[string]string{"v.hcl": "variable \"region\" {\n}"}, want: "Variable declared in a variable file"},
		{name: "reference in file", o: config.Options{VarFiles: []string{"v.hcl"}}, files: map[string]string{"v.hcl": "region = var.x"}, want: "Variables not allowed"},
		{name: "function in file", o: config.Options{VarFiles: []string{"v.hcl"}}, files: map[string]string{"v.hcl": `region = upper("x")`}, want: "Function calls not allowed"},
		{name: "syntax in file", o: config.Options{VarFiles: []string{"v.hcl"}}, files: map[string]string{"v.hcl": `region = `}, want: "Missing expression"},
		{name: "not json", o: config.Options{VarFiles: []string{"v.json"}}, files: map[string]string{"v.json": `{`}, want: "error:"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			files := map[string]string{"t.pkr.hcl": declared}
			for name, content := range test.files {
				files[name] = content
			}
			test.o.Path, test.o.Cwd = ".", write(t, files)
			_, diags := config.Load(t.Context(), test.o)
			if got := text(diags); !strings.Contains(got, test.want) || test.want == "" && got != "" {
				t.Errorf("diagnostics %q, want %q", got, test.want)
			}
		})
	}
}

func TestTemplatePath(t *testing.T) {
	dir := write(t, map[string]string{
		"old.json":       `{}`,
		"empty/x.txt":    "",
		"sub/a.pkr.hcl":  "locals {\n  root = path.root\n}\nsource \"null\" \"a\" {}\n",
		"sub/b.pkr.json": `{"build": {"sources": ["null.a"], "provisioner": {"shell": {"inline": ["${path.root} ${path.cwd} ${local.root}"]}}}}`,
	})
	for path, want := range map[string]string{
		"absent":   "Template not found",
		"old.json": "Not an HCL template",
		"empty":    "No template files",
	} {
		if _, diags := config.Load(t.Context(), config.Options{Path: path, Cwd: dir}); !strings.Contains(text(diags), want) {
			t.Errorf("%s: %s, want %q", path, text(diags), want)
		}
	}
	for path, root := range map[string]string{"sub": "sub", "./sub": "./sub", filepath.Join(dir, "sub"): filepath.ToSlash(dir) + "/sub"} {
		template := load(t, config.Options{Path: path, Cwd: dir})
		got := attribute(t, template.Builds[0].Provisioners[0].Component, "inline", map[string]cty.Value{})
		if want := root + " " + filepath.ToSlash(dir) + " " + root; got.Index(cty.Zero).AsString() != want {
			t.Errorf("%s: %#v, want %q", path, got, want)
		}
	}
}

func TestDefaultFromEnvironment(t *testing.T) {
	dir := write(t, map[string]string{"t.pkr.hcl": `
variable "set" { default = env("TOKEN") }
variable "unset" { default = "<${env("ABSENT")}>" }
`})
	template := load(t, config.Options{Path: ".", Cwd: dir, Env: []string{"TOKEN=first", "TOKEN=last"}})
	if set, unset := variable(t, template, "set").AsString(), variable(t, template, "unset").AsString(); set != "last" || unset != "<>" {
		t.Errorf("%q, %q", set, unset)
	}
}

func TestAllowUnset(t *testing.T) {
	dir := write(t, map[string]string{"t.pkr.hcl": "variable \"v\" {\n type = list(string)\n}\nlocals { n = length(var.v) }\n"})
	template := load(t, config.Options{Path: ".", Cwd: dir, AllowUnset: true})
	if got := variable(t, template, "v"); got.IsKnown() || !got.Type().Equals(cty.List(cty.String)) {
		t.Errorf("%#v", got)
	}
}

// TestRefusedSecret: the value of a sensitive variable is secret even if it is invalid.
func TestRefusedSecret(t *testing.T) {
	dir := write(t, map[string]string{"t.pkr.hcl": `
variable "a" {
  type      = list(string)
  sensitive = true
}
variable "b" {
  sensitive = true
  default   = "ab-secret"
}
`})
	template, diags := config.Load(t.Context(), config.Options{Path: ".", Cwd: dir, Vars: []string{"a=top-secret"}})
	if !diags.HasErrors() {
		t.Fatal("accepted")
	}
	if got := template.Secrets().Redact("x top-secret y"); got != "x <sensitive> y" {
		t.Errorf("Redact = %q, want the secret masked", got)
	}
	if _, ok := template.Files()[diags[0].Subject.Filename]; !ok {
		t.Errorf("no file for %q: the value cannot be shown", diags[0].Subject)
	}
}

const sources = `
source "null" "a" {
  communicator = "none"
  tag = "${source.type}.${source.name}"
}
source "null" "b" {}
`

// TestSources: how builds name, select and extend sources.
func TestSources(t *testing.T) {
	dir := write(t, map[string]string{"t.pkr.hcl": sources + `
locals { extra = ["x", "y"] }
build {
  name        = "grp-${length(local.extra)}"
  description = "two"
  sources     = ["source.null.a", "null.b", "null.a"]
  source "null.a" {
    name = "renamed"
    more = source.name
  }
  source "source.null.b" {
    communicator = "ssh"
  }
  dynamic "source" {
    for_each = local.extra
    labels   = ["null.a"]
    content {
      name = "dyn-${source.key}"
      more = source.value
    }
  }
}
build {
  sources = ["null.b"]
}
`})
	template := load(t, config.Options{Path: ".", Cwd: dir})
	want := []struct{ name, block, source, local, communicator, tag, more string }{
		{"grp-2.null.a", "grp-2", "a", "a", "none", "null.a", ""},
		{"grp-2.null.b", "grp-2", "b", "b", "", "", ""},
		{"grp-2.null.a", "grp-2", "a", "a", "none", "null.a", ""},
		{"grp-2.null.renamed", "grp-2", "a", "renamed", "none", "null.renamed", "renamed"},
		{"grp-2.null.b", "grp-2", "b", "b", "ssh", "", ""},
		{"grp-2.null.dyn-0", "grp-2", "a", "dyn-0", "none", "null.dyn-0", "x"},
		{"grp-2.null.dyn-1", "grp-2", "a", "dyn-1", "none", "null.dyn-1", "y"},
		{"null.b", "", "b", "b", "", "", ""},
	}
	if len(template.Builds) != len(want) {
		t.Fatalf("%d builds, want %d", len(template.Builds), len(want))
	}
	for i, w := range want {
		b := template.Builds[i]
		if b.Name != w.name || b.Block != w.block || b.Source != w.source || b.Local != w.local {
			t.Errorf("build %d: %+v, want %+v", i, b, w)
		}
		for name, want := range map[string]string{"communicator": w.communicator, "tag": w.tag, "more": w.more} {
			got := ""
			if v := attribute(t, b.Builder, name, nil); v != cty.NilVal {
				got = v.AsString()
			}
			if got != want {
				t.Errorf("build %d: %s = %q, want %q", i, name, got, want)
			}
		}
	}
}

// TestSteps: the provisioners and post-processors of a build, and their meta-arguments.
func TestSteps(t *testing.T) {
	dir := write(t, map[string]string{"t.pkr.hcl": sources + `
locals {
  here    = ["null.b"]
  scripts = { one = "1.sh", two = "2.sh" }
}
build {
  sources = ["null.a"]
  source "null.a" { name = "b" }
  provisioner "shell" {
    name              = "first"
    script            = "all ${build.ID} on ${source.name}"
    pause_before      = "10s"
    timeout           = "5m"
    max_retries       = 2
    continue_on_error = true
    override = {
      b = { script = "overridden ${build.ID}" }
      z = { script = "never" }
    }
  }
  provisioner "shell" {
    script = "only"
    only   = local.here
  }
  provisioner "shell" {
    script = "except"
    except = ["null.b"]
  }
  dynamic "provisioner" {
    for_each = local.scripts
    iterator = it
    labels   = ["shell"]
    content {
      script = "${it.key}: ${it.value} on ${source.name} ${build.ID}"
      name   = it.key
    }
  }
  error-cleanup-provisioner "shell" {
    script = "rescue"
    only   = ["null.a"]
  }
  post-processor "manifest" {
    only = ["null.a"]
  }
  post-processors {
    post-processor "compress" {
      keep_input_artifact = false
    }
    post-processor "checksum" {
      name   = "sums"
      except = ["null.b"]
    }
  }
}
`})
	template := load(t, config.Options{Path: ".", Cwd: dir})
	describe := func(b *config.Build) string {
		var out []string
		build := map[string]cty.Value{"ID": cty.StringVal("i-1")}
		for _, p := range b.Provisioners {
			out = append(out, p.Name+"<"+attribute(t, p.Component, "script", build).AsString()+">")
		}
		if p := b.ErrorCleanup; p != nil {
			out = append(out, "rescue")
		}
		for _, chain := range b.PostProcessors {
			var names []string
			for _, p := range chain {
				names = append(names, p.Type+p.Name)
			}
			out = append(out, strings.Join(names, "+"))
		}
		return strings.Join(out, " ")
	}
	for i, want := range []string{
		"first<all i-1 on a> <except> one<one: 1.sh on a i-1> two<two: 2.sh on a i-1> rescue manifest compress+checksumsums",
		"first<overridden i-1> <only> one<one: 1.sh on b i-1> two<two: 2.sh on b i-1> compress",
	} {
		if got := describe(template.Builds[i]); got != want {
			t.Errorf("build %d:\n%s\nwant\n%s", i, got, want)
		}
	}
	p := template.Builds[0].Provisioners[0]
	if p.PauseBefore != 10*time.Second || p.Timeout != 5*time.Minute || p.MaxRetries != 2 || !p.ContinueOnError {
		t.Errorf("%+v", p)
	}
	if keep := template.Builds[0].PostProcessors[1][0].KeepInput; keep == nil || *keep {
		t.Errorf("keep_input_artifact = %v", keep)
	}
	if keep := template.Builds[0].PostProcessors[1][1].KeepInput; keep != nil {
		t.Errorf("keep_input_artifact = %v, but it is not set", *keep)
	}
}

// TestJSON: the same language in JSON.
func TestJSON(t *testing.T) {
	dir := write(t, map[string]string{"t.pkr.json": `{
  "//": "a comment",
  "packer": {"required_version": ">= 1.7.0", "required_plugins": {"amazon": {"source": "github.com/hashicorp/amazon", "version": "~> 1.2"}}},
  "variable": {"who": {"type": "string", "default": "world", "sensitive": true}, "many": {"type": "list(string)", "default": ["a", "b"]}},
  "locals": {"hello": "hello ${var.who}"},
  "source": {"null": {"a": {"communicator": "none", "tag": "${local.hello}"}}},
  "build": [{
    "sources": ["source.null.a"],
    "provisioner": [
      {"shell": {"script": "${local.hello} ${build.ID}", "only": ["null.a"]}},
      {"shell": {"script": "second"}}
    ],
    "post-processors": [{"post-processor": {"manifest": {"output": "m.json"}}}]
  }]
}`})
	template := load(t, config.Options{Path: "t.pkr.json", Cwd: dir})
	b := template.Builds[0]
	if got := attribute(t, b.Builder, "tag", nil).AsString(); got != "hello world" {
		t.Errorf("tag = %q, want hello world", got)
	}
	got := attribute(t, b.Provisioners[0].Component, "script", map[string]cty.Value{"ID": cty.StringVal("i-1")})
	if got.AsString() != "hello world i-1" {
		t.Errorf("script = %q, want hello world i-1", got.AsString())
	}
	if template.Secrets().Redact("hello world") != "hello <sensitive>" {
		t.Error("the rendered tag, which contains a secret, is not masked")
	}
	if p := template.Plugins; len(p) != 1 || p[0].Name != "amazon" || p[0].Source != "github.com/hashicorp/amazon" || p[0].Version != "~> 1.2" {
		t.Errorf("%+v", p)
	}
}

// TestMerged: several files are one template, whatever the order of their blocks.
func TestMerged(t *testing.T) {
	dir := write(t, map[string]string{
		"a.pkr.hcl": `build { sources = ["null.x"] }`,
		"b.pkr.hcl": `locals { a = local.b }` + "\n" + `packer { required_version = "~> 1.9" }`,
		"c.pkr.hcl": `locals { b = var.c }` + "\n" + `source "null" "x" { tag = local.a }`,
		"d.pkr.hcl": `variables { c = "deep" }` + "\n" + `communicator "ssh" "x" { anything = 1 }` + "\n" + `packer { }`,
		"e.hcl":     `not a template`,
	})
	template := load(t, config.Options{Path: dir, Cwd: dir})
	if got := attribute(t, template.Builds[0].Builder, "tag", nil).AsString(); got != "deep" {
		t.Errorf("tag = %q, want deep", got)
	}
}

// TestByteOrderMark: files of HCL's own syntax may begin with one.
func TestByteOrderMark(t *testing.T) {
	const mark = "\ufeff"
	dir := write(t, map[string]string{
		"t.pkr.hcl":          mark + "variable \"a\" {}\nsource \"null\" \"x\" { tag = var.a }\nbuild { sources = [\"null.x\"] }\n",
		"a.auto.pkrvars.hcl": mark + `a = "1"`,
	})
	template := load(t, config.Options{Path: dir, Cwd: dir})
	if got := attribute(t, template.Builds[0].Builder, "tag", nil).AsString(); got != "1" {
		t.Errorf("tag = %q, want 1", got)
	}
}

// TestTryCatchesUnknownNames: try and can see names that do not exist, but not those
// of locals and data sources, whose order is settled before anything is evaluated.
func TestTryCatchesUnknownNames(t *testing.T) {
	dir := write(t, map[string]string{"t.pkr.hcl": `
variable "v" { default = { a = 1 } }
locals {
  a = try(var.absent, "fallback")
  b = can(var.absent)
  c = try(var.v.b, "none")
}
source "null" "x" { tag = "${local.a} ${local.b} ${local.c}" }
build { sources = ["null.x"] }
`})
	template := load(t, config.Options{Path: dir, Cwd: dir})
	if got := attribute(t, template.Builds[0].Builder, "tag", nil).AsString(); got != "fallback false none" {
		t.Errorf("tag = %q, want fallback false none", got)
	}
}

// FuzzLoad: any file results in a template, or in diagnostics that point into the file.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"../testdata/*/*.pkr.*", "../testdata/*/components/*.pkr.*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			f.Fatal("no templates: ", err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, strings.HasSuffix(path, ".json"))
		}
	}
	f.Add([]byte("locals { a = "+strings.Repeat("[", 2000)+" }"), false)
	f.Add([]byte(`{"source": {"null": {"a": {}}}, "build": {"sources": ["null.a"]}}`), true)
	f.Fuzz(func(t *testing.T, src []byte, json bool) {
		name := "t.pkr.hcl"
		if json {
			name = "t.pkr.json"
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), src, 0o600); err != nil {
			t.Fatal(err)
		}
		template, diags := config.Load(t.Context(), config.Options{Path: name, Cwd: dir, Now: now})
		for _, d := range diags {
			if d.Subject == nil {
				t.Errorf("%s: %s: points nowhere", d.Summary, d.Detail)
			} else if template.Files()[d.Subject.Filename] == nil {
				t.Errorf("%s: points at the unknown file %s", d.Summary, d.Subject.Filename)
			}
		}
		for _, b := range template.Builds {
			b.Builder.Input(t.Context(), cty.NilVal)
			for _, p := range b.Provisioners {
				p.Input(t.Context(), cty.EmptyObjectVal)
			}
		}
	})
}

// FuzzVarFile: any file of values is accepted, or refused with a location.
func FuzzVarFile(f *testing.F) {
	for _, src := range []string{"s = \"x\"", "n = 1\nb = true", "l = [\"x\"", "m = { a = 1 }", "variable \"s\" {}", "o = null", "s = upper(\"x\")", "\xef\xbb\xbfs = \"x\"", "s = <<E\n${1}\nE\n"} {
		f.Add([]byte(src), false)
	}
	for _, src := range []string{`{"s": "x", "//": "c"}`, `{"n": 1e999, "b": null}`, `{"l": ["${x}"]}`, `{"m": {"a": {}}}`, `[{"s": 1}, {"s": 2}]`} {
		f.Add([]byte(src), true)
	}
	template := map[string]string{"t.pkr.hcl": varTypes}
	f.Fuzz(func(t *testing.T, src []byte, json bool) {
		name := "v.hcl"
		if json {
			name = "v.json"
		}
		dir := write(t, template)
		if err := os.WriteFile(filepath.Join(dir, name), src, 0o600); err != nil {
			t.Fatal(err)
		}
		template, diags := config.Load(t.Context(), config.Options{Path: "t.pkr.hcl", Cwd: dir, VarFiles: []string{name}, WarnUndeclared: true})
		for _, d := range diags {
			if d.Subject == nil || template.Files()[d.Subject.Filename] == nil {
				t.Errorf("%s: %s: points nowhere", d.Summary, d.Detail)
			}
		}
	})
}

// varTypes declares a variable of each type.
const varTypes = `
variable "s" { default = "" }
variable "n" { default = 1 }
variable "b" { default = true }
variable "l" {
  type    = list(string)
  default = []
}
variable "m" {
  type    = map(number)
  default = {}
}
variable "e" {
  type    = set(list(string))
  default = []
}
variable "o" {
  type    = object({ a = optional(string, "x"), b = optional(list(bool)) })
  default = {}
}
`

// FuzzVar: any value of -var is accepted or refused.
func FuzzVar(f *testing.F) {
	for _, arg := range []string{"s=x", "n=1", "b=true", `l=["x"]`, "m={a=1}", "=", "l=", "o={", "l=[for x in [1]: x]", "n=1e999999999"} {
		f.Add(arg)
	}
	dir := write(f, map[string]string{"t.pkr.hcl": varTypes})
	f.Fuzz(func(t *testing.T, arg string) {
		template, diags := config.Load(t.Context(), config.Options{Path: "t.pkr.hcl", Cwd: dir, Vars: []string{arg}})
		if diags.HasErrors() {
			return
		}
		for _, v := range template.Variables {
			if !v.Value.IsWhollyKnown() {
				t.Errorf("%s is not known after %q", v.Name, arg)
			}
		}
	})
}

// TestLookedUpSecret: the result of aws_secretsmanager is not shown, and is unknown if it cannot
// be looked up.
func TestLookedUpSecret(t *testing.T) {
	dir := write(t, map[string]string{"t.pkr.hcl": `
locals { password = aws_secretsmanager("app", "password") }
source "null" "a" { ssh_password = local.password }
build { sources = ["source.null.a"] }
`})
	options := config.Options{Path: ".", Cwd: dir}
	if _, diags := config.Load(t.Context(), options); diags.HasErrors() {
		t.Errorf("without a lookup: %s", diags)
	}
	options.SecretsManager = func(_ context.Context, name string) (string, error) {
		return `{"user": "me", "password": "hush"}`, nil
	}
	template, diags := config.Load(t.Context(), options)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if got := template.Secrets().Redact("it is hush"); got != "it is <sensitive>" {
		t.Errorf("Redact = %q, want the secret masked", got)
	}
	options.SecretsManager = func(context.Context, string) (string, error) { return "", errors.New("no such thing") }
	if _, diags = config.Load(t.Context(), options); !diags.HasErrors() || !strings.Contains(diags.Error(), "no such thing") {
		t.Errorf("a failed lookup: %s", diags)
	}
}

// TestTextAsName: the error for an unknown name considers that it may be a text without quotation
// marks, or a shell variable.
func TestTextAsName(t *testing.T) {
	for _, tt := range []struct{ value, want string }{
		{`t3.micro`, ` If a text is meant, it needs quotation marks.`},
		{`"a ${HOME}"`, ` If this is for a shell or another program, write $${HOME}.`},
		{`"é ${~ HOME }"`, ` If this is for a shell or another program, write $${HOME}.`},
		{`"${each.value}"`, ` Did you mean "path"?`},
		{`"${account.id}"`, ``},
		{`"${upper(HOME)}"`, ` If a text is meant, it needs quotation marks.`},
		{`locals.b`, ` Did you mean "local"?`},
	} {
		dir := write(t, map[string]string{"a.pkr.hcl": "locals {\n  a = " + tt.value + "\n}\n"})
		_, diags := config.Load(t.Context(), config.Options{Path: dir, Cwd: dir, Now: now})
		if got := text(diags); !strings.Contains(got+"\n", `".`+tt.want+"\n") {
			t.Errorf("%s: %s", tt.value, got)
		}
	}
}

// TestTrailingComma: a mistake in JSON is reported as a single error.
func TestTrailingComma(t *testing.T) {
	dir := write(t, map[string]string{"a.pkr.hcl": "", "v.json": `{"region": "x",}`})
	_, diags := config.Load(t.Context(), config.Options{Path: dir, Cwd: dir, Now: now, VarFiles: []string{"v.json"}})
	if got := text(diags); !strings.Contains(got, "Trailing comma in object") || strings.Contains(got, "Root value") {
		t.Errorf("diagnostics = %s, want only the trailing comma", got)
	}
}

// TestDirectoryAsFile: a directory is not read as a file.
func TestDirectoryAsFile(t *testing.T) {
	dir := write(t, map[string]string{"a.pkr.hcl": ""})
	if err := os.Mkdir(filepath.Join(dir, "vars.pkrvars.hcl"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, diags := config.Load(t.Context(), config.Options{Path: dir, Cwd: dir, Now: now, VarFiles: []string{"vars.pkrvars.hcl"}})
	if got := text(diags); !strings.Contains(got, "vars.pkrvars.hcl is not a regular file") {
		t.Errorf("diagnostics = %s, want that vars.pkrvars.hcl is not a regular file", got)
	}
}

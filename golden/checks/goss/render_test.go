package goss_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bake/golden/checks/facts"
	"bake/golden/checks/goss"
)

// vars returns variables from a YAML or JSON text.
func vars(t *testing.T, text string) map[string]any {
	t.Helper()
	v, diags := goss.ReadVars(nil, text)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return v
}

// TestTemplates renders typical templates of goss files; every check in the result must pass.
func TestTemplates(t *testing.T) {
	s := load(t, `# comment {{ "kept" }}
{{- define "port" }}
port:
  tcp:{{ . }}: {listening: true}
{{- end }}
matching:
{{- range $i, $v := mkSlice "a" "b" }}
  r{{ $i }}: {content: {{ $v }}, matches: {{ $v | toUpper | toLower }}}
{{- end }}
{{- range $name, $vers := .Vars.packages }}
  {{ $name }}:
    content: {{ if $vers }}{{ $vers.version }}{{ else }}none{{ end }}
    matches: {{ if eq $name "curl" }}"7.1"{{ else if ne $name "x" }}none{{ end }}
{{- end }}
  env: {content: {{ .Env.HOME | quote }}, matches: {{ getEnv "HOME" | quote }}}
  envdef: {content: {{ getEnv "NOPE_X" "dflt" }}, matches: dflt}
  rm: {content: {{ "centos" | regexMatch "^c" }}, matches: true}
  rm2: {content: {{ regexMatch "^c" "centos" }}, matches: true}
  fs: {content: {{ get (findStringSubmatch "(?P<x>[a-z]+)=" "abc=1") "x" }}, matches: abc}
  fs1: {content: {{ get (findStringSubmatch "([a-z]+)=" "abc=1") "1" }}, matches: abc}
  up: {content: {{ "x" | upper }}, matches: X}
  ver: {content: {{ semverCompare ">=1.2" "1.3.0" }}, matches: true}
  vnum: {content: {{ .Vars.n }}, matches: 5}
  vmap: {content: {{ .Vars.m.k }}, matches: v}
  idx: {content: {{ index .Vars "d-ash" }}, matches: q}
  absent: {content: "{{ index .Vars "absent" | default "d" }}{{ hasKey .Vars "absent" }}{{ get .Vars "absent" }}", matches: dfalse}
  with: {content: {{ with .Vars.m }}{{ .k }}{{ end }}, matches: v}
  {{ if and .Vars.yes (not .Vars.no) (contains "b" "abc") }}cond: {content: 1, matches: 1}{{ end }}
  ver110: {content: {{ .Vars.v110 }}, matches: 1.1}
{{ template "port" 22 }}
`, goss.Options{Vars: vars(t, `{packages: {curl: {version: "7.1"}, bash: null}, n: 5, m: {k: v}, d-ash: q, "yes": true, "no": false, v110: "1.10"}`), Env: map[string]string{"HOME": "/root"}})
	results := s.Results(t.Context(), []facts.Answer{{"listening": {Value: true}}})
	for _, r := range results {
		check(t, r.ID, r, "pass")
	}
	if len(results) != 20 {
		t.Errorf("%d results", len(results))
	}
}

// TestTemplateFaults: errors in a template, or in its result, are reported at their line.
func TestTemplateFaults(t *testing.T) {
	tests := []struct{ text, want string }{
		{"# {{ .Vars.x }}\nfile: {a: {exists: true}}\n", `error goss.yaml:1:1 The template cannot be rendered: map has no entry for key "x". A variable that may be absent`},
		{"\n\n{{ if .Vars.x }}{{ end }}\n", `error goss.yaml:3:1 The template cannot be rendered: map has no entry`},
		{"\n{{ default \"d\" .Vars.x }}\n", `error goss.yaml:2:1`},
		{"a: |\n  {{ .Vars.a.b.c }}\n", "error goss.yaml:2:3"}, {"{{ .Env.HOSTNAME }}", "map has no entry"}, {"{{ .Nope }}", "map has no entry"},
		{"\n{{ if }}\n", "error goss.yaml:2:1 The template cannot be rendered: missing value for if"},
		{"\n{{ nosuch 1 }}\n", `error goss.yaml:2:1 The template cannot be rendered: function "nosuch" not defined`},
		{"{{ range 3 }}\n\n{{ fail \"no\" }}{{ end }}", "error goss.yaml:3:1 The template cannot be rendered: {{ fail \"no\" }}: no."},
		{"{{ randAlpha 5 }}", "randAlpha cannot be used here: its result differs each time"},
		{"{{ getHostByName \"x\" }}", "it asks the network"}, {"{{ now }}", "differs each time"}, {"{{ genPrivateKey \"rsa\" }}", "it generates keys"},
		{"{{ readFile \"/etc/x\" }}", "readFile reads files of the machine, and there is none here"},
		{"{{ env \"PATH\" }}file: {a: {exists: true}}", ""},
		{"file:\n{{- range mkSlice 1 2 }}\n  /x{{ . }}:\n    exists: true\n    nosuch: 1\n{{- end }}\n", `error goss.yaml:5:5 Unknown attribute: file "/x1"`},
		{"{{ if true }}\nfile:\n  /a:\n    exists: true\n    ower: {{ \"root\" }}\n{{ end }}", "error goss.yaml:5:5 Unknown attribute"},
		{"file:\n  /x: {exists: true, owner: \"{{ \"a\\\"b\" }}\"}\n", "error goss.yaml:2:3 Invalid YAML: did not find expected ',' or '}'; the template made the line"},
		{"{{ $d := dict }}{{ $d := set $d \"a\" $d }}", "nested more than"}, {"{{ $l := list 1 }}{{ range 99 }}{{ $l = list $l $l }}{{ end }}{{ $l }}", "a value holds more than"},
		{"{{ repeat 9999999 \"x\" }}", "more than 1048576 bytes"}, {"{{ until 99999999 }}", "more than 10000"}, {"{{ indent 99999999 \"x\" }}", "cannot be indented"},
	}
	for _, test := range tests {
		_, diags := goss.Load(filepath.Join(write(t, map[string]string{"goss.yaml": test.text}), "goss.yaml"), goss.Options{Vars: map[string]any{"a": map[string]any{"b": nil}}})
		if got := said(diags); !strings.Contains(got, test.want) || test.want == "" && got != "" {
			t.Errorf("%s\n%s\nwant %s", test.text, got, test.want)
		}
	}
}

// TestReadFile: a template is rendered again when the files that it reads are known.
func TestReadFile(t *testing.T) {
	var asked [][]string
	machine := map[string]facts.Fact{
		"/etc/list": {Value: facts.Text("/etc/a /etc/b\n")}, "/etc/a": {Value: facts.Text("x\n")}, "/etc/b": {Err: "no such file"}, "/etc/c": {Value: facts.Text("c")},
	}
	o := goss.Options{Read: func(paths []string) (out []facts.Fact, err error) {
		asked = append(asked, paths)
		for _, p := range paths {
			out = append(out, machine[p])
		}
		return out, nil
	}}
	s := load(t, `matching:
  a: {content: {{ readFile "/etc/c" }}, matches: c}
  b: {content: {{ $l := splitList " " (readFile "/etc/list") }}{{ readFile (index $l 0) }}, matches: x}
`, o)
	for _, r := range s.Results(t.Context(), nil) {
		check(t, r.ID, r, "pass")
	}
	want := [][]string{{"/etc/c"}, {"/etc/list"}, {"/etc/a"}}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("files read (-want +got):\n%s", diff)
	}
	dir := write(t, map[string]string{"goss.yaml": "\n# {{ readFile `/etc/b` }}\n"})
	if _, diags := goss.Load(filepath.Join(dir, "goss.yaml"), o); !strings.Contains(said(diags), "goss.yaml:2:1 The template cannot be rendered: {{ readFile `/etc/b` }}: /etc/b on the machine: no such file.") {
		t.Errorf("diagnostics = %s, want that /etc/b does not exist on the machine", said(diags))
	}
	o.Read = func([]string) ([]facts.Fact, error) { return nil, errors.New("connection lost") }
	if _, diags := goss.Load(filepath.Join(dir, "goss.yaml"), o); !strings.Contains(said(diags), "connection lost") {
		t.Errorf("diagnostics = %s, want a lost connection", said(diags))
	}
}

func TestVars(t *testing.T) {
	dir := write(t, map[string]string{
		"a.yaml": "n: 3\nm: {k: v, o: 1}\nl: [1]\nb: true\n", "b.json": `{"m": {"o": "x"}, "b": false, "l": [2]}`,
		"list.yaml": "- a\n", "bad.yaml": "\na: [\n",
	})
	got, diags := goss.ReadVars([]string{filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.json")}, `{"n": 0, "new": {"a": 1.5}}`)
	want := map[string]any{"n": 0.0, "m": map[string]any{"k": "v", "o": "x"}, "l": []any{2.0}, "b": false, "new": map[string]any{"a": 1.5}}
	if diff := cmp.Diff(want, got); diff != "" || diags.HasErrors() {
		t.Errorf("variables (-want +got):\n%s\ndiagnostics: %v", diff, diags)
	}
	got, _ = goss.ReadVars([]string{filepath.Join(dir, "a.yaml")}, "m: {new: 1}")
	if diff := cmp.Diff(map[string]any{"new": 1}, got["m"]); diff != "" {
		t.Errorf("m (-want +got):\n%s", diff)
	}
	_, diags = goss.ReadVars([]string{filepath.Join(dir, "list.yaml"), filepath.Join(dir, "bad.yaml"), filepath.Join(dir, "none.yaml")}, "[a]")
	for i, want := range []string{"list.yaml:1:1 Not variables", "bad.yaml:", "Cannot read a file of variables", "-vars-inline:1:1 Not variables"} {
		if !strings.Contains(strings.Split(said(diags), "\n")[i], want) {
			t.Errorf("%s\nwant %s", said(diags), want)
		}
	}
}

package gotemplate_test

import (
	"strings"
	"testing"
	"text/template"

	"bake/internal/gotemplate"
)

// FuzzReference compares the evaluator with text/template, which defines the language: both render
// the same text, or neither does.
func FuzzReference(f *testing.F) {
	for _, text := range []string{
		"{{ .Path }} {{ .N }} {{ .Absent }} {{ .Tags.a }} {{ .Tags.b }} {{ .Deep.A.B }}", "{{ .Path.X }}", "{{ .Absent.X }}",
		"{{ range .List }}<{{ . }}>{{ else }}none{{ end }}{{ range $i, $x := .List }}{{ $i }}{{ $x }}{{ end }}{{ range .None }}{{ else }}none{{ end }}",
		"{{ range $k, $v := .Tags }}{{ $k }}={{ $v }};{{ end }}{{ range $v := .Tags }}{{ $v }}{{ end }}{{ range 3 }}{{ . }}{{ end }}{{ range $i := 2 }}{{ $i }}{{ end }}",
		"{{ range 9 }}{{ if eq . 2 }}{{ continue }}{{ end }}{{ if gt . 4 }}{{ break }}{{ end }}{{ . }}{{ end }}",
		"{{ if .Path }}a{{ else if .N }}b{{ else }}c{{ end }}{{ with .None }}x{{ else with .N }}{{ . }}{{ end }}{{ if and .N .None }}x{{ end }}{{ if or .None .N }}y{{ end }}",
		"{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $y := 3 }}{{ $y }}{{ end }}{{ $x }}{{ $ }}{{ $.Path }}",
		"{{ define `t` }}[{{ . }}{{ $ }}]{{ end }}{{ template `t` .N }}{{ template `t` }}{{ block `u` .Path }}{{ . }}{{ end }}",
		"{{ index .List 1 }}{{ index .Tags `a` }}{{ index .Tags `z` }}{{ index .Path 0 }}{{ index .Deep `A` `B` }}",
		"{{ slice .Path 1 2 }}{{ slice .List 1 }}{{ len .Path }}{{ len .List }}{{ len .Tags }}{{ slice .List 0 1 2 }}",
		"{{ eq 1 2 1 }}{{ ne 1 2 }}{{ lt 1 2 }}{{ le `a` `b` }}{{ gt 1.5 0.5 }}{{ ge 2 2 }}{{ eq .Path `p` }}{{ eq true false }}{{ not .N }}",
		"{{ print 1 2 `a` `b` nil }}{{ println .Path }}{{ printf `%q %v %5d` .Path .N 3 }}{{ print }}",
		"{{ html `<a href=\"x\">'&` }}{{ js `it's <b> \\\"=&` }}{{ urlquery `a b&c` }}{{ `x` | html }}{{ html .Absent }}",
		"{{ 0x1F }}{{ 1e3 }}{{ 'e' }}{{ 1.50 }}{{ 1_000 }}{{ 2i }}{{ -3 }}{{ 0b11 }}{{ 0x1p2 }}{{ 'x' }}{{ 0o17 }}",
		"{{ (index .Deep `A`).B }}{{ (.Deep).A.B }}{{ .Deep.A.B | printf `%s-%s` `x` }}{{- .Path -}} {{/* c */}}",
		"{{ nil }}", "{{ .Path .N }}", "{{ 1 2 }}", "{{ .Path | .N }}", "{{ call .Path }}", "{{ len 3 }}", "{{ index .List 9 }}", "{{ slice .Path 2 1 }}",
		"{{ lt 1 `a` }}", "{{ eq .List .List }}", "{{ lt true false }}", "{{ range .Path }}{{ end }}", "{{ template `no` }}", "{{ index nil 1 }}", "{{ eq nil nil }}{{ eq .Absent nil }}",
		"{{ $x := .List }}{{ range $x = .List }}{{ $x }}{{ end }}{{ $x }}", "{{ range $i, $x := 3 }}{{ $i }}{{ $x }}{{ end }}", "{{ and }}", "{{ or 0 `` 3 }}{{ and 1 2 }}{{ or 0 nil }}",
		"{{ 18446744073709551615 }}", "{{ not }}", "{{ len nil }}", "{{ `a` | eq `a` }}", "{{ with $x := .N }}{{ $x }}{{ end }}", "{{ if eq (len .List) 2 }}two{{ end }}",
	} {
		f.Add(text)
	}
	data := map[string]any{
		"Path": "path", "N": 7, "List": []string{"a", "b"}, "None": []string{}, "Tags": map[string]string{"a": "1", "b": "2"},
		"Deep": map[string]any{"A": map[string]any{"B": "b"}},
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, own := range []string{"build", "time", "strf", "uuid", "pwd", "upper", "lower", "replace", "split", "packer", "env", "user", "template_dir", "sed", "consul", "vault", "aws"} {
			if strings.Contains(text, own) {
				return // functions that are bake's own, or differ in nothing
			}
		}
		got, err := gotemplate.Context{}.Render(text, data)
		if err != nil && (strings.Contains(err.Error(), "grows beyond") || strings.Contains(err.Error(), "loop iterations") || strings.Contains(err.Error(), "width")) {
			return
		}
		var want strings.Builder
		reference, refErr := template.New("").Parse(text)
		if refErr == nil {
			refErr = reference.Execute(&want, data)
		}
		if err != nil && strings.Contains(err.Error(), "takes no arguments") && strings.Contains(want.String(), "<no value>") {
			return // text/template accepts calls of missing values
		}
		if (err == nil) != (refErr == nil) || err == nil && got != want.String() {
			t.Errorf("%q:\n%q, %v\nwant\n%q, %v", text, got, err, want.String(), refErr)
		}
	})
}

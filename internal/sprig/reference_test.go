package sprig_test

import (
	"strings"
	"testing"
	"text/template"

	"bake/internal/gotemplate"
	"bake/internal/sprig"
)

// FuzzReference compares templates with these functions with text/template and the same functions:
// both render the same text, or neither does. Lines of the text are counted.
func FuzzReference(f *testing.F) {
	for _, text := range []string{
		"{{ .Vars.x }}", "{{ .Vars.absent }}", "{{ .Vars.m.k }}{{ .Vars.m.absent }}", "{{ index .Vars `absent` }}", "{{ .Absent }}", "{{ .Vars.null }}", "{{ .Vars.null.x }}", "{{ $.Vars.x }}{{ $v := .Vars }}{{ $v.absent }}",
		"{{ if .Vars.absent }}{{ end }}", "{{ default `d` .Vars.absent }}", "{{ default `d` (index .Vars `absent`) }}{{ .Vars.null | default `p` }}", "{{ get .Vars `absent` }}{{ hasKey .Vars `x` }}",
		"{{ range $name, $v := .Vars.m }}\n{{ $name }}:\n  {{- if $v }} {{ $v }}{{ end }}\n{{- end }}", "{{ range .Vars.l }}{{ . }},{{ else }}none{{ end }}{{ range until 3 }}{{ . }}{{ end }}{{ with .Vars.m }}{{ .k }}{{ end }}",
		"{{ upper 1 }}", "{{ upper .Vars.null }}", "{{ upper }}", "{{ upper `a` `b` }}", "{{ trunc 2 `abc` | upper | quote }}", "{{ add 1 2 | int | eq 3 }}", "{{ `abc` | contains `b` }}", "{{ list 1 2 | join `-` }}",
		"{{ ternary 1 2 true }}{{ ternary 1 2 0 }}", "{{ substr 0 2 .Vars.x }}", "{{ trunc 1.5 `abc` }}", "{{ trunc 2.0 `abc` }}", "{{ dict `a` 1 | toJson }}", "{{ (dict `a` (dict `b` 2)).a.b }}", "{{ fail `x` }}", "{{ printf `%s` (list `a`) }}",
		"{{/* c */}}{{- /* d */ -}} x", "a\n\n{{ `b\nc` }}\nd{{- `e` -}}\n\nf", "{{ define `t` }}<{{ . }}>\n{{ end }}{{ template `t` .Vars.x }}{{ template `t` 1 }}", "{{ and .Vars.x (not .Vars.null) }}{{ or .Vars.null `y` }}", "{{ len .Vars.l }}{{ eq .Vars.n 5 }}{{ ne .Vars.x `a` }}{{ eq .Vars.n 5.0 }}",
	} {
		f.Add(text)
	}
	functions := sprig.Functions(map[string]string{"A": "a"})
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "call") || strings.Contains(text, "set") {
			return // no value is a function; and what is set stays
		}
		data := func() map[string]any {
			return map[string]any{"Vars": map[string]any{"x": "x", "n": 5, "null": nil, "l": []any{1, "a"}, "m": map[string]any{"k": "v", "z": nil}}}
		}
		got, lines, err := gotemplate.NewLanguage(functions).Render(text, data())
		if err == nil && len(lines) != strings.Count(got, "\n")+1 && !(strings.HasSuffix(got, "\n") || got == "") {
			t.Errorf("%q: %d lines for %q", text, len(lines), got)
		}
		for _, bound := range []string{"grows beyond", "loop iterations", "width", "holds more", "cannot be used here", "more than"} {
			if err != nil && strings.Contains(err.Error(), bound) {
				return
			}
		}
		var want strings.Builder
		reference, refErr := template.New("").Option("missingkey=error").Funcs(functions).Parse(text)
		if refErr == nil {
			refErr = reference.Execute(&want, data())
		}
		if err != nil && strings.Contains(err.Error(), "takes no arguments") && strings.Contains(want.String(), "<no value>") {
			return // text/template accepts calls of missing values
		}
		if (err == nil) != (refErr == nil) || err == nil && got != want.String() {
			t.Errorf("%q:\n%q, %v\nwant\n%q, %v", text, got, err, want.String(), refErr)
		}
	})
}

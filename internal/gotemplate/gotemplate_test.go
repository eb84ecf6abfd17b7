package gotemplate_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"bake/internal/gotemplate"
)

var c = gotemplate.Context{
	BuildName: "web", BuildType: "amazon-ebs", Version: "1.16.0",
	Start: time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC),
}

func TestRender(t *testing.T) {
	data := map[string]any{"Path": "/tmp/x.sh", "Port": 22, "Tags": map[string]string{"a": "b"}}
	tests := []struct{ text, want string }{
		{"plain", "plain"},
		{"{{ .Path }} {{ .Port }} {{ .Tags.a }}", "/tmp/x.sh 22 b"},
		{"{{ .Absent }}", "<no value>"},
		{"{{ build_name }} {{ build_type }} {{ packer_version }}", "web amazon-ebs 1.16.0"},
		{"{{timestamp}}", "1767323045"},
		{"{{isotime}}", "2026-01-02T03:04:05Z"},
		{`{{isotime "20060102-1504"}}`, "20260102-0304"},
		{"{{isotime `2006-01-02`}}", "2026-01-02"},
		{`{{strftime "%Y%m%d"}}`, "20260102"},
		{`{{ upper "a" }}{{ lower "B" }}`, "Ab"},
		{`{{ "a-b-c" | replace "-" "_" 1 }}`, "a_b-c"},
		{`{{ .Path | replace_all "/" ":" }}`, ":tmp:x.sh"},
		{`{{ split "a.b.c" "." 1 }}`, "b"},
		{"{{ build `Path` }}", "/tmp/x.sh"},
		{`{{ if eq build_type "amazon-ebs" }}yes{{ else }}no{{ end }}`, "yes"},
		{`{{ printf "%03d" .Port }}`, "022"},
		{"{{`{{`}} literal }}", "{{ literal }}"},
	}
	for _, test := range tests {
		if got, err := c.Render(test.text, data); got != test.want || err != nil {
			t.Errorf("%s: %q, %v; want %q", test.text, got, err, test.want)
		}
		if err := c.Check(test.text); err != nil {
			t.Errorf("%s: check: %v", test.text, err)
		}
	}
	got, err := c.Render("{{uuid}}", nil)
	if err != nil || !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(got) {
		t.Errorf("uuid: %q, %v", got, err)
	}
}

// doubling calls 2^40 templates.
var doubling = func() string {
	var b strings.Builder
	for i := range 40 {
		fmt.Fprintf(&b, "{{ define `t%d` }}{{ template `t%d` }}{{ template `t%[2]d` }}{{ end }}", i, i+1)
	}
	return b.String() + "{{ define `t40` }}{{ end }}{{ template `t0` }}"
}()

func TestErrors(t *testing.T) {
	tests := []struct {
		text, want string
		check      bool // whether Check finds it too
	}{
		{"{{ .Path", "unclosed action", true},
		{"{{ nonsense }}", `function "nonsense" not defined`, true},
		{"{{ clean_resource_name `x` }}", `function "clean_resource_name" not defined`, true},
		{"{{ user `x` }}", "user is not allowed here; use ${var.NAME}", false},
		{"{{ env `X` }}", "env is not allowed here", false},
		{"{{ template_dir }}", "use ${path.root}", false},
		{"{{ sed `s/a/b/` `a` }}", "use the HCL function regex_replace", false},
		{"{{ vault `a` `b` }}", "use the HCL function vault", false},
		{"{{ build `ID` }}", `build value "ID" is not known here; write ${build.ID}`, false},
		{"{{ split `a` `.` 3 }}", "has no part 3", false},
		{"{{ isotime `a` `b` }}", "at most one layout", false},
		{"{{ range 1000000000 }}{{ end }}", "loop iterations", false},
		{"{{ define `a` }}{{ template `a` }}{{ end }}{{ template `a` }}", "loop iterations", false},
		{doubling, "loop iterations", false},
		{"{{ $x := `ab` }}{{ range 99 }}{{ $x = printf `%s%s` $x $x }}{{ end }}", "grows beyond", false},
		{"{{ $x := `ab` }}{{ range 99 }}{{ $x = print $x $x }}{{ end }}", "grows beyond", false},
		{"{{ $x := `ab` }}{{ range 99 }}{{ $x = replace_all `a` $x $x }}{{ end }}", "grows beyond", false},
		{"{{ range 9999 }}{{ range 1 }}{{ printf `%9999d` 1 }}{{ end }}{{ end }}", "grows beyond", false},
		{"{{ printf `%99999d` 1 }}", "the width of a value", false},
		{"{{ printf `%*d` 99999 1 }}", "the width of a value", false},
		{strings.Repeat("{{ 1 }}", 200_000), "grows beyond", true},
	}
	for _, test := range tests {
		_, err := c.Render(test.text, nil)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.HasPrefix(err.Error(), "template:") {
			t.Errorf("%.80s: %v, want %q", test.text, err, test.want)
		}
		if err := c.Check(test.text); (err != nil) != test.check {
			t.Errorf("%.80s: check: %v", test.text, err)
		}
	}
}

func TestRenderAll(t *testing.T) {
	got, err := c.RenderAll("{{ .A }}", map[string]any{"A": "<{{ .B }}>", "B": "b"})
	if got != "<b>" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := c.RenderAll("{{ .A }}", map[string]any{"A": "x{{ .A }}"}); err == nil {
		t.Error("a value that holds itself has an end")
	}
}

func TestStrftime(t *testing.T) {
	sunday := time.Date(2026, 2, 1, 15, 4, 5, 678901e3, time.UTC)
	for format, want := range map[string]string{
		"%Y-%m-%d": "2026-02-01", "%H:%M:%S": "15:04:05", "%j": "032", "%a %A %b %B": "Sun Sunday Feb February", "%y%%": "26%",
		"%I %p": "03 PM", "%e": " 1", "%u %w": "7 0", "%V %G %C": "05 2026 20", "%s": "1769958245", "%Z %z": "UTC +0000",
		"%F %T": "2026-02-01 15:04:05", "%n%t": "\n\t", "%L": "678", "%f": "678901", "%D": "02/01/26", "plain": "plain",
		"%J 100%": "%J 100%",
	} {
		got, err := gotemplate.Context{Start: sunday}.Render("{{ strftime `"+format+"` }}", nil)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", format, got, err, want)
		}
	}
}

// FuzzRender: what Check rejects, Render rejects, and nothing panics.
func FuzzRender(f *testing.F) {
	for _, text := range []string{
		"{{ .Path }}", "{{timestamp}}", "{{ split `a` `` 0 }}", "{{ range .List }}{{ . }}{{ end }}", "{{ define `a` }}{{ end }}",
		"{{ index .List 99 }}", "{{ replace `` `x` -1 `abc` }}", "{{ strftime `%` }}", "{{ call .Path }}", "{{/* c */}}", "{{- .A -}}",
		"{{ range 999 }}{{ break }}{{ else }}{{ end }}", "{{ with .Path }}{{ else with 1 }}{{ end }}", "{{ block `a` . }}{{ template `a` }}{{ end }}",
		"{{ $x := printf `%9d%[1]q` 1 }}{{ println $x | html | js | urlquery }}", "{{ slice .Path 0 9 }}{{ len .List | eq 1 }}", doubling,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_, err := c.Render(text, map[string]any{"Path": "p", "List": []string{"a"}})
		if c.Check(text) != nil && err == nil {
			t.Errorf("%q is refused only by Check", text)
		}
	})
}

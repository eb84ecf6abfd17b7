package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bake/config"
)

// TestStandAlone: for a folder of independent templates, that is reported first, followed by a few
// examples.
func TestStandAlone(t *testing.T) {
	dir := t.TempDir()
	for i := range 10 {
		text := "variable \"region\" {\n  default = \"x\"\n}\nvariable \"unset\" {}\nsource \"null\" \"a\" {\n}\nlocals {\n  b = 1\n}\nbuild {\n  sources = [\"null.a\"]\n}\n"
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.pkr.hcl", i)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, only := range []bool{false, true} {
		template, diags := config.Load(t.Context(), config.Options{Path: dir, Cwd: dir, SyntaxOnly: only})
		if len(template.Builds) > 0 {
			t.Error("builds of different templates are there to be checked")
		}
		if len(diags) != 4 || diags[0].Subject != nil || diags[0].Summary != "Files that do not belong together" {
			t.Fatal(diags)
		}
		for _, want := range []string{`variable "region" in both ` + filepath.Join(dir, "0.pkr.hcl") + " and " + filepath.Join(dir, "1.pkr.hcl"), "name one of them on the command line, such as " + filepath.Join(dir, "0.pkr.hcl") + "."} {
			if !strings.Contains(diags[0].Detail, want) {
				t.Errorf("%q is not in %q", want, diags[0].Detail)
			}
		}
		if !strings.HasPrefix(diags[1].Summary, "Duplicate ") {
			t.Errorf("the second diagnostic is %v, want a duplicate", diags[1])
		}
	}
}

// TestMissingQuote: the errors that follow from a missing quotation mark are counted.
func TestMissingQuote(t *testing.T) {
	for text, want := range map[string]string{
		"variable \"a\" {\n  default = \"x\n}\nlocals {\n  a = \"1\"\n  b = \"2\"\n}\n": "2: Invalid multi-line string (6 more)",
		"locals {\n  a = = 1\n}\nlocals {\n  b = \"1\n}\nlocals {\n  c = \"1\"\n}\n":    "2: Invalid expression; 5: Invalid multi-line string (4 more)",
		"locals {\n  a = = 1\n}\n":                                  "2: Invalid expression",
		"locals {\n" + strings.Repeat("  a = \"\\q\"\n", 7) + "}\n": "2: Invalid escape sequence; 3: Attribute redefined; 3: Invalid escape sequence; 4: Attribute redefined; 4: Invalid escape sequence (8 more)",
	} {
		path := filepath.Join(t.TempDir(), "t.pkr.hcl")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, diags := config.Load(t.Context(), config.Options{Path: path, Cwd: "/"})
		var got []string
		for _, d := range diags {
			s := fmt.Sprintf("%d: %s", d.Subject.Start.Line, d.Summary)
			if _, n, ok := strings.Cut(d.Detail, "not shown: "); ok {
				s += fmt.Sprintf(" (%s more)", strings.TrimSuffix(n, "."))
			}
			got = append(got, s)
		}
		if s := strings.Join(got, "; "); s != want {
			t.Errorf("%s\ngot  %s\nwant %s", text, s, want)
		}
	}
}

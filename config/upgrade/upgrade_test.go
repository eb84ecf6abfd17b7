package upgrade_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"bake/config/schema"
	"bake/config/upgrade"
)

var update = flag.Bool("update", false, "write what the converter gives into testdata")

// docs are the options of a few components, as schema.Docs gives them.
func docs(kind, typ string) []schema.Doc {
	known := map[string][]schema.Doc{
		"builder amazon-ebs": {
			{Name: "region", Type: "string"}, {Name: "ami_users", Type: "list of string"}, {Name: "ami_regions", Type: "list of string"},
			{Name: "ebs_optimized", Type: "bool"}, {Name: "ssh_port", Type: "number"}, {Name: "tags", Type: "map of string"},
			{Name: "tag", Type: "blocks", Block: []schema.Doc{{Name: "key", Type: "string"}, {Name: "value", Type: "string"}}},
			{Name: "launch_block_device_mappings", Type: "blocks", Block: []schema.Doc{{Name: "volume_size", Type: "number"}, {Name: "delete_on_termination", Type: "bool"}}},
			{Name: "assume_role", Type: "block", Block: []schema.Doc{{Name: "role_arn", Type: "string"}}},
		},
		"provisioner shell": {
			{Name: "inline", Type: "list of string"}, {Name: "environment_vars", Type: "list of string"}, {Name: "valid_exit_codes", Type: "list of number"},
		},
		"data-source amazon-ami": {{Name: "owners", Type: "list of string"}, {Name: "filters", Type: "map of string"}, {Name: "most_recent", Type: "bool"}},
	}
	return known[kind+" "+typ]
}

// nothing knows no component.
func nothing(string, string) []schema.Doc { return nil }

// TestGolden converts each testdata/NAME.json to NAME.pkr.hcl. NAME.txt has the expected
// diagnostics; without that file, there must be none. Names that start with annotated are
// converted with comments.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d fixtures, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			out, diags := upgrade.Convert(filepath.Base(file), src, upgrade.Options{Annotate: strings.HasPrefix(name, "annotated"), Docs: docs})
			golden(t, filepath.Join("testdata", name+".pkr.hcl"), out)
			golden(t, filepath.Join("testdata", name+".txt"), []byte(report(diags)))
			wellFormed(t, out)
		})
	}
}

// wellFormed checks that out is HCL as the formatter writes it.
func wellFormed(t *testing.T, out []byte) {
	t.Helper()
	if _, diags := hclsyntax.ParseConfig(out, "out.pkr.hcl", hcl.InitialPos); diags.HasErrors() {
		t.Errorf("the result does not parse: %s\n%s", diags, out)
	}
	if again := hclwrite.Format(out); !bytes.Equal(again, out) {
		t.Error("formatting changes the result")
	}
}

func report(diags hcl.Diagnostics) string {
	var b strings.Builder
	for _, d := range diags {
		level := "error"
		if d.Severity == hcl.DiagWarning {
			level = "warning"
		}
		b.WriteString(level + ": " + d.Subject.String() + ": " + d.Summary + "\n    " + d.Detail + "\n")
	}
	return b.String()
}

// golden compares got with the content of the file; a missing file counts as empty.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if len(got) > 0 {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got); -update writes it:\n%s", file, diff)
	}
}

func FuzzConvert(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.json")
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	for _, s := range []string{
		``, `{`, `[]`, `{"builders":[{"type":"x","a":"$${b}%%{c}$"}]}`, `{"variables":{"a":"{{user ` + "`a`" + `}}"}}`,
		`{"builders":[{"type":"x","a":"$${{user ` + "`b`" + `}}"}]}`, `{"builders":[{"type":"x","m":{"for":1,"a b":2,"{{user ` + "`k`" + `}}":3}}]}`,
		`{"builders":[{"type":"x","n":1e999999999,"h":"EOT\nEOT\n${x}\n"}]}`, strings.Repeat("[", 100000),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		for _, o := range []upgrade.Options{{Docs: nothing}, {Annotate: true, Docs: docs}} {
			out, diags := upgrade.Convert("in.json", src, o)
			if out == nil && !diags.HasErrors() {
				t.Error("nothing was written and nothing reported")
			}
			wellFormed(t, out)
		}
	})
}

// FuzzString checks that a string without templates means the same in HCL.
func FuzzString(f *testing.F) {
	for _, s := range []string{"", "a", "${a}", "$${a}", "%%{if}", "a\nb\nc\n", "a\nb\nc", "EOT\n\n\nEOT", "\t\"\\", "$", "%", "$$", "a$\n\n${b}", "\u2028\x00", "\r\n\r\n", "\u08e2", "\u08e2\\\u0600\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(s, "{{") || !validText(s) {
			t.Skip()
		}
		src := `{"builders": [{"type": "x", "a": ` + jsonString(s) + `, "b": {"k": [` + jsonString(s) + `, "y"]}}]}`
		out, diags := upgrade.Convert("in.json", []byte(src), upgrade.Options{Docs: nothing})
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		if got := evaluate(t, out); got != s {
			t.Errorf("%q became %q in\n%s", s, got, out)
		}
	})
}

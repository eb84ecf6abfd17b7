package format_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/config/format"
)

func TestSource(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"alignment", "a=1\nlong = 2\n", "a    = 1\nlong = 2\n"},
		{"a blank line separates columns", "a=1\n\nlong=2\n", "a = 1\n\nlong = 2\n"},
		{"indentation", "b {\n a = [\n1,\n2\n]\n}\n", "b {\n  a = [\n    1,\n    2\n  ]\n}\n"},
		{"comments", "a=1 # one\nlong=2 // two\n", "a    = 1 # one\nlong = 2 // two\n"},
		{"a heredoc keeps its text", "b {\na=<<EOT\n  x\n y\nEOT\n}\n", "b {\n  a = <<EOT\n  x\n y\nEOT\n}\n"},
		{"operators", "a=b?1:-c[0].d\n", "a = b ? 1 : -c[0].d\n"},
		{"interpolation is left alone", "a = \"${ b }-%{if c}x%{endif}\"\n", "a = \"${b}-%{if c}x%{endif}\"\n"},
		{"no newline at the end", "a=1", "a = 1"},
		{"windows line ends", "a=1\r\nlong=2\r\n", "a    = 1\r\nlong = 2\r\n"},
		{"one-line blocks", "b  \"x\"{a=1}\n", "b \"x\" { a = 1 }\n"},
		{"empty", "", ""},
	} {
		got, diags := format.Source("t.pkr.hcl", []byte(tt.in))
		if diff := cmp.Diff(tt.want, string(got)); diff != "" || diags.HasErrors() {
			t.Errorf("%s: %v\n%s", tt.name, diags, diff)
		}
	}
	if got, diags := format.Source("t.pkr.hcl", []byte("a = b"+strings.Repeat("[*]", 300_000))); got != nil || !diags.HasErrors() {
		t.Errorf("what no parser reads gives %d bytes, %v", len(got), diags)
	}
	if got, diags := format.Source("t.pkr.hcl", []byte("a = [\n")); got != nil || !diags.HasErrors() || diags[0].Subject.Filename != "t.pkr.hcl" {
		t.Errorf("half a list gives %q, %v", got, diags)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{
		"b.pkr.hcl", "a.pkr.hcl", "v.pkrvars.hcl", "x.auto.pkrvars.hcl", "t.pkr.json", "main.tf", ".hidden.pkr.hcl", "#b.pkr.hcl#", "b.pkr.hcl~",
		"sub/c.pkr.hcl", "sub/deep/d.pkr.hcl", ".git/e.pkr.hcl", "old~/f.pkr.hcl", "sub/deep/folder.pkr.hcl/g.pkrvars.hcl",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"link.pkr.hcl": "a.pkr.hcl", "round": ".", "broken.pkr.hcl": "nowhere", "dir.pkr.hcl": "sub"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	top := []string{"a.pkr.hcl", "b.pkr.hcl", "link.pkr.hcl", "v.pkrvars.hcl", "x.auto.pkrvars.hcl"}
	all := []string{"a.pkr.hcl", "b.pkr.hcl", "link.pkr.hcl", "sub/c.pkr.hcl", "sub/deep/d.pkr.hcl", "sub/deep/folder.pkr.hcl/g.pkrvars.hcl", "v.pkrvars.hcl", "x.auto.pkrvars.hcl"}
	for recursive, want := range map[bool][]string{false: top, true: all} {
		got, err := format.Files(dir, recursive)
		for i, name := range got {
			got[i] = strings.TrimPrefix(filepath.ToSlash(name), filepath.ToSlash(dir)+"/")
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("recursive %v: %v\n%s", recursive, err, diff)
		}
	}
	if got, err := format.Files(filepath.Join(dir, ".hidden.pkr.hcl"), false); len(got) != 1 || err != nil {
		t.Errorf("a file that is named is taken whatever its name: %v %v", got, err)
	}
	for _, name := range []string{"main.tf", "t.pkr.json", "none.pkr.hcl"} {
		if got, err := format.Files(filepath.Join(dir, name), false); err == nil {
			t.Errorf("%s gives %v", name, got)
		}
	}
}

func TestDiff(t *testing.T) {
	want := "--- old/t.pkr.hcl\n+++ new/t.pkr.hcl\n@@ -1,3 +1,3 @@\n x = 0\n-a=1\n+a = 1\n y = 0\n"
	if diff := cmp.Diff(want, format.Diff("t.pkr.hcl", []byte("x = 0\na=1\ny = 0\n"), []byte("x = 0\na = 1\ny = 0\n"))); diff != "" {
		t.Errorf("Diff (-want +got):\n%s", diff)
	}
	if got := format.Diff("t", []byte("a\n"), []byte("a\n")); got != "" {
		t.Errorf("no difference gives %q", got)
	}
}

// FuzzSource: formatting a file twice gives the same result as once, and never changes its
// meaning.
func FuzzSource(f *testing.F) {
	for _, pattern := range []string{"../../testdata/valid/*.hcl", "../../testdata/invalid/*.hcl"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			f.Fatalf("%s: %v", pattern, err)
		}
		for _, name := range names {
			src, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src)
		}
	}
	f.Add([]byte("a =<<-X\n  ${ b }\n  X\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		once, diags := format.Source("f.pkr.hcl", src)
		if diags.HasErrors() {
			return
		}
		if diff := cmp.Diff(tokens(t, src), tokens(t, once)); diff != "" {
			t.Errorf("it says something else now:\n%s", diff)
		}
		twice, diags := format.Source("f.pkr.hcl", once)
		if diags.HasErrors() || !bytes.Equal(once, twice) {
			t.Errorf("formatted again (%v):\n%s", diags, cmp.Diff(string(once), string(twice)))
		}
	})
}

// tokens returns the tokens of src, without white space.
func tokens(t *testing.T, src []byte) (out []string) {
	all, diags := hclsyntax.LexConfig(src, "f.pkr.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Skip(diags)
	}
	for _, tok := range all {
		out = append(out, strings.TrimSpace(string(tok.Bytes)))
	}
	return out
}

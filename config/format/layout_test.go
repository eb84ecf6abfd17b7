package format_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"bake/config/format"
)

// TestLayout compares the layout with that of HCL's own formatter, for each template of this repository, also
// without its white space and with too much of it.
func TestLayout(t *testing.T) {
	files := 0
	for _, src := range sources(t) {
		files++
		for _, s := range []string{src, strings.ReplaceAll(src, "  ", ""), strings.ReplaceAll(src, " ", "   "), strings.ReplaceAll(src, " = ", "=")} {
			compare(t, []byte(s))
		}
	}
	if files < 100 {
		t.Errorf("only %d files were compared", files)
	}
}

// FuzzLayout compares the layout with that of HCL's own formatter.
func FuzzLayout(f *testing.F) {
	for _, src := range sources(f) {
		if len(src) < 4000 {
			f.Add([]byte(src))
		}
	}
	for _, src := range []string{
		"a=1\n/* x\ny */ b = 2 # é\nünï = 3 # x\n", "a=<<-E\n  ${ {b=1} }%{for x in [1]}x%{endfor}\nE\n", "a=[for x in[1]:-x...]\n",
		"b{c{\nd=[{\ne=f(\n1)}]\n}}\n", "}\n}\na = -1 - -b[0][\"x\"].*.c[*]\n", "a=p::f(!b,c?-1:2)\n", "\ufeffa=1", "a = \"x\ty\"\t# z\n",
	} {
		f.Add([]byte(src))
	}
	f.Fuzz(func(t *testing.T, src []byte) { compare(t, src) })
}

func compare(t *testing.T, src []byte) {
	t.Helper()
	got, want := format.Layout(src), hclwrite.Format(src)
	if !bytes.Equal(got, want) {
		t.Errorf("%q: %s", src, cmp.Diff(string(want), string(got)))
	}
}

// sources returns the templates, variable files and bake files of this repository.
func sources(tb testing.TB) (all []string) {
	err := filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".hcl") {
			return err
		}
		src, err := os.ReadFile(path)
		all = append(all, string(src))
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

package hclformat_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"bake/internal/hclformat"
)

var sources = []string{
	"", "\n", " ", "a=1", "a=1\r\nlong = 2 # c\r\n", "a = [\n", "]]]\n}\n", "=\n", "= a = b # c\n",
	"b \"x\"{a=1}\nc {}\nd { }\n", "x = f( a,b ... )\ny = a :: b()\nz=a . b[ 0 ][1] [2]\n",
	"a = -1 - -b ? !c : -d\n  e = (-f) # one\n longer = g /* two */\n",
	"a = [for x in [1] : x if x > -1]\nin = in [0]\n",
	"a = \"${ {b=1} }-${x}${y} %{ if z }t%{ endif }\"\nb = <<-E\n   ${ f(\n1) } x\n  E\nc = 1\n",
	"f({ a = [ {\nb = 1\n} ]\n})\ng = [[\n1,\n], [\n2]\n]\n", "# c\n\n\n  // d\na {\n/* e\nf */ b = 1\n}\n",
	"ü世 = 1\né = 2 # x\na = 3 # 👩‍👩‍👧\n", "a {\nb = [{\n},{\n}]\n}\n))\na=1\n",
}

// same fails if src is laid out in another way than by the library.
func same(t *testing.T, name string, src []byte) {
	t.Helper()
	given := bytes.Clone(src)
	if got, want := hclformat.Source(src), hclwrite.Format(src); !bytes.Equal(got, want) {
		i := 0
		for i < min(len(got), len(want)) && got[i] == want[i] {
			i++
		}
		t.Errorf("%s: %.200q: byte %d: %.60q, not %.60q", name, src, i, got[max(0, i-20):], want[max(0, i-20):])
	}
	if !bytes.Equal(src, given) {
		t.Errorf("%s: the source has changed", name)
	}
}

// TestSource: the layout is that of terraform fmt and packer fmt, also of what is no HCL.
func TestSource(t *testing.T) {
	for _, src := range sources {
		same(t, "source", []byte(src))
	}
	files := 0
	for _, dir := range []string{"../../examples", "../../testdata"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".hcl") {
				return err
			}
			src, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files++
			same(t, path, src)
			// The same without its layout.
			same(t, path+", squeezed", bytes.Join(bytes.Fields(bytes.ReplaceAll(src, []byte("\n"), []byte(" \n "))), []byte(" ")))
			same(t, path+", at the left", bytes.ReplaceAll(src, []byte("  "), nil))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 100 {
		t.Errorf("only %d files were looked at", files)
	}
}

// TestEscape: text comes out of a string as it went in.
func TestEscape(t *testing.T) {
	for _, s := range []string{"", "plain", "a\"b\\c\n\r\t", "${x} %{y} $ % $$ $${", "\x00\u00a0\U000e0001", "ü世"} {
		src := `"` + hclformat.Escape(s, false) + `"`
		e, diags := hclsyntax.ParseExpression([]byte(src), "", hcl.InitialPos)
		if diags.HasErrors() {
			t.Errorf("%s: %v", src, diags)
			continue
		}
		if v, diags := e.Value(nil); diags.HasErrors() || v.AsString() != s {
			t.Errorf("%q is written as %s, which is %#v (%v)", s, src, v, diags)
		}
	}
}

func FuzzSource(f *testing.F) {
	for _, src := range sources {
		f.Add([]byte(src))
	}
	f.Fuzz(func(t *testing.T, src []byte) { same(t, "source", src) })
}

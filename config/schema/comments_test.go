package schema

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// parsedComments is what [addComments] finds, read by a parser of the whole language.
func parsedComments(t *testing.T, source string) map[string]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "options.go", source, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	comments := map[string]string{}
	for _, d := range f.Decls {
		types, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, s := range types.Specs {
			ts, ok := s.(*ast.TypeSpec)
			if !ok {
				continue
			}
			st, ok := ts.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, field := range st.Fields.List {
				for _, id := range field.Names {
					if text := strings.TrimSpace(field.Doc.Text()); text != "" {
						comments[f.Name.Name+"."+ts.Name.Name+"."+id.Name] = text
					}
				}
			}
		}
	}
	return comments
}

// TestCommentsOfTheProject: of all sources that embed themselves the same comments are
// found as by a parser, but for types inside functions.
func TestCommentsOfTheProject(t *testing.T) {
	root := os.DirFS("../..")
	files, fields := 0, 0
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") {
			return err
		}
		source, err := fs.ReadFile(root, name)
		if err != nil || !strings.Contains(string(source), "//go:embed "+path.Base(name)+"\n") {
			return err
		}
		got, want := map[string]string{}, parsedComments(t, string(source))
		addComments(got, string(source))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-parser +here):\n%s", name, diff)
		}
		files, fields = files+1, fields+len(want)
		return nil
	})
	if err != nil || files < 40 || fields < 500 {
		t.Errorf("%d files with %d fields, %v", files, fields, err)
	}
}

func TestComments(t *testing.T) {
	const source = "// Package p has\n//\n//\ttype Not struct {\npackage p\n\nimport \"fmt\"\n" + `
// T has
//
//	type U struct {
//		// No.
//		No int
type T struct {
	embedded
	*pointed.To ` + "`hcl:\",block\"`" + `
	Plain int // Beside, and not before.

	// Two lines,
	// one text.
	Two string

	// With a directive.
	//nolint:gosec // it is fine
	Directed string ` + "`hcl:\"directed\" doc:\"a b\"`" + `

	// A note: no directive.
	//
	//
	// Second paragraph.
	//   - indented
	//
	Long, Longer map[string]struct{}

	// Not of the next.

	Alone func(a, b int) (struct{}, error)
	// Inside.
	Inner struct {
		// Deeper.
		Deep int
	}
	// After.
	After fmt.Stringer
}

type (
	// G is in a group.
	G struct {
		// First.
		First int
	}
	Empty struct{}
	N     int
)

func f() {
	type local struct {
		// Nobody's.
		x int
	}
}

type Last struct {
	// Of the last.
	A int
}
`
	got, want := map[string]string{}, parsedComments(t, source)
	addComments(got, source)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-parser +here):\n%s", diff)
	}
}

package bake_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestLittleIsDoneBeforeMain: what is initialized with its package costs every command
// its time, "bake version" included. Expressions are compiled when they are needed
// first, and no package is linked that builds great tables.
func TestLittleIsDoneBeforeMain(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,GoFiles", "./cmd/bake").Output()
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	files := 0
	for {
		var p struct {
			ImportPath, Dir string
			GoFiles         []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(p.ImportPath, "/aws-sdk-go-v2/service/") && strings.HasSuffix(p.ImportPath, "/schemas") {
			t.Errorf("%s makes a table of all shapes of its service before main: stay with the release before it came", p.ImportPath)
		}
		if !strings.HasPrefix(p.ImportPath, "bake/") {
			continue
		}
		for _, name := range p.GoFiles {
			files++
			set := token.NewFileSet()
			f, err := parser.ParseFile(set, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range compiledAtOnce(f) {
				t.Errorf("%s: an expression is compiled before main: use sync.OnceValue", set.Position(at))
			}
		}
	}
	if files < 100 {
		t.Errorf("only %d files were looked at; is this the module's root?", files)
	}
}

// compiledAtOnce returns the places where variables of a package are set to a compiled
// expression.
func compiledAtOnce(f *ast.File) (at []token.Pos) {
	for _, d := range f.Decls {
		vars, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		ast.Inspect(vars, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && (s.Sel.Name == "MustCompile" || s.Sel.Name == "MustCompilePOSIX") {
				at = append(at, s.Pos())
			}
			_, later := n.(*ast.FuncLit)
			return !later
		})
	}
	return at
}

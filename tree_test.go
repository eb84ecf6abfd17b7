package bake_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// source is a Go file of the module.
type source struct {
	name   string // from the module's root, with slashes
	text   string
	syntax *ast.File // with comments; nil for tests
}

// positions are the positions in all sources.
var positions = token.NewFileSet()

// sources returns the Go files of the module, which are read once.
func sources(t *testing.T) []source {
	t.Helper()
	all, err := readSources()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 1000 {
		t.Fatalf("only %d files; is this the module's root?", len(all))
	}
	return all
}

var readSources = sync.OnceValues(func() (all []source, err error) {
	return all, fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && name != "."):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go"):
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		s := source{name: name, text: string(text)}
		if !strings.HasSuffix(name, "_test.go") {
			s.syntax, err = parser.ParseFile(positions, name, text, parser.ParseComments|parser.SkipObjectResolution)
		}
		all = append(all, s)
		return err
	})
})

// listed is a package as listed by the go command.
type listed struct {
	ImportPath string
	Export     string // the file with the types of its exports
	GoFiles    []string
	Imports    []string
}

// packages returns the packages of the module and all their dependencies, each after its imports.
// They are listed once.
func packages(t *testing.T) []listed {
	t.Helper()
	all, err := listPackages()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 500 {
		t.Fatalf("only %d packages; is this the module's root?", len(all))
	}
	return all
}

var listPackages = sync.OnceValues(func() (all []listed, err error) {
	list := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Export,GoFiles,Imports", "./...")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, err
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
})

// dir returns the directory of a package of the module, from the module's root.
func (p listed) dir() (string, bool) { return strings.CutPrefix(p.ImportPath, "bake/") }

// checker checks the types of packages from their syntax, so that a declaration is the same object
// wherever it is used. Other packages are read from the export files of the go command.
type checker struct {
	checked map[string]*types.Package
	others  types.Importer
}

func newChecker(all []listed) *checker {
	exports := map[string]string{}
	for _, p := range all {
		exports[p.ImportPath] = p.Export
	}
	return &checker{map[string]*types.Package{}, importer.ForCompiler(positions, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})}
}

// Import implements [types.Importer].
func (c *checker) Import(path string) (*types.Package, error) {
	if p := c.checked[path]; p != nil {
		return p, nil
	}
	return c.others.Import(path)
}

// check checks a package and sets info.
func (c *checker) check(path string, files []*ast.File, info *types.Info) error {
	config := types.Config{Importer: c}
	p, err := config.Check(path, positions, files, info)
	c.checked[path] = p
	return err
}

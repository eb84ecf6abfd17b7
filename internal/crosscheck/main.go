// Command crosscheck checks whether the packages of bake and their tests are valid Go on
// other systems. It type-checks them and all their dependencies from source, without
// compiled packages: this takes a few seconds for a system, where building the AWS SDK
// takes minutes. It does not find errors that only the linker or the assembler reports.
//
//	crosscheck GOOS/GOARCH...
//
// It skips packages that depend on the embedded cloud, since machines need Linux.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

const module = "bake"

func main() {
	c := newChecker(".")
	failed := false
	for _, target := range os.Args[1:] {
		begin := time.Now()
		goos, goarch, _ := strings.Cut(target, "/")
		n, err := c.check(goos, goarch)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s:\n%v\n", target, err)
			failed = true
			continue
		}
		fmt.Printf("%-14s %d packages and tests of bake in %.1fs\n", target, n, time.Since(begin).Seconds())
	}
	if failed {
		os.Exit(1)
	}
}

// pkg is a package, or a variant of one with the files of its test.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	ImportMap  map[string]string // as written to ImportPath, where they differ
	Deps       []string
	ForTest    string
	Standard   bool
	Module     *struct{ GoVersion string }
	Error      *struct{ Err string }
}

// own reports whether a package is one of this module.
func own(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

// left reports whether p is skipped. Only tests may be skipped because of their imports.
func (p pkg) left() bool {
	if ofCloud(p.ImportPath) || strings.HasSuffix(p.ImportPath, ".test") {
		return true
	}
	if p.ForTest == "" && !strings.HasSuffix(p.ImportPath, "test") {
		return false
	}
	return slices.ContainsFunc(p.Deps, ofCloud)
}

func ofCloud(path string) bool {
	return path == module+"/cloud" || strings.HasPrefix(path, module+"/cloud/")
}

// checker caches the files that it has read, since most are the same on each system.
type checker struct {
	dir   string // of the module
	set   *token.FileSet
	mu    sync.Mutex
	files map[string]*ast.File
}

func newChecker(dir string) *checker {
	return &checker{dir: dir, set: token.NewFileSet(), files: map[string]*ast.File{}}
}

// check checks the packages and tests of the module for a system, and returns their
// number.
func (c *checker) check(goos, goarch string) (n int, err error) {
	list, err := packages(c.dir, goos, goarch)
	if err != nil {
		return 0, err
	}
	needed := map[string]bool{}
	for _, p := range list {
		if own(p.ImportPath) && !p.left() {
			needed[p.ImportPath] = true
			for _, d := range p.Deps {
				needed[d] = true
			}
		}
	}
	checked := map[string]*types.Package{"unsafe": types.Unsafe}
	var problems []error
	for _, p := range list {
		if own(p.ImportPath) && !p.left() && slices.ContainsFunc(p.Deps, ofCloud) {
			problems = append(problems, fmt.Errorf("%s is made of the embedded cloud, which needs Linux: only internal/local may be, and only there", p.ImportPath))
		}
	}
	if problems != nil {
		return 0, errors.Join(problems...)
	}
	for _, p := range list { // imported packages come first
		if !needed[p.ImportPath] || p.ImportPath == "unsafe" {
			continue
		}
		if p.Error != nil {
			problems = append(problems, fmt.Errorf("%s: %s", p.ImportPath, p.Error.Err))
			continue
		}
		files, err := c.parse(p)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		config := types.Config{
			Importer:         importer{p.ImportMap, checked},
			Sizes:            types.SizesFor("gc", goarch),
			IgnoreFuncBodies: !own(p.ImportPath),
			Error:            func(err error) { problems = append(problems, err) },
		}
		if p.Module != nil && p.Module.GoVersion != "" {
			config.GoVersion = "go" + p.Module.GoVersion
		}
		path, _, _ := strings.Cut(p.ImportPath, " ") // a variant is the same package
		checked[p.ImportPath], _ = config.Check(path, c.set, files, nil)
		if own(p.ImportPath) {
			n++
		}
	}
	return n, errors.Join(problems...)
}

// packages lists the packages and tests of the module and all that they import,
// dependencies first.
func packages(dir, goos, goarch string) (list []pkg, err error) {
	cmd := exec.Command("go", "list", "-e", "-deps", "-test", "-json=ImportPath,Dir,GoFiles,ImportMap,Deps,ForTest,Standard,Module,Error", "./...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	for dec := json.NewDecoder(out); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, errors.Join(err, cmd.Wait())
		}
		list = append(list, p)
	}
	return list, cmd.Wait()
}

// importer resolves a package's imports among the packages checked so far.
type importer struct {
	names   map[string]string
	checked map[string]*types.Package
}

// Import implements [types.Importer].
func (i importer) Import(path string) (*types.Package, error) {
	if real, ok := i.names[path]; ok {
		path = real
	}
	if p := i.checked[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%s was not checked", path)
}

// parse reads the files of p. For packages of other modules it drops the bodies of
// functions.
func (c *checker) parse(p pkg) ([]*ast.File, error) {
	files := make([]*ast.File, len(p.GoFiles))
	errs := make([]error, len(p.GoFiles))
	var wg sync.WaitGroup
	limit := make(chan struct{}, runtime.NumCPU())
	for i, name := range p.GoFiles {
		if !filepath.IsAbs(name) {
			name = filepath.Join(p.Dir, name)
		}
		wg.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			files[i], errs[i] = c.file(name, own(p.ImportPath))
		})
	}
	wg.Wait()
	return files, errors.Join(errs...)
}

func (c *checker) file(name string, whole bool) (*ast.File, error) {
	c.mu.Lock()
	f := c.files[name]
	c.mu.Unlock()
	if f != nil {
		return f, nil
	}
	f, err := parser.ParseFile(c.set, name, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	if !whole {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				fn.Body = &ast.BlockStmt{Lbrace: fn.Body.Lbrace, Rbrace: fn.Body.Rbrace}
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files[name] = f
	return f, nil
}

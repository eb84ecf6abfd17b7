package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/spf13/cobra"
)

// TestHelp: every command says what it does, how it ends, what it reads, and
// shows how it is used.
func TestHelp(t *testing.T) {
	p := &program{now: time.Now}
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		var out bytes.Buffer
		writeHelp(&out, cmd)
		parts := []string{"\nUsage: " + cmd.CommandPath(), "\nExit codes:\n"}
		if cmd.HasAvailableSubCommands() {
			parts = append(parts, "\nCommands:\n")
		} else {
			parts = append(parts, "\nExamples:\n")
		}
		for _, part := range parts {
			if !strings.Contains(out.String(), part) {
				t.Errorf("the help of %s lacks %q", cmd.CommandPath(), strings.TrimSpace(part))
			}
		}
		if cmd.HasParent() && (cmd.Long == "" || cmd.Long == cmd.Short) {
			t.Errorf("%s has no description that is longer than a line", cmd.CommandPath())
		}
		for line := range strings.Lines(cmd.Long) {
			if len(line) > 92 {
				t.Errorf("the help of %s has a line of %d characters: %s", cmd.CommandPath(), len(line)-1, line)
			}
		}
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, "`") {
				t.Errorf("the help of %s has a backquote: %s", cmd.CommandPath(), line)
			}
		}
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				visit(c)
			}
		}
	}
	visit(p.root(nil))
}

// names reports whether a text has a word.
func names(text, word string) bool {
	return slices.Contains(strings.FieldsFunc(text, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }), word)
}

// TestHelpOfReaders: the help of a command names the variables that are read by what it calls.
func TestHelpOfReaders(t *testing.T) {
	readers := map[string]string{
		"env.state": "BAKE_STATE_DIR", "p.openLocal": "BAKE_CLOUD_DIR", "env.cloudInit": cloudInitVariable,
		"p.onAccount": "AWS_...", "run.Build": "AWS_...", "run.Plan": "AWS_...", "run.Resume": "AWS_...", "run.Sweep": "AWS_...", "one.Plan": "AWS_...",
	}
	functions := mainFunctions(t)
	var read func(name string, seen map[string]bool) []string
	read = func(name string, seen map[string]bool) (all []string) {
		if seen[name] {
			return nil
		}
		seen[name] = true
		for _, ref := range functions[name].refs {
			if v := readers[ref]; v != "" {
				all = append(all, v)
			}
			if ref = resolved(functions, ref); !strings.HasSuffix(ref, "Command") {
				all = append(all, read(ref, seen)...)
			}
		}
		return all
	}
	p := &program{now: time.Now}
	root := p.root(nil)
	found := map[string]int{}
	var visit func(name string, path []string)
	visit = func(name string, path []string) {
		if use := functions[name].use; use != "" {
			path = append(slices.Clone(path), use)
			cmd, _, err := root.Find(path)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var help bytes.Buffer
			writeHelp(&help, cmd)
			for _, v := range read(name, map[string]bool{}) {
				found[v]++
				if !names(help.String(), v) {
					t.Errorf("the help of %s lacks %s", cmd.CommandPath(), v)
				}
			}
		}
		for _, ref := range functions[name].refs {
			if strings.HasSuffix(ref, "Command") {
				visit(resolved(functions, ref), path)
			}
		}
	}
	visit("p.commands", nil)
	for _, v := range readers {
		if found[v] < 3 {
			t.Errorf("only %d readers of %s were found", found[v], v)
		}
	}
}

// function is what a function of this package refers to: "p.f" is a method of the program, "x.f" what
// is called so of something else.
type function struct {
	refs []string
	use  string // of the command that it makes
}

// mainFunctions are the functions of this package by name, with "p." before those of the program.
func mainFunctions(t *testing.T) map[string]function {
	t.Helper()
	all := map[string]function{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			d, ok := d.(*ast.FuncDecl)
			if !ok || d.Body == nil {
				continue
			}
			name := d.Name.Name
			if d.Recv != nil && len(d.Recv.List[0].Names) == 1 && d.Recv.List[0].Names[0].Name == "p" {
				name = "p." + name
			}
			one := all[name] // of another system
			ast.Inspect(d.Body, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr:
					switch x := n.X.(type) {
					case *ast.Ident:
						one.refs = append(one.refs, x.Name+"."+n.Sel.Name)
					case *ast.SelectorExpr:
						one.refs = append(one.refs, x.Sel.Name+"."+n.Sel.Name)
					}
				case *ast.CallExpr:
					if f, ok := n.Fun.(*ast.Ident); ok {
						one.refs = append(one.refs, f.Name)
					}
				case *ast.KeyValueExpr:
					key, _ := n.Key.(*ast.Ident)
					if v, ok := n.Value.(*ast.BasicLit); ok && key != nil && key.Name == "Use" {
						text, _ := strconv.Unquote(v.Value)
						one.use, _, _ = strings.Cut(text, " ")
					}
				}
				return true
			})
			all[name] = one
		}
	}
	return all
}

// resolved is the name of the function of this package that a reference is to, if it is to one.
func resolved(functions map[string]function, ref string) string {
	if _, ok := functions[ref]; ok {
		return ref
	}
	_, method, _ := strings.Cut(ref, ".")
	return method
}

// TestHelpNamesVariables: each variable that the program looks for under a name of its own is in
// the help of bake.
func TestHelpNamesVariables(t *testing.T) {
	p := &program{now: time.Now}
	var help bytes.Buffer
	writeHelp(&help, p.root(nil))
	own := regexp.MustCompile(`"(BAKE_[A-Z_]+)"`)
	found := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range own.FindAllSubmatch(text, -1) {
			name := string(m[1])
			if strings.HasPrefix(name, "BAKE_TEST_") {
				continue
			}
			found++
			if !names(help.String(), name) {
				t.Errorf("the help of bake lacks %s, which %s reads", name, path)
			}
		}
		return err
	})
	if err != nil || found < 10 {
		t.Errorf("%d names found: %v", found, err)
	}
}

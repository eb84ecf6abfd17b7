package bake_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestOptionsAreRead: an option is read by more than its validation, unless its documentation says
// that it has no effect. Fields are told apart by name only, within the packages that can know
// them, so that an option may go unnoticed beside a field of the same name.
func TestOptionsAreRead(t *testing.T) {
	elsewhere := map[string]string{ // what takes the values of others
		"builder/amazon/internal/launch.Effect": "it is sent with its policy, as JSON",
		"golden/bakefile.ForEach":               "config reads it, before the template is known",
		"golden/bakefile.RequiredVersion":       "it is obeyed where it is checked",
		"provisioner/ansible.SkipVersionCheck":  "it is obeyed where it is checked",
	}
	packages := parsePackages(t)
	inert := regexp.MustCompile(`(?i)no effect|without effect|not supported|makes no difference|\bignored\b`)
	options := 0
	for dir, p := range packages {
		for name, comment := range p.options {
			options++
			id := dir + "." + name
			read := slices.ContainsFunc(importers(packages, dir), func(q string) bool { return packages[q].reads[name] })
			if _, known := elsewhere[id]; !read && !known && !inert.MatchString(comment) {
				t.Errorf("nothing reads the option %s: make it work, or say in its comment that it has no effect, and warn or refuse", id)
			}
			delete(elsewhere, id)
		}
	}
	for id, why := range elsewhere {
		t.Errorf("there is no option %s, of which it is said that %s", id, why)
	}
	if options < 400 {
		t.Errorf("only %d options were found", options)
	}
}

// parsedPackage is what the files of a directory say, its tests apart.
type parsedPackage struct {
	options map[string]string // comments of the fields that are options
	reads   map[string]bool   // names of what is read of values
	imports map[string]bool   // directories of bake
}

// parsePackages reads all packages but those of the cloud, which has no options.
func parsePackages(t *testing.T) map[string]*parsedPackage {
	t.Helper()
	all := map[string]*parsedPackage{}
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (name == "cloud" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && name != ".") {
			return fs.SkipDir
		}
		if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		if all[dir] == nil {
			all[dir] = &parsedPackage{map[string]string{}, map[string]bool{}, map[string]bool{}}
		}
		all[dir].add(f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// importers are the packages that know what is in a directory: its own, and those that import one
// that does.
func importers(packages map[string]*parsedPackage, dir string) []string {
	known := []string{dir}
	for i := 0; i < len(known); i++ {
		for name, p := range packages {
			if p.imports[known[i]] && !slices.Contains(known, name) {
				known = append(known, name)
			}
		}
	}
	return known
}

func (p *parsedPackage) add(f *ast.File) {
	for _, i := range f.Imports {
		if dir, ok := strings.CutPrefix(unquoted(i.Path), "bake/"); ok {
			p.imports[dir] = true
		}
	}
	written := map[ast.Node]bool{} // selectors that take no value
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			return !validates(n.Type)
		case *ast.StructType:
			for _, field := range n.Fields.List {
				if tag := tagOf(field); tag != "" && !strings.HasSuffix(tag, ",label") && len(field.Names) == 1 {
					p.options[field.Names[0].Name] = field.Doc.Text()
				}
			}
		case *ast.AssignStmt:
			for _, l := range n.Lhs {
				written[l] = n.Tok == token.ASSIGN
			}
		case *ast.CallExpr:
			for _, a := range blamed(n) {
				written[a] = true
			}
		case *ast.SelectorExpr:
			if !written[n] {
				p.reads[n.Sel.Name] = true
			}
		}
		return true
	})
}

// validates reports whether a function is part of a validation.
func validates(f *ast.FuncType) bool {
	return slices.ContainsFunc(f.Params.List, func(p *ast.Field) bool {
		star, ok := p.Type.(*ast.StarExpr)
		if !ok {
			return false
		}
		s, ok := star.X.(*ast.SelectorExpr)
		return ok && s.Sel.Name == "Checker"
	})
}

// blamed are the fields whose addresses a call takes only to say which option it is about.
func blamed(call *ast.CallExpr) (fields []ast.Node) {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Errorf", "Known", "Name", "Range", "Set"}, f.Sel.Name) {
		return nil
	}
	for _, a := range call.Args {
		if u, ok := a.(*ast.UnaryExpr); ok && u.Op == token.AND {
			fields = append(fields, u.X)
		}
	}
	return fields
}

func tagOf(f *ast.Field) string {
	if f.Tag == nil {
		return ""
	}
	return reflect.StructTag(unquoted(f.Tag)).Get("hcl")
}

func unquoted(l *ast.BasicLit) string {
	text, _ := strconv.Unquote(l.Value)
	return text
}

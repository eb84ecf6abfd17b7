// Command gentypes writes the input and output structs of the embedded cloud's services
// for which bake has no client. They are the AWS SDK's, with the same names and fields,
// for the supported actions. Importing the SDK's packages instead would make every program
// initialize what clients need. Run it in the module's root:
//
//	go run ./cloud/wire/gentypes
package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// services maps the services whose structs are written to cloud/api, by their names in the
// SDK, to the files that name their actions.
var services = map[string]string{
	"autoscaling":        "cloud/autoscaling/api.go",
	"ec2instanceconnect": "cloud/instanceconnect/instanceconnect.go",
	"iam":                "cloud/iam/api.go",
	"kms":                "cloud/kms/api.go",
	"organizations":      "cloud/organizations/api.go",
	"secretsmanager":     "cloud/secretsmanager/api.go",
	"ssm":                "cloud/ssm/api.go",
}

func main() {
	for service := range services {
		text, err := generate(".", service)
		if err == nil {
			dir := filepath.Join("cloud", "api", service)
			err = errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, service+".go"), text, 0o644))
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "gentypes: %s: %v\n", service, err)
			os.Exit(1)
		}
	}
}

// generate returns the source of the package of a service's structs. root is the module's
// directory.
func generate(root, service string) ([]byte, error) {
	table, err := os.ReadFile(filepath.Join(root, services[service]))
	if err != nil {
		return nil, err
	}
	actions := regexp.MustCompile(`"(\w+)": +wire\.Answer\(`).FindAllStringSubmatch(string(table), -1)
	if len(actions) == 0 {
		return nil, fmt.Errorf("%s names no actions", services[service])
	}
	sdk := "github.com/aws/aws-sdk-go-v2/service/" + service
	list := exec.Command("go", "list", "-f", "{{.Dir}}", sdk)
	list.Dir, list.Stderr = root, os.Stderr
	dir, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", sdk, err)
	}
	s := newSource()
	for _, dir := range []string{strings.TrimSpace(string(dir)), filepath.Join(strings.TrimSpace(string(dir)), "types")} {
		if err := s.read(dir); err != nil {
			return nil, err
		}
	}
	reached := map[string]bool{}
	for _, a := range actions {
		for _, name := range []string{a[1] + "Input", a[1] + "Output"} {
			if err := s.reach(name, reached); err != nil {
				return nil, err
			}
		}
	}
	return s.write(service, reached)
}

// source holds the declarations of a service's SDK packages, by type name.
type source struct {
	types  map[string]*ast.TypeSpec
	consts map[string]*ast.GenDecl  // of enumerations
	values map[string]*ast.FuncDecl // the enumerations' methods Values
}

func newSource() source {
	return source{map[string]*ast.TypeSpec{}, map[string]*ast.GenDecl{}, map[string]*ast.FuncDecl{}}
}

// read adds the declarations of a package, without comments.
func (s source) read(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err == nil && len(files) == 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, d := range f.Decls {
			s.add(d)
		}
	}
	return nil
}

func (s source) add(d ast.Decl) {
	switch d := d.(type) {
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				s.types[spec.Name.Name] = spec
			case *ast.ValueSpec:
				if of, ok := spec.Type.(*ast.Ident); ok && d.Tok == token.CONST {
					s.consts[of.Name] = d
				}
			}
		}
	case *ast.FuncDecl:
		if d.Name.Name != "Values" || d.Recv == nil {
			return
		}
		if of, ok := d.Recv.List[0].Type.(*ast.Ident); ok {
			s.values[of.Name] = d
		}
	}
}

// reach adds a type and the types of its fields to reached. It removes fields that only the SDK's
// clients use.
func (s source) reach(name string, reached map[string]bool) error {
	if reached[name] {
		return nil
	}
	spec, ok := s.types[name]
	if !ok {
		return fmt.Errorf("the SDK has no type %s", name)
	}
	reached[name] = true
	of, ok := spec.Type.(*ast.StructType)
	if !ok {
		if id, ok := spec.Type.(*ast.Ident); ok && id.Name == "string" {
			return nil
		}
		return fmt.Errorf("%s is neither a struct nor an enumeration", name)
	}
	of.Fields.List = slices.DeleteFunc(of.Fields.List, func(f *ast.Field) bool {
		return len(f.Names) == 0 || f.Names[0].Name == "ResultMetadata" || !f.Names[0].IsExported()
	})
	for _, f := range of.Fields.List {
		var err error
		if f.Type, err = s.local(f.Type, reached); err != nil {
			return fmt.Errorf("%s.%s: %w", name, f.Names[0].Name, err)
		}
	}
	return nil
}

// local returns the type of a field as written when all types are in one package.
func (s source) local(t ast.Expr, reached map[string]bool) (_ ast.Expr, err error) {
	switch t := t.(type) {
	case *ast.StarExpr:
		t.X, err = s.local(t.X, reached)
		return t, err
	case *ast.ArrayType:
		t.Elt, err = s.local(t.Elt, reached)
		return t, err
	case *ast.MapType:
		t.Value, err = s.local(t.Value, reached)
		return t, err
	case *ast.SelectorExpr:
		switch of := t.X.(*ast.Ident).Name; of {
		case "types":
			return t.Sel, s.reach(t.Sel.Name, reached)
		case "time":
			return t, nil
		default:
			return nil, fmt.Errorf("a type of package %s", of)
		}
	case *ast.Ident:
		if !ast.IsExported(t.Name) {
			return t, nil // a predeclared type
		}
		return t, s.reach(t.Name, reached)
	default:
		return nil, fmt.Errorf("a type that is a %T", t)
	}
}

func (s source) write(service string, reached map[string]bool) ([]byte, error) {
	var names []string
	for name := range reached {
		names = append(names, name)
	}
	slices.Sort(names)
	var body bytes.Buffer
	for _, name := range names {
		decls := []ast.Decl{&ast.GenDecl{Tok: token.TYPE, Specs: []ast.Spec{s.types[name]}}}
		if d := s.consts[name]; d != nil {
			decls = append(decls, d)
		}
		if d := s.values[name]; d != nil {
			decls = append(decls, d)
		}
		for _, d := range decls {
			// A new file set has no positions: with them, the printer would keep the SDK's
			// empty lines and comments.
			if err := printer.Fprint(&body, token.NewFileSet(), d); err != nil {
				return nil, err
			}
			body.WriteString("\n\n")
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `// Code generated by gentypes from github.com/aws/aws-sdk-go-v2/service/%[1]s. DO NOT EDIT.
// Copyright Amazon.com, Inc. or its affiliates, licensed under the Apache License, Version 2.0;
// reduced to the structs of some actions.

// Package %[1]s has the structs of the actions that the embedded cloud answers, with the
// names and fields that they have in the AWS SDK.
package %[1]s

`, service)
	if bytes.Contains(body.Bytes(), []byte("time.")) {
		b.WriteString("import \"time\"\n\n")
	}
	b.Write(body.Bytes())
	return format.Source(b.Bytes())
}

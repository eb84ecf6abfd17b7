package bake_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"testing"
)

// TestDeferredErrors: a deferred function that adds to an error adds to the result, and not to a
// variable of an inner block that has its name, where the error would be lost.
func TestDeferredErrors(t *testing.T) {
	for _, s := range sources(t) {
		if s.syntax == nil {
			continue
		}
		for _, at := range lostByDefer(s.syntax) {
			t.Errorf("%s: what is deferred sets a variable that shadows the result, which does not change", positions.Position(at))
		}
	}
}

// TestLostByDefer: cases that the rule covers, and cases that it does not.
func TestLostByDefer(t *testing.T) {
	const text = `package p
func inner() (err error) {
	if c, err := open(); err == nil {
		defer func() { err = c.Close() }() // lost
	}
	{
		c, err := open()
		use(err)
		defer func() { err = c.Close() }() // lost
	}
	return nil
}
func outer() (err error) {
	c, err := open()
	if true {
		defer func() { err = c.Close() }()
	}
	func() (err error) {
		d, err := open()
		defer func() { err = d.Close() }()
		return err
	}()
	return err
}`
	f, err := parser.ParseFile(token.NewFileSet(), "p.go", text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if got := lostByDefer(f); len(got) != 2 {
		t.Errorf("%d are found, not 2", len(got))
	}
}

// lostByDefer returns the places in a file where deferred functions set variables of inner blocks
// that have the name of a result.
func lostByDefer(f *ast.File) (found []token.Pos) {
	ast.Inspect(f, func(n ast.Node) bool {
		var kind *ast.FuncType
		var body *ast.BlockStmt
		switch n := n.(type) {
		case *ast.FuncDecl:
			kind, body = n.Type, n.Body
		case *ast.FuncLit:
			kind, body = n.Type, n.Body
		}
		if body == nil || kind.Results == nil {
			return true
		}
		results := map[string]bool{} // names of results, and whether they are shadowed
		for _, r := range kind.Results.List {
			for _, name := range r.Names {
				results[name.Name] = false
			}
		}
		delete(results, "_")
		for _, s := range body.List { // which declares no result anew
			found = append(found, lost(s, maps.Clone(results), false)...)
		}
		return true
	})
	return found
}

// lost returns where deferred functions below a node set a variable that shadows a result.
// shadowed holds the results, and changes; declares reports whether the node may shadow one.
func lost(n ast.Node, shadowed map[string]bool, declares bool) (found []token.Pos) {
	within := func(scope map[string]bool, nodes ...ast.Stmt) {
		for _, s := range nodes {
			if s != nil {
				found = append(found, lost(s, scope, true)...)
			}
		}
	}
	inner := maps.Clone(shadowed)
	switch n := n.(type) {
	case *ast.AssignStmt:
		for _, l := range n.Lhs {
			if name, ok := l.(*ast.Ident); ok && declares && n.Tok == token.DEFINE {
				if _, result := shadowed[name.Name]; result {
					shadowed[name.Name] = true
				}
			}
		}
	case *ast.DeferStmt:
		ast.Inspect(n, func(n ast.Node) bool {
			if a, ok := n.(*ast.AssignStmt); ok && a.Tok == token.ASSIGN {
				for _, l := range a.Lhs {
					if name, ok := l.(*ast.Ident); ok && shadowed[name.Name] {
						found = append(found, a.Pos())
					}
				}
			}
			return true
		})
	case *ast.LabeledStmt:
		return lost(n.Stmt, shadowed, declares)
	case *ast.BlockStmt:
		within(inner, n.List...)
	case *ast.IfStmt:
		within(inner, n.Init, n.Body, n.Else)
	case *ast.ForStmt:
		within(inner, n.Init, n.Body)
	case *ast.RangeStmt:
		within(inner, n.Body)
	case *ast.SwitchStmt:
		within(inner, n.Init, n.Body)
	case *ast.TypeSwitchStmt:
		within(inner, n.Init, n.Body)
	case *ast.SelectStmt:
		within(inner, n.Body)
	case *ast.CaseClause:
		within(inner, n.Body...)
	case *ast.CommClause:
		within(inner, n.Comm)
		within(inner, n.Body...)
	}
	return found
}

package schema

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
)

// Doc is the reference documentation of one argument or block.
type Doc struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Default  string `json:"default,omitempty"`
	Text     string `json:"text"`
	Required bool   `json:"required,omitempty"`
	Secret   bool   `json:"secret,omitempty"`
	Block    []Doc  `json:"block,omitempty"` // the arguments of a block
}

// Docs reads the documentation of defaults' type out of the Go sources that
// declare it and the structs it holds; components embed theirs with go:embed.
// A field without a doc comment is an error.
func Docs(sources []string, defaults any) ([]Doc, error) {
	comments := map[string]string{} // "package.Type.Field" -> text
	for _, source := range sources {
		f, err := parser.ParseFile(token.NewFileSet(), "options.go", source, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			ts, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if st, ok := ts.Type.(*ast.StructType); ok {
				for _, fl := range st.Fields.List {
					for _, id := range fl.Names {
						comments[f.Name.Name+"."+ts.Name.Name+"."+id.Name] = strings.TrimSpace(fl.Doc.Text())
					}
				}
			}
			return true
		})
	}
	return docs(comments, reflect.Indirect(reflect.ValueOf(defaults)))
}

func docs(comments map[string]string, v reflect.Value) (out []Doc, err error) {
	for _, f := range fields(v.Type(), nil) {
		owner := v.Type()
		if len(f.index) > 1 {
			owner = v.Type().FieldByIndex(f.index[:len(f.index)-1]).Type
		}
		key := owner.String() + "." + v.Type().FieldByIndex(f.index).Name
		d := Doc{Name: f.name, Type: typeName(f), Required: !f.optional && !f.block, Secret: f.isSecret, Text: comments[key]}
		if d.Text == "" {
			return nil, fmt.Errorf("%s has no doc comment", key)
		}
		fv := v.FieldByIndex(f.index)
		if f.block {
			t := f.typ
			if t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
				t = t.Elem()
			}
			ev := reflect.New(t).Elem()
			setDefaults(ev)
			if f.typ.Kind() == reflect.Struct {
				ev = fv
			}
			if d.Block, err = docs(comments, ev); err != nil {
				return nil, err
			}
		} else if !fv.IsZero() {
			d.Default = fmt.Sprint(reflect.Indirect(fv).Interface())
		}
		out = append(out, d)
	}
	return out, nil
}

func typeName(f field) string {
	if f.block {
		if f.typ.Kind() == reflect.Slice {
			return "blocks"
		}
		return "block"
	}
	t := f.typ
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if c, ok := reflect.Zero(t).Interface().(Choices); ok {
		return "one of " + strings.Join(c.Choices(), ", ")
	}
	if t == durationType {
		return "duration"
	}
	return wanted(t).FriendlyNameForConstraint()
}

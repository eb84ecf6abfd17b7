package schema

import (
	"fmt"
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

// Documented is implemented by structs of options, with a pointer receiver:
// GoSource is the Go source file that declares the struct, which the package embeds
// with go:embed. It documents the other structs in the same file too, such as blocks.
type Documented interface{ GoSource() string }

// Docs reads the documentation of defaults' type out of the Go sources of the structs
// that it consists of, which are [Documented]. A field without a doc comment is an error.
func Docs(defaults any) ([]Doc, error) {
	v := reflect.Indirect(reflect.ValueOf(defaults))
	sources := map[string]bool{}
	addSources(sources, v.Type())
	comments := map[string]string{} // "package.Type.Field" -> text
	for source := range sources {
		addComments(comments, source)
	}
	return docs(comments, v)
}

// addSources adds the sources of the struct t, of those it embeds and of its blocks.
func addSources(sources map[string]bool, t reflect.Type) {
	if d, ok := reflect.New(t).Interface().(Documented); ok {
		sources[d.GoSource()] = true
	}
	for i := range t.NumField() {
		f := t.Field(i)
		inner := f.Type
		if inner.Kind() == reflect.Slice || inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if _, option := f.Tag.Lookup("hcl"); (option || f.Anonymous) && inner.Kind() == reflect.Struct {
			addSources(sources, inner)
		}
	}
}

func docs(comments map[string]string, v reflect.Value) (out []Doc, err error) {
	for _, f := range fields(v.Type(), nil) {
		if f.label {
			continue
		}
		owner := v.Type()
		if len(f.index) > 1 {
			owner = v.Type().FieldByIndex(f.index[:len(f.index)-1]).Type
		}
		key := owner.String() + "." + v.Type().FieldByIndex(f.index).Name
		d := Doc{Name: f.name, Type: typeName(f), Required: !f.optional && !f.block, Secret: f.isSecret, Text: comments[key]}
		if d.Text == "" {
			return nil, fmt.Errorf("%s has no doc comment, or its struct no GoSource", key)
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
	if t == expressionType {
		return "expression"
	}
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

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

// Docs returns the documentation of defaults' type. comments are the comments of its
// fields: by the path of the package, the type and the field, as in
// "bake/provisioner/sleep.Options.Duration". A field without a comment is an error.
func Docs(defaults any, comments map[string]string) ([]Doc, error) {
	return docs(comments, reflect.Indirect(reflect.ValueOf(defaults)))
}

func docs(comments map[string]string, v reflect.Value) (out []Doc, err error) {
	for _, f := range fields(v.Type()) {
		if f.label {
			continue
		}
		owner := v.Type()
		if len(f.index) > 1 {
			owner = v.Type().FieldByIndex(f.index[:len(f.index)-1]).Type
		}
		key := owner.PkgPath() + "." + owner.Name() + "." + v.Type().FieldByIndex(f.index).Name
		d := Doc{Name: f.name, Type: typeName(f), Required: !f.optional && !f.block, Secret: f.isSecret, Text: comments[key]}
		if d.Text == "" {
			return nil, fmt.Errorf("%s has no doc comment that the program knows (make docs)", key)
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

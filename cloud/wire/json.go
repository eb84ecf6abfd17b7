package wire

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// jsonType is the media type of the JSON protocol, version 1.1.
const jsonType = "application/x-amz-json-1.1"

// readJSON returns the action named in the header X-Amz-Target, which the model has, and a
// function that decodes the body.
func (m *Model) readJSON(r *http.Request, body []byte) (action string, decode func(into any) error, err error) {
	prefix, action, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	if _, ok := m.Operations[action]; !ok || prefix != m.Target {
		return "", nil, &Error{Code: "UnknownOperationException"}
	}
	return action, func(into any) error { return m.DecodeJSON(action, body, into) }, nil
}

// DecodeJSON sets into, a pointer to the SDK's input struct of action, from the body of a
// request. As on AWS, it ignores unknown members, and null means not set. It returns the
// [Error] that AWS returns for text that is not JSON, for values of the wrong type, and
// for violated constraints, all of which the error lists.
func (m *Model) DecodeJSON(action string, body []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil && !errors.Is(err, io.EOF) {
		return &Error{Code: "SerializationException"}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) { // more than one value
		return &Error{Code: "SerializationException"}
	}
	if m.Operations[action].Input == "" {
		return nil
	}
	if tree == nil {
		tree = map[string]any{}
	}
	d := jsonDecoder{m: m}
	if err := d.value(tree, "", Member{Shape: m.Operations[action].Input}, reflect.ValueOf(into).Elem()); err != nil {
		return err
	}
	if n := len(d.violations); n > 0 {
		plural := "s"
		if n == 1 {
			plural = ""
		}
		return Errorf("ValidationException", "%d validation error%s detected: %s", n, plural, strings.Join(d.violations, "; "))
	}
	return nil
}

type jsonDecoder struct {
	m          *Model
	violations []string
}

// violated records a constraint that the value at path violates. AWS shows the value only
// if it is neither long nor secret.
func (d *jsonDecoder) violated(path, value, constraint string) {
	if value != "" {
		value = " " + value
	}
	d.violations = append(d.violations, fmt.Sprintf("Value%s at '%s' failed to satisfy constraint: %s", value, path, constraint))
}

// value decodes tree, found at path, into v, a field of an SDK struct.
func (d *jsonDecoder) value(tree any, path string, member Member, v reflect.Value) error {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	s, compound := d.m.Shapes[member.Shape]
	switch t := tree.(type) {
	case map[string]any:
		switch {
		case compound && s.Map != nil:
			d.length(path, member, len(t))
			v.Set(reflect.MakeMap(v.Type()))
			for _, key := range sortedKeys(t) {
				element := reflect.New(v.Type().Elem()).Elem()
				if err := d.value(t[key], path+"."+key+".member", *s.Map, element); err != nil {
					return err
				}
				v.SetMapIndex(reflect.ValueOf(key), element)
			}
			return nil
		case compound && s.List == nil:
			return d.structure(t, path, s, v)
		}
	case []any:
		if compound && s.List != nil {
			d.length(path, member, len(t))
			v.Set(reflect.MakeSlice(v.Type(), len(t), len(t)))
			for i, element := range t {
				if err := d.value(element, fmt.Sprintf("%s.%d.member", path, i+1), *s.List, v.Index(i)); err != nil {
					return err
				}
			}
			return nil
		}
	default:
		if !compound && d.scalar(tree, path, member, v) {
			return nil
		}
	}
	return Errorf("SerializationException", "%s cannot be read as %s", cmp.Or(path, "the request"), kindOf(s, compound, member))
}

func kindOf(s Shape, compound bool, member Member) string {
	switch {
	case !compound:
		return member.Shape
	case s.List != nil:
		return "list"
	case s.Map != nil:
		return "map"
	}
	return "structure"
}

func (d *jsonDecoder) structure(tree map[string]any, path string, s Shape, v reflect.Value) error {
	for _, name := range sortedKeys(s.Members) {
		at := strings.TrimPrefix(path+"."+strings.ToLower(name[:1])+name[1:], ".")
		sent := d.m.sentName(name, s.Members[name])
		if tree[sent] == nil {
			if slices.Contains(s.Required, sent) {
				d.violated(at, "null", "Member must not be null")
			}
			continue
		}
		field := v.FieldByName(name)
		if !field.IsValid() {
			continue // the model is newer than the SDK, so no handler can know it
		}
		if err := d.value(tree[sent], at, s.Members[name], field); err != nil {
			return err
		}
	}
	return nil
}

func (d *jsonDecoder) length(path string, member Member, n int) {
	if member.Min != nil && float64(n) < *member.Min {
		d.violated(path, "", fmt.Sprintf("Member must have length greater than or equal to %.0f", *member.Min))
	}
	if member.Max != nil && float64(n) > *member.Max {
		d.violated(path, "", fmt.Sprintf("Member must have length less than or equal to %.0f", *member.Max))
	}
}

func (d *jsonDecoder) size(path string, member Member, n float64) {
	if member.Min != nil && n < *member.Min {
		d.violated(path, fmt.Sprintf("'%v'", n), fmt.Sprintf("Member must have value greater than or equal to %.0f", *member.Min))
	}
	if member.Max != nil && n > *member.Max {
		d.violated(path, fmt.Sprintf("'%v'", n), fmt.Sprintf("Member must have value less than or equal to %.0f", *member.Max))
	}
}

// scalar decodes tree into v, and reports whether it has the right type.
func (d *jsonDecoder) scalar(tree any, path string, member Member, v reflect.Value) bool {
	switch t := tree.(type) {
	case string:
		switch {
		case member.Shape == "string" && v.Kind() == reflect.String:
			d.length(path, member, utf8.RuneCountInString(t))
			if !allowed(v, t) {
				d.violated(path, "'"+t+"'", "Member must satisfy enum value set: ["+strings.Join(enum(v), ", ")+"]")
			}
			v.SetString(t)
			return true
		case member.Shape == "blob" && v.Type() == reflect.TypeFor[[]byte]():
			b, err := base64.StdEncoding.DecodeString(t)
			d.length(path, member, len(b))
			v.SetBytes(b)
			return err == nil
		}
	case bool:
		if member.Shape == "boolean" && v.Kind() == reflect.Bool {
			v.SetBool(t)
			return true
		}
	case json.Number:
		f, err := t.Float64()
		if err != nil {
			return false
		}
		switch {
		case (member.Shape == "integer" || member.Shape == "long") && v.CanInt():
			i, err := t.Int64()
			if err != nil || v.OverflowInt(i) {
				return false
			}
			d.size(path, member, float64(i))
			v.SetInt(i)
			return true
		case (member.Shape == "double" || member.Shape == "float") && v.CanFloat():
			d.size(path, member, f)
			v.SetFloat(f)
			return true
		case member.Shape == "timestamp" && v.Type() == reflect.TypeFor[time.Time]() && math.Abs(f) < 1e12:
			v.Set(reflect.ValueOf(time.UnixMilli(int64(math.Round(f * 1000))).UTC()))
			return true
		}
	}
	return false
}

// encodeJSON returns out, a pointer to the SDK's output struct, as JSON; shape is the name
// of its shape.
func (m *Model) encodeJSON(shape string, out any) ([]byte, error) {
	tree := any(map[string]any{})
	if shape != "" {
		var err error
		if tree, err = m.tree(shape, reflect.ValueOf(out)); err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(tree)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// tree returns v as a value for json.Marshal; nil means not set.
func (m *Model) tree(shape string, v reflect.Value) (any, error) {
	if (v.Kind() == reflect.Pointer || v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.IsNil() {
		return nil, nil
	}
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	s, compound := m.Shapes[shape]
	switch {
	case !compound:
		return scalarTree(shape, v)
	case s.List != nil:
		list := make([]any, v.Len())
		for i := range list {
			var err error
			if list[i], err = m.tree(s.List.Shape, v.Index(i)); err != nil {
				return nil, err
			}
		}
		return list, nil
	case s.Map != nil:
		object := map[string]any{}
		for key, value := range v.Seq2() {
			var err error
			if object[key.String()], err = m.tree(s.Map.Shape, value); err != nil {
				return nil, err
			}
		}
		return object, nil
	}
	object := map[string]any{}
	for name, member := range s.Members {
		field := v.FieldByName(name)
		if !field.IsValid() {
			continue // the model is newer than the SDK, so no handler can have set it
		}
		value, err := m.tree(member.Shape, field)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if value != nil {
			object[m.sentName(name, member)] = value
		}
	}
	return object, nil
}

func scalarTree(kind string, v reflect.Value) (any, error) {
	switch {
	case kind == "string" && v.Kind() == reflect.String:
		// Enumerations are not pointers: empty means not set.
		if v.String() == "" && v.Type() != reflect.TypeFor[string]() {
			return nil, nil
		}
		return v.String(), nil
	case kind == "timestamp" && v.Type() == reflect.TypeFor[time.Time]():
		return float64(v.Interface().(time.Time).UnixMilli()) / 1000, nil
	case (kind == "integer" || kind == "long") && v.CanInt(), kind == "boolean" && v.Kind() == reflect.Bool,
		(kind == "double" || kind == "float") && v.CanFloat(), kind == "blob" && v.Type() == reflect.TypeFor[[]byte]():
		return v.Interface(), nil
	}
	return nil, fmt.Errorf("a %s of the model is a %s of the SDK", kind, v.Type())
}

// encodeJSONError returns err as JSON.
func encodeJSONError(err *Error) []byte {
	body := map[string]string{"__type": err.Code}
	if err.Message != "" {
		body["message"] = err.Message
	}
	text, e := json.Marshal(body)
	if e != nil {
		return []byte("{}") // marshalling strings never fails
	}
	return text
}

// inJSON converts err to the form of services with the JSON protocol, whose errors for bad
// signatures have other codes and another status.
func inJSON(err *Error) *Error {
	code := err.Code
	switch code {
	case "MissingAuthenticationToken", "IncompleteSignature":
		code += "Exception"
	case "SignatureDoesNotMatch", "RequestExpired":
		code = "InvalidSignatureException"
	case "InternalError":
		return &Error{Code: "InternalServerError", Message: err.Message, Status: err.Status}
	default:
		return err
	}
	return &Error{Code: code, Message: err.Message}
}

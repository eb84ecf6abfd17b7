package wire

import (
	"encoding/base64"
	"net/url"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// maxDepth limits the nesting of parameters; EC2's deepest is 6.
const maxDepth = 16

// Decode sets into, a pointer to the SDK's input struct of action, from the parameters of
// a request. It returns the [Error] that AWS returns for unknown, missing and malformed
// parameters.
func (m *Model) Decode(action string, params url.Values, into any) error {
	op, ok := m.Operations[action]
	if !ok {
		return invalidAction(action)
	}
	root := &node{}
	// Sorted, so that of several bad parameters the same one is always reported.
	for _, name := range sortedKeys(params) {
		switch name {
		case "Action", "Version":
			continue
		}
		if err := root.add(name, params[name]); err != nil {
			return err
		}
	}
	d := decoder{m}
	if op.Input == "" {
		for name, child := range root.children {
			return unknown(child.path(name))
		}
		return nil
	}
	return d.structure(root, "", m.Shapes[op.Input], reflect.ValueOf(into).Elem())
}

// node is a node in the tree of parameters that their dotted names form.
type node struct {
	value    *string
	children map[string]*node
}

func (n *node) add(name string, values []string) error {
	parts := strings.Split(name, ".")
	if len(parts) > maxDepth || slices.Contains(parts, "") {
		return unknown(name)
	}
	for _, part := range parts {
		if n.children == nil {
			n.children = map[string]*node{}
		}
		if n.children[part] == nil {
			n.children[part] = &node{}
		}
		n = n.children[part]
	}
	if len(values) != 1 {
		return Errorf("InvalidParameterCombination", "The parameter %s must have one value", name)
	}
	n.value = &values[0]
	return nil
}

// path returns the name of the first parameter at or below n, whose own name is name.
func (n *node) path(name string) string {
	for n.value == nil && len(n.children) > 0 {
		first := sortedKeys(n.children)[0]
		n, name = n.children[first], name+"."+first
	}
	return name
}

func unknown(name string) error {
	return Errorf("UnknownParameter", "The parameter %s is not recognized", name)
}

func missing(name string) error {
	return Errorf("MissingParameter", "The request must contain the parameter %s", name)
}

// missing returns the service's error for a missing required parameter.
func (d decoder) missing(prefix, name string) error {
	if d.m.Protocol != "query" {
		return missing(prefix + name)
	}
	lower := strings.ToLower(name[:1]) + name[1:]
	return Errorf("ValidationError", "1 validation error detected: Value null at '%s%s' failed to satisfy constraint: Member must not be null", prefix, lower)
}

type decoder struct{ m *Model }

// value decodes n, named name, into v, a field of an SDK struct.
func (d decoder) value(n *node, name string, shape string, v reflect.Value) error {
	s, compound := d.m.Shapes[shape]
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch {
	case !compound:
		if n.children != nil {
			return unknown(n.path(name))
		}
		return scalar(*n.value, name, shape, v, d.m.Open)
	case s.List != nil:
		return d.list(n, name, *s.List, v)
	default:
		if n.value != nil && *n.value != "" {
			return unknown(name)
		}
		return d.structure(n, name+".", s, v)
	}
}

func (d decoder) structure(n *node, prefix string, s Shape, v reflect.Value) error {
	seen := 0
	for _, name := range sortedKeys(s.Members) {
		member := s.Members[name]
		wire := d.m.RequestName(name, member)
		child := n.children[wire]
		if child == nil {
			if slices.Contains(s.Required, name) {
				return d.missing(prefix, wire)
			}
			continue
		}
		seen++
		field := v.FieldByName(name)
		if !field.IsValid() {
			return unknown(child.path(prefix + wire))
		}
		if err := d.value(child, prefix+wire, member.Shape, field); err != nil {
			return err
		}
	}
	if seen == len(n.children) {
		return nil
	}
	for _, key := range sortedKeys(n.children) {
		known := false
		for name, member := range s.Members {
			known = known || d.m.RequestName(name, member) == key
		}
		if !known {
			return unknown(n.children[key].path(prefix + key))
		}
	}
	return nil
}

// list decodes Name.1, Name.2 … (or Name.member.1 … in the "query" protocol). The numbers
// give the order and may have gaps.
func (d decoder) list(n *node, name string, element Member, v reflect.Value) error {
	if d.m.Protocol == "query" && len(n.children) == 1 {
		wrapper := element.Location
		if wrapper == "" {
			wrapper = "member"
		}
		if inner := n.children[wrapper]; inner != nil {
			n, name = inner, name+"."+wrapper
		}
	}
	if n.value != nil && *n.value != "" {
		return unknown(name)
	}
	type item struct {
		index int
		key   string
	}
	items := make([]item, 0, len(n.children))
	for _, key := range sortedKeys(n.children) {
		index, err := strconv.Atoi(key)
		if err != nil || index < 0 || key[0] == '+' {
			return unknown(n.children[key].path(name + "." + key))
		}
		items = append(items, item{index, key})
	}
	sort.SliceStable(items, func(i, j int) bool { return items[i].index < items[j].index })
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	for i, it := range items {
		if err := d.value(n.children[it.key], name+"."+it.key, element.Shape, v.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

// scalar decodes text into v, whose type must fit kind; open is [Model.Open].
func scalar(text, name, kind string, v reflect.Value, open []string) error {
	malformed := func(want string) error {
		return Errorf("InvalidParameterValue", "Value (%s) for parameter %s is invalid. Expected %s.", text, name, want)
	}
	switch {
	case kind == "string" && v.Kind() == reflect.String:
		if !slices.Contains(open, v.Type().Name()) && !allowed(v, text) {
			return Errorf("InvalidParameterValue", "Invalid value '%s' for %s.", text, name)
		}
		v.SetString(text)
	case (kind == "integer" || kind == "long") && v.CanInt():
		i, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return malformed("an integer")
		}
		v.SetInt(i)
	case kind == "boolean" && v.Kind() == reflect.Bool:
		switch strings.ToLower(text) {
		case "true", "1":
			v.SetBool(true)
		case "false", "0":
			v.SetBool(false)
		default:
			return malformed("true or false")
		}
	case (kind == "double" || kind == "float") && v.CanFloat():
		f, err := strconv.ParseFloat(text, v.Type().Bits())
		if err != nil {
			return malformed("a number")
		}
		v.SetFloat(f)
	case kind == "timestamp" && v.Type() == reflect.TypeFor[time.Time]():
		t, err := parseTime(text)
		if err != nil {
			return malformed("a date and time in ISO 8601")
		}
		v.Set(reflect.ValueOf(t))
	case kind == "blob" && v.Type() == reflect.TypeFor[[]byte]():
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return malformed("base64")
		}
		v.SetBytes(b)
	default:
		return unknown(name)
	}
	return nil
}

// allowed reports whether text is a value of v's type, if that is one of the SDK's
// enumerations. The empty text means no value and is allowed.
func allowed(v reflect.Value, text string) bool {
	values := enum(v)
	return text == "" || values == nil || slices.Contains(values, text)
}

// enum returns the values of v's type if that is one of the SDK's enumerations.
func enum(v reflect.Value) []string {
	method := v.MethodByName("Values")
	if !method.IsValid() {
		return nil
	}
	all := method.Call(nil)[0]
	values := make([]string, all.Len())
	for i := range values {
		values[i] = all.Index(i).String()
	}
	return values
}

func parseTime(text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04Z07:00", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	return time.Unix(seconds, 0).UTC(), err
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

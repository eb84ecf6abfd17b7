package upgrade

import (
	"bytes"
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/json"
	"github.com/zclconf/go-cty/cty"

	"bake/internal/hcljson"
)

// maxDepth is how deep arrays and objects may be nested; templates need about six.
const maxDepth = 200

type kind int

const (
	null kind = iota
	boolean
	number
	text
	list
	object
)

func (k kind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "a list", "an object"}[k]
}

// value is a JSON value and where it was written.
type value struct {
	kind    kind
	text    string // of a string: its content; of a number or boolean: what was written
	items   []value
	members []member // in the order written, each name once
	rng     hcl.Range
}

// member is one entry of an object.
type member struct {
	name  string
	rng   hcl.Range // of the name
	value value
}

func (v value) scalar() bool { return v.kind < list }

// get returns the member called name, or a null.
func (v value) get(name string) value {
	for _, m := range v.members {
		if m.name == name {
			return m.value
		}
	}
	return value{rng: v.rng}
}

// parseJSON reads a JSON file. A name that an object has twice is an error, and the
// last value counts, but the value is complete. An error that leaves no value
// gives ok = false.
func parseJSON(filename string, src []byte) (v value, ok bool, diags hcl.Diagnostics) {
	if diags := checkDepth(filename, src); diags.HasErrors() {
		return value{}, false, diags
	}
	src = hcljson.Source(src)
	expr, diags := json.ParseExpression(src, filename)
	if diags.HasErrors() {
		return value{}, false, diags
	}
	v, diags = read(expr, src)
	return v, true, diags
}

func read(expr hcl.Expression, src []byte) (value, hcl.Diagnostics) {
	v := value{rng: expr.Range()}
	var diags hcl.Diagnostics
	if pairs, more := hcl.ExprMap(expr); !more.HasErrors() {
		v.kind = object
		at := map[string]int{}
		for _, pair := range pairs {
			key, _ := pair.Key.Value(nil)
			m := member{name: key.AsString(), rng: pair.Key.Range()}
			m.value, more = read(pair.Value, src)
			diags = append(diags, more...)
			if i, dup := at[m.name]; dup {
				diags = append(diags, problem(m.rng, "Duplicate name",
					"This object already has %q, at line %d. A JSON reader keeps one of the two and drops the other; only this one was converted. Delete one of them.", m.name, v.members[i].rng.Start.Line)...)
				v.members[i] = m
				continue
			}
			at[m.name] = len(v.members)
			v.members = append(v.members, m)
		}
		return v, diags
	}
	if items, more := hcl.ExprList(expr); !more.HasErrors() {
		v.kind = list
		for _, item := range items {
			i, more := read(item, src)
			diags = append(diags, more...)
			v.items = append(v.items, i)
		}
		return v, diags
	}
	val, diags := expr.Value(nil)
	switch {
	case val.IsNull():
	case val.Type() == cty.String:
		v.kind, v.text = text, val.AsString()
	case val.Type() == cty.Bool:
		v.kind, v.text = boolean, fmt.Sprint(val.True())
	case val.Type() == cty.Number:
		v.kind, v.text = number, string(bytes.TrimSpace(v.rng.SliceBytes(src)))
	}
	return v, diags
}

// checkDepth rejects nesting that is too deep for the parser, which is recursive.
func checkDepth(filename string, src []byte) hcl.Diagnostics {
	depth, inString := 0, false
	pos := hcl.InitialPos
	for i := 0; i < len(src); i++ {
		switch c := src[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				pos.Byte, pos.Column = i, i-bytes.LastIndexByte(src[:i], '\n')
				pos.Line += bytes.Count(src[:i], []byte("\n"))
				return problem(hcl.Range{Filename: filename, Start: pos, End: pos}, "Too deeply nested", "Lists and objects can be nested at most %d deep.", maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// problem makes an error diagnostic.
func problem(at hcl.Range, summary, format string, args ...any) hcl.Diagnostics {
	return hcl.Diagnostics{{
		Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: &at,
	}}
}

package lang

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"bake/internal/constant"
	"bake/internal/redact"
)

// mark is the type of marks of this package.
type mark string

// Sensitive marks values that must not be shown.
const Sensitive = mark("sensitive")

// Unknown is shown for a value that is not known.
const Unknown = "<unknown>"

// Show formats v for people: a string as it is, a collection over several lines as in a
// template, with placeholders for secret and unknown values.
func Show(v cty.Value) string {
	v, marks := v.Unmark()
	if s, ok := plainString(v); ok && len(marks) == 0 {
		return s
	}
	var b strings.Builder
	show(&b, v.WithMarks(marks), "")
	return b.String()
}

func plainString(v cty.Value) (string, bool) {
	if v.IsKnown() && !v.IsNull() && v.Type() == cty.String {
		return v.AsString(), true
	}
	return "", false
}

func show(b *strings.Builder, v cty.Value, indent string) {
	v, marks := v.Unmark()
	switch t := v.Type(); {
	case !v.IsKnown():
		b.WriteString(Unknown)
	case len(marks) > 0:
		b.WriteString(redact.Mask)
	case v.IsNull():
		b.WriteString("null")
	case t == cty.String:
		b.WriteString(constant.Quote(v.AsString()))
	case t == cty.Number:
		b.WriteString(shownNumber(v.AsBigFloat()))
	case t == cty.Bool:
		fmt.Fprint(b, v.True())
	case t.IsListType() || t.IsSetType() || t.IsTupleType():
		showElements(b, v, indent, "[", "]", func(_, e cty.Value) {
			show(b, e, indent+"  ")
			b.WriteString(",")
		})
	case t.IsMapType() || t.IsObjectType():
		showElements(b, withoutNulls(v), indent, "{", "}", func(k, e cty.Value) {
			b.WriteString(constant.Quote(k.AsString()) + " = ")
			show(b, e, indent+"  ")
		})
	default:
		b.WriteString(t.FriendlyName())
	}
}

func showElements(b *strings.Builder, v cty.Value, indent, open, end string, one func(k, e cty.Value)) {
	b.WriteString(open)
	for it := v.ElementIterator(); it.Next(); {
		b.WriteString("\n" + indent + "  ")
		one(it.Element())
	}
	if v.LengthInt() > 0 {
		b.WriteString("\n" + indent)
	}
	b.WriteString(end)
}

// withoutNulls returns a map or object without the members that are null.
func withoutNulls(v cty.Value) cty.Value {
	members := v.AsValueMap()
	maps.DeleteFunc(members, func(_ string, e cty.Value) bool { return e.IsNull() })
	return cty.ObjectVal(members)
}

// shownNumber formats n for people: with the digits that distinguish it from other float64
// values; arithmetic keeps more.
func shownNumber(n *big.Float) string {
	if i, accuracy := n.Int64(); accuracy == big.Exact {
		return strconv.FormatInt(i, 10)
	}
	f, _ := n.Float64()
	if math.IsInf(f, 0) && !n.IsInf() {
		return n.Text('g', 17)
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// number formats n in full, unless it has too many digits to be readable.
func number(n *big.Float) string {
	if exp := n.MantExp(nil); exp > 4096 || exp < -4096 {
		return n.Text('g', -1)
	}
	return n.Text('f', -1)
}

// Plain returns v for JSON, with null for sensitive and unknown values, and every string
// passed through redact.
func Plain(v cty.Value, redact func(string) string) any {
	v, marks := v.Unmark()
	switch t := v.Type(); {
	case !v.IsKnown() || v.IsNull() || len(marks) > 0:
		return nil
	case t == cty.String:
		return redact(v.AsString())
	case t == cty.Number:
		if n := v.AsBigFloat(); !n.IsInf() { // JSON has no infinity
			return json.Number(number(n))
		}
		return nil
	case t == cty.Bool:
		return v.True()
	case t.IsListType() || t.IsSetType() || t.IsTupleType():
		list := []any{}
		for it := v.ElementIterator(); it.Next(); {
			_, e := it.Element()
			list = append(list, Plain(e, redact))
		}
		return list
	case t.IsMapType() || t.IsObjectType():
		object := map[string]any{}
		for it := v.ElementIterator(); it.Next(); {
			k, e := it.Element()
			object[redact(k.AsString())] = Plain(e, redact)
		}
		return object
	}
	return nil
}

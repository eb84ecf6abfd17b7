package wire

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// Limits on a value from the other end, in addition to [maxMessage].
const (
	maxType      = 256 << 10 // bytes of the JSON that describes its type
	maxTypeDepth = 64        // nesting depth of brackets in it
	maxDigits    = 4096      // of a number that is sent as text
	maxExponent  = 16384     // of a number, base 2
)

// EncodeConfig writes a value as configurations are sent: as JSON with its type. Marks
// are removed; an unknown value is an error.
func EncodeConfig(v cty.Value) ([]byte, error) {
	v, _ = v.UnmarkDeep()
	if !v.IsWhollyKnown() {
		return nil, errors.New("a value that is not known cannot be sent to a plugin")
	}
	return ctyjson.Marshal(v, cty.DynamicPseudoType)
}

// DecodeConfig decodes the format of [EncodeConfig].
func DecodeConfig(b []byte) (cty.Value, error) { return ctyjson.Unmarshal(b, cty.DynamicPseudoType) }

// DecodeValue decodes the result of a data source. The value is wholly known.
func DecodeValue(b []byte, form Form) (cty.Value, error) {
	if len(b) > maxMessage {
		return cty.NilVal, fmt.Errorf("%w: a value of %d bytes", errLimit, len(b))
	}
	if form == Protobuf {
		v, err := decode(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return cty.NilVal, truncated(err)
		}
		return dynamicValue(v)
	}
	left := maxMessage
	v, err := readGob(b, &left)
	if err != nil {
		return cty.NilVal, err
	}
	return gobValue(v, &left)
}

// EncodeValue encodes a value like a plugin that was started with --protobuf.
func EncodeValue(v cty.Value) ([]byte, error) {
	if !v.IsWhollyKnown() || v.ContainsMarked() {
		return nil, errors.New("a value that is unknown or marked cannot be sent")
	}
	t, err := ctyjson.MarshalType(v.Type())
	if err != nil {
		return nil, err
	}
	plain, err := plainData(v)
	if err != nil {
		return nil, err
	}
	return marshal([]any{t, plain})
}

// plainData converts a value for [marshal].
func plainData(v cty.Value) (any, error) {
	t := v.Type()
	switch {
	case v.IsNull():
		return nil, nil
	case t == cty.String:
		return v.AsString(), nil
	case t == cty.Bool:
		return v.True(), nil
	case t == cty.Number:
		if n, accuracy := v.AsBigFloat().Int64(); accuracy == big.Exact {
			return n, nil
		}
		return v.AsBigFloat().Text('g', -1), nil
	case t.IsObjectType(), t.IsMapType():
		m := map[string]any{}
		for k, e := range v.AsValueMap() {
			var err error
			if m[k], err = plainData(e); err != nil {
				return nil, err
			}
		}
		return m, nil
	case t.IsListType(), t.IsSetType(), t.IsTupleType():
		list := []any{}
		for _, e := range v.AsValueSlice() {
			p, err := plainData(e)
			if err != nil {
				return nil, err
			}
			list = append(list, p)
		}
		return list, nil
	}
	return nil, fmt.Errorf("a %s cannot be sent", t.FriendlyName())
}

// dynamicValue makes a value from a list of its type, in JSON, and its plain data.
func dynamicValue(v any) (cty.Value, error) {
	pair, ok := v.([]any)
	if !ok || len(pair) != 2 {
		return cty.NilVal, errors.New("a value without its type")
	}
	text, ok := pair[0].([]byte)
	if s, isText := pair[0].(string); isText {
		text, ok = []byte(s), true
	}
	if !ok {
		return cty.NilVal, errors.New("a value without its type")
	}
	t, err := typeOf(text)
	if err != nil {
		return cty.NilVal, err
	}
	return valueOf(pair[1], t)
}

func typeOf(text []byte) (t cty.Type, err error) {
	depth := 0
	for _, c := range text {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		}
		if depth > maxTypeDepth {
			return t, fmt.Errorf("%w: a type that is nested more than %d levels deep", errLimit, maxTypeDepth)
		}
	}
	if len(text) > maxType {
		return t, fmt.Errorf("%w: a type of %d bytes", errLimit, len(text))
	}
	// cty panics at names that it considers the same, and at optional attributes that do
	// not exist.
	defer func() {
		if wrong := recover(); wrong != nil {
			t, err = cty.NilType, fmt.Errorf("the type of a value: %v", wrong)
		}
	}()
	if err := json.Unmarshal(text, &t); err != nil {
		return t, fmt.Errorf("the type of a value: %w", err)
	}
	if t == cty.NilType {
		return t, errors.New("a value without its type")
	}
	return t.WithoutOptionalAttributesDeep(), nil
}

// gobValue reads a value in the gob format of older versions of cty: a struct {Version,
// Ty, V} in a nested gob.
func gobValue(v any, left *int) (cty.Value, error) {
	m, err := gobOf(v, left)
	if err != nil {
		return cty.NilVal, err
	}
	t, err := gobCtyType(m["Ty"], left, 0)
	if err != nil {
		return cty.NilVal, err
	}
	data, err := gobData(m["V"], left)
	if err != nil {
		return cty.NilVal, err
	}
	return valueOf(data, t)
}

// gobData replaces the gob-specific parts of a value by plain data.
func gobData(v any, left *int) (any, error) {
	switch v := v.(type) {
	case gobInterface:
		b, isBytes := v.value.([]byte)
		switch {
		case isBytes && strings.HasSuffix(v.name, "big.Float"):
			return gobNumber(b)
		case isBytes && strings.HasSuffix(v.name, "set.Set"):
			m, err := gobOf(b, left)
			if err != nil {
				return nil, err
			}
			return gobData(m["Values"], left)
		}
		return gobData(v.value, left)
	case []any:
		for i, e := range v {
			var err error
			if v[i], err = gobData(e, left); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k, e := range v {
			var err error
			if v[k], err = gobData(e, left); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// gobNumber reads a [big.Float] as it encodes itself.
func gobNumber(b []byte) (*big.Float, error) {
	f := new(big.Float)
	if len(b) > maxDigits {
		return nil, errNumber()
	}
	if len(b) > 1 && (b[1]>>5 > byte(big.ToPositiveInf) || b[1]>>1&3 == 3) {
		return nil, errors.New("a number of no kind") // which big accepts, but panics at later
	}
	if err := f.GobDecode(b); err != nil {
		return nil, fmt.Errorf("a number: %w", err)
	}
	return f, nil
}

func errNumber() error {
	return fmt.Errorf("%w: a number that is too large, too small or too exact", errLimit)
}

// number checks that a number can be written out in full.
func number(f *big.Float) (cty.Value, error) {
	if e := f.MantExp(nil); f.IsInf() || e > maxExponent || e < -maxExponent || f.Prec() > maxExponent {
		return cty.NilVal, errNumber()
	}
	return cty.NumberVal(f), nil
}

// valueOf makes a value of type t from plain data.
func valueOf(v any, t cty.Type) (cty.Value, error) {
	wrong := func() (cty.Value, error) {
		return cty.NilVal, fmt.Errorf("%s where %s is expected", kind(v), t.FriendlyName())
	}
	if _, unknown := v.(Ext); unknown {
		return cty.NilVal, errors.New("a value that is not known")
	}
	if v == nil {
		return cty.NullVal(t), nil
	}
	switch {
	case t == cty.DynamicPseudoType:
		return dynamicValue(v)
	case t == cty.Bool:
		if b, ok := v.(bool); ok {
			return cty.BoolVal(b), nil
		}
	case t == cty.String:
		switch v := v.(type) {
		case string:
			return cty.StringVal(strings.ToValidUTF8(v, "\uFFFD")), nil
		case []byte:
			return cty.StringVal(strings.ToValidUTF8(string(v), "\uFFFD")), nil
		}
	case t == cty.Number:
		return numberOf(v)
	case t.IsListType(), t.IsSetType(), t.IsTupleType():
		if list, ok := v.([]any); ok {
			return listOf(list, t)
		}
	case t.IsMapType(), t.IsObjectType():
		if m, ok := v.(map[string]any); ok {
			return mapOf(m, t)
		}
	}
	return wrong()
}

func numberOf(v any) (cty.Value, error) {
	switch v := v.(type) {
	case int64:
		return cty.NumberIntVal(v), nil
	case uint64:
		return cty.NumberUIntVal(v), nil
	case float64:
		if math.IsNaN(v) {
			return cty.NilVal, errors.New("not a number")
		}
		return number(big.NewFloat(v))
	case *big.Float:
		return number(v)
	case string:
		if len(v) > maxDigits {
			return cty.NilVal, errNumber()
		}
		n, err := cty.ParseNumberVal(v)
		if err != nil {
			return cty.NilVal, err
		}
		return number(n.AsBigFloat())
	}
	return cty.NilVal, fmt.Errorf("%s where a number is expected", kind(v))
}

func listOf(list []any, t cty.Type) (cty.Value, error) {
	if t.IsTupleType() && t.Length() != len(list) {
		return cty.NilVal, fmt.Errorf("a list of %d where %d values are expected", len(list), t.Length())
	}
	values := make([]cty.Value, len(list))
	for i, e := range list {
		var et cty.Type
		if t.IsTupleType() {
			et = t.TupleElementType(i)
		} else {
			et = t.ElementType()
		}
		var err error
		if values[i], err = valueOf(e, et); err != nil {
			return cty.NilVal, fmt.Errorf("[%d]: %w", i, err)
		}
	}
	switch {
	case t.IsTupleType():
		return cty.TupleVal(values), nil
	case len(values) == 0 && t.IsSetType():
		return cty.SetValEmpty(t.ElementType()), nil
	case len(values) == 0:
		return cty.ListValEmpty(t.ElementType()), nil
	case !oneType(values):
		return cty.NilVal, errors.New("a list of values of different types")
	case t.IsSetType():
		return cty.SetVal(values), nil
	}
	return cty.ListVal(values), nil
}

func mapOf(m map[string]any, t cty.Type) (cty.Value, error) {
	values := map[string]cty.Value{}
	list := make([]cty.Value, 0, len(m))
	for k, e := range m {
		k = cty.NormalizeString(k)
		if _, ok := values[k]; ok {
			return cty.NilVal, fmt.Errorf("two values called %.40q", k)
		}
		var et cty.Type
		switch {
		case t.IsMapType():
			et = t.ElementType()
		case t.HasAttribute(k):
			et = t.AttributeType(k)
		default:
			return cty.NilVal, fmt.Errorf("an attribute %.40q that its type does not have", k)
		}
		v, err := valueOf(e, et)
		if err != nil {
			return cty.NilVal, fmt.Errorf("%.40q: %w", k, err)
		}
		values[k], list = v, append(list, v)
	}
	switch {
	case t.IsObjectType():
		for k, et := range t.AttributeTypes() {
			if _, ok := values[k]; !ok {
				values[k] = cty.NullVal(et)
			}
		}
		return cty.ObjectVal(values), nil
	case len(values) == 0:
		return cty.MapValEmpty(t.ElementType()), nil
	case !oneType(list):
		return cty.NilVal, errors.New("a map of values of different types")
	}
	return cty.MapVal(values), nil
}

// oneType reports whether all values are of one type, as the elements of a collection must
// be.
func oneType(values []cty.Value) bool {
	return !slices.ContainsFunc(values, func(v cty.Value) bool { return !v.Type().Equals(values[0].Type()) })
}

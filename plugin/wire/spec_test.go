package wire

import (
	"bytes"
	"errors"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/zclconf/go-cty/cty"
)

func testSpec() hcldec.ObjectSpec {
	leaf := hcldec.ObjectSpec{
		"key":  &hcldec.AttrSpec{Name: "key", Type: cty.String},
		"deep": &hcldec.BlockListSpec{TypeName: "deep", Nested: hcldec.ObjectSpec{"flag": &hcldec.AttrSpec{Name: "flag", Type: cty.Bool}}},
	}
	return hcldec.ObjectSpec{
		"name":   &hcldec.AttrSpec{Name: "name", Type: cty.String, Required: true},
		"size":   &hcldec.AttrSpec{Name: "size", Type: cty.Number},
		"on":     &hcldec.AttrSpec{Name: "on", Type: cty.Bool},
		"list":   &hcldec.AttrSpec{Name: "list", Type: cty.List(cty.String)},
		"lists":  &hcldec.AttrSpec{Name: "lists", Type: cty.List(cty.List(cty.String))},
		"map":    &hcldec.AttrSpec{Name: "map", Type: cty.Map(cty.String)},
		"block":  &hcldec.BlockSpec{TypeName: "block", Nested: leaf, Required: true},
		"blocks": &hcldec.BlockListSpec{TypeName: "blocks", Nested: leaf},
	}
}

// sameSpec compares specs.
func sameSpec(t *testing.T, at string, got, want hcldec.Spec) {
	t.Helper()
	switch w := want.(type) {
	case hcldec.ObjectSpec:
		g, ok := got.(hcldec.ObjectSpec)
		if !ok || len(g) != len(w) {
			t.Fatalf("%s: %#v", at, got)
		}
		for k := range w {
			sameSpec(t, at+"."+k, g[k], w[k])
		}
	case *hcldec.AttrSpec:
		if g, ok := got.(*hcldec.AttrSpec); !ok || g.Name != w.Name || g.Required != w.Required || !g.Type.Equals(w.Type) {
			t.Errorf("%s: %#v", at, got)
		}
	case *hcldec.BlockSpec:
		g, ok := got.(*hcldec.BlockSpec)
		if !ok || g.TypeName != w.TypeName || g.Required != w.Required {
			t.Fatalf("%s: %#v", at, got)
		}
		sameSpec(t, at, g.Nested, w.Nested)
	case *hcldec.BlockListSpec:
		g, ok := got.(*hcldec.BlockListSpec)
		if !ok || g.TypeName != w.TypeName || g.MinItems != w.MinItems || g.MaxItems != w.MaxItems {
			t.Fatalf("%s: %#v", at, got)
		}
		sameSpec(t, at, g.Nested, w.Nested)
	default:
		t.Fatalf("%s: %T", at, want)
	}
}

func TestProtobufSpec(t *testing.T) {
	b, err := EncodeSpec(testSpec())
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSpec(b, Protobuf)
	if err != nil {
		t.Fatal(err)
	}
	sameSpec(t, "", got, testSpec())
	for n := 1; n < len(b); n++ {
		if _, err := DecodeSpec(b[:n], Protobuf); err == nil {
			t.Errorf("cut at %d of %d", n, len(b))
		}
	}
}

// TestProtobufBytes: bytes that a plugin has sent for one attribute.
func TestProtobufBytes(t *testing.T) {
	b := []byte("\x0a\x24\x0a\x22\x0a\x04name\x12\x1a\x12\x18\x0a\x04name\x12\x0e\x0a\x0c\x0a\x0acty.String\x18\x01")
	got, err := DecodeSpec(b, Protobuf)
	if err != nil {
		t.Fatal(err)
	}
	sameSpec(t, "", got, hcldec.ObjectSpec{"name": &hcldec.AttrSpec{Name: "name", Type: cty.String, Required: true}})
}

// TestGobSpec reads specs of plugins from before protocol buffers.
func TestGobSpec(t *testing.T) {
	b, err := os.ReadFile("testdata/spec.gob")
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSpec(b, Gob)
	if err != nil {
		t.Fatal(err)
	}
	want := testSpec()
	want["set"] = &hcldec.AttrSpec{Name: "set", Type: cty.Set(cty.Number)}
	want["object"] = &hcldec.AttrSpec{Name: "object", Type: cty.Object(map[string]cty.Type{"a": cty.String, "b": cty.List(cty.Bool)})}
	want["tuple"] = &hcldec.AttrSpec{Name: "tuple", Type: cty.Tuple([]cty.Type{cty.String, cty.Number})}
	want["blocks"].(*hcldec.BlockListSpec).MinItems = 1
	want["blocks"].(*hcldec.BlockListSpec).MaxItems = 3
	sameSpec(t, "", got, want)
	for n := range b {
		if _, err := DecodeSpec(b[:n], Gob); err == nil {
			t.Errorf("cut at %d of %d", n, len(b))
		}
	}
	if b, err = os.ReadFile("testdata/empty.gob"); err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeSpec(b, Gob); err != nil || len(got) != 0 {
		t.Errorf("no options: %v, %v", got, err)
	}
}

func TestSpecRefuses(t *testing.T) {
	attr := func(name string, typ cty.Type) hcldec.ObjectSpec {
		return hcldec.ObjectSpec{name: &hcldec.AttrSpec{Name: name, Type: typ}}
	}
	deep := hcldec.Spec(attr("x", cty.String))
	listType := cty.String
	for range maxSpecDepth + 1 {
		deep = hcldec.ObjectSpec{"b": &hcldec.BlockSpec{TypeName: "b", Nested: deep}}
		listType = cty.List(listType)
	}
	for name, tc := range map[string]struct {
		spec  hcldec.Spec
		limit bool
	}{
		"a name with a control character": {spec: attr("a\x1b[2J", cty.String)},
		"no name":                         {spec: attr("", cty.String)},
		"blocks in each other":            {spec: deep, limit: true},
		"lists of lists":                  {spec: attr("x", listType), limit: true},
		"an attribute at the top":         {spec: &hcldec.AttrSpec{Name: "x", Type: cty.String}},
	} {
		b, err := encodeSpec(tc.spec)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := DecodeSpec(b, Protobuf); err == nil || errors.Is(err, errLimit) != tc.limit {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for name, b := range map[string]string{
		"nothing":            "",
		"no type":            "\x0a\x0d\x0a\x0b\x0a\x01x\x12\x06\x12\x04\x0a\x01x\x18\x01",
		"a block of nothing": "\x0a\x0c\x0a\x0a\x0a\x01x\x12\x05\x1a\x03\x0a\x01x",
		"an unknown type":    "\x0a\x12\x0a\x10\x0a\x01x\x12\x0b\x12\x09\x0a\x01x\x12\x04\x0a\x02\x0a\x00",
		"a length too great": "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"an unknown wire":    "\x0f",
	} {
		if got, err := DecodeSpec([]byte(b), Protobuf); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	for _, form := range []Form{Gob, Protobuf} {
		if _, err := DecodeSpec(make([]byte, maxSpec+1), form); !errors.Is(err, errLimit) {
			t.Errorf("too large: %v", err)
		}
	}
	decomposed, _ := EncodeSpec(hcldec.ObjectSpec{"e\u0301": attr("e\u0301", cty.String), "\u00e9": attr("\u00e9", cty.String)})
	if got, err := DecodeSpec(decomposed, Protobuf); err == nil {
		t.Errorf("one name twice: %v", got)
	}
	if _, err := EncodeSpec(attr("x", cty.Set(cty.String))); err == nil {
		t.Error("a set was described")
	}
}

func testValue() cty.Value {
	return cty.ObjectVal(map[string]cty.Value{
		"text":   cty.StringVal("été"),
		"int":    cty.NumberIntVal(-42),
		"float":  cty.NumberFloatVal(1.5),
		"big":    cty.NumberVal(new(big.Float).SetPrec(512).SetInt(new(big.Int).Exp(big.NewInt(3), big.NewInt(200), nil))),
		"yes":    cty.True,
		"null":   cty.NullVal(cty.String),
		"list":   cty.ListVal([]cty.Value{cty.StringVal("a"), cty.StringVal("b")}),
		"nolist": cty.ListValEmpty(cty.Number),
		"map":    cty.MapVal(map[string]cty.Value{"k": cty.NumberIntVal(7)}),
		"set":    cty.SetVal([]cty.Value{cty.StringVal("x"), cty.StringVal("y")}),
		"tuple":  cty.TupleVal([]cty.Value{cty.StringVal("t"), cty.False}),
		"deep":   cty.ListVal([]cty.Value{cty.ObjectVal(map[string]cty.Value{"n": cty.NumberIntVal(1)})}),
	})
}

func TestValue(t *testing.T) {
	for name, tc := range map[string]struct {
		form Form
		read func() ([]byte, error)
		want cty.Value
	}{
		"gob":         {Gob, func() ([]byte, error) { return os.ReadFile("testdata/value.gob") }, testValue()},
		"gob of text": {Gob, func() ([]byte, error) { return os.ReadFile("testdata/text.gob") }, cty.StringVal("plain")},
		"msgpack":     {Protobuf, func() ([]byte, error) { return EncodeValue(testValue()) }, testValue()},
		"nothing":     {Protobuf, func() ([]byte, error) { return EncodeValue(cty.NullVal(cty.List(cty.String))) }, cty.NullVal(cty.List(cty.String))},
	} {
		b, err := tc.read()
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeValue(b, tc.form)
		if err != nil || !got.RawEquals(tc.want) {
			t.Errorf("%s: %#v, %v", name, got, err)
		}
		for n := range b {
			if _, err := DecodeValue(b[:n], tc.form); err == nil {
				t.Errorf("%s: cut at %d of %d", name, n, len(b))
			}
		}
	}
	b, err := EncodeConfig(testValue().Mark("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeConfig(b); err != nil || !got.RawEquals(testValue()) {
		t.Errorf("a configuration: %#v, %v", got, err)
	}
	if _, err := EncodeConfig(cty.ListVal([]cty.Value{cty.UnknownVal(cty.String)})); err == nil {
		t.Error("an unknown value was sent")
	}
}

func TestValueRefuses(t *testing.T) {
	dynamic := func(typ string, v any) []byte {
		b, err := marshal([]any{[]byte(typ), v})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	limit := map[string][]byte{
		"a deep type":      dynamic(strings.Repeat(`["list",`, maxTypeDepth+1)+`"string"`+strings.Repeat("]", maxTypeDepth+1), nil),
		"a long type":      dynamic(`["object",{"`+strings.Repeat("x", maxType)+`":"string"}]`, nil),
		"a great exponent": dynamic(`"number"`, "1e999999999"),
		"a small exponent": dynamic(`"number"`, "1e-99999"),
		"many digits":      dynamic(`"number"`, strings.Repeat("9", maxDigits+1)),
	}
	for name, b := range limit {
		if got, err := DecodeValue(b, Protobuf); !errors.Is(err, errLimit) {
			t.Errorf("%s: %.100v", name, err)
			_ = got
		}
	}
	for name, b := range map[string][]byte{
		"no type":            {0xc0},
		"an empty type":      dynamic("", nil),
		"no such type":       dynamic(`"rope"`, nil),
		"null for a type":    dynamic("null", nil),
		"text for a number":  dynamic(`"number"`, "much"),
		"not a number":       {0x92, 0xc4, 8, '"', 'n', 'u', 'm', 'b', 'e', 'r', '"', 0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 1},
		"unknown":            {0x92, 0xc4, 8, '"', 's', 't', 'r', 'i', 'n', 'g', '"', 0xd4, 0, 0},
		"a short tuple":      dynamic(`["tuple",["string"]]`, []any{}),
		"a long tuple":       dynamic(`["tuple",["string"]]`, []any{"a", "b"}),
		"another attribute":  dynamic(`["object",{"a":"string"}]`, map[string]any{"b": "x"}),
		"a list of anything": dynamic(`["list","dynamic"]`, []any{[]any{[]byte(`"string"`), "x"}, []any{[]byte(`"number"`), 1}}),
		"a map of anything":  dynamic(`["map","dynamic"]`, map[string]any{"a": []any{[]byte(`"string"`), "x"}, "b": []any{[]byte(`"bool"`), true}}),
		"a list for a map":   dynamic(`["map","string"]`, []any{}),
		"optional nothing":   dynamic(`["object",{"a":"string"},["b"]]`, map[string]any{"a": "x"}),
		"one attribute":      dynamic("[\"object\",{\"\u00e9\":\"string\",\"e\u0301\":\"string\"}]", map[string]any{}),
		"one key":            dynamic(`["map","string"]`, map[string]any{"\u00e9": "x", "e\u0301": "y"}),
	} {
		if got, err := DecodeValue(b, Protobuf); err == nil {
			t.Errorf("%s: %#v", name, got)
		}
	}
}

// TestNumberOfNoKind: numbers in gob have one of the kinds that math/big can read.
func TestNumberOfNoKind(t *testing.T) {
	b, err := big.NewFloat(1.5).GobEncode()
	if err != nil {
		t.Fatal(err)
	}
	if f, err := gobNumber(b); err != nil || f.Cmp(big.NewFloat(1.5)) != 0 {
		t.Errorf("%v, %v", f, err)
	}
	for _, bits := range []byte{3 << 1, 7 << 5} { // form, rounding
		wrong := slices.Clone(b)
		wrong[1] |= bits
		if f, err := gobNumber(wrong); err == nil {
			t.Errorf("%#x: %v", bits, f)
		}
	}
}

func FuzzSpecGob(f *testing.F) {
	for _, name := range []string{"spec", "empty"} {
		b, err := os.ReadFile("testdata/" + name + ".gob")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if spec, err := DecodeSpec(b, Gob); err == nil {
			useSpec(spec)
		}
	})
}

func FuzzSpecProtobuf(f *testing.F) {
	b, err := EncodeSpec(testSpec())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		spec, err := DecodeSpec(b, Protobuf)
		if err != nil {
			return
		}
		useSpec(spec)
		again, err := EncodeSpec(spec)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := DecodeSpec(again, Protobuf); err != nil {
			t.Fatal(err)
		} else if twice, err := EncodeSpec(back); err != nil || !bytes.Equal(again, twice) {
			t.Errorf("%x became %x, %v", again, twice, err)
		}
	})
}

// useSpec does what a host does with a spec, which must not panic.
func useSpec(spec hcldec.ObjectSpec) { _ = hcldec.ImpliedType(spec).FriendlyName() }

func FuzzValue(f *testing.F) {
	for _, name := range []string{"value", "text"} {
		b, err := os.ReadFile("testdata/" + name + ".gob")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true)
	}
	b, err := EncodeValue(testValue())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, false)
	f.Fuzz(func(t *testing.T, b []byte, gob bool) {
		form := Protobuf
		if gob {
			form = Gob
		}
		v, err := DecodeValue(b, form)
		if err != nil {
			return
		}
		if _, err := EncodeConfig(v); err != nil {
			t.Fatalf("%#v: %v", v, err)
		}
	})
}

package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Limits on a description of options.
const (
	maxSpec      = 1 << 20 // bytes
	maxSpecDepth = 32      // levels of nested blocks, and of nested types
)

// Form is the encoding of a plugin's specs and values.
type Form int

const (
	// Gob is the encoding of plugins that support no other.
	Gob Form = iota
	// Protobuf is the encoding of plugins that were started with --protobuf: specs as protocol
	// buffers, values in MessagePack.
	Protobuf
)

// DecodeSpec decodes the description of a component's options or of its output. It consists only of
// objects, attributes, blocks and lists of blocks, whose names are valid in a template.
func DecodeSpec(b []byte, form Form) (hcldec.ObjectSpec, error) {
	if len(b) > maxSpec {
		return nil, fmt.Errorf("%w: a description of %d bytes", errLimit, len(b))
	}
	var spec hcldec.Spec
	var err error
	if form == Protobuf {
		spec, err = protoSpec(b, 0)
	} else {
		left := maxMessage
		var v any
		if v, err = readGob(b, &left); err == nil {
			spec, err = gobObject(v, &left, 0)
		}
	}
	if err != nil {
		return nil, err
	}
	object, ok := spec.(hcldec.ObjectSpec)
	if !ok {
		return nil, errors.New("it describes no object")
	}
	return object, nil
}

func errSpecDepth() error {
	return fmt.Errorf("%w: a description that is nested more than %d levels deep", errLimit, maxSpecDepth)
}

// checkName refuses names that are not valid in a template. In a message, they could do
// harm.
func checkName(name string) error {
	if !hclsyntax.ValidIdentifier(name) || name != cty.NormalizeString(name) { // cty panics on two names that it considers the same
		return fmt.Errorf("%q is not the name of an option", name)
	}
	return nil
}

// attr, block and blockList validate their arguments and return a spec.

func attr(name string, t cty.Type, required bool) (hcldec.Spec, error) {
	if t == cty.NilType {
		return nil, fmt.Errorf("option %q has no type", name)
	}
	return &hcldec.AttrSpec{Name: name, Type: t, Required: required}, checkName(name)
}

func block(name string, nested hcldec.Spec, required bool) (hcldec.Spec, error) {
	return &hcldec.BlockSpec{TypeName: name, Nested: nested, Required: required}, checkBlock(name, nested)
}

func blockList(name string, nested hcldec.Spec, least, most int) (hcldec.Spec, error) {
	return &hcldec.BlockListSpec{TypeName: name, Nested: nested, MinItems: least, MaxItems: most}, checkBlock(name, nested)
}

func checkBlock(name string, nested hcldec.Spec) error {
	if nested == nil {
		return fmt.Errorf("block %q describes nothing", name)
	}
	return checkName(name)
}

// protoSpec decodes a message Spec {oneof object = 1, attr = 2, block_value = 3, block_list = 4}.
func protoSpec(b []byte, depth int) (spec hcldec.Spec, err error) {
	if depth > maxSpecDepth {
		return nil, errSpecDepth()
	}
	err = eachField(b, func(f field) (err error) {
		switch f.num {
		case 1: // Object {map<string, Spec> attributes = 1}
			object := hcldec.ObjectSpec{}
			spec = object
			return eachField(f.bytes, func(f field) error { return protoEntry(f, object, depth) })
		case 2: // Attr {name = 1, CtyType type = 2, required = 3}
			var name string
			t := cty.NilType
			required := false
			err = eachField(f.bytes, func(f field) (err error) {
				switch f.num {
				case 1:
					name = string(f.bytes)
				case 2:
					t, err = protoType(f.bytes, 0)
				case 3:
					required = f.number != 0
				}
				return err
			})
			if err == nil {
				spec, err = attr(name, t, required)
			}
			return err
		case 3, 4: // Block {name = 1, required = 2, nested = 3}, BlockList {name = 1, nested = 2}
			var name string
			var nested hcldec.Spec
			required := false
			err = eachField(f.bytes, func(inner field) (err error) {
				switch {
				case inner.num == 1:
					name = string(inner.bytes)
				case f.num == 3 && inner.num == 2:
					required = inner.number != 0
				case f.num == 3 && inner.num == 3, f.num == 4 && inner.num == 2:
					nested, err = protoSpec(inner.bytes, depth+1)
				}
				return err
			})
			if err != nil {
				return err
			}
			if f.num == 3 {
				spec, err = block(name, nested, required)
			} else {
				spec, err = blockList(name, nested, 0, 0)
			}
		}
		return err
	})
	if err == nil && spec == nil {
		err = errors.New("an empty description")
	}
	return spec, err
}

// protoEntry decodes an entry {key = 1, value = 2} of an object.
func protoEntry(f field, object hcldec.ObjectSpec, depth int) error {
	if f.num != 1 {
		return nil
	}
	var name string
	var nested hcldec.Spec
	err := eachField(f.bytes, func(f field) (err error) {
		switch f.num {
		case 1:
			name = string(f.bytes)
		case 2:
			nested, err = protoSpec(f.bytes, depth+1)
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case nested == nil:
		return fmt.Errorf("option %q is described by nothing", name)
	}
	object[name] = nested
	return checkName(name)
}

// protoType decodes a message CtyType {oneof primitive = 1, list = 2, map = 3}, each of which is a
// message with one field.
func protoType(b []byte, depth int) (t cty.Type, err error) {
	if depth > maxSpecDepth {
		return t, errSpecDepth()
	}
	err = eachField(b, func(f field) error {
		var inner []byte
		if err := eachField(f.bytes, func(f field) error { inner = f.bytes; return nil }); err != nil {
			return err
		}
		switch f.num {
		case 1:
			switch string(inner) {
			case "cty.String":
				t = cty.String
			case "cty.Number":
				t = cty.Number
			case "cty.Bool":
				t = cty.Bool
			default:
				return fmt.Errorf("unknown type %.40q", inner)
			}
		case 2, 3:
			e, err := protoType(inner, depth+1)
			if err != nil {
				return err
			}
			if t = cty.List(e); f.num == 3 {
				t = cty.Map(e)
			}
		}
		return nil
	})
	if err == nil && t == cty.NilType {
		err = errors.New("an unknown type")
	}
	return t, err
}

// field is one field of a protocol buffers message: its bytes or its number.
type field struct {
	num    uint64
	bytes  []byte
	number uint64
}

var errProto = errors.New("not a message of protocol buffers")

func eachField(b []byte, fn func(field) error) error {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return errProto
		}
		b = b[n:]
		f := field{num: tag >> 3}
		switch tag & 7 {
		case 0:
			f.number, n = binary.Uvarint(b)
		case 1:
			n = 8
		case 2:
			var size uint64
			if size, n = binary.Uvarint(b); n > 0 {
				if size > uint64(len(b)-n) {
					return errProto
				}
				f.bytes = b[n : n+int(size)]
				n += int(size)
			}
		case 5:
			n = 4
		default:
			return errProto
		}
		if n <= 0 || n > len(b) {
			return errProto
		}
		b = b[n:]
		if err := fn(f); err != nil {
			return err
		}
	}
	return nil
}

// EncodeSpec encodes a description as a plugin that was started with --protobuf does.
func EncodeSpec(spec hcldec.ObjectSpec) ([]byte, error) { return encodeSpec(spec) }

func encodeSpec(spec hcldec.Spec) ([]byte, error) {
	switch s := spec.(type) {
	case hcldec.ObjectSpec:
		var object []byte
		for _, name := range slices.Sorted(maps.Keys(s)) {
			nested, err := encodeSpec(s[name])
			if err != nil {
				return nil, err
			}
			object = appendField(object, 1, appendField(appendField(nil, 1, []byte(name)), 2, nested))
		}
		return appendField(nil, 1, object), nil
	case *hcldec.AttrSpec:
		t, err := encodeType(s.Type)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		return appendField(nil, 2, appendBool(appendField(appendField(nil, 1, []byte(s.Name)), 2, t), 3, s.Required)), nil
	case *hcldec.BlockSpec:
		nested, err := encodeSpec(s.Nested)
		return appendField(nil, 3, appendField(appendBool(appendField(nil, 1, []byte(s.TypeName)), 2, s.Required), 3, nested)), err
	case *hcldec.BlockListSpec:
		nested, err := encodeSpec(s.Nested)
		return appendField(nil, 4, appendField(appendField(nil, 1, []byte(s.TypeName)), 2, nested)), err
	}
	return nil, fmt.Errorf("a %T cannot be described to a host", spec)
}

func encodeType(t cty.Type) ([]byte, error) {
	num := uint64(1)
	var inner []byte
	switch {
	case t == cty.String:
		inner = []byte("cty.String")
	case t == cty.Number:
		inner = []byte("cty.Number")
	case t == cty.Bool:
		inner = []byte("cty.Bool")
	case t.IsListType(), t.IsMapType():
		if num = 2; t.IsMapType() {
			num = 3
		}
		var err error
		if inner, err = encodeType(t.ElementType()); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%s cannot be described to a host", t.FriendlyName())
	}
	return appendField(nil, num, appendField(nil, 1, inner)), nil
}

func appendField(b []byte, num uint64, v []byte) []byte {
	b = binary.AppendUvarint(b, num<<3|2)
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func appendBool(b []byte, num uint64, v bool) []byte {
	if !v {
		return b
	}
	return append(binary.AppendUvarint(b, num<<3), 1)
}

// gobSpec decodes a spec that was sent as one of the types of hcldec.
func gobSpec(v any, left *int, depth int) (hcldec.Spec, error) {
	i, ok := v.(gobInterface)
	if !ok {
		return nil, errors.New("an empty description")
	}
	name := i.name[strings.LastIndex(i.name, ".")+1:]
	if name == "ObjectSpec" {
		return gobObject(i.value, left, depth)
	}
	m, ok := i.value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("a %s that is %s", name, kind(i.value))
	}
	optionName, _ := m["Name"].(string)
	blockName, _ := m["TypeName"].(string)
	required, _ := m["Required"].(bool)
	switch name {
	case "AttrSpec":
		t, err := gobCtyType(m["Type"], left, 0)
		if err != nil {
			return nil, fmt.Errorf("option %q: %w", optionName, err)
		}
		return attr(optionName, t, required)
	case "BlockSpec", "BlockListSpec":
		nested, err := gobSpec(m["Nested"], left, depth+1)
		if err != nil {
			return nil, err
		}
		if name == "BlockSpec" {
			return block(blockName, nested, required)
		}
		least, _ := m["MinItems"].(int64)
		most, _ := m["MaxItems"].(int64)
		return blockList(blockName, nested, int(least), int(most))
	}
	return nil, fmt.Errorf("an unknown kind of description: %.40q", name)
}

func gobObject(v any, left *int, depth int) (hcldec.Spec, error) {
	if depth > maxSpecDepth {
		return nil, errSpecDepth()
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("an object that is %s", kind(v))
	}
	object := hcldec.ObjectSpec{}
	for name, e := range m {
		nested, err := gobSpec(e, left, depth+1)
		if err == nil {
			err = checkName(name)
		}
		if err != nil {
			return nil, err
		}
		object[name] = nested
	}
	return object, nil
}

// gobCtyType decodes a type in the gob format of older versions of cty: a struct {Version, Impl} in
// a nested gob.
func gobCtyType(v any, left *int, depth int) (cty.Type, error) {
	if depth > maxSpecDepth {
		return cty.NilType, errSpecDepth()
	}
	m, err := gobOf(v, left)
	if err != nil {
		return cty.NilType, err
	}
	impl, ok := m["Impl"].(gobInterface)
	fields, isStruct := impl.value.(map[string]any)
	if !ok || !isStruct {
		return cty.NilType, errors.New("a type without its kind")
	}
	switch name := impl.name[strings.LastIndex(impl.name, ".")+1:]; name {
	case "primitiveType":
		switch k, _ := fields["Kind"].(uint64); k {
		case 'B':
			return cty.Bool, nil
		case 'N':
			return cty.Number, nil
		case 'S':
			return cty.String, nil
		}
	case "typeList", "typeSet", "typeMap":
		e, err := gobCtyType(fields["ElementTypeT"], left, depth+1)
		if err != nil {
			return cty.NilType, err
		}
		return map[string]func(cty.Type) cty.Type{"typeList": cty.List, "typeSet": cty.Set, "typeMap": cty.Map}[name](e), nil
	case "typeTuple":
		list, _ := fields["ElemTypes"].([]any)
		types := make([]cty.Type, len(list))
		for i, e := range list {
			if types[i], err = gobCtyType(e, left, depth+1); err != nil {
				return cty.NilType, err
			}
		}
		return cty.Tuple(types), nil
	case "typeObject":
		attrs, _ := fields["AttrTypes"].(map[string]any)
		types := map[string]cty.Type{}
		for k, e := range attrs {
			k = cty.NormalizeString(k)
			if _, ok := types[k]; ok {
				return cty.NilType, fmt.Errorf("two attributes called %.40q", k)
			}
			if types[k], err = gobCtyType(e, left, depth+1); err != nil {
				return cty.NilType, err
			}
		}
		return cty.Object(types), nil
	}
	return cty.NilType, errors.New("an unknown type")
}

package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
)

// gobInterface is a value that was sent with the name of its type.
type gobInterface struct {
	name  string
	value any
}

// readGob decodes the single value of a gob, whatever its type: bool, int64, uint64, float64,
// string, []byte (also for values that encode themselves), []any, map[string]any (also for
// structs), or gobInterface. It uses no more than about left bytes of memory and reduces left by
// what it used. [encoding/gob] is not safe for hostile input, and could not decode the types of cty
// and hcldec, which are registered for other Go types.
func readGob(b []byte, left *int) (v any, err error) {
	r := &gobReader{rest: b, types: map[int64]gobType{}, left: left}
	defer func() {
		switch e := recover().(type) {
		case nil:
		case gobError:
			err = e.error
		default:
			panic(e)
		}
	}()
	id := r.typeID()
	t, known := r.types[id]
	if !known || t.kind != gobStruct {
		r.number() // not a struct: preceded by a zero
	}
	return r.value(id, 0), nil
}

// gobError is the value of the reader's panic when the input is invalid.
type gobError struct{ error }

func gobFail(text string) { panic(gobError{errors.New("gob: " + text)}) }

type gobReader struct {
	rest  []byte // the bytes after the message
	msg   []byte // the rest of the message
	types map[int64]gobType
	left  *int
}

type gobType struct {
	kind      gobKind
	key, elem int64
	fields    []gobField
}

type gobField struct {
	name string
	id   int64
}

type gobKind int

// The kinds of types in the order of the fields of gob's wireType, from 1.
const (
	gobArray gobKind = iota + 1
	gobSlice
	gobStruct
	gobMap
	gobEncoder
	gobBinary
	gobText
)

// The ids of types that need no definition.
const (
	gobBool = iota + 1
	gobInt
	gobUint
	gobFloat
	gobBytes
	gobString
	gobComplex
	gobIface
)

// typeID reads the id of the type of the value that follows, and the definitions of
// types before it. A definition ends its message.
func (r *gobReader) typeID() int64 {
	for {
		if len(r.msg) == 0 {
			n := uvarint(&r.rest)
			if n > uint64(len(r.rest)) {
				gobFail("it is cut off")
			}
			r.msg, r.rest = r.rest[:n], r.rest[n:]
		}
		id := r.int()
		if id >= 0 {
			return id
		}
		if id == math.MinInt64 || r.types[-id].kind != 0 {
			gobFail("a type is defined twice")
		}
		r.types[-id] = r.definition()
		if len(r.msg) > 0 {
			r.number() // the length of the nested message that follows
		}
	}
}

// uvarint decodes an unsigned integer: one byte if below 128, or else the negated number of bytes
// followed by the bytes.
func uvarint(b *[]byte) uint64 {
	if len(*b) == 0 {
		gobFail("it is cut off")
	}
	c := (*b)[0]
	*b = (*b)[1:]
	if c < 0x80 {
		return uint64(c)
	}
	n := -int(int8(c))
	if n > 8 || n > len(*b) {
		gobFail("it is cut off")
	}
	var buf [8]byte
	copy(buf[8-n:], *b)
	*b = (*b)[n:]
	return binary.BigEndian.Uint64(buf[:])
}

func (r *gobReader) number() uint64 { return uvarint(&r.msg) }

func (r *gobReader) int() int64 {
	u := r.number()
	if u&1 != 0 {
		return ^int64(u >> 1)
	}
	return int64(u >> 1)
}

// count reads the number of elements that follow, each of which takes at least one byte.
func (r *gobReader) count() int {
	n := r.number()
	if n > uint64(len(r.msg)) {
		gobFail("it is cut off")
	}
	return int(n)
}

func (r *gobReader) bytes() []byte {
	n := r.count()
	b := r.msg[:n:n]
	r.msg = r.msg[n:]
	r.take(n)
	return b
}

func (r *gobReader) take(n int) {
	if n > *r.left {
		panic(gobError{fmt.Errorf("%w: a value of more than %d MB", errLimit, maxMessage>>20)})
	}
	*r.left -= n
}

// fields reads a struct: it calls fn with the index of each field that is present, and fn
// reads the field.
func (r *gobReader) fields(fn func(i int)) {
	for i := -1; ; {
		delta := r.number()
		if delta == 0 {
			return
		}
		if delta > math.MaxInt16 {
			gobFail("a struct without that field")
		}
		i += int(delta)
		fn(i)
	}
}

// definition reads a wireType: a struct of one field, which is a struct with a
// commonType {Name, Id} as its first field.
func (r *gobReader) definition() (t gobType) {
	r.take(valueCost)
	r.fields(func(kind int) {
		if t.kind = gobKind(kind + 1); t.kind > gobText {
			gobFail("an unknown kind of type")
		}
		r.fields(func(i int) {
			switch {
			case i == 0:
				r.common()
			case t.kind == gobStruct && i == 1:
				for range r.count() {
					t.fields = append(t.fields, r.field())
				}
			case t.kind == gobMap && i == 1:
				t.key = r.int()
			case t.kind == gobMap && i == 2, t.kind == gobSlice && i == 1, t.kind == gobArray && i == 1:
				t.elem = r.int()
			case t.kind == gobArray && i == 2:
				r.int()
			default:
				gobFail("an unknown definition of a type")
			}
		})
	})
	if t.kind == 0 {
		gobFail("an empty definition of a type")
	}
	return t
}

func (r *gobReader) common() { r.field() }

// field reads a struct of a name and an id.
func (r *gobReader) field() (f gobField) {
	r.take(valueCost)
	r.fields(func(i int) {
		switch i {
		case 0:
			f.name = string(r.bytes())
		case 1:
			f.id = r.int()
		default:
			gobFail("an unknown definition of a type")
		}
	})
	return f
}

func (r *gobReader) value(id int64, depth int) any {
	if depth > maxDepth {
		panic(gobError{fmt.Errorf("%w: a value that is nested more than %d levels deep", errLimit, maxDepth)})
	}
	r.take(valueCost)
	switch id {
	case gobBool:
		return r.number() != 0
	case gobInt:
		return r.int()
	case gobUint:
		return r.number()
	case gobFloat:
		return math.Float64frombits(bits.ReverseBytes64(r.number()))
	case gobBytes:
		return r.bytes()
	case gobString:
		return string(r.bytes())
	case gobIface:
		return r.iface(depth)
	}
	t := r.types[id]
	switch t.kind {
	case gobArray, gobSlice:
		list := []any{}
		for range r.count() {
			list = append(list, r.value(t.elem, depth+1))
		}
		return list
	case gobMap:
		if t.key != gobString {
			gobFail("a map whose keys are not text")
		}
		m := map[string]any{}
		for range r.count() {
			k := string(r.bytes())
			m[k] = r.value(t.elem, depth+1)
		}
		return m
	case gobStruct:
		m := map[string]any{}
		r.fields(func(i int) {
			if i >= len(t.fields) {
				gobFail("a struct without that field")
			}
			m[t.fields[i].name] = r.value(t.fields[i].id, depth+1)
		})
		return m
	case gobEncoder, gobBinary, gobText:
		return r.bytes()
	}
	gobFail("an unknown type")
	return nil
}

func (r *gobReader) iface(depth int) any {
	name := string(r.bytes())
	if name == "" {
		return nil
	}
	id := r.typeID()
	r.number() // the length of the value, for readers that skip it
	if t := r.types[id]; t.kind != gobStruct {
		r.number() // not a struct: preceded by a zero
	}
	return gobInterface{name, r.value(id, depth+1)}
}

// gobOf reads a value that cty or hcldec has sent as an interface or as its own
// encoding: a struct {Version, ...} in a nested gob.
func gobOf(v any, left *int) (map[string]any, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("it is %s, not a gob", kind(v))
	}
	inner, err := readGob(b, left)
	if err != nil {
		return nil, err
	}
	m, ok := inner.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("it is %s, not a struct", kind(inner))
	}
	if version, _ := m["Version"].(int64); version != 0 {
		return nil, errors.New("it is of a later version")
	}
	return m, nil
}

package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"sort"
	"time"
)

// Limits on one value from the other end, which is hostile: a few bytes can declare gigabytes or
// nest until the stack overflows.
const (
	maxMessage = 64 << 20 // bytes of memory, about
	maxDepth   = 100      // levels of lists and maps
)

// valueCost is the memory that a value takes in addition to its text: its place in a list
// or a map.
const valueCost = 48

// errLimit is the error for a value that exceeds a limit.
var errLimit = errors.New("more than a plugin may send")

// Ext is a value of an extension type that has no meaning here.
type Ext struct {
	Type int8
	Data []byte
}

const extTime = -1

// marshal encodes v: structs as maps of their exported fields by Go name, byte
// slices as binary, strings as text, times as extension -1. Pointers are followed;
// a nil pointer, slice of bytes or interface is nil.
func marshal(v any) ([]byte, error) { return appendValue(nil, reflect.ValueOf(v), 0) }

func appendValue(b []byte, v reflect.Value, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("a value that is nested more than %d levels deep cannot be sent to a plugin", maxDepth)
	}
	switch v.Kind() {
	case reflect.Invalid:
		return append(b, 0xc0), nil
	case reflect.Interface:
		return appendValue(b, v.Elem(), depth)
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, 0xc0), nil
		}
		return appendValue(b, v.Elem(), depth+1)
	case reflect.Bool:
		if v.Bool() {
			return append(b, 0xc3), nil
		}
		return append(b, 0xc2), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if n := v.Int(); n < -32 || n > 127 {
			return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(n)), nil
		}
		return append(b, byte(v.Int())), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if n := v.Uint(); n > 127 {
			return binary.BigEndian.AppendUint64(append(b, 0xcf), n), nil
		}
		return append(b, byte(v.Uint())), nil
	case reflect.Float32, reflect.Float64:
		return binary.BigEndian.AppendUint64(append(b, 0xcb), math.Float64bits(v.Float())), nil
	case reflect.String:
		return append(appendTextHead(b, v.Len()), v.String()...), nil
	case reflect.Slice, reflect.Array:
		if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
			if v.IsNil() {
				return append(b, 0xc0), nil
			}
			return append(appendBytesHead(b, v.Len()), v.Bytes()...), nil
		}
		b = appendHead(b, v.Len(), 0x90, 0xdc)
		for i := range v.Len() {
			var err error
			if b, err = appendValue(b, v.Index(i), depth+1); err != nil {
				return nil, err
			}
		}
		return b, nil
	case reflect.Map:
		return appendMap(b, v, depth)
	case reflect.Struct:
		return appendStruct(b, v, depth)
	}
	return nil, fmt.Errorf("a %s cannot be sent to a plugin", v.Type())
}

func appendMap(b []byte, v reflect.Value, depth int) ([]byte, error) {
	keys := v.MapKeys()
	sort.Slice(keys, func(i, j int) bool {
		return fmt.Sprint(keys[i].Interface()) < fmt.Sprint(keys[j].Interface())
	})
	b = appendHead(b, len(keys), 0x80, 0xde)
	for _, k := range keys {
		var err error
		if b, err = appendValue(b, k, depth+1); err == nil {
			b, err = appendValue(b, v.MapIndex(k), depth+1)
		}
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

func appendStruct(b []byte, v reflect.Value, depth int) ([]byte, error) {
	if e, ok := reflect.TypeAssert[Ext](v); ok {
		return append(append(appendSize(b, len(e.Data), 0xc7), byte(e.Type)), e.Data...), nil
	}
	if t, ok := reflect.TypeAssert[time.Time](v); ok {
		b = append(b, 0xc7, 12, 0xff)
		b = binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
		return binary.BigEndian.AppendUint64(b, uint64(t.Unix())), nil
	}
	fields := slices.DeleteFunc(reflect.VisibleFields(v.Type()), func(f reflect.StructField) bool {
		return !f.IsExported() || len(f.Index) > 1
	})
	b = appendHead(b, len(fields), 0x80, 0xde)
	for _, f := range fields {
		b = append(appendTextHead(b, len(f.Name)), f.Name...)
		var err error
		if b, err = appendValue(b, v.FieldByIndex(f.Index), depth+1); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return b, nil
}

// appendHead appends the head of a list or a map: short is the code that includes the
// length, and long16 the one with a 16-bit length; the code with a 32-bit length
// follows it.
func appendHead(b []byte, n int, short, long16 byte) []byte {
	switch {
	case n < 16:
		return append(b, short|byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, long16), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, long16+1), uint32(n))
}

func appendTextHead(b []byte, n int) []byte {
	if n < 32 {
		return append(b, 0xa0|byte(n))
	}
	return appendSize(b, n, 0xd9)
}

func appendBytesHead(b []byte, n int) []byte { return appendSize(b, n, 0xc4) }

// appendSize appends a code and a length: code8 is the code for 8 bits; those for 16
// and 32 bits follow it.
func appendSize(b []byte, n int, code8 byte) []byte {
	switch {
	case n < 1<<8:
		return append(b, code8, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, code8+1), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, code8+2), uint32(n))
}

// Reader is the source for decoding values. It is buffered, so that a header can be read
// byte by byte.
type Reader interface {
	io.Reader
	io.ByteReader
}

// decode reads one value: nil, bool, int64, uint64 (what int64 cannot hold), float64,
// string, []byte, []any, map[string]any, time.Time or [Ext]. The error is io.EOF only
// if there is nothing at all, and [errLimit] if the value is too large; what r holds
// after an error has no meaning.
func decode(r Reader) (any, error) {
	d := decoder{r: r, left: maxMessage}
	return d.value(0)
}

type decoder struct {
	r    Reader
	left int // remaining bytes of memory
}

// take allows for n bytes of memory.
func (d *decoder) take(n uint64) error {
	if n > uint64(d.left) {
		return fmt.Errorf("%w: a value of more than %d MB", errLimit, maxMessage>>20)
	}
	d.left -= int(n)
	return nil
}

// number reads an unsigned integer of size bytes.
func (d *decoder) number(size int) (uint64, error) {
	var buf [8]byte
	_, err := io.ReadFull(d.r, buf[8-size:])
	return binary.BigEndian.Uint64(buf[:]), truncated(err)
}

// bytes reads n bytes. It allocates memory only as data arrives, whatever the declared length.
func (d *decoder) bytes(n uint64) ([]byte, error) {
	if err := d.take(n); err != nil {
		return nil, err
	}
	const atOnce = 64 << 10
	if n <= atOnce {
		buf := make([]byte, n)
		_, err := io.ReadFull(d.r, buf)
		return buf, truncated(err)
	}
	var buf bytes.Buffer
	_, err := io.CopyN(&buf, d.r, int64(n))
	return buf.Bytes(), truncated(err)
}

// truncated turns io.EOF in the middle of a value into io.ErrUnexpectedEOF.
func truncated(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (d *decoder) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: a value that is nested more than %d levels deep", errLimit, maxDepth)
	}
	if err := d.take(valueCost); err != nil {
		return nil, err
	}
	c, err := d.r.ReadByte()
	if err != nil {
		if depth > 0 {
			err = truncated(err)
		}
		return nil, err
	}
	switch {
	case c < 0x80:
		return int64(c), nil
	case c < 0x90:
		return d.object(uint64(c&15), depth)
	case c < 0xa0:
		return d.list(uint64(c&15), depth)
	case c < 0xc0:
		return d.text(uint64(c & 31))
	case c >= 0xe0:
		return int64(int8(c)), nil
	}
	switch c {
	case 0xc0:
		return nil, nil
	case 0xc2, 0xc3:
		return c == 0xc3, nil
	case 0xca:
		n, err := d.number(4)
		return float64(math.Float32frombits(uint32(n))), err
	case 0xcb:
		n, err := d.number(8)
		return math.Float64frombits(n), err
	case 0xcc, 0xcd, 0xce, 0xcf:
		n, err := d.number(1 << (c - 0xcc))
		if n > math.MaxInt64 {
			return n, err
		}
		return int64(n), err
	case 0xd0, 0xd1, 0xd2, 0xd3:
		size := 1 << (c - 0xd0)
		n, err := d.number(size)
		unused := 64 - 8*size
		return int64(n<<unused) >> unused, err
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8:
		return d.extension(1 << (c - 0xd4))
	case 0xc1:
		return nil, errors.New("not MessagePack: code 0xc1")
	}
	n, err := d.number(sizeOfLength(c))
	if err != nil {
		return nil, err
	}
	switch c {
	case 0xc4, 0xc5, 0xc6:
		return d.bytes(n)
	case 0xc7, 0xc8, 0xc9:
		return d.extension(n)
	case 0xd9, 0xda, 0xdb:
		return d.text(n)
	case 0xdc, 0xdd:
		return d.list(n, depth)
	}
	return d.object(n, depth) // 0xde, 0xdf
}

// sizeOfLength returns the number of bytes of the length after a code.
func sizeOfLength(c byte) int {
	switch c {
	case 0xc4, 0xc7, 0xd9:
		return 1
	case 0xc5, 0xc8, 0xda, 0xdc, 0xde:
		return 2
	}
	return 4
}

func (d *decoder) text(n uint64) (any, error) {
	b, err := d.bytes(n)
	return string(b), err
}

func (d *decoder) list(n uint64, depth int) (any, error) {
	if n > uint64(d.left) { // each element takes at least a byte
		return nil, d.take(n)
	}
	list := []any{}
	for range n {
		e, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

func (d *decoder) object(n uint64, depth int) (any, error) {
	if n > uint64(d.left) {
		return nil, d.take(n)
	}
	m := map[string]any{}
	for range n {
		k, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		name, err := keyText(k)
		if err != nil {
			return nil, err
		}
		if m[name], err = d.value(depth + 1); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func keyText(k any) (string, error) {
	switch k := k.(type) {
	case string:
		return k, nil
	case []byte:
		return string(k), nil
	case bool, int64, uint64, float64:
		return fmt.Sprint(k), nil
	}
	return "", fmt.Errorf("a map with a key that is a %T", k)
}

func (d *decoder) extension(n uint64) (any, error) {
	kind, err := d.r.ReadByte()
	if err != nil {
		return nil, truncated(err)
	}
	b, err := d.bytes(n)
	if err != nil {
		return nil, err
	}
	if int8(kind) == extTime {
		switch len(b) {
		case 4:
			return time.Unix(int64(binary.BigEndian.Uint32(b)), 0), nil
		case 8:
			v := binary.BigEndian.Uint64(b)
			return time.Unix(int64(v&(1<<34-1)), int64(v>>34)), nil
		case 12:
			return time.Unix(int64(binary.BigEndian.Uint64(b[4:])), int64(binary.BigEndian.Uint32(b))), nil
		}
		return nil, fmt.Errorf("a time of %d bytes", len(b))
	}
	return Ext{int8(kind), b}, nil
}

package wire

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func decodeBytes(b []byte) (any, error) { return decode(bufio.NewReader(bytes.NewReader(b))) }

func decodeHex(t *testing.T, text string) (any, error) {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return decodeBytes(b)
}

// TestDecode: every code of the format.
func TestDecode(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want any
	}{
		{"00", int64(0)}, {"7f", int64(127)}, {"ff", int64(-1)}, {"e0", int64(-32)},
		{"c0", nil}, {"c2", false}, {"c3", true},
		{"cc ff", int64(255)}, {"cd ffff", int64(65535)}, {"ce ffffffff", int64(math.MaxUint32)},
		{"cf 7fffffffffffffff", int64(math.MaxInt64)}, {"cf ffffffffffffffff", uint64(math.MaxUint64)},
		{"d0 80", int64(-128)}, {"d1 8000", int64(-32768)}, {"d2 80000000", int64(math.MinInt32)}, {"d3 8000000000000000", int64(math.MinInt64)},
		{"ca 3fc00000", 1.5}, {"cb 3ff8000000000000", 1.5},
		{"a0", ""}, {"a2 6869", "hi"}, {"d9 02 6869", "hi"}, {"da 0002 6869", "hi"}, {"db 00000002 6869", "hi"},
		{"c4 02 6869", []byte("hi")}, {"c5 0002 6869", []byte("hi")}, {"c6 00000002 6869", []byte("hi")},
		{"90", []any{}}, {"92 01 c0", []any{int64(1), nil}}, {"dc 0001 01", []any{int64(1)}}, {"dd 00000001 01", []any{int64(1)}},
		{"80", map[string]any{}}, {"81 a1 61 01", map[string]any{"a": int64(1)}}, {"de 0001 c401 61 01", map[string]any{"a": int64(1)}},
		{"df 00000001 05 01", map[string]any{"5": int64(1)}},
		{"d6 ff 00000001", time.Unix(1, 0)}, {"d7 ff 0000000400000001", time.Unix(1, 1)}, {"c7 0c ff 00000001 ffffffffffffffff", time.Unix(-1, 1)},
		{"d4 00 00", Ext{0, []byte{0}}}, {"c8 0001 05 07", Ext{5, []byte{7}}}, {"c9 00000000 05", Ext{5, []byte{}}},
		{"d8 01 00000000000000000000000000000000", Ext{1, make([]byte, 16)}}, {"d5 02 0102", Ext{2, []byte{1, 2}}},
	} {
		got, err := decodeHex(t, tc.in)
		if err != nil || !cmp.Equal(got, tc.want) {
			t.Errorf("%s: %#v, %v; want %#v", tc.in, got, err, tc.want)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, in := range []string{"c1", "81 90 01", "81 80 01", "c7 03 ff 000000"} {
		if got, err := decodeHex(t, in); err == nil {
			t.Errorf("%s: %#v", in, got)
		}
	}
	if _, err := decodeBytes(nil); err != io.EOF { //nolint:errorlint // exactly that
		t.Errorf("nothing: %v", err)
	}
	whole, err := marshal(map[string]any{"text": strings.Repeat("x", 300), "list": []any{1, 1 << 40, 1.5, []byte("x"), time.Unix(1, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n < len(whole); n++ {
		if _, err := decodeBytes(whole[:n]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

// TestDecodeLimits: large declared sizes take little memory, and large values are
// refused.
func TestDecodeLimits(t *testing.T) {
	nested := func(n int) []byte { return append(bytes.Repeat([]byte{0x91}, n), 0xc0) }
	if _, err := decodeBytes(nested(maxDepth)); err != nil {
		t.Errorf("%d levels: %v", maxDepth, err)
	}
	for name, in := range map[string][]byte{
		"too deep":      nested(maxDepth + 1),
		"deepest":       bytes.Repeat([]byte{0x91}, 1<<20),
		"deep maps":     bytes.Repeat([]byte{0x81, 0xa0}, 1<<20),
		"great text":    {0xdb, 0xff, 0xff, 0xff, 0xff, 'x'},
		"great bytes":   {0xc6, 0x04, 0, 0, 0, 'x'},
		"great list":    {0xdd, 0xff, 0xff, 0xff, 0xff, 1},
		"great map":     {0xdf, 0xff, 0xff, 0xff, 0xff, 0xa0, 1},
		"great ext":     {0xc9, 0xff, 0xff, 0xff, 0xff, 1, 2},
		"many elements": append([]byte{0xdd, 0, 0x40, 0, 0}, bytes.Repeat([]byte{0xc0}, 1<<22)...),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := decodeBytes(in)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, errLimit) {
			t.Errorf("%s: %v", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 4*maxMessage {
			t.Errorf("%s: %d bytes of memory", name, n)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := decodeBytes([]byte{0xdb, 0x03, 0, 0, 0, 'x'}) // as much as is allowed, promised
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, io.ErrUnexpectedEOF) || n > 1<<20 {
		t.Errorf("a promise of 48 MB: %v, %d bytes of memory", err, n)
	}
}

type inner struct{ S string }

type sample struct {
	Name  string
	Data  map[string]any
	Bytes []byte
	When  time.Time
	N     int
	U     uint32
	F     float64
	B     bool
	List  []string
	P     *inner
	Any   any
	none  int
}

func TestMarshalAssign(t *testing.T) {
	in := sample{
		Name: strings.Repeat("é", 20), Data: map[string]any{"port": 22, "neg": -33, "text": strings.Repeat("x", 70000)}, Bytes: []byte{0, 1},
		When: time.Unix(1700000000, 5), N: math.MinInt64, U: math.MaxUint32, F: -0.5, B: true,
		List: make([]string, 70000), P: &inner{"x"}, Any: []any{nil, false}, none: 1,
	}
	b, err := marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	v, err := decodeBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	var out sample
	if err := Assign(&out, v); err != nil {
		t.Fatal(err)
	}
	want := in
	want.none = 0
	want.Data = map[string]any{"port": int64(22), "neg": int64(-33), "text": in.Data["text"]}
	if diff := cmp.Diff(want, out, cmp.AllowUnexported(sample{})); diff != "" {
		t.Errorf("decoded value (-want +got):\n%s", diff)
	}
}

func TestMarshalBytes(t *testing.T) {
	for _, tc := range []struct {
		in   any
		want string
	}{
		{nil, "c0"}, {(*inner)(nil), "c0"}, {[]byte(nil), "c0"}, {5, "05"}, {-32, "e0"}, {-33, "d3ffffffffffffffdf"}, {128, "d30000000000000080"},
		{uint32(7), "07"}, {uint64(200), "cf00000000000000c8"}, {"a", "a161"}, {[]byte("a"), "c40161"}, {[]string{}, "90"},
		{inner{"x"}, "81a153a178"}, {map[string]int{"b": 1, "a": 2}, "82a16102a16201"}, {true, "c3"}, {1.5, "cb3ff8000000000000"},
		{Ext{5, []byte{7}}, "c7010507"}, {time.Unix(1, 2), "c70cff000000020000000000000001"},
	} {
		b, err := marshal(tc.in)
		if got := hex.EncodeToString(b); err != nil || got != tc.want {
			t.Errorf("%#v: %s, %v; want %s", tc.in, got, err, tc.want)
		}
	}
	type cycle struct{ Next any }
	var c cycle
	c.Next = &c
	for _, in := range []any{make(chan int), struct{ F func() }{func() {}}, &c, map[string]any{"c": make(chan int)}} {
		if _, err := marshal(in); err == nil {
			t.Errorf("%T was encoded", in)
		}
	}
}

// TestAssignRefuses: a value that does not fit is an error, without a panic or a wrong value.
func TestAssignRefuses(t *testing.T) {
	values := []any{true, int64(-1), uint64(math.MaxUint64), 1.5, "text", []byte("x"), []any{[]any{}}, map[string]any{"S": []any{}}, time.Unix(0, 0), Ext{}}
	for _, v := range values {
		for name, dst := range map[string]any{
			"bool": new(bool), "int32": new(int32), "uint32": new(uint32), "string": new(string), "list": new([]string), "map": new(map[string]string),
			"struct": new(inner), "pointer": new(*inner), "time": new(time.Time), "bytes": new([]byte), "keys": new(map[int]string), "float": new(float64),
			"error": new(error),
		} {
			err := Assign(dst, v)
			fits := false
			switch v.(type) {
			case bool:
				fits = name == "bool"
			case int64:
				fits = name == "int32" || name == "float"
			case float64:
				fits = name == "float"
			case string, []byte:
				fits = name == "string" || name == "bytes"
			case time.Time:
				fits = name == "time"
			}
			if fits != (err == nil) {
				t.Errorf("%T into %s: %v", v, name, err)
			}
		}
	}
	var s sample
	if err := Assign(&s, map[string]any{"List": []any{"a", int64(1)}}); err == nil || !strings.HasPrefix(err.Error(), "List: [1]: it is the number 1, not string") {
		t.Errorf("the place: %v", err)
	}
}

func FuzzMsgpack(f *testing.F) {
	b, err := marshal(sample{Name: "x", Data: map[string]any{"a": 1}, List: []string{"x"}, P: &inner{}, When: time.Unix(1, 1)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0})
	f.Add(bytes.Repeat([]byte{0x91}, 200))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := decodeBytes(b)
		if err != nil {
			return
		}
		var s sample
		_ = Assign(&s, v) // no panic
		again, err := marshal(v)
		if err != nil {
			t.Fatalf("%#v: %v", v, err)
		}
		w, err := decodeBytes(again)
		if err != nil {
			t.Fatalf("%#v: %v", v, err)
		}
		if twice, err := marshal(w); err != nil || !bytes.Equal(again, twice) {
			t.Errorf("%#v became %#v, %v", v, w, err)
		}
	})
}

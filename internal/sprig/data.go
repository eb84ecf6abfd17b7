package sprig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

func pathFunctions() map[string]any {
	return map[string]any{"base": path.Base, "dir": path.Dir, "clean": path.Clean, "ext": path.Ext, "isAbs": path.IsAbs}
}

func numbers() map[string]any {
	out := map[string]any{
		"atoi":      func(s string) int { n, _ := strconv.Atoi(s); return n },
		"int":       func(v any) int { return int(integer(v)) },
		"int64":     integer,
		"float64":   float,
		"toDecimal": func(v any) int64 { n, _ := strconv.ParseInt(fmt.Sprint(v), 8, 64); return n },
		"add1":      func(v any) int64 { return integer(v) + 1 },
		"add":       func(v ...any) int64 { return fold(v, 0, func(a, b int64) int64 { return a + b }) },
		"sub":       func(a, b any) int64 { return integer(a) - integer(b) },
		"mul":       func(a any, v ...any) int64 { return fold(v, integer(a), func(a, b int64) int64 { return a * b }) },
		"div":       func(a, b any) (int64, error) { return divide(a, b, func(x, y int64) int64 { return x / y }) },
		"mod":       func(a, b any) (int64, error) { return divide(a, b, func(x, y int64) int64 { return x % y }) },
		"max":       func(a any, v ...any) int64 { return fold(v, integer(a), func(a, b int64) int64 { return max(a, b) }) },
		"min":       func(a any, v ...any) int64 { return fold(v, integer(a), func(a, b int64) int64 { return min(a, b) }) },
		"maxf":      func(a any, v ...any) float64 { return foldFloat(v, float(a), math.Max) },
		"minf":      func(a any, v ...any) float64 { return foldFloat(v, float(a), math.Min) },
		"ceil":      func(v any) float64 { return math.Ceil(float(v)) },
		"floor":     func(v any) float64 { return math.Floor(float(v)) },
		"round":     round,
		"add1f":     func(v any) (float64, error) { return exact(v, []any{1}, (*big.Rat).Add) },
		"addf":      func(v ...any) (float64, error) { return exact(0, v, (*big.Rat).Add) },
		"subf":      func(a any, v ...any) (float64, error) { return exact(a, v, (*big.Rat).Sub) },
		"mulf":      func(a any, v ...any) (float64, error) { return exact(a, v, (*big.Rat).Mul) },
		"divf":      func(a any, v ...any) (float64, error) { return exact(a, v, (*big.Rat).Quo) },
		"until":     func(n int) ([]int, error) { return steps(0, n, sign(n)) },
		"untilStep": steps,
		"seq":       seq,
	}
	out["biggest"] = out["max"]
	return out
}

// integer converts a value to an integer, or to 0 if that is impossible.
func integer(v any) int64 {
	r := reflect.ValueOf(v)
	switch {
	case r.CanInt():
		return r.Int()
	case r.CanUint():
		return int64(r.Uint())
	case r.CanFloat():
		return int64(r.Float())
	case r.Kind() == reflect.Bool && r.Bool():
		return 1
	case r.Kind() == reflect.String:
		whole, fraction, _ := strings.Cut(r.String(), ".")
		if strings.Trim(fraction, "0") != "" {
			return 0
		}
		n, _ := strconv.ParseInt(whole, 0, 64)
		return n
	}
	return 0
}

// float converts a value to a floating-point number, or to 0 if that is impossible.
func float(v any) float64 {
	r := reflect.ValueOf(v)
	switch {
	case r.CanFloat():
		return r.Float()
	case r.Kind() == reflect.String:
		n, err := strconv.ParseFloat(r.String(), 64)
		if err != nil {
			return 0
		}
		return n
	}
	return float64(integer(v))
}

func fold(values []any, start int64, f func(a, b int64) int64) int64 {
	for _, v := range values {
		start = f(start, integer(v))
	}
	return start
}

func foldFloat(values []any, start float64, f func(a, b float64) float64) float64 {
	for _, v := range values {
		start = f(start, float(v))
	}
	return start
}

func divide(a, b any, f func(x, y int64) int64) (int64, error) {
	y := integer(b)
	if y == 0 {
		return 0, errors.New("division by zero")
	}
	return f(integer(a), y), nil
}

// exact folds numbers as decimal fractions, so that 0.1 and 0.2 are 0.3.
func exact(a any, values []any, f func(z, x, y *big.Rat) *big.Rat) (float64, error) {
	rat := func(v any) (*big.Rat, error) {
		r, ok := new(big.Rat).SetString(strconv.FormatFloat(float(v), 'g', -1, 64))
		if !ok {
			return nil, fmt.Errorf("%v is no number to reckon with", v)
		}
		return r, nil
	}
	sum, err := rat(a)
	if err != nil {
		return 0, err
	}
	for _, v := range values {
		x, err := rat(v)
		if err != nil {
			return 0, err
		}
		if x.Sign() == 0 && reflect.ValueOf(f).Pointer() == reflect.ValueOf((*big.Rat).Quo).Pointer() {
			return 0, errors.New("division by zero")
		}
		sum = f(new(big.Rat), sum, x)
	}
	out, _ := sum.Float64()
	return out, nil
}

func round(v any, places int, from ...float64) float64 {
	half := 0.5
	if len(from) > 0 {
		half = from[0]
	}
	scale := math.Pow(10, float64(places))
	scaled := scale * float(v)
	if _, fraction := math.Modf(scaled); fraction >= half {
		return math.Ceil(scaled) / scale
	}
	return math.Floor(scaled) / scale
}

func sign(n int) int {
	if n < 0 {
		return -1
	}
	return 1
}

// steps returns the numbers from start to before stop.
func steps(start, stop, step int) ([]int, error) {
	out := []int{}
	if step == 0 || sign(step) != sign(stop-start) {
		return out, nil
	}
	if span := math.Abs(float64(stop) - float64(start)); span/math.Abs(float64(step)) > 10_000 {
		return nil, errors.New("the list has more than 10000 numbers")
	}
	for i := start; step > 0 && i < stop || step < 0 && i > stop; i += step {
		out = append(out, i)
	}
	return out, nil
}

// seq is like the command: the numbers from first to last as a text.
func seq(of ...int) (string, error) {
	first, step := 1, 0
	var last int
	switch len(of) {
	case 1:
		last = of[0]
	case 2:
		first, last = of[0], of[1]
	case 3:
		first, step, last = of[0], of[1], of[2]
	default:
		return "", nil
	}
	if len(of) < 3 {
		step = sign(last - first)
	}
	if step == 0 || last != first && sign(step) != sign(last-first) {
		return "", nil
	}
	list, err := steps(first, last+sign(last-first), step)
	return strings.Trim(fmt.Sprint(list), "[]"), err
}

// elements returns the elements of a list of any type.
func elements(v any) ([]any, error) {
	r := reflect.ValueOf(v)
	if r.Kind() != reflect.Slice && r.Kind() != reflect.Array {
		return nil, fmt.Errorf("%T is no list", v)
	}
	out := make([]any, r.Len())
	for i := range out {
		out[i] = r.Index(i).Interface()
	}
	return out, nil
}

// onList makes a function of one list.
func onList[T any](f func([]any) T) func(any) (T, error) {
	return func(v any) (T, error) {
		list, err := elements(v)
		if err != nil {
			var none T
			return none, err
		}
		return f(list), nil
	}
}

func lists() map[string]any {
	out := map[string]any{
		"list":      func(v ...any) []any { return v },
		"tuple":     func(v ...any) []any { return v },
		"mkSlice":   func(v ...any) []any { return v },
		"join":      func(sep string, v any) string { return strings.Join(stringsOf(v), sep) },
		"toStrings": stringsOf,
		"sortAlpha": func(v any) []string { s := slices.Clone(stringsOf(v)); slices.Sort(s); return s },
		"concat":    concat,
	}
	both := func(name string, f any) {
		out[name] = f
		out["must"+strings.ToUpper(name[:1])+name[1:]] = f
	}
	both("append", push)
	both("push", push)
	both("prepend", func(v any, x any) ([]any, error) {
		list, err := elements(v)
		return append([]any{x}, list...), err
	})
	both("first", onList(func(l []any) any { return at(l, 0) }))
	both("last", onList(func(l []any) any { return at(l, len(l)-1) }))
	both("rest", onList(func(l []any) []any { return l[min(1, len(l)):] }))
	both("initial", onList(func(l []any) []any { return l[:max(len(l)-1, 0)] }))
	both("reverse", onList(func(l []any) []any { slices.Reverse(l); return l }))
	both("compact", onList(func(l []any) []any { return slices.DeleteFunc(l, empty) }))
	both("uniq", onList(uniq))
	both("without", func(v any, omit ...any) ([]any, error) {
		list, err := elements(v)
		return slices.DeleteFunc(list, func(x any) bool { return contains(omit, x) }), err
	})
	both("has", func(x, v any) (bool, error) {
		if v == nil {
			return false, nil
		}
		list, err := elements(v)
		return contains(list, x), err
	})
	both("slice", part)
	both("chunk", chunk)
	return out
}

func push(v any, x any) ([]any, error) {
	list, err := elements(v)
	return append(list, x), err
}

func at(list []any, i int) any {
	if i < 0 || i >= len(list) {
		return nil
	}
	return list[i]
}

func contains(list []any, x any) bool {
	return slices.ContainsFunc(list, func(y any) bool { return reflect.DeepEqual(x, y) })
}

func uniq(list []any) []any {
	out := []any{}
	for _, x := range list {
		if !contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}

func concat(all ...any) ([]any, error) {
	var out []any
	for _, v := range all {
		list, err := elements(v)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

// part returns the part of a list or a string between two indexes, like Go's slice.
func part(v any, indexes ...any) (any, error) {
	r := reflect.ValueOf(v)
	if r.Kind() != reflect.Slice && r.Kind() != reflect.String {
		return nil, fmt.Errorf("%T is no list", v)
	}
	start, end := 0, r.Len()
	if len(indexes) > 0 {
		start = int(integer(indexes[0]))
	}
	if len(indexes) > 1 {
		end = int(integer(indexes[1]))
	}
	if start < 0 || end > r.Len() || start > end {
		return nil, fmt.Errorf("a list of %d elements has no part from %d to %d", r.Len(), start, end)
	}
	return r.Slice(start, end).Interface(), nil
}

func chunk(size int, v any) ([]any, error) {
	list, err := elements(v)
	if err != nil {
		return nil, err
	}
	if size < 1 {
		return nil, fmt.Errorf("parts of %d elements cannot be made", size)
	}
	out := []any{}
	for c := range slices.Chunk(list, size) {
		out = append(out, c)
	}
	return out, nil
}

// stringsOf returns the elements of a list as texts, or a value as the only one.
func stringsOf(v any) []string {
	if v == nil {
		return []string{}
	}
	list, err := elements(v)
	if err != nil {
		list = []any{v}
	}
	out := []string{}
	for _, x := range list {
		if x != nil {
			out = append(out, text(x))
		}
	}
	return out
}

type dict = map[string]any

func dicts() map[string]any {
	out := map[string]any{
		"dict": func(v ...any) dict {
			d := dict{}
			for i := 0; i < len(v); i += 2 {
				d[text(v[i])] = ""
				if i+1 < len(v) {
					d[text(v[i])] = v[i+1]
				}
			}
			return d
		},
		"get": func(d dict, name string) any {
			if v, ok := d[name]; ok {
				return v
			}
			return ""
		},
		"set": func(d dict, name string, v any) (dict, error) {
			if d == nil {
				return nil, errors.New("there is no dict to set something in")
			}
			d[name] = v
			return d, nil
		},
		"unset":  func(d dict, name string) dict { delete(d, name); return d },
		"hasKey": func(d dict, name string) bool { _, ok := d[name]; return ok },
		"keys":   keys,
		"values": func(d dict) []any {
			out := []any{}
			for _, name := range keys(d) {
				out = append(out, d[name])
			}
			return out
		},
		"dig": dig,
	}
	maps.Copy(out, selections())
	for _, prefix := range []string{"", "must"} {
		name := func(s string) string {
			if prefix == "" {
				return strings.ToLower(s[:1]) + s[1:]
			}
			return prefix + s
		}
		out[name("Merge")] = func(to dict, from ...dict) (dict, error) { return merge(to, from, false, 0) }
		out[name("MergeOverwrite")] = func(to dict, from ...dict) (dict, error) { return merge(to, from, true, 0) }
		out[name("DeepCopy")] = func(v any) any { return deepCopy(v, 0) }
	}
	return out
}

// selections are functions that select entries of dicts.
func selections() map[string]any {
	return map[string]any{
		"pluck": func(name string, ds ...dict) []any {
			out := []any{}
			for _, d := range ds {
				if v, ok := d[name]; ok {
					out = append(out, v)
				}
			}
			return out
		},
		"pick": func(d dict, names ...string) dict {
			return only(d, func(name string) bool { return slices.Contains(names, name) })
		},
		"omit": func(d dict, names ...string) dict {
			return only(d, func(name string) bool { return !slices.Contains(names, name) })
		},
	}
}

// keys returns the sorted names in dicts; sprig does not sort them.
func keys(ds ...dict) []string {
	out := []string{}
	for _, d := range ds {
		out = append(out, slices.Sorted(maps.Keys(d))...)
	}
	return out
}

func only(d dict, keep func(string) bool) dict {
	out := maps.Clone(d)
	maps.DeleteFunc(out, func(name string, _ any) bool { return !keep(name) })
	return out
}

func dig(args ...any) (any, error) {
	if len(args) < 3 {
		return nil, errors.New("dig needs at least a name, a default and a dict")
	}
	v := args[len(args)-1]
	for _, name := range args[:len(args)-2] {
		d, ok := v.(dict)
		if !ok {
			return nil, fmt.Errorf("%T is no dict", v)
		}
		if v, ok = d[text(name)]; !ok {
			return args[len(args)-2], nil
		}
	}
	return v, nil
}

const maxDeep = 100

// merge copies into to the entries of the others that it lacks, or with over all entries.
func merge(to dict, from []dict, over bool, depth int) (dict, error) {
	if to == nil || depth > maxDeep {
		return nil, errors.New("there is no dict to merge into, or one holds itself")
	}
	for _, d := range from {
		for name, v := range d {
			inner, ok := v.(dict)
			mine, both := to[name].(dict)
			switch {
			case ok && both:
				if _, err := merge(mine, []dict{inner}, over, depth+1); err != nil {
					return nil, err
				}
			case empty(to[name]) || over && !empty(v):
				to[name] = v
			}
		}
	}
	return to, nil
}

func deepCopy(v any, depth int) any {
	if depth > maxDeep {
		return nil
	}
	switch v := v.(type) {
	case dict:
		out := make(dict, len(v))
		for name, x := range v {
			out[name] = deepCopy(x, depth+1)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = deepCopy(x, depth+1)
		}
		return out
	}
	return v
}

func defaults() map[string]any {
	out := map[string]any{
		"default": func(d any, given ...any) any {
			if len(given) == 0 || empty(given[0]) {
				return d
			}
			return given[0]
		},
		"empty": empty,
		"coalesce": func(v ...any) any {
			return at(slices.DeleteFunc(v, empty), 0)
		},
		"all": func(v ...any) bool { return !slices.ContainsFunc(v, empty) },
		"any": func(v ...any) bool { return slices.ContainsFunc(v, func(x any) bool { return !empty(x) }) },
		"ternary": func(yes, no any, v bool) any {
			if v {
				return yes
			}
			return no
		},
		"typeOf":       func(v any) string { return fmt.Sprintf("%T", v) },
		"typeIs":       func(name string, v any) bool { return name == fmt.Sprintf("%T", v) },
		"typeIsLike":   func(name string, v any) bool { return name == fmt.Sprintf("%T", v) || "*"+name == fmt.Sprintf("%T", v) },
		"kindOf":       func(v any) string { return reflect.ValueOf(v).Kind().String() },
		"kindIs":       func(name string, v any) bool { return name == reflect.ValueOf(v).Kind().String() },
		"deepEqual":    reflect.DeepEqual,
		"fromJson":     func(s string) any { v, _ := fromJSON(s); return v },
		"mustFromJson": fromJSON,
	}
	for name, f := range map[string]func(any) (string, error){
		"oJson":       func(v any) (string, error) { return toJSON(v, "", true) },
		"oPrettyJson": func(v any) (string, error) { return toJSON(v, "  ", true) },
		"oRawJson":    func(v any) (string, error) { return toJSON(v, "", false) },
	} {
		out["t"+name], out["mustT"+name] = f, f
	}
	return out
}

// empty reports whether a value is false, zero, without elements or nil.
func empty(v any) bool {
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Array, reflect.Slice, reflect.Map, reflect.String:
		return r.Len() == 0
	}
	return r.IsZero()
}

func fromJSON(s string) (v any, err error) {
	err = json.Unmarshal([]byte(s), &v)
	return v, err
}

func toJSON(v any, indent string, html bool) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(html)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

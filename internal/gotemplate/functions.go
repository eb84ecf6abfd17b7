package gotemplate

import (
	"cmp"
	"errors"
	"fmt"
	"html"
	"net/url"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"
)

// function is a function of templates.
type function func(args []any) (any, error)

// builtin are the functions of every Go template, except call, which would be useless
// because no value is a function.
var builtin = map[string]function{
	"and":      lastOf,
	"or":       lastOf,
	"not":      func(args []any) (any, error) { return len(args) == 1 && !truth(args[0]), count(args, 1) },
	"len":      length,
	"index":    index,
	"slice":    slice,
	"print":    joining(fmt.Sprint),
	"println":  joining(fmt.Sprintln),
	"printf":   printf,
	"html":     joining(func(args ...any) string { return escapeHTML(joined(args)) }),
	"js":       joining(func(args ...any) string { return escapeJS(joined(args)) }),
	"urlquery": joining(func(args ...any) string { return url.QueryEscape(joined(args)) }),
	"call":     func([]any) (any, error) { return nil, errors.New("there is no function to call") },
	"eq":       equal,
	"ne": func(args []any) (any, error) {
		if err := count(args, 2); err != nil {
			return nil, err
		}
		c, err := compare(args[0], args[1], false)
		return c != 0, err
	},
	"lt": ordered(func(c int) bool { return c < 0 }),
	"le": ordered(func(c int) bool { return c <= 0 }),
	"gt": ordered(func(c int) bool { return c > 0 }),
	"ge": ordered(func(c int) bool { return c >= 0 }),
}

func count(args []any, want int) error {
	if len(args) != want {
		return fmt.Errorf("wrong number of arguments: want %d, got %d", want, len(args))
	}
	return nil
}

// argument returns args[i], which must be a T.
func argument[T any](args []any, i int) (T, error) {
	v, ok := args[i].(T)
	if !ok {
		return v, fmt.Errorf("argument %d must be of %s, not %s", i+1, kind(v), kind(args[i]))
	}
	return v, nil
}

// texts returns args as strings. It fails unless there are n of them and all are strings.
func texts(args []any, n int) ([]string, error) {
	if err := count(args, n); err != nil {
		return nil, err
	}
	out := make([]string, n)
	for i := range args {
		var err error
		if out[i], err = argument[string](args, i); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// constant makes a function without arguments.
func constant(f func() (string, error)) function {
	return func(args []any) (any, error) {
		if err := count(args, 0); err != nil {
			return nil, err
		}
		return f()
	}
}

// mapping makes a function of one text.
func mapping(f func(string) string) function {
	return func(args []any) (any, error) {
		t, err := texts(args, 1)
		if err != nil {
			return nil, err
		}
		return f(t[0]), nil
	}
}

// joining makes a function that joins values to a text, which must fit.
func joining(f func(...any) string) function {
	return func(args []any) (any, error) {
		if size(args) > maxText {
			return nil, errText
		}
		return fit(f(args...))
	}
}

func joined(args []any) string {
	shown := make([]any, len(args))
	for i, a := range args {
		shown[i] = printable(a)
	}
	return fmt.Sprint(shown...)
}

// lastOf is the implementation of and and or, apart from the early end, which
// [execution.call] handles.
func lastOf(args []any) (any, error) {
	if len(args) == 0 {
		return nil, errors.New("wrong number of arguments: want at least 1, got 0")
	}
	return args[len(args)-1], nil
}

func length(args []any) (any, error) {
	if err := count(args, 1); err != nil {
		return nil, err
	}
	r := reflect.ValueOf(args[0])
	switch r.Kind() {
	case reflect.String, reflect.Slice, reflect.Array, reflect.Map:
		return r.Len(), nil
	}
	return nil, fmt.Errorf("%s has no length", kind(args[0]))
}

// index returns its first argument indexed by the others, one after the other.
func index(args []any) (any, error) {
	if len(args) == 0 {
		return nil, errors.New("wrong number of arguments: want at least 1, got 0")
	}
	v := args[0]
	if v == nil {
		return nil, errors.New("can't index nil")
	}
	for i, key := range args[1:] {
		r := reflect.ValueOf(v)
		switch r.Kind() {
		case reflect.Slice, reflect.Array, reflect.String:
			n, err := argument[int](args, i+1)
			if err != nil {
				return nil, err
			}
			if n < 0 || n >= r.Len() {
				return nil, fmt.Errorf("index out of range: %d", n)
			}
			v = r.Index(n).Interface()
		case reflect.Map:
			name, err := argument[string](args, i+1)
			if err != nil {
				return nil, err
			}
			if v, err = fields(v, []string{name}); err != nil {
				return nil, err
			}
			if v == nil {
				v = zero(r.Type().Elem())
			}
		default:
			return nil, fmt.Errorf("can't index %s by %v", kind(v), key)
		}
	}
	return v, nil
}

// zero returns the zero value of a type, which for an interface is nil.
func zero(t reflect.Type) any { return reflect.Zero(t).Interface() }

// slice returns its first argument sliced by the indexes that follow.
func slice(args []any) (any, error) {
	if len(args) == 0 || len(args) > 4 {
		return nil, fmt.Errorf("wrong number of arguments: want 1 to 4, got %d", len(args))
	}
	r := reflect.ValueOf(args[0])
	var most int
	switch r.Kind() {
	case reflect.String:
		if len(args) == 4 {
			return nil, errors.New("cannot 3-index slice a string")
		}
		most = r.Len()
	case reflect.Slice:
		most = r.Cap()
	default:
		return nil, fmt.Errorf("can't slice %s", kind(args[0]))
	}
	bounds := [3]int{0, r.Len(), most}
	for i := range args[1:] {
		n, err := argument[int](args, i+1)
		if err != nil {
			return nil, err
		}
		if n < 0 || n > most {
			return nil, fmt.Errorf("index out of range: %d", n)
		}
		bounds[i] = n
	}
	if bounds[0] > bounds[1] || bounds[1] > bounds[2] {
		return nil, fmt.Errorf("invalid slice index: %d > %d", bounds[0], bounds[1])
	}
	if r.Kind() == reflect.String {
		return r.String()[bounds[0]:bounds[1]], nil
	}
	return r.Slice3(bounds[0], bounds[1], bounds[2]).Interface(), nil
}

// equal reports whether the first argument equals any of the others.
func equal(args []any) (any, error) {
	if len(args) < 2 {
		return nil, fmt.Errorf("missing argument for comparison: %d given", len(args))
	}
	for _, other := range args[1:] {
		c, err := compare(args[0], other, false)
		if err != nil {
			return nil, err
		}
		if c == 0 {
			return true, nil
		}
	}
	return false, nil
}

func ordered(holds func(int) bool) function {
	return func(args []any) (any, error) {
		if err := count(args, 2); err != nil {
			return nil, err
		}
		c, err := compare(args[0], args[1], true)
		return err == nil && holds(c), err
	}
}

// compare returns a negative number, 0 or a positive number if a is less than, equal to or
// greater than b. Values of different kinds cannot be compared; order means that the kind
// must be ordered.
func compare(a, b any, order bool) (int, error) {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	switch {
	case !order && (a == nil || b == nil):
		if a == nil && b == nil {
			return 0, nil
		}
		return 1, nil
	case x.Kind() == reflect.String && y.Kind() == reflect.String:
		return cmp.Compare(x.String(), y.String()), nil
	case x.CanInt() && y.CanInt():
		return cmp.Compare(x.Int(), y.Int()), nil
	case x.CanUint() && y.CanUint():
		return cmp.Compare(x.Uint(), y.Uint()), nil
	case x.CanInt() && y.CanUint():
		if x.Int() < 0 {
			return -1, nil
		}
		return cmp.Compare(uint64(x.Int()), y.Uint()), nil
	case x.CanUint() && y.CanInt():
		c, err := compare(b, a, order)
		return -c, err
	case x.CanFloat() && y.CanFloat():
		return cmp.Compare(x.Float(), y.Float()), nil
	case !order && x.Kind() == reflect.Bool && y.Kind() == reflect.Bool,
		!order && x.CanComplex() && y.CanComplex():
		if x.Equal(y) {
			return 0, nil
		}
		return 1, nil
	}
	return 0, fmt.Errorf("%s and %s cannot be compared", kind(a), kind(b))
}

// escapeHTML escapes a text for HTML as Go's templates do.
func escapeHTML(s string) string {
	return strings.ReplaceAll(html.EscapeString(s), "\x00", "\uFFFD")
}

// escapeJS escapes a text for a string of JavaScript as Go's templates do.
func escapeJS(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case strings.ContainsRune(`\'"`, r):
			b.WriteString(`\` + s[:size])
		case strings.ContainsRune("<>&=", r), r < ' ', r >= 0x80 && !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteString(s[:size])
		}
		s = s[size:]
	}
	return b.String()
}

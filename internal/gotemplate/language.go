package gotemplate

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"sort"
	"strings"
	"text/template/parse"
)

// Language renders texts with functions in addition to Go's. A field that is missing from
// the data is an error.
type Language struct{ functions map[string]function }

// NewLanguage returns a language with functions: Go functions that return a value, or a
// value and an error. They replace built-in functions of the same name.
func NewLanguage(functions map[string]any) Language {
	all := maps.Clone(builtin)
	for name, f := range functions {
		all[name] = reflected(reflect.ValueOf(f))
	}
	return Language{all}
}

// Error is an error in a line of a text.
type Error struct {
	Line int // from 1
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Err) }

// Unwrap returns the underlying error.
func (e *Error) Unwrap() error { return e.Err }

// Render expands text with data as the dot. lines has, for each line of the output, the
// line of text that it comes from. Errors are of type [*Error].
func (l Language) Render(text string, data map[string]any) (made string, lines []int, err error) {
	if len(text) > maxText {
		return "", nil, &Error{1, errText}
	}
	trees, err := parse.Parse("", text, "", "", known(l.functions))
	if err != nil {
		return "", nil, parseError(err)
	}
	e := execution{trees: trees, functions: l.functions, strict: true}
	e.out.origins = origins{starts: starts(text)}
	if err := e.execute("", data); err != nil {
		var at *positioned
		if errors.As(err, &at) {
			return "", nil, &Error{e.out.origins.line(at.pos), at.error}
		}
		return "", nil, &Error{1, err}
	}
	return e.out.String(), e.out.origins.lines, nil
}

func known(functions map[string]function) map[string]any {
	out := make(map[string]any, len(functions))
	for name, f := range functions {
		out[name] = f
	}
	return out
}

// parseError reads the line from an error of the parser.
func parseError(err error) error {
	msg := strings.TrimPrefix(err.Error(), "template: :")
	e := &Error{1, clean(err)}
	if _, err := fmt.Sscanf(msg, "%d:", &e.Line); err != nil || e.Line < 1 {
		e.Line = 1
	}
	return e
}

// positioned is an error at a byte of a text. Its message does not contain the position.
type positioned struct {
	error
	pos parse.Pos
}

func (p *positioned) Unwrap() error { return p.error }

// place adds the position to err, unless err has a more precise one.
func place(err error, pos parse.Pos) error {
	if at := (*positioned)(nil); err == nil || errors.As(err, &at) {
		return err
	}
	return &positioned{err, pos}
}

// origins tracks which lines of a text the lines of the output come from.
type origins struct {
	starts []int // of the lines of the text
	lines  []int
	inLine bool // the last of lines has been written in part, without its end
}

func starts(text string) []int {
	out := []int{0}
	for i := range len(text) {
		if text[i] == '\n' {
			out = append(out, i+1)
		}
	}
	return out
}

func (o *origins) line(pos parse.Pos) int { return sort.SearchInts(o.starts, int(pos)+1) }

// wrote records the origin of the lines of b, which starts at line. If verbatim is set,
// the lines of b correspond to consecutive lines of the template.
func (o *origins) wrote(b []byte, line int, verbatim bool) {
	for _, c := range b {
		if !o.inLine {
			o.lines = append(o.lines, line)
		}
		o.inLine = c != '\n'
		if c == '\n' && verbatim {
			line++
		}
	}
}

// reflected makes a template function from a Go function.
func reflected(f reflect.Value) function {
	t := f.Type()
	fixed := t.NumIn()
	if t.IsVariadic() {
		fixed--
	}
	return func(args []any) (any, error) {
		if len(args) < fixed || len(args) > fixed && !t.IsVariadic() {
			return nil, fmt.Errorf("wrong number of arguments: want %d, got %d", fixed, len(args))
		}
		in := make([]reflect.Value, len(args))
		for i, a := range args {
			want := t.In(min(i, t.NumIn()-1))
			if i >= fixed {
				want = want.Elem()
			}
			var ok bool
			if in[i], ok = fitted(a, want); !ok {
				return nil, fmt.Errorf("argument %d must be of type %s, not %s", i+1, want, kind(a))
			}
		}
		out := f.Call(in)
		if len(out) > 1 && !out[1].IsNil() {
			return nil, out[1].Interface().(error)
		}
		return bounded(out[0].Interface())
	}
}

// fitted converts a to the type of an argument. Numbers are converted like constants in
// Go.
func fitted(a any, t reflect.Type) (reflect.Value, bool) {
	v := reflect.ValueOf(a)
	if a == nil {
		return reflect.Zero(t), t.Kind() == reflect.Interface || t.Kind() == reflect.Map || t.Kind() == reflect.Slice
	}
	if v.Type().AssignableTo(t) {
		return v, true
	}
	to := reflect.Zero(t)
	switch {
	case v.CanInt() && (to.CanInt() || to.CanFloat()):
		return v.Convert(t), true
	case v.CanFloat() && to.CanInt():
		return v.Convert(t), v.Float() == float64(int64(v.Float()))
	}
	if texts, ok := a.(map[string]string); ok && t == reflect.TypeFor[map[string]any]() {
		all := make(map[string]any, len(texts))
		for name, s := range texts {
			all[name] = s
		}
		return reflect.ValueOf(all), true
	}
	return v, false
}

// Limits on a value that a function returns.
const (
	maxParts = 100_000
	maxDeep  = 100
)

var errValue = fmt.Errorf("a value holds more than %d others, is nested more than %d deep, or has a text of more than %d bytes", maxParts, maxDeep, maxText)

// bounded returns v unless it is too large. A value can contain another many times, or
// itself.
func bounded(v any) (any, error) {
	left, bytes := maxParts, maxText
	if !within(reflect.ValueOf(v), maxDeep, &left, &bytes) {
		return nil, errValue
	}
	return v, nil
}

func within(v reflect.Value, deep int, left, bytes *int) bool {
	if *left--; *left < 0 || deep < 0 {
		return false
	}
	switch v.Kind() {
	case reflect.Interface:
		return within(v.Elem(), deep, left, bytes)
	case reflect.String:
		*bytes -= v.Len()
		return *bytes >= 0
	case reflect.Slice:
		if k := v.Type().Elem().Kind(); k != reflect.Interface && k != reflect.String && k != reflect.Slice && k != reflect.Map {
			*left -= v.Len()
			return *left >= 0
		}
		for i := range v.Len() {
			if !within(v.Index(i), deep-1, left, bytes) {
				return false
			}
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			if !within(k, deep-1, left, bytes) || !within(v.MapIndex(k), deep-1, left, bytes) {
				return false
			}
		}
	}
	return true
}

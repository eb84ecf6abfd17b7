package schema

import (
	"maps"
	"reflect"
)

// Copy returns a shallow copy of options, whose fields s knows, and a source that also
// knows the fields of the copy: diagnostics about the copy point to the place where the
// original was written.
func Copy[O any](s *Source, options *O) (*O, *Source) {
	c := *options
	t := &Source{fields: maps.Clone(s.fields), unknown: maps.Clone(s.unknown), failed: maps.Clone(s.failed), secret: s.secret}
	together(reflect.ValueOf(options).Elem(), reflect.ValueOf(&c).Elem(), func(from, to any) {
		if p, ok := s.fields[from]; ok {
			t.fields[to] = p
		}
		if s.unknown[from] {
			t.unknown[to] = true
		}
		if s.failed[from] {
			t.failed[to] = true
		}
	})
	return &c, t
}

// together calls f with the addresses of each field of two structs of one type.
func together(from, to reflect.Value, f func(from, to any)) {
	for i := range from.NumField() {
		a, b := from.Field(i), to.Field(i)
		if !a.CanInterface() {
			continue
		}
		f(a.Addr().Interface(), b.Addr().Interface())
		if a.Kind() == reflect.Struct {
			together(a, b, f)
		}
	}
}

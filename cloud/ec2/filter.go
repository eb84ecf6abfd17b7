package ec2

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// filter has the path of the field in the SDK's struct that it compares; a path through a
// list visits every element. An empty path is a documented filter that matches nothing here.
type filter struct{ name, path string }

// filters are a resource's filters. Those of tags need no entry if the resource has tags.
type filters []filter

// path returns the path of the filter of that name, if there is one.
func (f filters) path(name string) (path string, ok bool) {
	for _, one := range f {
		if one.name == name {
			return one.path, true
		}
	}
	return "", false
}

// apply returns the rows (SDK structs) that match every filter: one of the filter's values
// must match one of the row's. In a value, * matches any text and ? one character.
func apply[T any](f filters, want []types.Filter, rows []T) ([]T, error) {
	kept, err := f.apply(want, reflect.ValueOf(rows))
	if err != nil {
		return nil, err
	}
	return kept.Interface().([]T), nil
}

func (f filters) apply(want []types.Filter, rows reflect.Value) (reflect.Value, error) {
	for _, w := range want {
		name := aws.ToString(w.Name)
		_, ok := f.path(name)
		if !ok && tagged(rows.Type().Elem()) {
			ok = strings.HasPrefix(name, "tag:") || name == "tag-key" || name == "tag-value"
		}
		if !ok {
			return rows, invalidValue("The filter '%s' is invalid", name)
		}
		rows = keep(rows, func(row reflect.Value) bool {
			have := f.values(name, row)
			return slices.ContainsFunc(w.Values, func(pattern string) bool {
				return slices.ContainsFunc(have, func(v string) bool { return match(pattern, v) })
			})
		})
	}
	return rows, nil
}

// keep returns a list of the rows for which want returns true.
func keep(rows reflect.Value, want func(row reflect.Value) bool) reflect.Value {
	out := reflect.MakeSlice(rows.Type(), 0, rows.Len())
	for i := range rows.Len() {
		if want(rows.Index(i)) {
			out = reflect.Append(out, rows.Index(i))
		}
	}
	return out
}

// values returns a row's values for a filter.
func (f filters) values(name string, row reflect.Value) []string {
	key, byKey := strings.CutPrefix(name, "tag:")
	switch {
	case byKey:
		var out []string
		for _, t := range tagsOf(row) {
			if aws.ToString(t.Key) == key {
				out = append(out, aws.ToString(t.Value))
			}
		}
		return out
	case name == "tag-key":
		return collect(row, []string{"Tags", "Key"})
	case name == "tag-value":
		return collect(row, []string{"Tags", "Value"})
	}
	path, _ := f.path(name)
	if path == "" {
		return nil
	}
	return collect(row, strings.Split(path, "."))
}

// tagged reports whether rows of a type have tags.
func tagged(row reflect.Type) bool {
	if row.Kind() == reflect.Pointer {
		row = row.Elem()
	}
	_, ok := row.FieldByName("Tags")
	return ok
}

func tagsOf(row reflect.Value) []types.Tag {
	tags, _ := reflect.Indirect(row).FieldByName("Tags").Interface().([]types.Tag)
	return tags
}

// collect returns the texts at path below v.
func collect(v reflect.Value, path []string) []string {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return collect(v.Elem(), path)
	case reflect.Slice:
		var out []string
		for i := range v.Len() {
			out = append(out, collect(v.Index(i), path)...)
		}
		return out
	}
	if len(path) > 0 {
		return collect(v.FieldByName(path[0]), path[1:])
	}
	switch x := v.Interface().(type) {
	case time.Time:
		return []string{x.UTC().Format("2006-01-02T15:04:05.000Z")}
	case bool:
		return []string{strconv.FormatBool(x)}
	}
	if text := fmt.Sprint(v.Interface()); text != "" {
		return []string{text}
	}
	return nil
}

// match reports whether text matches pattern by the rules of EC2's filters.
func match(pattern, text string) bool { return wire.Match(pattern, text, wire.Backslash) }

// page returns the page of rows that token asks for, and the token of the next page. The
// rows must be in the order of their keys.
func page[T any](rows []T, key func(T) string, max *int32, token *string) ([]T, *string, error) {
	cut, next, err := pageOf(reflect.ValueOf(rows), func(i int) string { return key(rows[i]) }, max, token)
	if err != nil {
		return nil, nil, err
	}
	return cut.Interface().([]T), next, nil
}

func pageOf(rows reflect.Value, key func(i int) string, max *int32, token *string) (reflect.Value, *string, error) {
	size := int(aws.ToInt32(max))
	if max != nil && size < 1 {
		return rows, nil, invalidValue("Value ( %d ) for parameter maxResults is invalid.", size)
	}
	begin, end, next, ok := wire.PageOf(rows.Type().Elem().String(), rows.Len(), key, strings.Compare, size, notEmpty(token))
	if !ok {
		return rows, nil, wire.Errorf("InvalidNextToken", "The token '%s' is invalid", *token)
	}
	if rows.IsNil() { // send an empty list rather than none
		rows = reflect.MakeSlice(rows.Type(), 0, 0)
	}
	return rows.Slice(begin, end), next, nil
}

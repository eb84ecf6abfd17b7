package wire

import (
	"fmt"
	"math"
	"reflect"
	"time"
)

// Assign puts a value that [Decode] has returned into dst, a pointer. Fields that dst
// does not have are dropped, and those that the value does not have stay as they are.
// A value that does not fit is an error that names the field.
func Assign(dst any, v any) error { return assign(reflect.ValueOf(dst).Elem(), v) }

func assign(dst reflect.Value, v any) error {
	if v == nil {
		dst.SetZero()
		return nil
	}
	src := reflect.ValueOf(v)
	if dst.Kind() == reflect.Interface && dst.NumMethod() == 0 || dst.Type() == reflect.TypeFor[time.Time]() && src.Type() == dst.Type() {
		dst.Set(src)
		return nil
	}
	wrong := func() error { return fmt.Errorf("it is %s, not %s", kind(v), dst.Type()) }
	switch dst.Kind() {
	case reflect.Pointer:
		p := reflect.New(dst.Type().Elem())
		if err := assign(p.Elem(), v); err != nil {
			return err
		}
		dst.Set(p)
	case reflect.Struct:
		m, ok := v.(map[string]any)
		if !ok || dst.Type() == reflect.TypeFor[time.Time]() {
			return wrong()
		}
		for i := range dst.NumField() {
			f := dst.Type().Field(i)
			e, ok := m[f.Name]
			if !ok || !f.IsExported() {
				continue
			}
			if err := assign(dst.Field(i), e); err != nil {
				return fmt.Errorf("%s: %w", f.Name, err)
			}
		}
	case reflect.Slice:
		return assignSlice(dst, v)
	case reflect.Map:
		m, ok := v.(map[string]any)
		if !ok || dst.Type().Key().Kind() != reflect.String {
			return wrong()
		}
		dst.Set(reflect.MakeMap(dst.Type()))
		for k, e := range m {
			ev := reflect.New(dst.Type().Elem()).Elem()
			if err := assign(ev, e); err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
			dst.SetMapIndex(reflect.ValueOf(k).Convert(dst.Type().Key()), ev)
		}
	case reflect.String:
		switch v := v.(type) {
		case string:
			dst.SetString(v)
		case []byte:
			dst.SetString(string(v))
		default:
			return wrong()
		}
	case reflect.Bool:
		b, ok := v.(bool)
		if !ok {
			return wrong()
		}
		dst.SetBool(b)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, ok := v.(int64)
		if !ok || dst.OverflowInt(n) {
			return wrong()
		}
		dst.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, ok := v.(uint64)
		if i, isInt := v.(int64); isInt && i >= 0 {
			n, ok = uint64(i), true
		}
		if !ok || dst.OverflowUint(n) {
			return wrong()
		}
		dst.SetUint(n)
	case reflect.Float32, reflect.Float64:
		f, ok := v.(float64)
		if i, isInt := v.(int64); isInt && math.Abs(float64(i)) < 1<<53 {
			f, ok = float64(i), true
		}
		if !ok {
			return wrong()
		}
		dst.SetFloat(f)
	default:
		return wrong()
	}
	return nil
}

func assignSlice(dst reflect.Value, v any) error {
	if dst.Type().Elem().Kind() == reflect.Uint8 {
		switch v := v.(type) {
		case []byte:
			dst.SetBytes(v)
			return nil
		case string:
			dst.SetBytes([]byte(v))
			return nil
		}
	}
	list, ok := v.([]any)
	if !ok {
		return fmt.Errorf("it is %s, not %s", kind(v), dst.Type())
	}
	dst.Set(reflect.MakeSlice(dst.Type(), len(list), len(list)))
	for i, e := range list {
		if err := assign(dst.Index(i), e); err != nil {
			return fmt.Errorf("[%d]: %w", i, err)
		}
	}
	return nil
}

// kind names the kind of a decoded value, for an error.
func kind(v any) string {
	switch v.(type) {
	case bool:
		return "a bool"
	case int64, uint64, float64:
		return fmt.Sprintf("the number %v", v)
	case string:
		return "text"
	case []byte:
		return "binary data"
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	case time.Time:
		return "a time"
	}
	return fmt.Sprintf("a %T", v)
}

package wire

import (
	"fmt"
	"math"
	"reflect"
	"time"
)

// Assign stores a value from [decode] in dst, a pointer. It ignores fields that dst does
// not have, and leaves fields unchanged that the value does not have. If the value does not
// fit, the error names the field.
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
	switch dst.Kind() {
	case reflect.Pointer:
		p := reflect.New(dst.Type().Elem())
		if err := assign(p.Elem(), v); err != nil {
			return err
		}
		dst.Set(p)
		return nil
	case reflect.Struct:
		return assignStruct(dst, v)
	case reflect.Slice:
		return assignSlice(dst, v)
	case reflect.Map:
		return assignMap(dst, v)
	}
	if !assignScalar(dst, v) {
		return unfit(dst, v)
	}
	return nil
}

func unfit(dst reflect.Value, v any) error {
	return fmt.Errorf("it is %s, not %s", kind(v), dst.Type())
}

func assignStruct(dst reflect.Value, v any) error {
	m, ok := v.(map[string]any)
	if !ok || dst.Type() == reflect.TypeFor[time.Time]() {
		return unfit(dst, v)
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
	return nil
}

func assignMap(dst reflect.Value, v any) error {
	m, ok := v.(map[string]any)
	if !ok || dst.Type().Key().Kind() != reflect.String {
		return unfit(dst, v)
	}
	dst.Set(reflect.MakeMap(dst.Type()))
	for k, e := range m {
		ev := reflect.New(dst.Type().Elem()).Elem()
		if err := assign(ev, e); err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
		dst.SetMapIndex(reflect.ValueOf(k).Convert(dst.Type().Key()), ev)
	}
	return nil
}

// assignScalar assigns a text, a truth value or a number, and reports whether it fits.
func assignScalar(dst reflect.Value, v any) (ok bool) {
	switch dst.Kind() {
	case reflect.String:
		switch v := v.(type) {
		case string:
			dst.SetString(v)
			return true
		case []byte:
			dst.SetString(string(v))
			return true
		}
	case reflect.Bool:
		var b bool
		if b, ok = v.(bool); ok {
			dst.SetBool(b)
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, isInt := v.(int64)
		if ok = isInt && !dst.OverflowInt(n); ok {
			dst.SetInt(n)
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, isUint := v.(uint64)
		if i, isInt := v.(int64); isInt && i >= 0 {
			n, isUint = uint64(i), true
		}
		if ok = isUint && !dst.OverflowUint(n); ok {
			dst.SetUint(n)
		}
	case reflect.Float32, reflect.Float64:
		var f float64
		f, ok = v.(float64)
		if i, isInt := v.(int64); isInt && math.Abs(float64(i)) < 1<<53 {
			f, ok = float64(i), true
		}
		if ok {
			dst.SetFloat(f)
		}
	}
	return ok
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

// kind returns the kind of a decoded value, for errors.
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

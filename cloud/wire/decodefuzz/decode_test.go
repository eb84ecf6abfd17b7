// Package decodefuzz has the fuzz targets of the request decoders. The tests of package
// wire need the SDK, which takes minutes to compile for fuzzing; these do not.
package decodefuzz

import (
	"encoding/json"
	"errors"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"bake/cloud/wire"
)

func load(t testing.TB, service string) *wire.Model {
	t.Helper()
	m, err := wire.Load(service)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// input returns a pointer to a struct like the SDK's input of action.
func input(m *wire.Model, action string) any {
	return reflect.New(typeOf(m, m.Operations[action].Input)).Interface()
}

func typeOf(m *wire.Model, shape string) reflect.Type {
	s, compound := m.Shapes[shape]
	switch {
	case !compound:
		return map[string]reflect.Type{
			"string": reflect.TypeFor[string](), "integer": reflect.TypeFor[int32](), "long": reflect.TypeFor[int64](), "boolean": reflect.TypeFor[bool](),
			"double": reflect.TypeFor[float64](), "float": reflect.TypeFor[float32](), "timestamp": reflect.TypeFor[time.Time](), "blob": reflect.TypeFor[[]byte](),
		}[shape]
	case s.List != nil:
		return reflect.SliceOf(typeOf(m, s.List.Shape))
	case s.Map != nil:
		return reflect.MapOf(reflect.TypeFor[string](), typeOf(m, s.Map.Shape))
	}
	var fields []reflect.StructField
	for name, member := range s.Members {
		t := typeOf(m, member.Shape)
		if t.Kind() != reflect.Slice && t.Kind() != reflect.Map {
			t = reflect.PointerTo(t)
		}
		fields = append(fields, reflect.StructField{Name: name, Type: t})
	}
	return reflect.StructOf(fields)
}

// TestInput checks that the structs accept the parameters for which they are made.
func TestInput(t *testing.T) {
	m := load(t, "ec2")
	into := input(m, "RunInstances")
	params := url.Values{"MinCount": {"1"}, "MaxCount": {"2"}, "BlockDeviceMapping.1.Ebs.VolumeSize": {"8"}}
	if err := m.Decode("RunInstances", params, into); err != nil {
		t.Fatal(err)
	}
	size := reflect.ValueOf(into).Elem().FieldByName("BlockDeviceMappings").Index(0).FieldByName("Ebs").Elem().FieldByName("VolumeSize").Elem()
	if size.Int() != 8 {
		t.Errorf("the size is %d, want 8", size.Int())
	}
}

// FuzzDecode checks that any parameters give an API error or none, for a shallow action
// and the deepest one.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"InstanceId.1=i-1&Filter.1.Name=a&Filter.1.Value.1=b", "MinCount=1&MaxCount=1&BlockDeviceMapping.1.Ebs.VolumeSize=1", "a..b=1", ".=", "a=1&a.b=2", "a.b=2&a=1",
		"InstanceId.-1=x", "InstanceId.99999999999999999999=x", strings.Repeat("a.", 40) + "=1", "Filter.1=&Filter.1.Name=x",
	} {
		f.Add(seed)
	}
	m := load(f, "ec2")
	f.Fuzz(func(t *testing.T, query string) {
		params, err := url.ParseQuery(query)
		if err != nil {
			t.Skip()
		}
		for _, action := range []string{"DescribeInstances", "RunInstances"} {
			into := input(m, action)
			if err := m.Decode(action, params, into); err != nil {
				if _, ok := errors.AsType[*wire.Error](err); !ok {
					t.Errorf("%s %q: %v is no error of the API", action, query, err)
				}
			}
		}
	})
}

// FuzzDecodeJSON checks that any body gives an API error or none, and that what decodes is
// a JSON object.
func FuzzDecodeJSON(f *testing.F) {
	for _, seed := range []string{`{"Name":"n","Value":"v"}`, `{"Tags":[{"Key":"k"}]}`, `{"Name":{}}`, `[`, `null`, `{"MaxResults":1e99}`, `{"Overwrite":1}`,
		strings.Repeat(`[`, 100), `{"Tags":null,"Tags":[null]}`} {
		f.Add(seed)
	}
	m := load(f, "ssm")
	f.Fuzz(func(t *testing.T, body string) {
		for _, action := range []string{"PutParameter", "DescribeParameters"} {
			into := input(m, action)
			err := m.DecodeJSON(action, []byte(body), into)
			if _, ok := errors.AsType[*wire.Error](err); err != nil && !ok {
				t.Errorf("%s %q: %v is no error of the API", action, body, err)
			}
			if err == nil && strings.TrimSpace(body) != "" && !json.Valid([]byte(body)) {
				t.Errorf("%s %q: decoded, but is no JSON", action, body)
			}
		}
	})
}

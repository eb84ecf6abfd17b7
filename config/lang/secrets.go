package lang

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// secret registers a text that must not be shown.
func (w World) secret(text string) {
	if w.Secret != nil && text != "" {
		w.Secret(text)
	}
}

// secret2 wraps a function f of Vault, whose results are secrets.
func (w World) secret2(f func(a, b string) (string, error)) func(a, b string) (string, error) {
	return func(a, b string) (string, error) {
		text, err := f(a, b)
		w.secret(text)
		if err == nil {
			w.read(ReadRemote, "vault "+a+" "+b, []byte(text))
		}
		return text, err
	}
}

// consul wraps f and reports what it has read.
func (w World) consul(f func(key string) (string, error)) func(key string) (string, error) {
	return func(key string) (string, error) {
		text, err := f(key)
		if err == nil {
			w.read(ReadRemote, "consul "+key, []byte(text))
		}
		return text, err
	}
}

// ErrNotLookedUp is what [World.SecretsManager] returns for a secret that stays unknown.
var ErrNotLookedUp = errors.New("the secret is not looked up")

// awsSecret is aws_secretsmanager(name, key): one value of a secret that is a
// JSON object, or the whole text of another one.
func awsSecret(w World) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{
			{Name: "name", Type: cty.String},
			{Name: "key", Type: cty.String, AllowNull: true},
		},
		Type: function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			key := ""
			if !args[1].IsNull() {
				key = args[1].AsString()
			}
			return w.lookUp(args[0], func(text string) (string, error) { return secretValue(text, key) })
		},
	})
}

// awsSecretRaw is aws_secretsmanager_raw(name): the whole text of a secret.
func awsSecretRaw(w World) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "name", Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			return w.lookUp(args[0], func(text string) (string, error) { return text, nil })
		},
	})
}

// lookUp returns the part of a secret's text that pick selects, and marks both as secret.
func (w World) lookUp(name cty.Value, pick func(text string) (string, error)) (cty.Value, error) {
	if w.SecretsManager == nil {
		return cty.UnknownVal(cty.String), nil
	}
	text, err := w.SecretsManager(name.AsString())
	if errors.Is(err, ErrNotLookedUp) {
		return cty.UnknownVal(cty.String), nil
	}
	if err != nil {
		return cty.UnknownVal(cty.String), function.NewArgError(0, err)
	}
	w.secret(text)
	w.read(ReadRemote, "secret "+name.AsString(), []byte(text))
	value, err := pick(text)
	if err != nil {
		return cty.UnknownVal(cty.String), function.NewArgErrorf(0, "the secret %s %w", name.AsString(), err)
	}
	w.secret(value)
	return cty.StringVal(value), nil
}

// secretValue returns the value of key in text, a JSON object, or its only value
// if key is empty. Text that is no JSON object is a value itself.
func secretValue(text, key string) (string, error) {
	var object map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if d.Decode(&object) != nil || d.More() || object == nil {
		return text, nil
	}
	keys := slices.Sorted(maps.Keys(object))
	if key == "" {
		if len(keys) != 1 {
			return "", fmt.Errorf("has %d values: specify the key of one", len(keys))
		}
		key = keys[0]
	}
	switch v := object[key].(type) {
	case nil:
		return "", fmt.Errorf("has no %q.%s", key, DidYouMean(key, keys))
	case string:
		return v, nil
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return strconv.FormatInt(i, 10), nil
		}
		if f, err := v.Float64(); err == nil {
			return strconv.FormatFloat(f, 'f', 0, 64), nil // without decimals, as templates expect it
		}
	}
	return "", fmt.Errorf("has a value for %q that is neither a string nor a number", key)
}

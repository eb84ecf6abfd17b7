package goss

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/blang/semver/v4"
	"github.com/tidwall/gjson"
)

// matcher is a requirement. It keeps no state between calls.
type matcher interface {
	// match reports whether actual meets the requirement; an error means that this cannot
	// be determined.
	match(actual any) (bool, error)
	// failure describes an actual value that does not match or, if negated, one that
	// matches but should not.
	failure(actual any) Failure
	negated(actual any) Failure
	// plain returns the matcher in the form for JSON.
	plain() any
}

// Failure describes a fact that does not meet a requirement.
type Failure struct {
	Actual    any    // what was compared, after the transforms
	Message   string // such as "to equal"
	Expected  any
	Missing   any // elements of Expected without a match
	Extra     any // elements of Actual without a match
	Found     any // elements of Expected with a match
	Transform []any
	Raw       any // the fact before the transforms, if the matcher has any
}

// simple is a requirement with one expected value.
type simple struct {
	message  string // after "to " or "not to "
	expected any
	shown    any // as JSON
	holds    func(actual any) (bool, error)
}

func (m simple) match(actual any) (bool, error) { return m.holds(actual) }

func (m simple) failure(actual any) Failure {
	return Failure{Actual: actual, Message: "to " + m.message, Expected: m.expected}
}

func (m simple) negated(actual any) Failure {
	return Failure{Actual: actual, Message: "not to " + m.message, Expected: m.expected}
}

func (m simple) plain() any { return m.shown }

// equal requires the value itself. Numbers are compared by value, regardless of their
// types; other values equal only values of the same kind.
func equal(want any) matcher {
	return simple{"equal", want, want, func(actual any) (bool, error) {
		if actual == nil && want == nil {
			return false, errors.New("nothing was compared with nothing")
		}
		return same(actual, want), nil
	}}
}

func same(a, b any) bool {
	if x, ok := toFloat(a); ok {
		y, ok := toFloat(b)
		return ok && x == y
	}
	x, ok := elements(a)
	y, alike := elements(b)
	if ok && alike {
		return slices.EqualFunc(x, y, same)
	}
	m, ok := a.(map[string]any)
	n, alike := b.(map[string]any)
	if ok && alike {
		return maps.EqualFunc(m, n, same)
	}
	return reflect.DeepEqual(a, b)
}

// elements returns the elements of a list of any kind.
func elements(v any) ([]any, bool) {
	switch v := v.(type) {
	case []any:
		return v, true
	case []string:
		out := make([]any, len(v))
		for i, s := range v {
			out[i] = s
		}
		return out, true
	}
	return nil, false
}

// members returns the elements of a list or the values of a map, whose names are sorted.
func members(v any) ([]any, bool) {
	if m, ok := v.(map[string]any); ok {
		var out []any
		for _, k := range slices.Sorted(maps.Keys(m)) {
			out = append(out, m[k])
		}
		return out, true
	}
	return elements(v)
}

func toFloat(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

// numeric requires a relation to a number.
func numeric(relation string, want any, holds func(c int) bool) matcher {
	limit, _ := toFloat(want)
	return transformed{toNumeric(), simple{"be numerically " + relation, want, map[string]any{relation: want}, func(actual any) (bool, error) {
		n, ok := toFloat(actual)
		if !ok {
			return false, unfit{"not a number: %s", actual}
		}
		return !math.IsNaN(n) && !math.IsNaN(limit) && holds(cmp.Compare(n, limit)), nil
	}}}
}

// textual is a requirement on a text.
func textual(name, message, want string, holds func(text string) bool) matcher {
	return transformed{toText(), simple{message, want, map[string]any{name: want}, func(actual any) (bool, error) {
		return holds(actual.(string)), nil
	}}}
}

func haveLen(want any) matcher {
	n, _ := toFloat(want)
	return simple{"have length", int(n), map[string]any{"have-len": int(n)}, func(actual any) (bool, error) {
		var length int
		switch v := actual.(type) {
		case string:
			length = len(v)
		default:
			list, ok := members(v)
			if !ok {
				return false, unfit{"only a string, a list or a map has a length, not %s", actual}
			}
			length = len(list)
		}
		return length == int(n), nil
	}}
}

func haveKey(key matcher) matcher {
	return simple{"have key matching", key.plain(), map[string]any{"have-key": key.plain()}, func(actual any) (bool, error) {
		m, ok := actual.(map[string]any)
		if !ok {
			return false, unfit{"only a map has keys, not %s", actual}
		}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if ok, err := key.match(k); ok || err != nil {
				return ok && err == nil, err
			}
		}
		return false, nil
	}}
}

func containElement(element matcher) matcher {
	return transformed{toList(), simple{"contain element matching", element.plain(), map[string]any{"contain-element": element.plain()}, func(actual any) (bool, error) {
		list, ok := members(actual)
		if !ok {
			return false, unfit{"only a list or a map contains elements, not %s", actual}
		}
		var last error
		for _, v := range list {
			ok, err := element.match(v)
			if ok && err == nil {
				return true, nil
			}
			if err != nil {
				last = err
			}
		}
		return false, last
	}}}
}

// semverConstraint requires that every version is in a range.
func semverConstraint(want string, allowed semver.Range) matcher {
	return simple{"satisfy semver constraint", want, map[string]any{"semver-constraint": want}, func(actual any) (bool, error) {
		list, ok := elements(actual)
		if !ok {
			list = []any{actual}
		}
		versions := make([]semver.Version, len(list))
		for i, v := range list {
			text, _ := v.(string)
			var err error
			if versions[i], err = semver.Parse(text); err != nil {
				return false, unfit{"not a semantic version such as 1.2.3: %s", v}
			}
		}
		if len(versions) == 0 {
			return false, errors.New("there is no version")
		}
		return !slices.ContainsFunc(versions, func(v semver.Version) bool { return !allowed(v) }), nil
	}}
}

// contain requires that each of its matchers matches a different element and, with exact,
// that there are no further elements.
type contain struct {
	matchers []matcher
	exact    bool
}

// pair finds a maximum matching of matchers and elements, and returns the matchers that
// are paired, and the matchers and elements that are not.
func (m contain) pair(list []any) (found, missing []matcher, extra []any) {
	fits := make([][]int, len(m.matchers)) // indexes of the elements that a matcher matches
	for i, want := range m.matchers {
		for j, v := range list {
			if ok, err := want.match(v); ok && err == nil {
				fits[i] = append(fits[i], j)
			}
		}
	}
	owner := make([]int, len(list)) // 1 + index of the matcher of an element
	var try func(i int, seen []bool) bool
	try = func(i int, seen []bool) bool {
		for _, j := range fits[i] {
			if seen[j] {
				continue
			}
			seen[j] = true
			if owner[j] == 0 || try(owner[j]-1, seen) {
				owner[j] = i + 1
				return true
			}
		}
		return false
	}
	paired := make([]bool, len(m.matchers))
	for i := range m.matchers {
		paired[i] = try(i, make([]bool, len(list)))
	}
	for i, want := range m.matchers {
		if paired[i] {
			found = append(found, want)
		} else {
			missing = append(missing, want)
		}
	}
	for j, v := range list {
		if owner[j] == 0 {
			extra = append(extra, v)
		}
	}
	return found, missing, extra
}

func (m contain) match(actual any) (bool, error) {
	list, ok := members(actual)
	if !ok {
		return false, unfit{"only a list or a map contains elements, not %s", actual}
	}
	_, missing, extra := m.pair(list)
	return len(missing) == 0 && (!m.exact || len(extra) == 0), nil
}

func (m contain) message() string {
	if m.exact {
		return "consist of"
	}
	return "contain elements matching"
}

func (m contain) failure(actual any) Failure {
	list, _ := members(actual)
	found, missing, extra := m.pair(list)
	f := Failure{Actual: actual, Message: "to " + m.message(), Expected: plains(m.matchers), Found: plains(found)}
	if len(missing) > 0 {
		f.Missing = plains(missing)
	}
	if m.exact && len(extra) > 0 {
		f.Extra = extra
	}
	return f
}

func (m contain) negated(actual any) Failure {
	return Failure{Actual: actual, Message: "not to " + m.message(), Expected: plains(m.matchers)}
}

func (m contain) plain() any {
	if m.exact {
		return map[string]any{"consist-of": plains(m.matchers)}
	}
	return map[string]any{"contain-elements": plains(m.matchers)}
}

func plains(ms []matcher) []any {
	out := make([]any, len(ms))
	for i, m := range ms {
		out[i] = m.plain()
	}
	return out
}

type not struct{ matcher }

func (m not) match(actual any) (bool, error) {
	ok, err := m.matcher.match(actual)
	return !ok && err == nil, err
}

func (m not) failure(actual any) Failure { return m.matcher.negated(actual) }
func (m not) negated(actual any) Failure { return m.matcher.failure(actual) }
func (m not) plain() any                 { return map[string]any{"not": m.matcher.plain()} }

// and requires that all matchers match. The first that does not, or that returns an
// error, decides.
type and []matcher

func (m and) first(actual any) (failed matcher, err error) {
	for _, x := range m {
		if ok, err := x.match(actual); !ok || err != nil {
			return x, err
		}
	}
	return nil, nil
}

func (m and) match(actual any) (bool, error) {
	failed, err := m.first(actual)
	return failed == nil, err
}

func (m and) failure(actual any) Failure {
	if failed, _ := m.first(actual); failed != nil {
		return failed.failure(actual)
	}
	return Failure{Actual: actual, Message: "to satisfy all of these matchers", Expected: plains(m)}
}

func (m and) negated(actual any) Failure {
	return Failure{Actual: actual, Message: "not to satisfy all of these matchers", Expected: plains(m)}
}

func (m and) plain() any {
	if len(m) == 1 {
		return m[0].plain()
	}
	return map[string]any{"and": plains(m)}
}

// or requires that one matcher matches. The first that does, or that returns an error,
// decides.
type or []matcher

func (m or) match(actual any) (bool, error) {
	for _, x := range m {
		if ok, err := x.match(actual); ok || err != nil {
			return ok && err == nil, err
		}
	}
	return false, nil
}

func (m or) failure(actual any) Failure {
	return Failure{Actual: actual, Message: "to satisfy at least one of these matchers", Expected: plains(m)}
}

func (m or) negated(actual any) Failure {
	for _, x := range m {
		if ok, err := x.match(actual); ok && err == nil {
			return x.negated(actual)
		}
	}
	return Failure{Actual: actual, Message: "not to satisfy any of these matchers", Expected: plains(m)}
}

func (m or) plain() any { return map[string]any{"or": plains(m)} }

// transform converts a fact before it is compared.
type transform struct {
	shown any // as JSON
	apply func(any) (any, error)
}

func toText() transform {
	return transform{map[string]any{"to-string": map[string]any{}}, func(v any) (any, error) { return asText(v), nil }}
}

func toList() transform { return transform{map[string]any{"to-array": map[string]any{}}, asList} }

func toNumeric() transform {
	return transform{map[string]any{"to-numeric": map[string]any{}}, asNumber}
}

func asText(v any) string {
	if list, ok := elements(v); ok {
		lines := make([]string, len(list))
		for i, x := range list {
			lines[i] = fmt.Sprint(x)
		}
		return strings.Join(lines, "\n")
	}
	return fmt.Sprint(v)
}

func asList(v any) (any, error) {
	if s, ok := v.(string); ok {
		return strings.Split(s, "\n"), nil
	}
	return v, nil
}

func asNumber(v any) (any, error) {
	if _, ok := toFloat(v); ok {
		return v, nil
	}
	text, ok := v.(string)
	if list, isList := v.([]string); isList {
		text, ok = strings.Join(list, "\n"), true
	}
	if ok {
		if n, err := strconv.ParseFloat(strings.TrimSpace(text), 64); err == nil {
			return n, nil
		}
	}
	return nil, unfit{"not a number: %s", v}
}

// atPath returns the value at a path in JSON.
func atPath(path string) transform {
	return transform{map[string]any{"gjson": map[string]any{"Path": path}}, func(v any) (any, error) {
		text, ok := v.(string)
		if !ok {
			return nil, unfit{"not a text of JSON: %s", v}
		}
		if !json.Valid([]byte(text)) { // limits the depth, which gjson's own does not
			return nil, errors.New("invalid JSON")
		}
		found := gjson.Get(text, path)
		if !found.Exists() {
			return nil, fmt.Errorf("path not found: %s", path)
		}
		return found.Value(), nil
	}}
}

// transformed compares a fact after a transform.
type transformed struct {
	transform transform
	matcher   matcher
}

func (m transformed) match(actual any) (bool, error) {
	v, err := m.transform.apply(actual)
	if err != nil {
		return false, err
	}
	return m.matcher.match(v)
}

func (m transformed) failure(actual any) Failure { return m.through(actual, m.matcher.failure) }
func (m transformed) negated(actual any) Failure { return m.through(actual, m.matcher.negated) }

func (m transformed) through(actual any, why func(any) Failure) Failure {
	v, err := m.transform.apply(actual)
	if err != nil {
		f := why(nil)
		return Failure{Message: f.Message, Expected: f.Expected, Transform: []any{m.transform.shown}, Raw: actual}
	}
	f := why(v)
	if !reflect.DeepEqual(v, actual) {
		f.Transform = append([]any{m.transform.shown}, f.Transform...)
	}
	f.Raw = actual
	return f
}

func (m transformed) plain() any { return m.matcher.plain() }

// unfit is the error of a value that a matcher does not accept.
type unfit struct {
	why   string // with a %s for the value
	value any
}

func (u unfit) Error() string {
	kind, text := describe(u.value)
	return fmt.Sprintf(u.why, strings.TrimSuffix(kind+" "+text, " "))
}

// hidden returns the error without the value.
func (u unfit) hidden() string {
	kind, _ := describe(u.value)
	return fmt.Sprintf(u.why, kind)
}

// describe returns the kind of the value v, and its text, for an error.
func describe(v any) (kind, text string) {
	switch v := v.(type) {
	case nil:
		return "nothing", ""
	case string:
		return "the string", strconv.Quote(clip(v, 100))
	case bool:
		return "the boolean", strconv.FormatBool(v)
	case int, int64, float64:
		return "the number", fmt.Sprint(v)
	}
	return "the value", clip(asJSON(v), 100)
}

// clip shortens a text that is longer than n bytes.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// expression compiles a regular expression of a file.
func expression(s string) (*regexp.Regexp, error) {
	re, err := regexp.Compile(s)
	if err != nil {
		return nil, fmt.Errorf("%w; the syntax is that of RE2", err)
	}
	return re, nil
}

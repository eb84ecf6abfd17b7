package goss

import (
	"strings"

	"github.com/blang/semver/v4"
	"github.com/hashicorp/hcl/v2"

	"bake/config/lang"
)

// matcherNames are the names of matchers in a mapping.
var matcherNames = []string{
	"equal", "have-prefix", "have-suffix", "contain-substring", "match-regexp", "have-patterns", "gt", "ge", "lt", "le",
	"have-len", "have-key", "contain-element", "contain-elements", "consist-of", "not", "and", "or", "semver-constraint", "gjson", "xml",
}

// compile makes a matcher from the value of an attribute in a file. An error that goss
// detects only when it runs the test is a warning, and the attribute cannot be judged:
// published suites contain a few such tests among hundreds of valid ones. An unknown
// matcher is an error.
func compile(n *node) (matcher, *hcl.Diagnostic) {
	switch v := n.value.(type) {
	case string:
		return transformed{toText(), equal(v)}, nil
	case bool:
		return equal(v), nil
	case int, float64:
		return numeric("eq", v, func(c int) bool { return c == 0 }), nil
	case []*node:
		ms, d := compileAll(v)
		return contain{matchers: ms}, d
	case fields:
		if len(v) == 1 {
			return compileNamed(v[0])
		}
		if len(v) == 0 {
			return nil, hint(n.at, "Missing matcher", "An empty mapping demands nothing.")
		}
		return nil, hint(v[1].at, "Several matchers in one mapping", "Only one matcher is allowed here, and %q is one already. Combine several with and: [{…}, {…}].", v[0].name)
	}
	return nil, hint(n.at, "Missing value", "There is nothing to compare with. For the text null write \"null\" in quotes.")
}

func compileAll(list []*node) ([]matcher, *hcl.Diagnostic) {
	ms := make([]matcher, len(list))
	for i, x := range list {
		var d *hcl.Diagnostic
		if ms[i], d = compile(x); d != nil {
			return nil, d
		}
	}
	return ms, nil
}

// compilePatterns makes a matcher from a list of patterns.
func compilePatterns(list []*node) (matcher, *hcl.Diagnostic) {
	m := havePatterns{make([]pattern, len(list))}
	for i, x := range list {
		s, ok := x.value.(string)
		if !ok {
			return nil, hint(x.at, "Not a pattern", "A pattern is a string, not %s. Put it in quotes.", x.kind())
		}
		var err error
		if m.patterns[i], err = newPattern(s); err != nil {
			return nil, hint(x.at, "Invalid regular expression", "%s; the syntax is that of RE2.", err)
		}
	}
	return m, nil
}

// compileNamed makes a matcher from "name: argument".
func compileNamed(f field) (matcher, *hcl.Diagnostic) {
	switch f.name {
	case "equal":
		return equal(f.node.plain()), nil
	case "have-prefix", "have-suffix", "contain-substring", "match-regexp", "semver-constraint":
		return compileText(f)
	case "have-patterns":
		list, d := listOf(f)
		if d != nil {
			return nil, d
		}
		m, d := compilePatterns(list)
		return transformed{toText(), m}, d
	case "gt", "ge", "lt", "le", "have-len":
		return compileNumber(f)
	case "have-key", "not", "contain-element":
		return compileOne(f)
	case "contain-elements", "consist-of", "and", "or":
		return compileList(f)
	case "gjson":
		return compileGjson(f)
	case "xml":
		return compileXML(f)
	}
	return nil, fault(f.at, "Unknown matcher", "%s%s", unknownMatcher(f.name), lang.DidYouMean(f.name, matcherNames))
}

func unknownMatcher(name string) string {
	if name == "have-key-with-value" {
		return "goss has had no have-key-with-value since version 0.4. Use gjson: {KEY: VALUE} for a text of JSON."
	}
	return "There is no matcher of the name " + name + ". The matchers are " + strings.Join(matcherNames, ", ") + "."
}

func argument(f field, want string) *hcl.Diagnostic {
	return hint(f.node.at, "Wrong argument", "%s takes %s, not %s.", f.name, want, f.node.kind())
}

func listOf(f field) ([]*node, *hcl.Diagnostic) {
	list, ok := f.node.value.([]*node)
	if !ok {
		return nil, argument(f, "a list")
	}
	return list, nil
}

func compileText(f field) (matcher, *hcl.Diagnostic) {
	want, ok := f.node.value.(string)
	if !ok {
		return nil, argument(f, "a string")
	}
	switch f.name {
	case "have-prefix":
		return textual(f.name, "have prefix", want, func(s string) bool { return strings.HasPrefix(s, want) }), nil
	case "have-suffix":
		return textual(f.name, "have suffix", want, func(s string) bool { return strings.HasSuffix(s, want) }), nil
	case "contain-substring":
		return textual(f.name, "contain substring", want, func(s string) bool { return strings.Contains(s, want) }), nil
	case "match-regexp":
		re, err := expression(want)
		if err != nil {
			return nil, hint(f.node.at, "Invalid regular expression", "%s.", err)
		}
		return textual(f.name, "match regular expression", want, re.MatchString), nil
	}
	allowed, err := semver.ParseRange(want)
	if err != nil {
		return nil, hint(f.node.at, "Invalid version constraint", "%s. Write something such as \">=1.2.0 <2.0.0\".", err)
	}
	return semverConstraint(want, allowed), nil
}

func compileNumber(f field) (matcher, *hcl.Diagnostic) {
	if _, ok := toFloat(f.node.value); !ok {
		return nil, argument(f, "a number without quotes")
	}
	if f.name == "have-len" {
		return haveLen(f.node.value), nil
	}
	holds := map[string]func(int) bool{
		"gt": func(c int) bool { return c > 0 },
		"ge": func(c int) bool { return c >= 0 },
		"lt": func(c int) bool { return c < 0 },
		"le": func(c int) bool { return c <= 0 },
	}
	return numeric(f.name, f.node.value, holds[f.name]), nil
}

func compileOne(f field) (matcher, *hcl.Diagnostic) {
	if f.name == "contain-element" {
		switch f.node.value.(type) {
		case bool, []*node:
			return nil, argument(f, "a string, a number or a matcher")
		}
	}
	m, d := compile(f.node)
	if d != nil {
		return nil, d
	}
	switch f.name {
	case "have-key":
		return haveKey(m), nil
	case "not":
		return not{m}, nil
	}
	return containElement(m), nil
}

func compileList(f field) (matcher, *hcl.Diagnostic) {
	list, d := listOf(f)
	if d != nil {
		return nil, d
	}
	ms, d := compileAll(list)
	if d != nil {
		return nil, d
	}
	switch f.name {
	case "and":
		return and(ms), nil
	case "or":
		return or(ms), nil
	case "consist-of":
		return contain{ms, true}, nil
	}
	return transformed{toList(), contain{matchers: ms}}, nil
}

func compileGjson(f field) (matcher, *hcl.Diagnostic) {
	paths, ok := f.node.value.(fields)
	if !ok {
		return nil, argument(f, "a mapping of paths to matchers")
	}
	var all and
	for _, p := range paths {
		m, d := compile(p.node)
		if d != nil {
			return nil, d
		}
		all = append(all, transformed{atPath(p.name), m})
	}
	return all, nil
}

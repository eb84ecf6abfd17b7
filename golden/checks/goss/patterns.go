package goss

import (
	"bufio"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"bake/internal/lazyregexp"
)

// maxLine is the maximum length of a line that patterns are tried on.
const maxLine = 1 << 20

// pattern is a pattern that some line of a text must match, or that none may match.
type pattern struct {
	written string
	none    bool           // begins with "!"
	regexp  *regexp.Regexp // nil: a substring
	text    string
}

// delimited matches "/…/" with flags, the only form of a regular expression.
var delimited = lazyregexp.New(`(?s)^!?/(.*)/([ims]*)$`)

func newPattern(s string) (pattern, error) {
	p := pattern{written: s, none: strings.HasPrefix(s, "!"), text: strings.TrimLeft(s, `\/!`)}
	if m := delimited.Get().FindStringSubmatch(s); m != nil {
		expr := m[1]
		if m[2] != "" {
			expr = "(?" + m[2] + ")" + expr
		}
		var err error
		if p.regexp, err = regexp.Compile(expr); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (p pattern) matches(line string) bool {
	if p.regexp != nil {
		return p.regexp.MatchString(line)
	}
	return strings.Contains(line, p.text)
}

// havePatterns requires that all of its patterns hold.
type havePatterns struct{ patterns []pattern }

// try returns the patterns that hold. It reads lines only until every pattern is decided.
func (m havePatterns) try(actual any) (found []string, err error) {
	text, ok := actual.(string)
	if list, isList := actual.([]string); isList {
		text, ok = strings.Join(list, "\n"), true
	}
	if !ok && len(m.patterns) > 0 {
		return nil, unfit{"patterns need a text, not %s", actual}
	}
	open := slices.Clone(m.patterns)
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, maxLine)
	for len(open) > 0 && lines.Scan() {
		open = slices.DeleteFunc(open, func(p pattern) bool {
			if !p.matches(lines.Text()) {
				return false
			}
			if !p.none {
				found = append(found, p.written)
			}
			return true
		})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("a line is longer than %d bytes: %w", maxLine, err)
	}
	for _, p := range open {
		if p.none || p.written == "" {
			found = append(found, p.written)
		}
	}
	return found, nil
}

func (m havePatterns) match(actual any) (bool, error) {
	found, err := m.try(actual)
	return err == nil && len(found) == len(m.patterns), err
}

func (m havePatterns) strings() []string {
	out := make([]string, len(m.patterns))
	for i, p := range m.patterns {
		out[i] = p.written
	}
	return out
}

func (m havePatterns) failure(actual any) Failure {
	found, _ := m.try(actual)
	f := Failure{Actual: actual, Message: "to have patterns", Expected: m.strings(), Found: nonEmpty(found)}
	f.Missing = nonEmpty(slices.DeleteFunc(m.strings(), func(s string) bool { return slices.Contains(found, s) }))
	return f
}

func (m havePatterns) negated(actual any) Failure {
	return Failure{Actual: actual, Message: "not to have patterns", Expected: m.strings()}
}

func (m havePatterns) plain() any { return map[string]any{"have-patterns": m.strings()} }

// nonEmpty is list, or nil without a type.
func nonEmpty(list []string) any {
	if len(list) == 0 {
		return nil
	}
	return list
}

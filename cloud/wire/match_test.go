package wire

import (
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		pattern, text string
		escape        Escape
		want          bool
	}{
		{"", "", NoEscape, true}, {"", "a", NoEscape, false}, {"a", "", NoEscape, false}, {"a", "a", NoEscape, true}, {"a", "A", NoEscape, false},
		{"*", "", NoEscape, true}, {"*", "any/thing", NoEscape, true}, {"**", "x", NoEscape, true}, {"*a", "ba", NoEscape, true}, {"*a", "ab", NoEscape, false},
		{"a?c", "abc", NoEscape, true}, {"a?c", "ac", NoEscape, false}, {"a?c", "a/c", NoEscape, true}, {"?", "é", NoEscape, true}, {"??", "é", NoEscape, false}, {"*?é", "éé", NoEscape, true},
		{"a*b*c", "aXbXbc", NoEscape, true}, {"a*b*c", "aXbXb", NoEscape, false}, {"*ab*ab", "abab", NoEscape, true}, {"*aab", "aaaab", NoEscape, true},
		{"[ab]", "a", NoEscape, false}, {"[ab]", "[ab]", NoEscape, true}, {"\xff?", "\xff\xfe", NoEscape, true}, {"\xff", "\xfe", NoEscape, false},
		{`a\*c`, "a*c", Backslash, true}, {`a\*c`, "abc", Backslash, false}, {`a\?`, "a?", Backslash, true}, {`a\?`, "ab", Backslash, false}, {`\\`, `\`, Backslash, true}, {`\a`, "a", Backslash, true},
		{`a\`, `a\`, Backslash, true}, {`a\`, "a", Backslash, false}, {`*\**`, "a*b", Backslash, true}, {`*\**`, "ab", Backslash, false}, {`\é`, "é", Backslash, true},
		{`a\*c`, "a*c", NoEscape, false}, {`a\*c`, `a\bc`, NoEscape, true}, {`a\?`, `a\b`, NoEscape, true}, {`\`, `\`, NoEscape, true},
	} {
		if got := Match(test.pattern, test.text, test.escape); got != test.want {
			t.Errorf("Match(%q, %q, %q) = %v", test.pattern, test.text, test.escape, got)
		}
	}
}

// TestMatchSteps checks that Match takes no more steps than the lengths of any pattern and
// text allow.
func TestMatchSteps(t *testing.T) {
	const n = 1000
	for _, test := range []struct {
		name, pattern, text string
		want                bool
		most                int
	}{
		{"stars", strings.Repeat("*", n), strings.Repeat("a", n), true, 3 * n},
		{"stars and a last letter", strings.Repeat("*", n) + "b", strings.Repeat("a", n), false, 4 * n},
		{"letters between stars", strings.Repeat("a*", n) + "b", strings.Repeat("a", n), false, 4 * n},
		{"letters between stars, long text", strings.Repeat("*a", n) + "b", strings.Repeat("a", 2*n), false, 2 * n * 3},
		{"escaped stars", strings.Repeat(`*\*`, n) + "b", strings.Repeat("*", n), false, 4 * n},
		{"the slowest", "*" + strings.Repeat("a", n) + "b", strings.Repeat("a", 2*n), false, (n + 2) * 2 * n},
	} {
		ok, steps := match(test.pattern, test.text, Backslash)
		if ok != test.want || steps > test.most {
			t.Errorf("%s: %v in %d steps, at most %d are expected", test.name, ok, steps, test.most)
		}
	}
}

package image

import "testing"

// TestMatches checks that patterns have the syntax of EC2's filters rather than that of file names.
func TestMatches(t *testing.T) {
	for _, test := range []struct {
		pattern, value string
		want           bool
	}{
		{"ubuntu/*-amd64", "ubuntu/images/jammy-amd64", true}, {"[a]?", "[a]b", true}, {"[a]", "a", false}, {`a\*`, "a*", true}, {`a\*`, "ab", false}, {`a\`, `a\`, true},
	} {
		if got := matches(test.value, []string{"other", test.pattern}); got != test.want {
			t.Errorf("matches(%q, %q) = %v", test.value, test.pattern, got)
		}
	}
	if !matches("any", nil) {
		t.Error("no patterns do not match everything")
	}
}

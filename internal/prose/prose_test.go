package prose

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

func TestSentence(t *testing.T) {
	for text, want := range map[string]string{
		"":                   "",
		"it is late":         "It is late.",
		"it is late.":        "It is late.",
		"été":                "Été.",
		"éteint":             "Éteint.",
		"2 of 3":             "2 of 3.",
		"\xff is not a rune": "\xff is not a rune.",
	} {
		if got := Sentence(text); got != want {
			t.Errorf("Sentence(%q) is %q, not %q", text, got, want)
		}
	}
}

func TestOnePoint(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "",
		"open x: Cannot find the path..":       "open x: Cannot find the path.",
		"Cannot open it: Gone.. Make it.\nA..": "Cannot open it: Gone. Make it.\nA.",
		"See ../x and a..b, and so on...":      "See ../x and a..b, and so on...",
		"1.. .. \xff":                          "1.. .. \xff",
	} {
		if got := OnePoint(text); got != want {
			t.Errorf("OnePoint(%q) is %q, not %q", text, got, want)
		}
	}
}

// TestMissing: only who names a path that is relative learns where such paths start.
func TestBeginning(t *testing.T) {
	for _, c := range []struct {
		text string
		most int
		want string
	}{{"abcdef", 6, "abcdef"}, {"abcdefg", 6, "abc..."}, {"abüdefg", 6, "ab..."}, {"", 3, ""}} {
		if got := Beginning(c.text, c.most); got != c.want {
			t.Errorf("Beginning(%q, %d) is %q, not %q", c.text, c.most, got, c.want)
		}
	}
}

func TestMissing(t *testing.T) {
	here, err := filepath.Abs("x.sh")
	if err != nil {
		t.Fatal(err)
	}
	for path, hint := range map[string]bool{"x.sh": true, "../x.sh": true, here: false} {
		if got := Missing("file", path); strings.Contains(got, "current directory") != hint || !strings.Contains(got, fmt.Sprintf("%q", path)) {
			t.Errorf("%s: %s", path, got)
		}
	}
}

func TestTable(t *testing.T) {
	table := NewTable("NAME", "N", "NOTE")
	table.Row("web", 12, "")
	table.Row("a\tb\nc\x1b[2J", 3, "last")
	const want = "NAME       N   NOTE\nweb        12  \na\uFFFDb\uFFFDc\uFFFD[2J  3   last"
	if got := table.String(); got != want {
		t.Errorf("the table is\n%q, not\n%q", got, want)
	}
	var groups Table
	groups.Row("first")
	groups.Row("  a", "b")
	groups.Row("second")
	groups.Row("  wide", "b")
	if got, want := groups.String(), "first\n  a  b\nsecond\n  wide  b"; got != want {
		t.Errorf("the groups are\n%q, not\n%q", got, want)
	}
	if got := new(Table).String(); got != "" {
		t.Errorf("an empty table is %q", got)
	}
}

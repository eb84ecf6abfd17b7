package prose

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
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

// message is a system's text of an error.
type message string

func (m message) Error() string { return string(m) }

// TestOnePoint: the second full stop is removed only after a message of the system.
func TestOnePoint(t *testing.T) {
	gone := &fs.PathError{Op: "open", Path: "a..", Err: message("Gone.")}
	for want, args := range map[string][]any{
		"open a..: Gone.":                   {"%s.", gone},
		"In b..: open a..: Gone. Make it.":  {"In %s: %v. Make it.", "b..", gone},
		"Write x.. There is no x...":        {"%s There is no %v.", "Write x..", errors.New("x..")},
		"x: gone.":                          {"%s.", fmt.Errorf("x: %w", message("gone"))},
		"Neither: read: Gone., nor anybody": {"Neither: read: %s, nor anybody", message("Gone.")},
	} {
		if got := onePoint[message](fmt.Sprintf(args[0].(string), args[1:]...), args[1:]); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got, want := Sprintf("%s: %v.", "x..", syscall.ENOENT), fmt.Sprintf("x..: %s.", strings.TrimSuffix(syscall.ENOENT.Error(), ".")); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestMissing: for relative paths, the message says what they are relative to.
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
	if got := table.Within(19); got != table.String() {
		t.Errorf("a table that fits is\n%q", got)
	}
	folded := NewTable("NAME", "N", "NOTE")
	folded.Row("web", 12, "-")
	folded.Row("db", 3, "a note of some words")
	folded.Row("", "", "  and more")
	const blocks = "web\n  N     12\ndb\n  N     3\n  NOTE  a note of\n        some words\n  NOTE  and more"
	if got := folded.Within(20); got != blocks {
		t.Errorf("the blocks are\n%s\nnot\n%s", got, blocks)
	}
	if got := folded.Within(0); got != folded.String() {
		t.Errorf("without a terminal the table is\n%s", got)
	}
	if got := new(Table).String(); got != "" {
		t.Errorf("an empty table is %q", got)
	}
}

func TestFill(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"one two\nthree  four five", "  one two three\n  four five"},
		{"set `a b c d e f g h i` to it", "  set\n  `a b c d e f g h i`\n  to it"},
		{"as (`a b`, `c d`) and so on", "  as (`a b`,\n  `c d`) and so\n  on"},
		{"a `quotation that does not end", "  a `quotation\n  that does not\n  end"},
		{"überüberüber öö ä", "  überüberüber\n  öö ä"},
	} {
		if got := Fill(c.text, "  ", 15); got != c.want {
			t.Errorf("%q:\n%s\nwant\n%s", c.text, got, c.want)
		}
	}
}

// TestPrintable: what a program, a plugin or a server says cannot change the terminal, and keeps its
// lines only where that is wanted.
func TestPrintable(t *testing.T) {
	const text = "a\r\n\tb\rc\x1b[2Jü\u202e\xff"
	if got, want := Printable(text), "a\ufffd\ufffd\ufffdb\ufffdc\ufffd[2Jü\ufffd\ufffd"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := PrintableLines(text), "a\n\tb\ufffdc\ufffd[2Jü\ufffd\ufffd"; got != want {
		t.Errorf("lines: %q, want %q", got, want)
	}
}

package ui

import (
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
)

// TestStrip checks that no control sequence in output reaches the terminal.
func TestStrip(t *testing.T) {
	for in, want := range map[string]string{
		"":                "",
		"plain\ttext\r\n": "plain\ttext\r\n",
		"\x1b[1;31mred\x1b[0m, \x1b[2Kü世\x1b[?25l":      "red, ü世",
		"a\x1b]0;title\x07b":                            "ab",
		"a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\":     "alink",
		"a\x1bPq#0;2\x07still\x1b\\b":                   "ab",
		"a\x1b_apc\x1b\\b\x1b^pm\x1b\\c\x1bXsos\x1b\\d": "abcd",
		"a\x1b(Bb\x1b#8c\x1bMd\x1b7e":                   "abcde",
		"a\x1b[2":                                       "a", // incomplete
		"a\x1b]0;never ended":                           "a",
		"a\x1b":                                         "a",
		"a\x1b[3\x18b":                                  "ab", // cancelled
		"a\x1b[1\x1b[2Jb":                               "ab",
		"a\x9b2Jb\x9d0;t\x9cc":                          "abc", // 8-bit forms
		"a\u009b2Jb\u0085c":                             "abc", // as interpreted by terminals that use UTF-8
		"caf\xe9 \xff":                                  "caf\xe9 \xff",
	} {
		if got := strip(in); got != want {
			t.Errorf("strip(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestTruncate(t *testing.T) {
	for _, c := range []struct {
		in    string
		width int
		tail  string
		want  string
	}{
		{"short", 5, "…", "short"},
		{"longer", 5, "…", "long…"},
		{"世界世界", 5, "…", "世界…"},
		{"世界世界", 4, "…", "世…"},
		{"\x1b[31mlonger\x1b[0m", 3, "", "\x1b[31mlon\x1b[0m"},
		{"👩‍👩‍👧 family", 3, "…", "👩‍👩‍👧…"},
		{"x", 0, "…", ""},
		{"x", -1, "", ""},
	} {
		if got := truncate(c.in, c.width, c.tail); got != c.want {
			t.Errorf("truncate(%q, %d, %q) = %q, want %q", c.in, c.width, c.tail, got, c.want)
		}
	}
}

// FuzzStrip compares the result with that of a terminal parser, and checks that stripping it again
// changes nothing.
func FuzzStrip(f *testing.F) {
	for _, s := range []string{"a\x1b[1mb\x1b]0;t\x07c", "\x1bP1$r\x1b\\x", "\x1b[;\x07m", "e\u0301\x1b(0q"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := strip(s)
		if again := strip(got); again != got {
			t.Fatalf("strip(%q) = %q, stripped again %q", s, got, again)
		}
		if strings.ContainsRune(got, 0x1b) || cells(got) > len(got)*2 {
			t.Fatalf("strip(%q) = %q", s, got)
		}
		for _, r := range s {
			if r > 0x7e || r == 0x18 || r == 0x1a { // the library keeps some non-ASCII control characters
				return
			}
		}
		if want := ansi.Strip(s); got != want {
			t.Fatalf("strip(%q) = %q, a parser says %q", s, got, want)
		}
	})
}

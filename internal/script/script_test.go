package script

import (
	"slices"
	"strings"
	"testing"
)

func TestLines(t *testing.T) {
	tests := []struct {
		writes []string
		want   []string
	}{
		{[]string{"a\nb\n"}, []string{"a", "b"}},
		{[]string{"a", "b\n", "c"}, []string{"ab", "c"}},
		{[]string{"10%\r50%\r100%\ndone"}, []string{"100%", "done"}},
		{[]string{"a\r\n", "\n", "b  \t\n"}, []string{"a", "", "b"}},
		{nil, nil},
	}
	for _, tt := range tests {
		var got []string
		l := NewLines(func(s string) { got = append(got, s) })
		for _, w := range tt.writes {
			if n, err := l.Write([]byte(w)); n != len(w) || err != nil {
				t.Errorf("Write(%q) = %d, %v", w, n, err)
			}
		}
		l.Flush()
		if !slices.Equal(got, tt.want) {
			t.Errorf("%q: got %q, want %q", tt.writes, got, tt.want)
		}
	}
}

// The lines do not depend on how the text is divided into writes.
func FuzzLines(f *testing.F) {
	f.Add("a\nb\rc\n\nd ", 3)
	f.Fuzz(func(t *testing.T, text string, cut int) {
		split := func(parts ...string) (got []string) {
			l := NewLines(func(s string) { got = append(got, s) })
			for _, p := range parts {
				l.Write([]byte(p))
			}
			l.Flush()
			return got
		}
		cut = min(max(cut, 0), len(text))
		whole, parts := split(text), split(text[:cut], text[cut:])
		if !slices.Equal(whole, parts) {
			t.Errorf("%q whole, %q cut at %d", whole, parts, cut)
		}
		if n := strings.Count(strings.TrimSuffix(text, "\n"), "\n"); text != "" && len(whole) != n+1 {
			t.Errorf("%q: %d lines, want %d", text, len(whole), n+1)
		}
	})
}

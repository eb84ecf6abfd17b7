package wire

import (
	"strings"
	"testing"
)

// TestFirstLine: one line of limited length is read, and the rest is dropped.
func TestFirstLine(t *testing.T) {
	for name, tc := range map[string]struct {
		writes []string
		want   string
	}{
		"in parts":  {[]string{"5|0", "|unix|/a", "\nand", "more\n"}, "5|0|unix|/a"},
		"at once":   {[]string{"a\nb\nc"}, "a"},
		"without":   {[]string{strings.Repeat("x", maxHandshake), "y", "\n"}, strings.Repeat("x", maxHandshake) + "y"},
		"very long": {[]string{strings.Repeat("x", 10*maxHandshake), "y"}, strings.Repeat("x", maxHandshake) + "y"},
	} {
		w := NewFirstLine()
		for _, text := range tc.writes {
			if n, err := w.Write([]byte(text)); n != len(text) || err != nil {
				t.Errorf("%s: %d, %v", name, n, err)
			}
		}
		if got := <-w.C; got != tc.want {
			t.Errorf("%s: %.50q, %d bytes", name, got, len(got))
		}
	}
}

package script

import (
	"strings"
	"testing"
)

func TestEncode(t *testing.T) {
	shout := func(text string) (string, bool) { return strings.ToUpper(text), !strings.Contains(text, "€") }
	for _, tt := range []struct{ text, extension, want string }{
		{"echo a", ".cmd", "echo a"}, {"echo ü", ".cmd", "ECHO Ü"}, {"echo ü", "x.BAT", "ECHO Ü"}, {"echo €", ".cmd", "echo €"},
		{"echo a", ".ps1", "echo a"}, {"echo ü", ".ps1", "\ufeffecho ü"}, {"print('ü')", ".py", "print('ü')"},
	} {
		if got := encode(tt.text, tt.extension, shout); got != tt.want {
			t.Errorf("%q in *%s is %q, want %q", tt.text, tt.extension, got, tt.want)
		}
	}
}

// TestRecoded: each line is UTF-8 or not, wherever its output is cut.
func TestRecoded(t *testing.T) {
	const text, want = "gr\x81n\r\nü\n\x81 and no end", "gr(5)n\r\nü\n(5) and no end"
	for size := 1; size <= len(text); size++ {
		var b strings.Builder
		r := &recoded{out: &b, fromPage: func(coded []byte) []byte { return []byte(strings.ReplaceAll(string(coded), "\x81", "(5)")) }}
		for rest := text; rest != ""; rest = rest[min(size, len(rest)):] {
			if n, err := r.Write([]byte(rest[:min(size, len(rest))])); err != nil || n != min(size, len(rest)) {
				t.Fatal(n, err)
			}
		}
		if err := r.flush(); err != nil || b.String() != want {
			t.Errorf("pieces of %d bytes: %q, want %q, %v", size, b.String(), want, err)
		}
	}
	var b strings.Builder
	r := &recoded{out: &b}
	if _, err := r.Write(make([]byte, longestLine+1)); err != nil || b.Len() != longestLine+1 {
		t.Errorf("a line without end: %d bytes are written, %v", b.Len(), err)
	}
}

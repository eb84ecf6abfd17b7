package script

import (
	"strings"
	"testing"
)

func TestEncode(t *testing.T) {
	shout := func(text string) (string, bool) { return strings.ToUpper(text), !strings.Contains(text, "€") }
	for _, tt := range []struct {
		text, extension, want string
		whole                 bool
	}{
		{"echo a", ".cmd", "echo a", true}, {"echo ü", ".cmd", "ECHO Ü", true}, {"echo ü", "x.BAT", "ECHO Ü", true},
		{"echo ü€", ".cmd", "echo ü€", false}, {"echo a", ".ps1", "echo a", true}, {"echo ü", ".ps1", "\ufeffecho ü", true},
		{"print('ü')", ".py", "print('ü')", true},
		{"@chcp 65001 >nul\r\necho ü", ".cmd", "@chcp 65001 >nul\r\necho ü", true},
		{"CHCP.COM  %p%&echo €", ".bat", "CHCP.COM  %p%&echo €", true},
		{"chcp\r\n1 ü", ".cmd", "CHCP\r\n1 Ü", true}, // which asks
		{"xchcp 1 ü", ".cmd", "XCHCP 1 Ü", true},
	} {
		if got, whole := encode(tt.text, tt.extension, shout); got != tt.want || whole != tt.whole {
			t.Errorf("%q in *%s is %q, %v; want %q, %v", tt.text, tt.extension, got, whole, tt.want, tt.whole)
		}
	}
}

// TestRecoded: each line is recognized as UTF-8 or not, however its output is divided.
func TestRecoded(t *testing.T) {
	const text, want = "gr\x81n\r\nü\n10 % \x81\r20 % ü\r\x81 and no end", "gr(5)n\r\nü\n10 % (5)\r20 % ü\r(5) and no end"
	for size := 1; size <= len(text); size++ {
		var b strings.Builder
		r := &recoded{out: &b, fromPage: func(coded []byte) []byte { return []byte(strings.ReplaceAll(string(coded), "\x81", "(5)")) }}
		for rest := text; rest != ""; rest = rest[min(size, len(rest)):] {
			if n, err := r.Write([]byte(rest[:min(size, len(rest))])); err != nil || n != min(size, len(rest)) {
				t.Fatalf("Write = %d, %v, want %d bytes", n, err, min(size, len(rest)))
			}
		}
		if err := r.flush(); err != nil || b.String() != want {
			t.Errorf("pieces of %d bytes: %q, want %q, %v", size, b.String(), want, err)
		}
	}
}

// TestRecodedAtOnce: the beginning of a line is forwarded as soon as its encoding is
// clear.
func TestRecodedAtOnce(t *testing.T) {
	var b strings.Builder
	r := &recoded{out: &b, fromPage: func(coded []byte) []byte { return []byte("(5)") }}
	for _, step := range []struct{ in, want string }{
		{"a\r\nSure? ", "a\r\nSure? "}, {"ü", "a\r\nSure? "}, {" 10 %\r", "a\r\nSure? ü 10 %\r"}, {"\x81\n", "a\r\nSure? ü 10 %\r(5)"},
	} {
		if _, err := r.Write([]byte(step.in)); err != nil || b.String() != step.want {
			t.Errorf("after %q: %q, want %q, %v", step.in, b.String(), step.want, err)
		}
	}
}

// TestRecodedLongLine: a line that does not end is cut between characters.
func TestRecodedLongLine(t *testing.T) {
	for _, char := range []string{"ü", "€", "😀"} {
		for ahead := range len(char) {
			var b strings.Builder
			r := &recoded{out: &b, fromPage: func([]byte) []byte { return []byte("misread") }}
			text := strings.Repeat("a", ahead) + strings.Repeat(char, 3*longestLine/len(char))
			for rest := text; rest != ""; rest = rest[min(4096, len(rest)):] {
				if _, err := r.Write([]byte(rest[:min(4096, len(rest))])); err != nil {
					t.Fatal(err)
				}
			}
			if b.Len() < len(text)/2 || len(r.rest) > longestLine {
				t.Errorf("%s: %d bytes are written, %d kept", char, b.Len(), len(r.rest))
			}
			if err := r.flush(); err != nil || b.String() != text {
				t.Errorf("%s after %d bytes: not as it was written, %v", char, ahead, err)
			}
		}
	}
}

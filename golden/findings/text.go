package findings

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// most is the maximum length of a text that is written. Texts from machines are untrusted.
const most = 16 << 10

// text converts a text from a machine or another tool so that it can be shown anywhere: it
// makes it valid UTF-8, escapes control characters, and cuts it to limit.
func text(s string, limit int) string {
	var b strings.Builder
	for i, r := range s {
		if b.Len() >= limit {
			fmt.Fprintf(&b, " [… %d more bytes]", len(s)-i)
			break
		}
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\n' || r == '\t' || r == utf8.RuneError:
			b.WriteRune(r)
		case r == '\r' && strings.HasPrefix(s[i+1:], "\n"):
		case unicode.IsPrint(r), unicode.Is(unicode.Zs, r):
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return b.String()
}

// line is text on one line.
func line(s string, limit int) string {
	return text(strings.Join(strings.Fields(s), " "), limit)
}

// Line converts a text of foreign origin to one line that every terminal can show: it
// escapes control characters and invalid UTF-8, and cuts a long text.
func Line(s string) string { return line(s, most) }

// Text escapes a text of foreign origin as [Line] does, so that it can be shown anywhere,
// but keeps its lines.
func Text(s string) string { return text(s, most) }

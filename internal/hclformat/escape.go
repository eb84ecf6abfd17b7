package hclformat

import (
	"fmt"
	"strings"
	"unicode"
)

// Escape returns literal text as it is written between quotes. before says that an
// interpolation follows.
func Escape(s string, before bool) string {
	var b strings.Builder
	rs := []rune(s)
	for i, r := range rs {
		switch {
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '$' || r == '%':
			opens := i+1 < len(rs) && rs[i+1] == '{'
			switch {
			// Two of them before a brace would be read as one that is escaped.
			case opens && i > 0 && rs[i-1] == r, i+1 == len(rs) && before:
				fmt.Fprintf(&b, `\u%04x`, r)
			case opens:
				b.WriteRune(r)
				b.WriteRune(r)
			default:
				b.WriteRune(r)
			}
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return b.String()
}

package upgrade

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// piece is a part of a string: literal text, or an HCL expression.
type piece struct{ lit, expr string }

// quote writes a string as HCL: as the expression itself if the string consists of one,
// otherwise as a quoted template.
func quote(pieces []piece) string {
	if len(pieces) == 1 && pieces[0].expr != "" {
		return pieces[0].expr
	}
	var b strings.Builder
	b.WriteByte('"')
	for i, p := range pieces {
		if p.expr != "" {
			b.WriteString("${" + p.expr + "}")
			continue
		}
		escape(&b, p.lit, i+1 < len(pieces))
	}
	b.WriteByte('"')
	return b.String()
}

// quoted writes literal text as a quoted string.
func quoted(s string) string { return quote([]piece{{lit: s}}) }

// escape writes literal text for a quoted template. before means that an interpolation
// follows.
func escape(b *strings.Builder, s string, before bool) {
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
			// Two of them before a brace would be read as an escape.
			case opens && i > 0 && rs[i-1] == r, i+1 == len(rs) && before:
				fmt.Fprintf(b, `\u%04x`, r)
			case opens:
				b.WriteRune(r)
				b.WriteRune(r)
			default:
				b.WriteRune(r)
			}
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			fmt.Fprintf(b, `\U%08x`, r)
		}
	}
}

// heredoc writes text of several lines as a heredoc. It returns "" for text that
// is clearer, or can only be written, as a quoted string.
func heredoc(s string) string {
	if strings.Count(s, "\n") < 2 || strings.ContainsFunc(s, func(r rune) bool {
		return r != '\n' && r != '\t' && !unicode.IsPrint(r)
	}) || strings.Contains(s, "$${") || strings.Contains(s, "%%{") {
		return ""
	}
	end := "EOT"
	for line := range strings.SplitSeq(s, "\n") {
		for strings.TrimSpace(line) == end {
			end += "_"
		}
	}
	// An end marker made longer may meet a line that was looked at before.
	for line := range strings.SplitSeq(s, "\n") {
		if strings.TrimSpace(line) == end {
			return ""
		}
	}
	text := strings.NewReplacer("${", "$${", "%{", "%%{").Replace(s)
	if body, ok := strings.CutSuffix(text, "\n"); ok {
		return "<<" + end + "\n" + body + "\n" + end
	}
	return "chomp(<<" + end + "\n" + text + "\n" + end + "\n)"
}

// identifier converts a name to a valid HCL identifier.
func identifier(name string) string {
	out := strings.Map(func(r rune) rune {
		if r < 0x80 && (r == '_' || r == '-' || unicode.IsLetter(r) || unicode.IsDigit(r)) {
			return r
		}
		return '_'
	}, name)
	if !hclsyntax.ValidIdentifier(out) {
		out = "_" + out
	}
	return out
}

// objectKey writes the name of an object's attribute.
func objectKey(pieces []piece) string {
	if len(pieces) == 1 && hclsyntax.ValidIdentifier(pieces[0].lit) {
		switch pieces[0].lit {
		case "for", "null", "true", "false": // these start or are something else
		default:
			return pieces[0].lit
		}
	}
	if len(pieces) == 1 && pieces[0].expr != "" {
		return "(" + pieces[0].expr + ")"
	}
	return quote(pieces)
}

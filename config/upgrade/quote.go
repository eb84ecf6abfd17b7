package upgrade

import (
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/internal/hclformat"
)

// piece is a part of a string: literal text, or an HCL expression.
type piece struct{ lit, expr string }

// quote writes a string as an HCL expression: the expression itself if it is
// nothing else, or a quoted template.
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
		b.WriteString(hclformat.Escape(p.lit, i+1 < len(pieces)))
	}
	b.WriteByte('"')
	return b.String()
}

// quoted writes literal text as a quoted string.
func quoted(s string) string { return quote([]piece{{lit: s}}) }

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

// identifier makes a name that HCL takes as one.
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

package format

import (
	"bytes"
	"slices"

	"github.com/apparentlymart/go-textseg/v15/textseg"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// token is a token of a file with the white space before it.
type token struct {
	kind   hclsyntax.TokenType
	text   []byte
	spaces int
}

// line is what stands on one line of a file: "head = value # comment". What is not there is empty.
// A heredoc and a comment over several lines belong to the line that they begin on.
type line struct {
	head, value, comment []token
}

// Layout returns src with the white space of HCL's canonical layout, which is that of hclwrite.Format
// in github.com/hashicorp/hcl/v2: lines are indented by their open brackets, the values of consecutive
// lines are aligned, and so are their comments. It changes whatever it is given, even if that is not HCL.
func Layout(src []byte) []byte {
	tokens := lex(src)
	lines := split(tokens)
	indent(lines)
	for _, l := range lines {
		separate(l.head)
		separate(l.value)
	}
	align(lines, func(l line) (before, aligned []token) { return l.head, l.value })
	align(lines, func(l line) (before, aligned []token) { return slices.Concat(l.head, l.value), l.comment })
	var out bytes.Buffer
	for _, t := range tokens {
		out.Write(bytes.Repeat([]byte{' '}, t.spaces))
		out.Write(t.text)
	}
	return out.Bytes()
}

func lex(src []byte) []token {
	all, _ := hclsyntax.LexConfig(src, "", hcl.InitialPos) // the parser reports what is wrong
	tokens, end := make([]token, len(all)), 0
	for i, t := range all {
		tokens[i] = token{t.Type, t.Bytes, t.Range.Start.Byte - end}
		end = t.Range.End.Byte
	}
	return tokens
}

// split divides tokens into lines, which share the tokens' memory. The token of the file's end is in none.
func split(tokens []token) (lines []line) {
	start := 0
	for i, t := range tokens {
		if ends := endsLine(t); ends || t.kind == hclsyntax.TokenEOF {
			if ends {
				i++
			}
			lines = append(lines, newLine(tokens[start:i]))
			start = i
		}
	}
	return lines
}

// endsLine reports whether a token is the end of a line; the comments # and // have it in them.
func endsLine(t token) bool {
	return t.kind == hclsyntax.TokenNewline || t.kind == hclsyntax.TokenComment && bytes.HasSuffix(t.text, []byte("\n"))
}

// newLine finds the parts of a line. A value whose brackets are closed on later lines counts as head.
func newLine(tokens []token) line {
	l := line{head: tokens}
	if last := len(tokens) - 1; last > 0 && tokens[last].kind == hclsyntax.TokenComment {
		l.head, l.comment = tokens[:last], tokens[last:]
	}
	for i, t := range l.head {
		if i == 0 || t.kind != hclsyntax.TokenEqual {
			continue
		}
		if opened(l.head[i:]) == 0 {
			l.head, l.value = l.head[:i], l.head[i:]
		}
		break
	}
	return l
}

// opens returns 1 for an opening bracket, -1 for a closing one, and otherwise 0.
func (t token) opens() int {
	switch t.kind {
	case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateControl, hclsyntax.TokenTemplateInterp:
		return 1
	case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd:
		return -1
	}
	return 0
}

// opened returns how many more brackets tokens open than close.
func opened(tokens []token) (n int) {
	for _, t := range tokens {
		n += t.opens()
	}
	return n
}

// indent sets the white space at the beginning of lines: two spaces for each earlier line that has opened
// brackets which are still open, however many it has opened.
func indent(lines []line) {
	var open []int // of each such line, how many of its brackets are open
	for _, l := range lines {
		if len(l.head) == 0 {
			continue
		}
		if l.head[0].kind == hclsyntax.TokenNewline {
			l.head[0].spaces = 0
			continue
		}
		head := l.head
		if i := slices.IndexFunc(head, func(t token) bool { return t.kind == hclsyntax.TokenOHeredoc }); i >= 0 {
			head = head[:i]
		}
		n := opened(head) + opened(l.value)
		for closed := -n; closed > 0 && len(open) > 0; {
			last := len(open) - 1
			now := min(closed, open[last])
			closed -= now
			if open[last] -= now; open[last] == 0 {
				open = open[:last]
			}
		}
		l.head[0].spaces = 2 * len(open)
		if n > 0 {
			open = append(open, n)
		}
	}
}

// separate sets the white space between tokens.
func separate(tokens []token) {
	for i := range tokens[:max(len(tokens)-1, 0)] {
		before := hclsyntax.TokenNil
		if i > 0 {
			before = tokens[i-1].kind
		}
		tokens[i+1].spaces = 0
		if apart(before, tokens[i], tokens[i+1]) {
			tokens[i+1].spaces = 1
		}
	}
}

// apart reports whether there is a space between two tokens of a line. before is the kind of the token
// that precedes them.
func apart(before hclsyntax.TokenType, left, right token) bool {
	switch {
	case right.kind == hclsyntax.TokenNewline,
		left.kind == hclsyntax.TokenIdent && right.kind == hclsyntax.TokenOParen, // a call
		left.kind == hclsyntax.TokenIdent && right.kind == hclsyntax.TokenDoubleColon,
		left.kind == hclsyntax.TokenDoubleColon && right.kind == hclsyntax.TokenIdent,
		left.kind == hclsyntax.TokenDot || right.kind == hclsyntax.TokenDot,
		right.kind == hclsyntax.TokenComma || right.kind == hclsyntax.TokenEllipsis:
		return false
	case left.kind == hclsyntax.TokenComma:
		return true
	case isText(left.kind) || left.kind == hclsyntax.TokenOQuote || left.kind == hclsyntax.TokenOHeredoc,
		isText(right.kind) || right.kind == hclsyntax.TokenCQuote || right.kind == hclsyntax.TokenCHeredoc:
		return false
	case left.kind == hclsyntax.TokenIdent && string(left.text) == "in" && before == hclsyntax.TokenIdent: // [for x in [1, 2] : x]
		return true
	case right.kind == hclsyntax.TokenOBrack && (left.kind == hclsyntax.TokenIdent || left.kind == hclsyntax.TokenNumberLit || left.opens() < 0): // an index
		return false
	case left.kind == hclsyntax.TokenBang:
		return false
	case left.kind == hclsyntax.TokenMinus:
		return !expectsOperand(before)
	case left.kind == hclsyntax.TokenOBrace && right.kind == hclsyntax.TokenCBrace:
		return false
	case left.kind == hclsyntax.TokenOBrace || right.kind == hclsyntax.TokenCBrace:
		return true
	case isSequence(left.kind) && right.kind == hclsyntax.TokenOBrace: // "${ {} }"
		return true
	case left.kind == hclsyntax.TokenCBrace && right.kind == hclsyntax.TokenTemplateSeqEnd:
		return true
	case left.kind == hclsyntax.TokenTemplateSeqEnd && isSequence(right.kind):
		return false
	}
	return left.opens() <= 0 && right.opens() >= 0
}

// isText reports whether a token is text between quotes or in a heredoc.
func isText(kind hclsyntax.TokenType) bool {
	return kind == hclsyntax.TokenQuotedLit || kind == hclsyntax.TokenStringLit
}

// isSequence reports whether a token begins a sequence in a text: ${ or %{.
func isSequence(kind hclsyntax.TokenType) bool {
	return kind == hclsyntax.TokenTemplateInterp || kind == hclsyntax.TokenTemplateControl
}

// expectsOperand reports whether an operand follows a token, so that a minus there is a sign.
func expectsOperand(kind hclsyntax.TokenType) bool {
	switch kind {
	case hclsyntax.TokenNil,
		hclsyntax.TokenOParen, hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenEqual, hclsyntax.TokenColon, hclsyntax.TokenComma, hclsyntax.TokenQuestion,
		hclsyntax.TokenPlus, hclsyntax.TokenMinus, hclsyntax.TokenStar, hclsyntax.TokenSlash, hclsyntax.TokenPercent,
		hclsyntax.TokenEqualOp, hclsyntax.TokenNotEqual, hclsyntax.TokenGreaterThan, hclsyntax.TokenGreaterThanEq, hclsyntax.TokenLessThan, hclsyntax.TokenLessThanEq,
		hclsyntax.TokenAnd, hclsyntax.TokenOr, hclsyntax.TokenBang:
		return true
	}
	return false
}

// align makes a part of lines begin in the same column on consecutive lines that have it. parts returns
// that part of a line, and what is before it.
func align(lines []line, parts func(line) (before, aligned []token)) {
	var run [][]token // the parts of consecutive lines
	var widths []int  // of what is before them
	finish := func() {
		for i, part := range run {
			part[0].spaces = slices.Max(widths) - widths[i] + 1
		}
		run, widths = nil, nil
	}
	for _, l := range lines {
		before, part := parts(l)
		if len(part) == 0 {
			finish()
			continue
		}
		run, widths = append(run, part), append(widths, columns(before))
	}
	finish()
}

// columns returns how many columns tokens take.
func columns(tokens []token) (n int) {
	for _, t := range tokens {
		clusters, _ := textseg.TokenCount(t.text, textseg.ScanGraphemeClusters) // this split function returns no errors
		n += t.spaces + clusters
	}
	return n
}

// Package hclformat lays HCL out as terraform fmt and packer fmt do. It exists because the
// library that does so (hclwrite) links go-cmp, whose start is a good part of the program's.
package hclformat

import (
	"slices"

	"github.com/apparentlymart/go-textseg/v15/textseg"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// indentation is how many spaces a level is indented by.
const indentation = 2

// Source returns src with other white space: lines are indented by the brackets that are
// open, and the equals signs and comments of lines that follow each other are aligned. What
// is not HCL comes back in some layout.
func Source(src []byte) []byte {
	lexed, _ := hclsyntax.LexConfig(src, "", hcl.InitialPos)
	tokens := make([]token, 0, len(lexed))
	end := 0
	for _, t := range lexed {
		tokens = append(tokens, token{t.Type, t.Bytes, t.Range.Start.Byte - end})
		end = t.Range.End.Byte
	}
	lines := split(tokens)
	indent(lines)
	for _, l := range lines {
		space(l.lead)
		space(l.value)
	}
	align(lines, func(l line) (before int, cell []token) { return columns(l.lead), l.value })
	align(lines, func(l line) (before int, cell []token) { return columns(l.lead) + columns(l.value), l.comment })

	out := make([]byte, 0, len(src)+len(src)/4)
	for _, t := range tokens {
		for range t.spaces {
			out = append(out, ' ')
		}
		out = append(out, t.text...)
	}
	return out
}

// token is a token, and the spaces before it.
type token struct {
	kind   hclsyntax.TokenType
	text   []byte
	spaces int
}

// line is a line of tokens in three cells, of which the later ones may be empty.
type line struct {
	lead    []token
	value   []token // of an attribute, from the equals sign on, if no bracket in it stays open
	comment []token // after something else
}

// split splits tokens into lines. The cells are parts of tokens.
func split(tokens []token) (lines []line) {
	if n := len(tokens); n > 0 && tokens[n-1].kind == hclsyntax.TokenEOF {
		tokens = tokens[:n-1]
	}
	for len(tokens) > 0 {
		n := slices.IndexFunc(tokens, token.endsLine) + 1
		if n == 0 {
			n = len(tokens)
		}
		lines = append(lines, cells(tokens[:n]))
		tokens = tokens[n:]
	}
	return lines
}

func cells(tokens []token) (l line) {
	l.lead = tokens
	if n := len(tokens) - 1; n > 0 && tokens[n].kind == hclsyntax.TokenComment {
		l.lead, l.comment = tokens[:n], tokens[n:]
	}
	equals := slices.IndexFunc(l.lead, func(t token) bool { return t.kind == hclsyntax.TokenEqual })
	if equals == 0 { // a line cannot begin with it
		if equals = slices.IndexFunc(l.lead[1:], func(t token) bool { return t.kind == hclsyntax.TokenEqual }) + 1; equals == 0 {
			return l
		}
	}
	if equals > 0 && opened(l.lead[equals:]) == 0 {
		l.lead, l.value = l.lead[:equals], l.lead[equals:]
	}
	return l
}

// endsLine reports whether a line ends with the token. A comment has the end of its line.
func (t token) endsLine() bool {
	return t.kind == hclsyntax.TokenNewline || t.kind == hclsyntax.TokenComment && len(t.text) > 0 && t.text[len(t.text)-1] == '\n'
}

// opens is 1 if the token opens a bracket, -1 if it closes one, and otherwise 0.
func (t token) opens() int {
	switch t.kind {
	case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateControl, hclsyntax.TokenTemplateInterp:
		return 1
	case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd:
		return -1
	default:
		return 0
	}
}

// opened is how many more brackets are opened than closed in tokens.
func opened(tokens []token) (n int) {
	for _, t := range tokens {
		n += t.opens()
	}
	return n
}

// columns is how wide tokens are.
func columns(tokens []token) (n int) {
	for _, t := range tokens {
		count, _ := textseg.TokenCount(t.text, textseg.ScanGraphemeClusters) // which never fails
		n += t.spaces + count
	}
	return n
}

// indent sets the spaces before each line. A line is one level deeper than the one that
// has opened brackets before it, however many of them.
func indent(lines []line) {
	var levels []int // how many brackets are still open of those that each level has opened
	for _, l := range lines {
		first := &l.lead[0]
		if first.kind == hclsyntax.TokenNewline {
			first.spaces = 0
			continue
		}
		lead := l.lead
		if i := slices.IndexFunc(lead, func(t token) bool { return t.kind == hclsyntax.TokenOHeredoc }); i >= 0 {
			lead = lead[:i]
		}
		net := opened(lead) + opened(l.value)
		for net < 0 && len(levels) > 0 {
			last := len(levels) - 1
			if levels[last] > -net {
				levels[last], net = levels[last]+net, 0
			} else {
				net += levels[last]
				levels = levels[:last]
			}
		}
		first.spaces = indentation * len(levels)
		if net > 0 {
			levels = append(levels, net)
		}
	}
}

// space sets the spaces between the tokens of a cell.
func space(cell []token) {
	before := hclsyntax.TokenNil
	for i := range len(cell) - 1 {
		cell[i+1].spaces = 0
		if spaced(before, cell[i], cell[i+1]) {
			cell[i+1].spaces = 1
		}
		before = cell[i].kind
	}
}

// align aligns a cell of lines that follow each other and have it, one column behind the
// widest of what is before it.
func align(lines []line, cell func(line) (before int, cell []token)) {
	for start := 0; start < len(lines); start++ {
		end, widest := start, 0
		for ; end < len(lines); end++ {
			before, c := cell(lines[end])
			if len(c) == 0 {
				break
			}
			widest = max(widest, before)
		}
		for _, l := range lines[start:end] {
			before, c := cell(l)
			c[0].spaces = widest - before + 1
		}
		start = end
	}
}

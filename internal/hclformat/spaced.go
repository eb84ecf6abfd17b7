package hclformat

import "github.com/hashicorp/hcl/v2/hclsyntax"

// spaced reports whether there is a space between the tokens a and b, of which a comes
// after one of the kind before: TokenNil if it is the first of its cell.
func spaced(before hclsyntax.TokenType, a, b token) bool {
	switch {
	case b.kind == hclsyntax.TokenNewline, together(a.kind, b.kind):
		return false
	case a.kind == hclsyntax.TokenComma:
		return true
	case inText(a.kind, b.kind):
		return false
	case a.kind == hclsyntax.TokenIdent && string(a.text) == "in" && before == hclsyntax.TokenIdent:
		return true // the keyword in [for x in [1, 2] : x]
	case b.kind == hclsyntax.TokenOBrack && (a.kind == hclsyntax.TokenIdent || a.kind == hclsyntax.TokenNumberLit || a.opens() < 0):
		return false // an index
	case a.kind == hclsyntax.TokenBang:
		return false
	case a.kind == hclsyntax.TokenMinus:
		return !negates(before)
	case a.kind == hclsyntax.TokenOBrace || b.kind == hclsyntax.TokenCBrace:
		return a.kind != hclsyntax.TokenOBrace || b.kind != hclsyntax.TokenCBrace
	case begins(a.kind) && b.kind == hclsyntax.TokenOBrace, a.kind == hclsyntax.TokenCBrace && b.kind == hclsyntax.TokenTemplateSeqEnd:
		return true // "${ {…} }"
	case a.kind == hclsyntax.TokenTemplateSeqEnd && begins(b.kind):
		return false
	}
	return a.opens() <= 0 && b.opens() >= 0
}

// together reports whether a name, a call or a list has no space between a and b.
func together(a, b hclsyntax.TokenType) bool {
	switch {
	case a == hclsyntax.TokenDot, b == hclsyntax.TokenDot, b == hclsyntax.TokenComma, b == hclsyntax.TokenEllipsis:
		return true
	case a == hclsyntax.TokenDoubleColon:
		return b == hclsyntax.TokenIdent
	case a == hclsyntax.TokenIdent:
		return b == hclsyntax.TokenOParen || b == hclsyntax.TokenDoubleColon
	}
	return false
}

// inText reports whether what is between a and b belongs to the text of a string.
func inText(a, b hclsyntax.TokenType) bool {
	switch a {
	case hclsyntax.TokenQuotedLit, hclsyntax.TokenStringLit, hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
		return true
	}
	switch b {
	case hclsyntax.TokenQuotedLit, hclsyntax.TokenStringLit, hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc:
		return true
	}
	return false
}

// begins reports whether the token begins an expression in a string.
func begins(t hclsyntax.TokenType) bool {
	return t == hclsyntax.TokenTemplateInterp || t == hclsyntax.TokenTemplateControl
}

// negates reports whether a minus after the token is a sign: there is nothing to
// subtract from.
func negates(t hclsyntax.TokenType) bool {
	switch t {
	case hclsyntax.TokenNil,
		hclsyntax.TokenOParen, hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenEqual, hclsyntax.TokenColon, hclsyntax.TokenComma, hclsyntax.TokenQuestion,
		hclsyntax.TokenPlus, hclsyntax.TokenStar, hclsyntax.TokenSlash, hclsyntax.TokenPercent, hclsyntax.TokenMinus,
		hclsyntax.TokenEqualOp, hclsyntax.TokenNotEqual, hclsyntax.TokenGreaterThan, hclsyntax.TokenGreaterThanEq, hclsyntax.TokenLessThan, hclsyntax.TokenLessThanEq,
		hclsyntax.TokenAnd, hclsyntax.TokenOr, hclsyntax.TokenBang:
		return true
	}
	return false
}

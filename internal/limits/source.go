package limits

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Limits on the text of a template, or of values for one. Parsers recurse, and a program
// cannot recover from a stack overflow.
const (
	maxSource = 1 << 20 // bytes
	maxDepth  = 1000    // of brackets, and of operators before one operand
	maxChains = 20_000  // of operators, splats and template directives, which nest without brackets

	maxExponent = 10_000 // of a number: writing it out takes time that grows with the square
	maxBinary   = 33_220 // the same, base 2
)

// Syntax is the syntax of a text.
type Syntax int

// The syntaxes of [Source].
const (
	HCL      Syntax = iota // a file or an expression
	Template               // text with ${} and %{}
	JSON                   // values, whose strings are templates
)

// NumberError is the error of [Source] about a number.
type NumberError struct {
	At hcl.Range // in the source; it names no file
	error
}

// Number returns an error if writing f out would take too many digits.
func Number(f *big.Float) error {
	if e := f.MantExp(nil); f.IsInf() || e > maxBinary || e < -maxBinary {
		return fmt.Errorf("numbers can be at most 1e%d, and no closer to 0 than 1e-%d", maxExponent, maxExponent)
	}
	return nil
}

// Literal is [Number] for the text of a number. It accepts a text that is none.
func Literal(text []byte) error {
	if v, err := cty.ParseNumberVal(string(text)); err == nil {
		return Number(v.AsBigFloat())
	}
	return nil
}

// Source returns an error if src is too large or too deeply nested for a parser, or a
// *[NumberError] if it has a number that [Number] refuses.
func Source(src []byte, in Syntax) error {
	if len(src) > maxSource {
		return fmt.Errorf("it has %d bytes; at most %d are read. Keep large texts in files of their own and read them with file()", len(src), maxSource)
	}
	if !canNest(src) && !hasLongNumber(src) {
		return nil
	}
	switch in {
	case JSON:
		return nestedJSON(src)
	case Template:
		tokens, _ := hclsyntax.LexTemplate(src, "", hcl.InitialPos)
		return nested(tokens)
	default:
		tokens, _ := hclsyntax.LexConfig(src, "", hcl.InitialPos)
		return nested(tokens)
	}
}

// canNest reports whether src has enough characters to exceed a limit. A backslash in JSON
// can stand for any character.
func canNest(src []byte) bool {
	n := 0
	for _, c := range src {
		switch c {
		case '(', '[', '{', '-', '!', '"', '\\':
			n++
		}
	}
	return n > maxDepth || len(src) > maxChains
}

// hasLongNumber reports whether src has enough digits, perhaps of an exponent, for a number that
// [Number] refuses.
func hasLongNumber(src []byte) bool {
	digits, exponent := 0, false
	var before byte // the one before the digits, or before their sign
	for i, c := range src {
		if c >= '0' && c <= '9' {
			if digits++; digits == 1 && i > 0 {
				before = src[i-1]
				if i > 1 && (before == '+' || before == '-') {
					before = src[i-2]
				}
				exponent = before == 'e' || before == 'E'
			}
			if exponent && digits >= len("10000") || digits >= maxExponent {
				return true
			}
			continue
		}
		digits = 0
	}
	return false
}

// nested returns an error if tokens are too deeply nested, or have a number that is out of range.
func nested(tokens hclsyntax.Tokens) error {
	var open []hclsyntax.TokenType
	signs, chains := 0, 0
	before := hclsyntax.TokenNil
	for _, t := range tokens {
		if t.Type == hclsyntax.TokenComment || t.Type == hclsyntax.TokenNewline {
			continue
		}
		switch t.Type {
		case hclsyntax.TokenOParen, hclsyntax.TokenOBrack, hclsyntax.TokenOBrace, hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp:
			open = append(open, t.Type)
		case hclsyntax.TokenTemplateControl: // for and if go on until their end
			open = append(open, t.Type)
			chains++
		case hclsyntax.TokenMinus:
			if before != hclsyntax.TokenComma && before != hclsyntax.TokenOBrack { // or it is the sign of an element
				chains++
			}
		case hclsyntax.TokenNumberLit:
			if err := Literal(t.Bytes); err != nil {
				return &NumberError{t.Range, err}
			}
		case hclsyntax.TokenQuestion, hclsyntax.TokenStar, hclsyntax.TokenSlash, hclsyntax.TokenPercent, hclsyntax.TokenPlus,
			hclsyntax.TokenAnd, hclsyntax.TokenOr, hclsyntax.TokenEqualOp, hclsyntax.TokenNotEqual,
			hclsyntax.TokenGreaterThan, hclsyntax.TokenGreaterThanEq, hclsyntax.TokenLessThan, hclsyntax.TokenLessThanEq:
			chains++
		default:
			if n := len(open); n > 0 && closes(t.Type, open[n-1]) {
				open = open[:n-1]
			}
		}
		if signs++; t.Type != hclsyntax.TokenMinus && t.Type != hclsyntax.TokenBang {
			signs = 0
		}
		if len(open) > maxDepth || signs > maxDepth {
			return errDeep()
		}
		if chains > maxChains {
			return fmt.Errorf("it has more than %d operators, splats and template directives", maxChains)
		}
		before = t.Type
	}
	return nil
}

// closes reports whether a token ends what the token open has begun.
func closes(token, open hclsyntax.TokenType) bool {
	switch token {
	case hclsyntax.TokenCParen:
		return open == hclsyntax.TokenOParen
	case hclsyntax.TokenCBrack:
		return open == hclsyntax.TokenOBrack
	case hclsyntax.TokenCBrace:
		return open == hclsyntax.TokenOBrace
	case hclsyntax.TokenCQuote:
		return open == hclsyntax.TokenOQuote
	case hclsyntax.TokenCHeredoc:
		return open == hclsyntax.TokenOHeredoc
	case hclsyntax.TokenTemplateSeqEnd:
		return open == hclsyntax.TokenTemplateInterp || open == hclsyntax.TokenTemplateControl
	}
	return false
}

// nestedJSON returns an error if the values in src, or the templates in its strings, are too
// deeply nested, or have a number that is out of range. A string ends with its line, as for HCL's parser.
func nestedJSON(src []byte) error {
	depth := 0
	for i := 0; i < len(src); i++ {
		switch src[i] {
		case '[', '{':
			if depth++; depth > maxDepth {
				return errDeep()
			}
		case ']', '}':
			depth = max(depth-1, 0)
		case '"':
			start := i
			for i++; i < len(src) && src[i] != '"' && src[i] != '\n'; i++ {
				if src[i] == '\\' {
					i++
				}
			}
			var text string
			if json.Unmarshal(src[start:min(i+1, len(src))], &text) != nil {
				continue // an error of the parser, too
			}
			if err := Source([]byte(text), Template); err != nil {
				return within(src[:start], err)
			}
		case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			start := i
			for i+1 < len(src) && bytes.IndexByte([]byte("+-.0123456789Ee"), src[i+1]) >= 0 {
				i++
			}
			if err := Literal(src[start : i+1]); err != nil {
				return within(src[:start], &NumberError{error: err})
			}
		}
	}
	return nil
}

// within returns err, the error of a value in JSON, with its place, which is after the text before.
func within(before []byte, err error) error {
	wrong, ok := errors.AsType[*NumberError](err)
	if !ok {
		return err
	}
	line := before[bytes.LastIndexByte(before, '\n')+1:]
	at := hcl.Pos{Line: 1 + bytes.Count(before, []byte("\n")), Column: 1 + utf8.RuneCount(line), Byte: len(before)}
	return &NumberError{hcl.Range{Start: at, End: at}, wrong.error}
}

func errDeep() error { return fmt.Errorf("it is nested more than %d levels deep", maxDepth) }

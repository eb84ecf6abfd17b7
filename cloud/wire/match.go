package wire

import "unicode/utf8"

// Escape is the character that, in a pattern of [Match], makes the next character literal.
type Escape byte

const (
	// NoEscape is for patterns in IAM policies.
	NoEscape Escape = 0
	// Backslash is for patterns in EC2 filters.
	Backslash Escape = '\\'
)

// Match reports whether text matches pattern, in which * matches any text and ? any one
// character. An escape at the end of a pattern is literal. Match takes at most as many
// steps as the product of the two lengths, and only as many as their sum if every part
// between stars matches where it is first tried.
func Match(pattern, text string, escape Escape) bool {
	ok, _ := match(pattern, text, escape)
	return ok
}

// match is Match, and also returns the number of steps.
func match(pattern, text string, escape Escape) (ok bool, steps int) {
	star, again := "", "" // the pattern after the last *, and the text that this * has not consumed
	starred := false
	for pattern != "" || text != "" {
		steps++
		if pattern != "" && pattern[0] == '*' {
			pattern = pattern[1:]
			star, again, starred = pattern, text, true
			continue
		}
		if n, m, same := one(pattern, text, escape); same {
			pattern, text = pattern[n:], text[m:]
			continue
		}
		if !starred || again == "" {
			return false, steps
		}
		_, n := utf8.DecodeRuneInString(again) // the last * consumes one more character
		again = again[n:]
		pattern, text = star, again
	}
	return true, steps
}

// one reports whether a pattern, which does not begin with a star, and a text begin with the same
// character. n and m are the lengths of that character in bytes in the pattern and in the text.
func one(pattern, text string, escape Escape) (n, m int, same bool) {
	if pattern == "" || text == "" {
		return 0, 0, false
	}
	_, m = utf8.DecodeRuneInString(text)
	if pattern[0] == '?' {
		return 1, m, true
	}
	skip := 0
	if escape != NoEscape && pattern[0] == byte(escape) && len(pattern) > 1 {
		skip = 1
	}
	_, n = utf8.DecodeRuneInString(pattern[skip:])
	return skip + n, m, pattern[skip:skip+n] == text[:m]
}

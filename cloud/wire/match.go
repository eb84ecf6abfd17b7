package wire

import "unicode/utf8"

// Escape is what, in a pattern of [Match], takes the character after it as it is.
type Escape byte

const (
	// NoEscape is for the patterns of IAM's policies.
	NoEscape Escape = 0
	// Backslash is for the patterns of EC2's filters.
	Backslash Escape = '\\'
)

// Match reports whether a text is of a pattern, in which * is any text and ? any one
// character. An escape at the end of a pattern is itself. It takes no more steps than the
// product of the two lengths, and as many as their sum if every part between stars is found
// where it is first looked for.
func Match(pattern, text string, escape Escape) bool {
	ok, _ := match(pattern, text, escape)
	return ok
}

// match is Match, and tells the steps that it took.
func match(pattern, text string, escape Escape) (ok bool, steps int) {
	star, again := "", "" // the pattern after the last *, and the text that it has not taken
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
		_, n := utf8.DecodeRuneInString(again) // the last * takes one more
		again = again[n:]
		pattern, text = star, again
	}
	return true, steps
}

// one reports whether a pattern that begins with no star and a text begin with the same
// character, which has n bytes of the pattern and m of the text.
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

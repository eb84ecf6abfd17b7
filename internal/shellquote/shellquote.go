// Package shellquote quotes words for a POSIX shell and for that of Windows.
package shellquote

import "strings"

// plain are the characters that are not special to a shell at any position.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=@%+,"

// Join returns words for a shell, separated by spaces. Only words with special
// characters are quoted.
func Join(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = w
		if w == "" || strings.Trim(w, plain) != "" {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// For is Join for the shell that users of a system type commands into: cmd.exe, with
// goos "windows".
func For(goos string, words ...string) string {
	if goos != "windows" {
		return Join(words...)
	}
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = w
		if w == "" || strings.Trim(w, plain+`\`) != "" {
			quoted[i] = quoteWindows(w)
		}
	}
	return strings.Join(quoted, " ")
}

// quoteWindows puts a word in double quotes as Windows programs parse them: a backslash
// is special only before a quote.
func quoteWindows(word string) string {
	var b strings.Builder
	b.WriteByte('"')
	backslashes := 0
	for _, r := range word {
		switch r {
		case '\\':
			backslashes++
			continue
		case '"':
			b.WriteString(strings.Repeat(`\`, 2*backslashes+1))
		default:
			b.WriteString(strings.Repeat(`\`, backslashes))
		}
		backslashes = 0
		b.WriteRune(r)
	}
	b.WriteString(strings.Repeat(`\`, 2*backslashes))
	b.WriteByte('"')
	return b.String()
}

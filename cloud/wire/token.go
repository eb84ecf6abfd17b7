package wire

import (
	"crypto/sha256"
	"encoding/base64"
)

// tokenSum is the number of checksum bytes in a token.
const tokenSum = 8

// newToken returns the token of the page of a list that begins after a key. It contains a checksum
// of the list's name and the key, so that [openToken] detects forged tokens and tokens of other
// lists.
func newToken(list, after string) string {
	sum := sha256.Sum256([]byte(list + "\x00" + after))
	return base64.RawURLEncoding.EncodeToString(append(sum[:tokenSum], after...))
}

// openToken returns the key in a token made by [newToken] for the same list.
func openToken(list, token string) (after string, ok bool) {
	data, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(data) < tokenSum {
		return "", false
	}
	after = string(data[tokenSum:])
	return after, newToken(list, after) == token
}

// Page returns the page of rows that begins after the token's key: size rows, or all if
// size is 0, and the token of the next page. The rows must be in the order of their keys.
// A nil token means the first page. ok is false if the token is not of this list.
func Page[T any](list string, rows []T, key func(T) string, order func(a, b string) int, size int, token *string) (page []T, next *string, ok bool) {
	begin, end, next, ok := PageOf(list, len(rows), func(i int) string { return key(rows[i]) }, order, size, token)
	return append([]T{}, rows[begin:end]...), next, ok // return an empty list rather than nil
}

// PageOf is Page for a number of rows with these keys: the page is [begin, end).
func PageOf(list string, rows int, key func(i int) string, order func(a, b string) int, size int, token *string) (begin, end int, next *string, ok bool) {
	if token != nil {
		after, ok := openToken(list, *token)
		if !ok {
			return 0, 0, nil, false
		}
		for begin < rows && order(key(begin), after) <= 0 {
			begin++
		}
	}
	if size == 0 || rows-begin <= size {
		return begin, rows, nil, true
	}
	end = begin + size
	more := newToken(list, key(end-1))
	return begin, end, &more, true
}

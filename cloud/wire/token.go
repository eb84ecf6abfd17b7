package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
)

// tokenSum is how much of a token is a sum over the rest of it.
const tokenSum = 8

// NewToken is the token of the page of a list that begins after a key. It holds a
// sum over the list's name and the key, so that [OpenToken] knows a token that a
// client has made up, or got from another list.
func NewToken(list, after string) string {
	sum := sha256.Sum256([]byte(list + "\x00" + after))
	return base64.RawURLEncoding.EncodeToString(append(sum[:tokenSum], after...))
}

// OpenToken returns the key in a token of [NewToken] for the same list.
func OpenToken(list, token string) (after string, ok bool) {
	data, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(data) < tokenSum {
		return "", false
	}
	after = string(data[tokenSum:])
	return after, NewToken(list, after) == token
}

// Page returns the page of rows that begins after a token's key: n rows, or all if n is
// 0, and the token of the next page. The rows are in the order of their keys. A token
// that is none of the list's is not ok; nil is the first page's.
func Page[T any](list string, rows []T, key func(T) string, order func(a, b string) int, n int, token *string) (page []T, next *string, ok bool) {
	if token != nil {
		after, ok := OpenToken(list, *token)
		if !ok {
			return nil, nil, false
		}
		rows = slices.DeleteFunc(slices.Clone(rows), func(row T) bool { return order(key(row), after) <= 0 })
	}
	if n == 0 || len(rows) <= n {
		return append([]T{}, rows...), nil, true // an empty list is not none
	}
	more := NewToken(list, key(rows[n-1]))
	return rows[:n], &more, true
}

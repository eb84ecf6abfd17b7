package wire

import (
	"crypto/sha256"
	"encoding/base64"
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

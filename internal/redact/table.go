package redact

import (
	"cmp"
	"slices"
	"strings"
)

// table finds rare secrets. Adding a secret does not rebuild the table, because a run of
// many builds adds secrets, such as keys, again and again.
type table struct {
	starts map[string][]string  // by their first bytes, longest first
	hints  [1 << 16 / 64]uint64 // pairs of bytes with which secrets begin
}

// start is the number of leading bytes by which a table indexes secrets. No secret in it is
// shorter.
const start = 8

func (t *table) add(secret string) {
	if t.starts == nil {
		t.starts = map[string][]string{}
	}
	alike := t.starts[secret[:start]]
	at, _ := slices.BinarySearchFunc(alike, secret, byLength)
	t.starts[secret[:start]] = slices.Insert(alike, at, secret)
	hint := hintOf(secret)
	t.hints[hint/64] |= 1 << (hint % 64)
}

func hintOf(text string) uint { return uint(text[0])<<8 | uint(text[1]) }

// replace replaces each secret, or group of overlapping secrets, by mask or, if that is
// empty, by as many asterisks as it has bytes.
func (t *table) replace(text, mask string) string {
	var b strings.Builder
	rest := 0
	for at := 0; at+start <= len(text); at++ {
		end := at + len(t.at(text[at:]))
		if end == at {
			continue
		}
		for in := at + 1; in < end && in+start <= len(text); in++ {
			end = max(end, in+len(t.at(text[in:])))
		}
		b.WriteString(text[rest:at])
		b.WriteString(cmp.Or(mask, strings.Repeat("*", end-at)))
		rest, at = end, end-1
	}
	if rest == 0 {
		return text
	}
	b.WriteString(text[rest:])
	return b.String()
}

// at returns the longest secret that text, of at least start bytes, begins with, or "".
func (t *table) at(text string) string {
	hint := hintOf(text)
	if t.hints[hint/64]&(1<<(hint%64)) == 0 {
		return ""
	}
	for _, secret := range t.starts[text[:start]] {
		if strings.HasPrefix(text, secret) {
			return secret
		}
	}
	return ""
}

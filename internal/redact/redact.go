// Package redact keeps secrets out of everything that is shown or written down.
package redact

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// Mask replaces a secret.
const Mask = "<sensitive>"

// Set is a growing set of secret texts. The zero value is empty and ready for use. Methods
// are safe for concurrent use.
//
// A secret that is long and rare is masked everywhere. Masking any other secret, such as
// "root" or "y", everywhere would make output unreadable: it is masked only as a separate
// word, and in bake's own messages only in quotes, so that bake's own words are never
// masked.
type Set struct {
	mu     sync.RWMutex
	known  map[string]bool
	rare   table
	common []secret // the others, longest first, so that a secret within another one cannot spoil it
}

type secret struct {
	text string
	kind kind
}

// kind determines where a secret is masked.
type kind int

const (
	rare     kind = iota // everywhere
	short                // as a separate word
	ordinary             // likewise, but in messages only in quotes
	line                 // an ordinary line of a secret text: only as a whole line
)

// Rare reports whether a secret is long and rare enough to be masked everywhere: it has
// eight characters or more, and is neither a number nor common words. Numbers and words
// are rare only if they are very long.
func Rare(s string) bool { return kindOf(s) == rare }

func kindOf(s string) kind {
	s = strings.TrimSpace(s)
	n := utf8.RuneCountInString(s)
	digits := !strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsDigit(c) })
	letters := !strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsLetter(c) })
	_, first := utf8.DecodeRuneInString(s)
	word := letters && (strings.ToLower(s[first:]) == s[first:] || strings.ToUpper(s) == s)
	words := !letters && !strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsLetter(c) && c != ' ' })
	switch {
	case digits && n < 12, word && n < 16, words && n < 16, n < 2:
		return ordinary
	case n < 8:
		return short
	}
	return rare
}

// Add registers s and each of its lines as secret, except for lines without information,
// such as the brace of a JSON text.
func (r *Set) Add(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range variants(s) {
		if r.known[one.text] {
			continue
		}
		if r.known == nil {
			r.known = map[string]bool{}
		}
		r.known[one.text] = true
		if one.kind == rare {
			r.rare.add(one.text)
			continue
		}
		// A new slice: the old one may be in use.
		at, _ := slices.BinarySearchFunc(r.common, one, func(a, b secret) int { return byLength(a.text, b.text) })
		r.common = slices.Insert(slices.Clip(r.common), at, one)
	}
}

// byLength orders texts, the longest first.
func byLength(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) }

// AddRare adds s if it is long and rare. It is for values that are not marked as secret
// but may be, such as the password of a login: "packer" or "root" reveals nothing.
func (r *Set) AddRare(s string) {
	if Rare(s) {
		r.Add(s)
	}
}

// variants returns the forms in which a text can appear in output: complete, with the
// line ends of the other system, and line by line; each unchanged and as programs quote
// it.
func variants(s string) []secret {
	if strings.TrimSpace(s) == "" {
		return nil
	}
	plain := []secret{{s, kindOf(s)}}
	if strings.Contains(s, "\n") {
		unix := strings.ReplaceAll(s, "\r\n", "\n")
		whole := strings.TrimRight(unix, "\n")
		plain = append(plain, secret{unix, kindOf(unix)}, secret{whole, kindOf(whole)})
		for text := range strings.SplitSeq(whole, "\n") {
			text = strings.TrimSpace(text)
			switch {
			case text == whole: // there is no other line
			case Rare(text):
				plain = append(plain, secret{text, rare})
			case strings.Contains(text, " "):
				plain = append(plain, secret{text, kindOf(text)})
			case strings.ContainsFunc(text, func(c rune) bool { return unicode.IsLetter(c) || unicode.IsDigit(c) }):
				plain = append(plain, secret{text, line})
			}
		}
	}
	var all []secret
	for _, one := range plain {
		all = append(all, one)
		for _, text := range quotations(one.text) {
			all = append(all, secret{text, one.kind})
		}
	}
	return all
}

// quotations returns text as Go, JSON, URLs and shells quote it, without forms equal to
// text.
func quotations(text string) []string {
	inner := func(quoted string) string { return quoted[1 : len(quoted)-1] }
	forms := []string{
		inner(strconv.Quote(text)), inner(strconv.QuoteToASCII(text)),
		url.QueryEscape(text), url.PathEscape(text),
		strings.ReplaceAll(text, "'", `'\''`), strings.ReplaceAll(text, "'", `'"'"'`),
	}
	for _, escapeHTML := range []bool{true, false} {
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(escapeHTML)
		if err := enc.Encode(text); err == nil {
			forms = append(forms, inner(strings.TrimSuffix(b.String(), "\n")))
		}
	}
	return slices.DeleteFunc(forms, func(form string) bool { return form == text })
}

// Redact replaces every secret by [Mask] in text that comes from a machine, a script
// or the user.
func (r *Set) Redact(text string) string { return r.replace(text, (*match).stands, Mask) }

// RedactMessage replaces every secret by [Mask] in bake's own messages.
func (r *Set) RedactMessage(text string) string { return r.replace(text, (*match).quoted, Mask) }

// Blank returns text, the source of a template, with every byte of a secret replaced by
// an asterisk, so that positions in it do not change.
func (r *Set) Blank(text []byte) []byte { return []byte(r.replace(string(text), (*match).quoted, "")) }

// replace replaces each rare secret, and each match of a common secret for which counts
// returns true, by mask or, if mask is empty, by as many asterisks as the secret has
// bytes.
func (r *Set) replace(text string, counts func(*match) bool, mask string) string {
	r.mu.RLock()
	text, common := r.rare.replace(text, mask), r.common
	r.mu.RUnlock()
	for _, s := range common {
		if strings.Contains(text, s.text) {
			text = replaceWhere(text, s, counts, mask)
		}
	}
	return text
}

func replaceWhere(text string, s secret, counts func(*match) bool, mask string) string {
	var b strings.Builder
	rest := 0
	for at := 0; ; {
		i := strings.Index(text[at:], s.text)
		if i < 0 {
			break
		}
		m := match{secret: s, text: text, start: at + i, end: at + i + len(s.text)}
		if m.inMask() || !counts(&m) {
			_, width := utf8.DecodeRuneInString(text[m.start:])
			at = m.start + width
			continue
		}
		b.WriteString(text[rest:m.start])
		b.WriteString(cmp.Or(mask, strings.Repeat("*", len(s.text))))
		at, rest = m.end, m.end
	}
	b.WriteString(text[rest:])
	return b.String()
}

// match is an occurrence of a secret in a text.
type match struct {
	secret
	text       string
	start, end int
}

// inMask reports whether it is part of the mask of another secret.
func (m *match) inMask() bool {
	from := max(0, m.end-len(Mask))
	for from < len(m.text) && from <= m.start {
		i := strings.Index(m.text[from:], Mask)
		if i < 0 || from+i > m.start {
			return false
		}
		if m.end <= from+i+len(Mask) {
			return true
		}
		from += i + 1
	}
	return false
}

// stands reports whether the match is a separate word or line.
func (m *match) stands() bool {
	before, after := m.text[:m.start], m.text[m.end:]
	if m.kind == line {
		after, _, _ = strings.Cut(after, "\n")
		return strings.TrimSpace(before[strings.LastIndexByte(before, '\n')+1:]) == "" && strings.TrimSpace(after) == ""
	}
	first, _ := utf8.DecodeRuneInString(m.secret.text)
	last, _ := utf8.DecodeLastRuneInString(m.secret.text)
	left, _ := utf8.DecodeLastRuneInString(before)
	right, _ := utf8.DecodeRuneInString(after)
	return !(inWord(first) && inWord(left) && before != "" || inWord(last) && inWord(right) && after != "")
}

func inWord(c rune) bool {
	return c == '_' || c == '-' || unicode.IsLetter(c) || unicode.IsDigit(c)
}

// quoted reports whether the match cannot be one of bake's own words: it is the whole
// text, is in quotes, or is separate and not a word.
func (m *match) quoted() bool {
	switch {
	case strings.TrimSpace(m.text) == m.secret.text:
		return true
	case m.kind == short:
		return m.stands()
	case m.kind == line || m.start == 0 || m.end == len(m.text):
		return false
	}
	q := m.text[m.start-1]
	return q == m.text[m.end] && (q == '"' || q == '\'' || q == '`')
}

// Diagnostics returns diags without secrets in their texts and in the values that
// are shown with them. It returns nil for none.
func (r *Set) Diagnostics(diags hcl.Diagnostics) hcl.Diagnostics {
	var out hcl.Diagnostics
	for _, d := range diags {
		clean := *d
		clean.Summary, clean.Detail = r.RedactMessage(d.Summary), r.RedactMessage(d.Detail)
		if r.shows(d) {
			clean.Expression, clean.EvalContext = nil, nil
		}
		out = append(out, &clean)
	}
	return out
}

// shows reports whether the values of variables in d's expression, which are printed with
// d, contain a secret.
func (r *Set) shows(d *hcl.Diagnostic) bool {
	if d.Expression == nil || d.EvalContext == nil {
		return false
	}
	found := false
	for _, ref := range d.Expression.Variables() {
		val, _ := ref.TraverseAbs(d.EvalContext) // what fails is not shown
		val, _ = val.UnmarkDeep()
		_ = cty.Walk(val, func(_ cty.Path, v cty.Value) (bool, error) {
			if v.Type() == cty.String && v.IsKnown() && !v.IsNull() && r.Redact(v.AsString()) != v.AsString() {
				found = true
			}
			return !found, nil
		})
	}
	return found
}

// Error returns an error with the text of err without its secrets, and the same results of
// [errors.Is]. [errors.As] finds only hcl.Diagnostics in it, also without secrets. Error
// returns nil for nil, and err itself if there is nothing to mask.
func (r *Set) Error(err error) error {
	if err == nil {
		return nil
	}
	var diags hcl.Diagnostics
	text := err.Error()
	clean := r.RedactMessage(text)
	if placed := errors.As(err, &diags); clean == text && !placed {
		return err
	}
	return &redacted{clean, r.Diagnostics(diags), err}
}

type redacted struct {
	text  string
	diags hcl.Diagnostics
	err   error
}

// Error implements error.
func (e *redacted) Error() string { return e.text }

// Is implements what [errors.Is] asks for.
func (e *redacted) Is(target error) bool { return errors.Is(e.err, target) }

// As implements what [errors.As] asks for.
func (e *redacted) As(target any) bool {
	diags, ok := target.(*hcl.Diagnostics)
	if !ok || len(e.diags) == 0 {
		return false
	}
	*diags = e.diags
	return true
}

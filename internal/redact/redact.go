// Package redact keeps secrets out of everything that is shown or written down.
package redact

import (
	"slices"
	"strings"
	"sync"
	"unicode"
)

// Mask is what stands in the place of a secret.
const Mask = "<sensitive>"

// Set is a growing set of secret texts. The zero value is empty and ready for
// use. Methods are safe for concurrent use.
type Set struct {
	mu       sync.RWMutex
	secrets  []string // longest first, so that a secret within another one cannot spoil it
	replacer *strings.Replacer
}

// Add makes s secret, and so each line of it. A line that says nothing by itself,
// such as the brace of a JSON text, is not: masking it would only make everything
// else unreadable.
func (r *Set) Add(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, text := range variants(s) {
		if !slices.Contains(r.secrets, text) {
			r.secrets = append(r.secrets, text)
			r.replacer = nil
		}
	}
}

// variants are the forms in which a text shows up in output: whole, with the
// line ends of the other system, and line by line.
func variants(s string) []string {
	if strings.TrimSpace(s) == "" {
		return nil
	}
	if !strings.Contains(s, "\n") {
		return []string{s}
	}
	unix := strings.ReplaceAll(s, "\r\n", "\n")
	all := []string{s, unix, strings.TrimRight(unix, "\n")}
	for line := range strings.SplitSeq(unix, "\n") {
		line = strings.TrimSpace(line)
		if strings.ContainsFunc(line, func(c rune) bool { return unicode.IsLetter(c) || unicode.IsDigit(c) }) {
			all = append(all, line)
		}
	}
	return all
}

// Redact replaces every secret in text by [Mask].
func (r *Set) Redact(text string) string {
	return r.compiled().Replace(text)
}

// Values lists the secret texts, longest first.
func (r *Set) Values() []string {
	r.compiled()
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Clone(r.secrets)
}

func (r *Set) compiled() *strings.Replacer {
	r.mu.RLock()
	c := r.replacer
	r.mu.RUnlock()
	if c != nil {
		return c
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.secrets, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	var pairs []string
	for _, s := range r.secrets {
		pairs = append(pairs, s, Mask)
	}
	r.replacer = strings.NewReplacer(pairs...)
	return r.replacer
}

// Error returns an error that reads like err without its secrets and still
// unwraps to it. It returns nil for nil, and err itself when it holds none.
func (r *Set) Error(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	clean := r.Redact(text)
	if clean == text {
		return err
	}
	return &redacted{clean, err}
}

type redacted struct {
	text string
	err  error
}

func (e *redacted) Error() string { return e.text }
func (e *redacted) Unwrap() error { return e.err }

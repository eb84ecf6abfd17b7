// Package redact keeps secrets out of everything that is shown or written down.
package redact

import (
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
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
// line ends of the other system, and line by line; each as it is, and as programs
// quote it.
func variants(s string) []string {
	if strings.TrimSpace(s) == "" {
		return nil
	}
	plain := []string{s}
	if strings.Contains(s, "\n") {
		unix := strings.ReplaceAll(s, "\r\n", "\n")
		plain = append(plain, unix, strings.TrimRight(unix, "\n"))
		for line := range strings.SplitSeq(unix, "\n") {
			line = strings.TrimSpace(line)
			if strings.ContainsFunc(line, func(c rune) bool { return unicode.IsLetter(c) || unicode.IsDigit(c) }) {
				plain = append(plain, line)
			}
		}
	}
	var all []string
	for _, text := range plain {
		all = append(append(all, text), quotations(text)...)
	}
	return all
}

// quotations are text as Go, JSON, URLs and shells quote it, where that is not as
// it is.
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

// Blank returns text with every byte of a secret replaced by an asterisk, so that
// positions in it stay what they are.
func (r *Set) Blank(text []byte) []byte {
	out := string(text)
	for _, s := range r.Values() {
		out = strings.ReplaceAll(out, s, strings.Repeat("*", len(s)))
	}
	return []byte(out)
}

// Diagnostics returns diags without secrets in their texts and in the values that
// are shown with them. It returns nil for none.
func (r *Set) Diagnostics(diags hcl.Diagnostics) hcl.Diagnostics {
	var out hcl.Diagnostics
	for _, d := range diags {
		clean := *d
		clean.Summary, clean.Detail = r.Redact(d.Summary), r.Redact(d.Detail)
		if r.shows(d) {
			clean.Expression, clean.EvalContext = nil, nil
		}
		out = append(out, &clean)
	}
	return out
}

// shows reports whether the values of the names in d's expression, which are
// printed with it, hold a secret.
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

// Error returns an error that reads like err without its secrets, and is what err
// is to [errors.Is]. The only thing that [errors.As] finds in it is
// hcl.Diagnostics, without secrets too. It returns nil for nil, and err itself
// when there is nothing to hide.
func (r *Set) Error(err error) error {
	if err == nil {
		return nil
	}
	var diags hcl.Diagnostics
	text := err.Error()
	clean := r.Redact(text)
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

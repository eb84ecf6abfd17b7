// Package lazyregexp has regular expressions that are compiled when they are first used. As
// variables of a package they need no code before main, unlike those of sync.OnceValue.
package lazyregexp

import (
	"regexp"
	"sync"
)

// Regexp is a regular expression. It can be used by several goroutines at once.
type Regexp struct {
	expr     string
	once     sync.Once
	compiled *regexp.Regexp
}

// New returns the regular expression expr, which must be valid.
func New(expr string) *Regexp { return &Regexp{expr: expr} }

// Get returns the compiled expression. It panics if the expression is invalid.
func (r *Regexp) Get() *regexp.Regexp {
	r.once.Do(func() { r.compiled = regexp.MustCompile(r.expr) })
	return r.compiled
}

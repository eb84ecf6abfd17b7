// Package stack grows the stacks of goroutines in advance. Growing a deep stack copies it,
// which reads the descriptions of all functions on it. These are spread over the program's
// file, so each costs a page of memory and a page fault.
package stack

const room = 100 << 10

// Packages are initialized in the order of their import paths, as far as their imports allow.
// This one has none, so it comes before those whose initialization needs a deep stack, such as
// those that compile regular expressions.
func init() { Grow() } //nolint:gochecknoinits // the point is to be early

// Grow makes the stack of the calling goroutine large enough for reading a template. It
// is called while few functions are on it. Memory for what is not used then is not taken.
func Grow() { grow(false) }

// grow has a large frame, for which the stack grows when it is called. The frame is
// written, and so takes memory, only if it is used.
//
//go:noinline
func grow(used bool) {
	if used {
		var b [room]byte
		keep(&b)
	}
}

//go:noinline
func keep(*[room]byte) {}

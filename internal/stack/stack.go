// Package stack grows the stacks of goroutines in advance. Growing a deep stack copies it,
// which reads the descriptions of all functions on it. These are spread over the program's
// file, so each costs a page of memory and a page fault.
package stack

const room = 24 << 10

// Grow makes the stack of the calling goroutine large enough for reading a template. It
// is called while few functions are on it.
//
//go:noinline
func Grow() {
	var b [room]byte
	keep(&b)
}

//go:noinline
func keep(*[room]byte) {}

// Package stack makes room on stacks of goroutines.
package stack

const room = 24 << 10

// Grow makes the stack of the calling goroutine large enough for reading a template. It
// is called while few functions are on it: a stack that has to grow later is copied, and
// for that the descriptions of all functions on it are read, which are spread over the
// program's file.
//
//go:noinline
func Grow() {
	var b [room]byte
	keep(&b)
}

//go:noinline
func keep(*[room]byte) {}

// Package stack makes room on stacks of goroutines. A stack that has to grow when it is
// deep is copied, and for that the descriptions of all functions on it are read, which are
// spread over the program's file: each is a page of memory and a fault.
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

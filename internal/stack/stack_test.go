package stack_test

import (
	"testing"
	"unsafe"

	"bake/internal/stack"
)

// TestGrow: what needs less than the room that Grow makes does not move the stack.
func TestGrow(t *testing.T) {
	for _, grow := range []bool{false, true} {
		moved := make(chan bool)
		go func() {
			if grow {
				stack.Grow()
			}
			var here int
			before := address(&here)
			deep(90)
			moved <- address(&here) != before
		}()
		if <-moved == grow {
			t.Errorf("grown in advance: %t; moved later: %t", grow, !grow)
		}
	}
}

// address returns where a variable is, without making it escape to the heap.
//
//go:noinline
func address(v *int) uintptr { return uintptr(unsafe.Pointer(v)) }

// deep needs that many kilobytes of the stack.
//
//go:noinline
func deep(kilobytes int) byte {
	var b [1000]byte
	if kilobytes > 1 {
		b[kilobytes] = deep(kilobytes - 1)
	}
	return b[kilobytes] + b[0]
}

package sandbox

import (
	"errors"
	"testing"

	"bake/cloud/machine"
)

// Who had a machine suspended hears that it went on, since it was to stop; nobody suspends it
// again.
func TestReleased(t *testing.T) {
	m := &running{done: make(chan struct{}), holds: 2}
	close(m.done)
	_ = m.release() // there is no shim to tell
	for range 2 {
		if err := m.Thaw(); !errors.Is(err, machine.ErrReleased) {
			t.Errorf("thaw: %v", err)
		}
	}
	if err := m.Freeze(t.Context()); !errors.Is(err, machine.ErrReleased) {
		t.Errorf("freeze: %v", err)
	}
}

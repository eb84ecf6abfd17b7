package builder

import (
	"context"
	"sync"
)

// Leftovers collects bake's temporary files that could not be removed from a machine after
// use because the connection was lost. The caller of the provisioners removes them before an
// image is made. Its methods are safe for concurrent use, and do nothing on nil.
type Leftovers struct {
	mu   sync.Mutex
	list []Leftover
}

// Leftover is one entry of [Leftovers].
type Leftover struct {
	Path   string // on the machine; several are separated by spaces
	Remove func(context.Context) error
}

// Add adds an entry.
func (l *Leftovers) Add(one Leftover) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, one)
}

// Any reports whether there are entries.
func (l *Leftovers) Any() bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.list) > 0
}

// Take removes and returns all entries.
func (l *Leftovers) Take() []Leftover {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.list
	l.list = nil
	return list
}

package builder

import (
	"context"
	"sync"
)

// Leftovers are the files that bake has put on a machine for its own use and could
// not remove when their use was over, because the connection was lost. Whoever
// calls the provisioners removes them before the machine becomes an image.
// Methods are safe for concurrent use; those of nil do nothing.
type Leftovers struct {
	mu   sync.Mutex
	list []Leftover
}

// Leftover is one of [Leftovers].
type Leftover struct {
	Path   string // on the machine; several are separated by spaces
	Remove func(context.Context) error
}

// Add adds one more.
func (l *Leftovers) Add(one Leftover) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, one)
}

// Any reports whether there are any.
func (l *Leftovers) Any() bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.list) > 0
}

// Take returns all of them and forgets them.
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

package durable

import "sync"

// Guarded is a state behind a lock. Update and View are the only ways to it, so whoever
// has the state holds the lock; it must not be kept when they return, and neither may
// be called in the other. What takes long, or waits for others, belongs outside.
type Guarded[S any] struct {
	mu    sync.Mutex
	state S
}

// Guard puts a state behind a lock.
func Guard[S any](state S) *Guarded[S] { return &Guarded[S]{state: state} }

// Update lets f read and change the state.
func (g *Guarded[S]) Update(f func(S) error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return f(g.state)
}

// View returns what f finds in the state.
func View[S, T any](g *Guarded[S], f func(S) T) T {
	g.mu.Lock()
	defer g.mu.Unlock()
	return f(g.state)
}

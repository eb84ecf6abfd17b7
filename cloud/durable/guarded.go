package durable

import (
	"context"
	"sync"
)

// Guarded is a state behind a lock. Update and the functions below are the only ways
// to it, so whoever has the state holds the lock. It must not be kept when they return,
// and none of them be called in another. What takes long, or waits for others, belongs
// outside.
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

// Do returns what f makes of the state, or why it cannot.
func Do[S, T any](g *Guarded[S], f func(S) (T, error)) (T, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return f(g.state)
}

// Action is a method of the state as a function that has the state while it runs. It is not
// inlined, since the program would have a copy for each action.
//
//go:noinline
func Action[S, In, Out any](g *Guarded[S], method func(S, context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	return func(ctx context.Context, in In) (Out, error) {
		return Do(g, func(state S) (Out, error) { return method(state, ctx, in) })
	}
}

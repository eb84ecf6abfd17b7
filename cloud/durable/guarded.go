package durable

import (
	"context"
	"sync"
)

// Guarded is a state protected by a lock. It is accessed only through Update and the functions
// below, which hold the lock while they run the given function. That function must not keep the
// state, must not call any of them again, and must not do anything slow or wait for others.
type Guarded[S any] struct {
	mu    sync.Mutex
	state S
}

// Guard returns state protected by a lock.
func Guard[S any](state S) *Guarded[S] { return &Guarded[S]{state: state} }

// Update calls f, which may change the state, and returns its error.
func (g *Guarded[S]) Update(f func(S) error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return f(g.state)
}

// View returns the result of f, which must not change the state.
func View[S, T any](g *Guarded[S], f func(S) T) T {
	g.mu.Lock()
	defer g.mu.Unlock()
	return f(g.state)
}

// Do returns the result and error of f, which may change the state.
func Do[S, T any](g *Guarded[S], f func(S) (T, error)) (T, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return f(g.state)
}

// Action turns a method of the state into a function that holds the lock while the method runs. It
// is not inlined, to avoid a copy for each action in the program.
//
//go:noinline
func Action[S, In, Out any](g *Guarded[S], method func(S, context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	return func(ctx context.Context, in In) (Out, error) {
		return Do(g, func(state S) (Out, error) { return method(state, ctx, in) })
	}
}

package cloud

import (
	"context"
	"sync"
)

// watchers hear of changes.
type watchers struct {
	mu  sync.Mutex
	all map[chan struct{}]struct{}
}

// add returns a channel that hears of changes until ctx ends.
func (w *watchers) add(ctx context.Context) <-chan struct{} {
	ch := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[chan struct{}]struct{}{}
	}
	w.all[ch] = struct{}{}
	context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.all, ch)
	})
	return ch
}

// tell tells all of a change. It never waits.
func (w *watchers) tell() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.all {
		select {
		case ch <- struct{}{}:
		default: // it has not looked at the last one
		}
	}
}

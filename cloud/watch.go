package cloud

import (
	"context"
	"sync"
)

// watchers notifies channels of changes.
type watchers struct {
	mu  sync.Mutex
	all map[chan struct{}]struct{}
}

// add returns a channel that is notified of changes until ctx ends.
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

// notify notifies all channels of a change. It never blocks.
func (w *watchers) tell() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.all {
		select {
		case ch <- struct{}{}:
		default: // the previous notification has not been received yet
		}
	}
}

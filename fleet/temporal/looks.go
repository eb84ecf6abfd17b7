package temporal

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"bake/builder/amazon"
)

// together is how long a query waits for further images to query in the same place.
const together = 500 * time.Millisecond

// looks queries the images of all cells that wait in a place with a single call.
type looks struct {
	mu   sync.Mutex
	open map[string]*look // by place

	ask func(ctx context.Context, p amazon.Place, ids []string) (map[string]string, error) // nil: AWS
}

// look is one call that several callers share.
type look struct {
	ids    []string
	done   chan struct{}
	states map[string]string
	err    error
}

// settled reports whether none of the images is pending any more.
func (l *looks) settled(ctx context.Context, p amazon.Place, ids []string) (bool, error) {
	one := l.join(ctx, p, ids)
	select {
	case <-one.done:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	return one.err == nil && !slices.ContainsFunc(ids, func(id string) bool { return one.states[id] == "pending" }), one.err
}

// join adds images to the next call for a place.
func (l *looks) join(ctx context.Context, p amazon.Place, ids []string) *look {
	key := p.Region
	if w := p.Cloud.Within; w != nil {
		key = fmt.Sprint(w.Account, w.Region, w.Role)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if one := l.open[key]; one != nil {
		one.ids = append(one.ids, ids...)
		return one
	}
	one := &look{ids: slices.Clone(ids), done: make(chan struct{})}
	if l.open == nil {
		l.open = map[string]*look{}
	}
	l.open[key] = one
	ask := l.ask
	if ask == nil {
		ask = amazon.ImageStates
	}
	ctx = context.WithoutCancel(ctx) // it serves other callers, too
	time.AfterFunc(together, func() {
		l.mu.Lock()
		delete(l.open, key)
		l.mu.Unlock()
		ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		defer close(one.done)
		one.states, one.err = ask(ctx, p, one.ids)
	})
	return one
}

package fleet

import (
	"context"
	"sync"
	"time"

	"bake/internal/delay"
)

// Rates limit the calls per second of many runs, for each service in each account and
// region.
type Rates struct {
	limits map[string]float64
	mu     sync.Mutex
	lanes  map[rated]*lane
}

type rated struct{ service, account, region string }

// lane admits callers one after the other, in the order of their arrival. A caller that
// stops waiting does not use up a turn.
type lane struct {
	first chan struct{} // held by the caller whose turn is next
	next  time.Time     // time of that turn
}

// NewRates returns rates for services that have a limit; others have none.
func NewRates(limits map[string]float64) *Rates {
	return &Rates{limits: limits, lanes: map[rated]*lane{}}
}

// Of returns the function for [bake/run.Options] that waits before each call in an
// account; nil if there is no limit.
func (r *Rates) Of(account string) Wait {
	if len(r.limits) == 0 {
		return nil
	}
	return func(ctx context.Context, service, region string) error {
		rate := r.limits[service]
		if rate <= 0 {
			return nil
		}
		return r.lane(rated{service, account, region}).pass(ctx, time.Duration(float64(time.Second)/rate))
	}
}

func (r *Rates) lane(of rated) *lane {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lanes[of]
	if l == nil {
		l = &lane{first: make(chan struct{}, 1)}
		r.lanes[of] = l
	}
	return l
}

// pass returns when it is the caller's turn or ctx ends.
func (l *lane) pass(ctx context.Context, interval time.Duration) error {
	select {
	case l.first <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-l.first }()
	at := l.next
	if now := time.Now(); at.Before(now) {
		at = now
	}
	if err := delay.For(ctx, time.Until(at)); err != nil {
		return err
	}
	l.next = at.Add(interval)
	return nil
}

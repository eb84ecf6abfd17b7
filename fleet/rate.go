package fleet

import (
	"context"
	"sync"
	"time"

	"bake/internal/delay"
)

// Rates hold the calls of many runs to a number a second, for each service in each account
// and region.
type Rates struct {
	limits map[string]float64
	mu     sync.Mutex
	next   map[rated]time.Time // when the next call may be made
}

type rated struct{ service, account, region string }

// NewRates returns rates for services that have a limit; others have none.
func NewRates(limits map[string]float64) *Rates {
	return &Rates{limits: limits, next: map[rated]time.Time{}}
}

// Of returns what waits before each call in an account, as [bake/run.Options] have it; nil
// if there is no limit.
func (r *Rates) Of(account string) func(ctx context.Context, service, region string) error {
	if len(r.limits) == 0 {
		return nil
	}
	return func(ctx context.Context, service, region string) error {
		rate := r.limits[service]
		if rate <= 0 {
			return nil
		}
		return delay.For(ctx, r.turn(rated{service, account, region}, rate))
	}
}

// turn is how long the next call has to wait. Its turn is taken, whatever becomes of it.
func (r *Rates) turn(of rated, rate float64) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	at := r.next[of]
	if at.Before(now) {
		at = now
	}
	r.next[of] = at.Add(time.Duration(float64(time.Second) / rate))
	return at.Sub(now)
}

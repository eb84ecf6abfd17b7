// Package delay waits, but no longer than a context allows.
package delay

import (
	"context"
	"time"
)

// For returns after d, or with the cause of ctx when that ends first. It does not
// wait at all when d is not positive.
func For(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

package access

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestCallsThatFinish: after the end of its context, a call that creates something may continue
// for five seconds, and one that reverts something for half a minute. After that, the error is the
// cause. A call that has not started by then is not sent.
func TestCallsThatFinish(t *testing.T) {
	interrupted := errors.New("interrupted")
	type call = func(context.Context, func(context.Context, *int, ...func(*int)) (*int, error), *int) (*int, error)
	for name, c := range map[string]struct {
		call  call
		takes time.Duration
		after time.Duration // until the call has ended
		cut   bool
	}{
		"call":               {Call[int, int, int], 20 * time.Second, time.Second, true},
		"finish":             {Finish[int, int, int], 5 * time.Second, 5 * time.Second, false},
		"finish, too long":   {Finish[int, int, int], 20 * time.Second, 6 * time.Second, true},
		"through":            {Through[int, int, int], 20 * time.Second, 20 * time.Second, false},
		"through, too long":  {Through[int, int, int], time.Minute, 31 * time.Second, true},
		"through, no signal": {Through[int, int, int], 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Second, func() { cancel(interrupted) })
				sent, start := 0, time.Now()
				op := func(ctx context.Context, in *int, _ ...func(*int)) (*int, error) {
					sent++
					select {
					case <-ctx.Done():
						return nil, ctx.Err()
					case <-time.After(c.takes):
						return in, nil
					}
				}
				_, err := c.call(ctx, op, new(int))
				if took := time.Since(start); took != c.after || (err != nil) != c.cut || c.cut && (!errors.Is(err, interrupted) || Refused(err)) {
					t.Errorf("after %s: %v", took, err)
				}
				time.Sleep(time.Minute)
				if _, err := c.call(ctx, op, new(int)); name != "call" && (sent != 1 || !errors.Is(err, interrupted) || !Refused(err)) {
					t.Errorf("what has not begun: %d calls, %v", sent, err)
				}
			})
		})
	}
}

// Package wait polls something until it has changed.
package wait

import (
	"context"
	"time"

	"bake/internal/delay"
)

// First is the pause after the first poll.
const First = 50 * time.Millisecond

// Watch defines the intervals and the time limit of a wait.
type Watch struct {
	Delay time.Duration // longest pause between two polls
	Limit time.Duration // time limit of the wait
}

// Until calls look at once, and then with pauses that grow from [First] to w.Delay, until
// look returns true or an error, or w.Limit has passed. When ctx ends, the error is its
// cause. what describes the wait in messages: "image ami-1 to become available".
func (w Watch) Until(ctx context.Context, what string, look func(context.Context) (bool, error)) error {
	start := time.Now()
	pause := min(First, w.Delay)
	for {
		done, err := look(ctx)
		if err != nil || done {
			return err
		}
		if time.Since(start)+pause > w.Limit {
			return inVain(time.Since(start), what)
		}
		if err := delay.For(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, w.Delay)
	}
}

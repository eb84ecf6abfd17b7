// Package conformance has the common parts of the conformance suites of components.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// errCancelled is the cause of cancellations.
var errCancelled = errors.New("cancelled")

// Cancel calls try repeatedly: first with a cancelled context, then with one that is
// cancelled when try checks it for the first time, the second time and so on, until try
// ends without having been cancelled, which must be a success. A cancelled call must
// return the cause, except if only its last checks were cancelled, which may be too late.
// Cancel calls after following each call, with a description of what happened.
func Cancel(t testing.TB, try func(context.Context) error, after func(what string, err error)) {
	t.Helper()
	call := func(n int) (cancelled bool, err error) {
		t.Helper()
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		c := &countdown{Context: ctx, left: n, over: func() { cancel(errCancelled) }}
		if n == 0 {
			c.over()
		}
		err = try(c)
		after(fmt.Sprintf("cancelled when it asked for the time %d", n), err)
		return n == 0 || c.cancelled(), err
	}
	var ignored []int // checks at which it was cancelled and succeeded nevertheless
	for n := 0; ; n++ {
		switch cancelled, err := call(n); {
		case !cancelled && err == nil:
			return
		case err == nil && n == 0:
			t.Error("cancelled before it begins: it succeeds")
		case err == nil:
			ignored = append(ignored, n)
		case !cancelled || !errors.Is(err, errCancelled):
			t.Errorf("cancelled when it asked for the time %d: got %v", n, err)
			if !cancelled {
				return
			}
		default: // it was not too late before, unless the number of checks varies
			for _, m := range ignored {
				if !again(func() bool { _, err := call(m); return errors.Is(err, errCancelled) }) {
					t.Errorf("cancelled when it asked for the time %d: it goes on", m)
				}
			}
			ignored = nil
		}
	}
}

// again tries something several times, until it succeeds.
func again(try func() bool) bool {
	for range 3 {
		if try() {
			return true
		}
	}
	return false
}

// countdown is a context that ends after it was checked a given number of times.
type countdown struct {
	context.Context
	mu   sync.Mutex
	left int
	over func()
}

func (c *countdown) asked() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left--; c.left == 0 {
		c.over()
	}
}

func (c *countdown) cancelled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left <= 0
}

func (c *countdown) Err() error {
	c.asked()
	return c.Context.Err()
}

func (c *countdown) Value(key any) any { // used by context.Cause
	c.asked()
	return c.Context.Value(key)
}

// Goroutines returns the stacks of goroutines of the named packages that have not ended
// after a while, except those of tests and of their services.
func Goroutines(packages ...string) (left string) {
	for range 100 {
		left = ""
		buf := make([]byte, 1<<20)
		for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "testing.tRunner(") || strings.Contains(g, "test.Serve") {
				continue
			}
			for _, p := range packages {
				if strings.Contains(g, p) {
					left += g + "\n\n"
					break
				}
			}
		}
		if left == "" {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return left
}

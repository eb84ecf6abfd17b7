package sandbox

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestBudget starts 50 machines on a host with instances for 15.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, others = 128, 5
		b := newBudget()
		running, most, told := 0, 0, 0
		b.limit = func() int { return limit }
		b.free = func(n int) int { return min(n, limit-others-7*running) } // b.mu is held
		done := make(chan error)
		for range 50 {
			go func() {
				release, err := b.acquire(t.Context(), func(why string) {
					b.mu.Lock()
					defer b.mu.Unlock()
					told++
					if !strings.Contains(why, "for 15 at once") || !strings.Contains(why, "sysctl fs.inotify.max_user_instances=1024") {
						t.Errorf("told %q", why)
					}
				})
				if err == nil {
					b.mu.Lock()
					running++
					most = max(most, running)
					b.mu.Unlock()
					time.Sleep(time.Minute)
					b.mu.Lock()
					running--
					b.mu.Unlock()
					release()
					release() // a second call has no effect
				}
				done <- err
			}()
		}
		for range 50 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if most != 15 || told != 35 || b.own != 0 {
			t.Errorf("%d ran at once, %d waited, %d are left", most, told, b.own)
		}
	})
}

// TestBudgetRefuses checks the error if no machine's end could help.
func TestBudgetRefuses(t *testing.T) {
	b := newBudget()
	b.limit = func() int { return 128 }
	b.free = func(n int) int { return min(n, 3) }
	if _, err := b.acquire(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "other programs use 125") {
		t.Errorf("error is %v", err)
	}
	b.free = func(n int) int { return n }
	release, err := b.acquire(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	b.free = func(int) int { return 0 }
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err = b.acquire(ctx, func(string) { cancel(gone) })
	if !errors.Is(err, gone) {
		t.Errorf("error is %v", err)
	}
}

func TestFreeInotify(t *testing.T) {
	if n := freeInotify(3); n != 3 {
		t.Errorf("%d of 3", n)
	}
}

// TestAwaitInotify lets another driver's machines take the instances between the admission of a
// machine and the start of its systemd.
func TestAwaitInotify(t *testing.T) {
	for free, want := range map[time.Duration]bool{0: true, time.Minute: true, time.Hour: false} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			err := awaitInotify(func(n int) int {
				if time.Since(begin) < free {
					return n - 1
				}
				return n
			})
			waited := time.Since(begin)
			if (err == nil) != want || want && (waited < free || waited > free+recheck) {
				t.Errorf("instances come free after %v: %v after %v", free, err, waited)
			}
			if err != nil && !strings.Contains(err.Error(), inotifyRemedy) {
				t.Errorf("no remedy in %v", err)
			}
		})
	}
}

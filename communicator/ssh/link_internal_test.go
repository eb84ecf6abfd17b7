package ssh

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bake/communicator"
	"bake/step"
)

// TestSilence: the user gets an early message, once, that the machine does not answer, and one
// when it answers again; a wait for the machine ends after a time limit.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var said []string
		start := time.Now()
		c := &Client{scope: step.NewScope(step.Scope{Emit: func(e step.Event) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, time.Since(start).String()+" "+string(e.Kind)+" "+e.Text)
		}})}
		l := &link{addr: "192.0.2.1:22"}
		after := func(d time.Duration) func() error {
			return func() error { time.Sleep(d); return nil }
		}
		if err := c.answer(t.Context(), l, after(14*time.Second)); err != nil || len(said) > 0 {
			t.Errorf("%v %q", err, said)
		}
		start = time.Now()
		var both sync.WaitGroup
		for range 2 { // two sessions of one connection
			both.Go(func() {
				if err := c.answer(t.Context(), l, after(40*time.Second)); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		want := []string{
			"15s warning The machine at 192.0.2.1:22 has not answered for 15s. Its connection is closed if it does not answer within 45s.",
			"40s say The machine at 192.0.2.1:22 answers again.",
		}
		if !slices.Equal(said, want) {
			t.Errorf("got %q, want %q", said, want)
		}
		start = time.Now()
		if err := c.answer(t.Context(), l, after(time.Hour)); !errors.Is(err, errDead) || time.Since(start) != deadAfter {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		l.dead.Store(true)
		if err := l.disconnected(errors.New("no exit status")); !errors.Is(err, communicator.ErrDisconnected) || !strings.Contains(err.Error(), "the machine did not answer for 1m0s") {
			t.Error(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("Ctrl-C"))
		if err := c.answer(ctx, l, after(time.Hour)); err == nil || !strings.Contains(err.Error(), "Ctrl-C") {
			t.Error(err)
		}
		time.Sleep(2 * time.Hour)
	})
}

// TestGoesDown: what machines answered while they were up, and during a reboot.
func TestGoesDown(t *testing.T) {
	for answer, want := range map[string]bool{
		"": false, "running": false, "degraded": false, "offline": false,
		"starting nologin": false, "running nologin": false, "offline nologin": false,
		"stopping": true, "stopping nologin": true, "unknown nologin": true, "nologin": true,
	} {
		if got := goesDown(strings.Fields(answer)); got != want {
			t.Errorf("%q: %t", answer, got)
		}
	}
}

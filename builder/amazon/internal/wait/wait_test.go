package wait

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var looks []time.Duration
		w := Watch{Delay: 300 * time.Millisecond, Limit: time.Hour}
		err := w.Until(t.Context(), "it", func(context.Context) (bool, error) {
			looks = append(looks, time.Since(start)/time.Millisecond)
			return len(looks) == 6, nil
		})
		if want := []time.Duration{0, 50, 150, 350, 650, 950}; err != nil || !slices.Equal(looks, want) {
			t.Errorf("looked at %v, %v; want %v", looks, err, want)
		}
	})
}

func TestUntilEnds(t *testing.T) {
	never := func(context.Context) (bool, error) { return false, nil }
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		err := Watch{Delay: time.Second, Limit: time.Minute}.Until(t.Context(), "image ami-1 to become available", never)
		if err == nil || !strings.Contains(err.Error(), "image ami-1 to become available") || time.Since(start) > time.Minute {
			t.Errorf("after %s: %v", time.Since(start), err)
		}

		stop, broken := errors.New("stop"), errors.New("broken")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Second, func() { cancel(stop) })
		start = time.Now()
		if err := (Watch{Delay: time.Minute, Limit: time.Hour}).Until(ctx, "it", never); !errors.Is(err, stop) || time.Since(start) != 10*time.Second {
			t.Errorf("cancelled after %s: %v", time.Since(start), err)
		}
		err = Watch{Delay: time.Second, Limit: time.Minute}.Until(t.Context(), "it", func(context.Context) (bool, error) { return false, broken })
		if !errors.Is(err, broken) {
			t.Error(err)
		}
	})
}

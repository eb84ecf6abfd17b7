package wait

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a service whose resources change at given times.
type fake struct {
	mu    sync.Mutex
	done  map[string]time.Time
	looks []time.Time
	asked int   // ids
	err   error // of every poll, if not nil
	hang  bool  // polls end only when they are cancelled
}

func (f *fake) look(ctx context.Context, ids []string) (map[string]bool, error) {
	f.mu.Lock()
	f.looks = append(f.looks, time.Now())
	f.asked += len(ids)
	err, hang := f.err, f.hang
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	time.Sleep(50 * time.Millisecond)
	f.mu.Lock()
	defer f.mu.Unlock()
	found := map[string]bool{}
	for _, id := range ids {
		if at, ok := f.done[id]; ok {
			found[id] = !time.Now().Before(at)
		}
	}
	return found, err
}

var errPassing = errors.New("throttled")

func (f *fake) poll() *Poll[bool] {
	return &Poll[bool]{Look: f.look, Passes: func(err error) bool { return errors.Is(err, errPassing) }, Batch: 100, Tempo: Tempo{Fast: 750 * time.Millisecond}}
}

func until(id string) Wait[bool] {
	return Wait[bool]{ID: id, What: id + " to be done", Kind: "k", Watch: Watch{Delay: 15 * time.Second, Limit: 10 * time.Minute},
		Usual: Span{4 * time.Second, 30 * time.Second},
		Judge: func(v, found bool) (bool, error) { return found && v, nil }}
}

// TestPollTempo checks when polls happen, and how late a change is noticed.
func TestPollTempo(t *testing.T) {
	for _, after := range []time.Duration{5 * time.Second, 12 * time.Second, 29 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{done: map[string]time.Time{"a": time.Now().Add(after)}}
			start := time.Now()
			if v, err := f.poll().Until(t.Context(), until("a")); err != nil || !v {
				t.Errorf("Until = %t, %v, want true", v, err)
			}
			late, looks := time.Since(start)-after, len(f.looks)
			t.Logf("change after %s, noticed %s later, %d looks", after, late, looks)
			if late > time.Second || looks > int(after/(500*time.Millisecond))+3 {
				t.Errorf("change after %s, noticed %s later, %d looks", after, late, looks)
			}
		})
	}
}

// TestPollLearns: the second wait of a kind polls rarely at first, and often near the expected
// end.
func TestPollLearns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{done: map[string]time.Time{"a": time.Now().Add(4 * time.Minute)}}
		p := f.poll()
		if _, err := p.Until(t.Context(), until("a")); err != nil {
			t.Fatal(err)
		}
		f.looks = nil
		change := time.Now().Add(4 * time.Minute)
		f.done["b"] = change
		if _, err := p.Until(t.Context(), until("b")); err != nil {
			t.Fatal(err)
		}
		far := 0
		for _, at := range f.looks {
			if change.Sub(at) > time.Minute {
				far++
			}
		}
		late := time.Since(change)
		t.Logf("%d looks, %d of them a minute or more before; noticed after %s", len(f.looks), far, late)
		if late > time.Second || far > 15 {
			t.Errorf("%d looks, %d of them a minute or more before; noticed after %s", len(f.looks), far, late)
		}
	})
}

// TestPollTogether: many concurrent waits need about as many polls as a single one.
func TestPollTogether(t *testing.T) {
	looks := func(n int) (count int) {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{done: map[string]time.Time{}}
			p := f.poll()
			var all sync.WaitGroup
			for i := range n {
				id := fmt.Sprint("i-", i)
				all.Go(func() {
					time.Sleep(time.Duration(i) * 100 * time.Millisecond)
					change := time.Now().Add(20 * time.Second)
					f.mu.Lock()
					f.done[id] = change
					f.mu.Unlock()
					if _, err := p.Until(t.Context(), until(id)); err != nil {
						t.Error(err)
					}
					if late := time.Since(change); late > time.Second {
						t.Errorf("%s noticed %s late", id, late)
					}
				})
			}
			start := time.Now()
			all.Wait()
			minutes := time.Since(start).Minutes()
			count = int(float64(len(f.looks)) / minutes)
		})
		return count
	}
	one, hundred := looks(1), looks(100)
	t.Logf("looks a minute: %d for one, %d for a hundred", one, hundred)
	if hundred > one*5/4 {
		t.Errorf("looks a minute: %d for one, %d for a hundred", one, hundred)
	}
}

func TestPollBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{done: map[string]time.Time{}}
		p := f.poll()
		p.Batch = 10
		var all sync.WaitGroup
		for i := range 95 {
			f.done[fmt.Sprint("i-", i)] = time.Now().Add(10 * time.Second)
		}
		for i := range 95 {
			all.Go(func() {
				w := until(fmt.Sprint("i-", i))
				if _, err := p.Until(t.Context(), w); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if most := len(f.looks) * 10; f.asked > most {
			t.Errorf("%d ids in %d looks", f.asked, len(f.looks))
		}
	})
}

// TestPollPasses: neither temporary failures nor a missing resource end a wait before its limit.
func TestPollPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{err: errPassing, done: map[string]time.Time{"a": time.Now()}}
		p := f.poll()
		time.AfterFunc(time.Minute, func() { f.mu.Lock(); f.err = nil; f.mu.Unlock() })
		start := time.Now()
		if _, err := p.Until(t.Context(), until("a")); err != nil || time.Since(start) > 2*time.Minute || len(f.looks) > 15 {
			t.Errorf("after %s and %d looks: %v", time.Since(start), len(f.looks), err)
		}

		w := until("missing")
		w.Limit = 3 * time.Minute
		start = time.Now()
		if _, err := p.Until(t.Context(), w); err == nil || !strings.Contains(err.Error(), "missing to be done") || time.Since(start) != w.Limit {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		f.err = errPassing
		if _, err := p.Until(t.Context(), w); !errors.Is(err, errPassing) {
			t.Errorf("the error does not say why it was in vain: %v", err)
		}
	})
}

func TestPollEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken, stop := errors.New("broken"), errors.New("stop")
		f := &fake{err: broken}
		p := f.poll()
		if _, err := p.Until(t.Context(), until("a")); !errors.Is(err, broken) {
			t.Error(err)
		}
		f.err, f.hang = nil, true
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Second, func() { cancel(stop) })
		start := time.Now()
		if _, err := p.Until(ctx, until("a")); !errors.Is(err, stop) || time.Since(start) != 10*time.Second {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		synctest.Wait() // or the test would hang: there are no more polls
		f.hang, f.done = false, map[string]time.Time{"b": time.Now()}
		w := until("b")
		w.Judge = func(bool, bool) (bool, error) { return false, broken }
		if _, err := p.Until(t.Context(), w); !errors.Is(err, broken) {
			t.Error(err)
		}
	})
}

// TestPollExpect: a given expectation takes precedence over experience.
func TestPollExpect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		change := time.Now().Add(10 * time.Minute)
		f := &fake{done: map[string]time.Time{"a": change}}
		w := until("a")
		w.Limit = time.Hour
		w.Expect = func() (Span, bool) { return Span{595 * time.Second, 605 * time.Second}, true }
		if _, err := f.poll().Until(t.Context(), w); err != nil || time.Since(change) > time.Second || len(f.looks) > 70 {
			t.Errorf("%d looks, noticed after %s: %v", len(f.looks), time.Since(change), err)
		}
		if gap := slices.MaxFunc(f.looks[1:], time.Time.Compare).Sub(f.looks[len(f.looks)-2]); gap > time.Second {
			t.Errorf("%s between the last looks", gap)
		}
	})
}

// TestPollVoice: continuing failures are reported after a while, and not each time.
func TestPollVoice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{done: map[string]time.Time{"a": time.Now()}, err: errPassing}
		start := time.Now()
		var said []string
		var at []time.Duration
		w := until("a")
		w.Voice = func(text string) { said, at = append(said, text), append(at, time.Since(start)) }
		go func() {
			time.Sleep(2 * time.Minute)
			f.mu.Lock()
			defer f.mu.Unlock()
			f.err = nil
		}()
		if _, err := f.poll().Until(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		if len(said) < 3 || len(said) > 5 || at[0] < Trouble || at[0] > 30*time.Second {
			t.Fatalf("it was said at %v: %q", at, said)
		}
		for i := 1; i < len(at); i++ {
			if apart := at[i] - at[i-1]; apart < Again || apart > 75*time.Second {
				t.Errorf("it was said at %v", at)
			}
		}
		for _, part := range []string{"a to be done", "has been failing for ", errPassing.Error()} {
			if !strings.Contains(said[0], part) {
				t.Errorf("it says %q, without %q", said[0], part)
			}
		}
	})
}

// TestPollEarly: changes that may happen at once are noticed soon after.
func TestPollEarly(t *testing.T) {
	for _, c := range []struct{ after, late time.Duration }{
		{30 * time.Millisecond, 100 * time.Millisecond},
		{400 * time.Millisecond, 500 * time.Millisecond},
		{1500 * time.Millisecond, 1750 * time.Millisecond},
		{4 * time.Second, 6 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			f := &fake{done: map[string]time.Time{"a": start.Add(c.after)}}
			p := f.poll()
			p.Tempo.Early = 20 * time.Millisecond
			if _, err := p.Until(t.Context(), until("a")); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took > c.late || len(f.looks) > 25 {
				t.Errorf("a change after %s: noticed after %s and %d polls, not within %s and 25", c.after, took, len(f.looks), c.late)
			}
		})
	}
}

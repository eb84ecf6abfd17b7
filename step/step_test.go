package step_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bake/step"
)

var errFailed = errors.New("it failed")

// memory is a ledger in memory.
type memory struct {
	mu   sync.Mutex
	live []step.Resource
	fail func(op string) error
}

func (m *memory) write(op string, f func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if err := m.fail(op); err != nil {
			return err
		}
	}
	f()
	return nil
}

func (m *memory) index(key string) int {
	return slices.IndexFunc(m.live, func(r step.Resource) bool { return r.Key == key })
}

func (m *memory) Intend(r step.Resource) error {
	return m.write("intend", func() { m.live = append(m.live, r) })
}

func (m *memory) Created(key, id string) error {
	return m.write("created", func() { m.live[m.index(key)].ID = id })
}

func (m *memory) Gone(keys ...string) error {
	return m.write("gone", func() {
		m.live = slices.DeleteFunc(m.live, func(r step.Resource) bool { return slices.Contains(keys, r.Key) })
	})
}

func (m *memory) Owned() ([]step.Resource, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.live), nil
}

// bench is a scope with everything needed to observe it.
type bench struct {
	*step.Scope
	ledger *memory

	mu     sync.Mutex
	events []step.Event
	gone   []string // keys, in the order they were destroyed
	refuse map[string]error
}

func newBench(change func(*step.Scope)) *bench {
	b := &bench{ledger: &memory{}, refuse: map[string]error{}}
	s := step.Scope{Build: "b", Ledger: b.ledger, Grace: time.Minute, Emit: func(e step.Event) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.events = append(b.events, e)
	}}
	if change != nil {
		change(&s)
	}
	b.Scope = step.NewScope(s)
	b.Handle("x", step.DestroyerFunc(func(ctx context.Context, r step.Resource) error {
		if err := b.refuse[r.Key]; err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.gone = append(b.gone, r.Key)
		return nil
	}))
	return b
}

func (b *bench) kinds() string {
	var out []string
	for _, e := range b.events {
		out = append(out, string(e.Kind)+"("+e.Step+")")
	}
	return strings.Join(out, " ")
}

func (b *bench) acquire(t *testing.T, key string) {
	t.Helper()
	_, err := step.Acquire(t.Context(), b.Scope, "create "+key, step.Resource{Kind: "x:thing", Key: key},
		func(context.Context) (string, int, error) { return "id-" + key, 1, nil })
	if err != nil {
		t.Fatal(err)
	}
}

func TestDo(t *testing.T) {
	b := newBench(nil)
	v, err := step.Do(t.Context(), b.Scope, "outer", func(ctx context.Context) (int, error) {
		b.Say(ctx, "half way")
		return step.Do(ctx, b.Scope, "inner", func(context.Context) (int, error) { return 7, nil })
	})
	if v != 7 || err != nil {
		t.Errorf("Do = %d, %v, want 7", v, err)
	}
	if got, want := b.kinds(), "step-started(outer) say(outer) step-started(outer > inner) step-finished(outer > inner) step-finished(outer)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestDoFails(t *testing.T) {
	b := newBench(nil)
	_, err := step.Do(t.Context(), b.Scope, "outer", func(ctx context.Context) (int, error) {
		_, err := step.Do(ctx, b.Scope, "inner", func(context.Context) (int, error) { return 0, errFailed })
		return 0, fmt.Errorf("while at it: %w", err)
	})
	if !errors.Is(err, errFailed) || strings.Count(err.Error(), "inner: ") != 1 || strings.Contains(err.Error(), "outer") {
		t.Errorf("%v: the name of the failed step belongs there once", err)
	}
}

// TestDoConcurrently checks that concurrent steps do not mix up their paths.
func TestDoConcurrently(t *testing.T) {
	b := newBench(nil)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			name := fmt.Sprint(i)
			_, err := step.Do(t.Context(), b.Scope, name, func(ctx context.Context) (int, error) {
				if step.Path(ctx) != name {
					t.Errorf("%s in %s", step.Path(ctx), name)
				}
				b.acquire(t, name)
				return 0, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := b.Close(t.Context(), context.Background()); err != nil || len(b.gone) != 20 {
		t.Errorf("%d destroyed, %v", len(b.gone), err)
	}
}

func TestDoAfterCancel(t *testing.T) {
	b := newBench(nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errFailed)
	_, err := step.Do(ctx, b.Scope, "late", func(context.Context) (int, error) {
		t.Error("it ran")
		return 0, nil
	})
	if !errors.Is(err, errFailed) || len(b.events) > 0 {
		t.Errorf("%v, %s", err, b.kinds())
	}
}

func TestRetry(t *testing.T) {
	asked := 0
	b := newBench(func(s *step.Scope) {
		s.Failed = func(_ context.Context, name string, err error) step.Decision {
			asked++
			if name != "outer > inner" || !errors.Is(err, errFailed) {
				t.Errorf("asked about %q, %v", name, err)
			}
			if asked < 3 {
				return step.Retry
			}
			return step.GiveUp
		}
	})
	runs := 0
	_, err := step.Do(t.Context(), b.Scope, "outer", func(ctx context.Context) (int, error) {
		return step.Do(ctx, b.Scope, "inner", func(context.Context) (int, error) {
			runs++
			return 0, errFailed
		})
	})
	if err == nil || runs != 3 || asked != 3 {
		t.Errorf("%v; ran %d times, asked %d times", err, runs, asked)
	}
}

// TestAcquireRetried checks that resources of the first attempt stay owned.
func TestAcquireRetried(t *testing.T) {
	b := newBench(func(s *step.Scope) {
		s.Failed = func(context.Context, string, error) step.Decision { return step.Retry }
	})
	attempt := 0
	v, err := step.Acquire(t.Context(), b.Scope, "create", step.Resource{Kind: "x:thing", Key: "k"}, func(context.Context) (string, string, error) {
		if attempt++; attempt == 1 {
			return "", "", errFailed
		}
		return "id", "value", nil
	})
	if v != "value" || err != nil {
		t.Errorf("Acquire = %q, %v, want value", v, err)
	}
	if err := b.Close(t.Context(), context.Background()); err != nil {
		t.Error(err)
	}
	if len(b.gone) == 0 || b.gone[0] != "k" {
		t.Errorf("destroyed: %v", b.gone)
	}
}

func TestPause(t *testing.T) {
	var paused []string
	b := newBench(func(s *step.Scope) {
		s.Pause = func(_ context.Context, name string) error {
			paused = append(paused, name)
			if name == "destroy thing id-k" {
				return nil
			}
			return map[string]error{"stop here": errFailed}[name]
		}
	})
	b.acquire(t, "k")
	if _, err := step.Do(t.Context(), b.Scope, "stop here", func(context.Context) (int, error) { return 0, nil }); !errors.Is(err, errFailed) {
		t.Error(err)
	}
	if err := b.Close(t.Context(), context.Background()); err != nil {
		t.Error(err)
	}
	if want := []string{"create k", "stop here", "destroy thing id-k"}; !slices.Equal(paused, want) {
		t.Errorf("%q, want %q", paused, want)
	}
}

// TestAcquire checks that the intent is written before the call and the id after it.
func TestAcquire(t *testing.T) {
	b := newBench(nil)
	want := step.Resource{Kind: "x:thing", Key: "k", Where: "here", With: map[string]string{"a": "b"}}
	_, err := step.Acquire(t.Context(), b.Scope, "create", want, func(context.Context) (string, int, error) {
		owned, _ := b.ledger.Owned()
		if len(owned) != 1 || owned[0].ID != "" || owned[0].Build != "b" || owned[0].With["a"] != "b" {
			t.Errorf("before the call: %v", owned)
		}
		return "id", 0, nil
	})
	if owned, _ := b.ledger.Owned(); err != nil || len(owned) != 1 || owned[0].ID != "id" {
		t.Errorf("after the call: %v, %v", owned, err)
	}
	if got, want := b.kinds(), "step-started(create) resource-intended(create) resource-created(create) step-finished(create)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestAcquireWithoutLedger checks that nothing is created if it cannot be recorded.
func TestAcquireWithoutLedger(t *testing.T) {
	b := newBench(nil)
	b.ledger.fail = func(string) error { return errFailed }
	_, err := step.Acquire(t.Context(), b.Scope, "create", step.Resource{Kind: "x:thing", Key: "k"}, func(context.Context) (string, int, error) {
		t.Error("it was created")
		return "", 0, nil
	})
	if !errors.Is(err, errFailed) {
		t.Error(err)
	}
}

func TestKeepAndClose(t *testing.T) {
	b := newBench(nil)
	for _, key := range []string{"1", "2", "3"} {
		b.acquire(t, key)
	}
	if err := b.Keep(t.Context(), "2"); err != nil {
		t.Fatal(err)
	}
	other := step.Resource{Kind: "x:thing", Key: "other", Build: "another build"}
	if err := b.ledger.Intend(other); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(t.Context(), context.Background()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"3", "1"}; !slices.Equal(b.gone, want) {
		t.Errorf("destroyed %v, want %v: newest first, nothing kept, nothing of others", b.gone, want)
	}
	if owned, _ := b.ledger.Owned(); len(owned) != 1 || owned[0].Key != "other" {
		t.Errorf("ledger: %v", owned)
	}
}

func TestDestroyOne(t *testing.T) {
	b := newBench(nil)
	b.acquire(t, "1")
	b.acquire(t, "2")
	if err := b.Destroy(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	if err := b.Destroy(t.Context(), "1"); err != nil {
		t.Error("a second time:", err)
	}
	if owned, _ := b.ledger.Owned(); !slices.Equal(b.gone, []string{"1"}) || len(owned) != 1 {
		t.Errorf("destroyed %v, owned %v", b.gone, owned)
	}
}

// TestCloseGoesOn checks that Close continues after a cancellation and after a failure.
func TestCloseGoesOn(t *testing.T) {
	b := newBench(func(s *step.Scope) {
		s.Failed = func(context.Context, string, error) step.Decision {
			t.Error("asked about teardown")
			return step.GiveUp
		}
	})
	for _, key := range []string{"1", "2", "3"} {
		b.acquire(t, key)
	}
	b.refuse["2"] = errFailed
	b.refuse["3"] = errors.New("another")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := b.Close(ctx, context.Background())
	if !errors.Is(err, errFailed) || !strings.Contains(err.Error(), "another") {
		t.Errorf("%v", err)
	}
	if !slices.Equal(b.gone, []string{"1"}) {
		t.Errorf("destroyed %v", b.gone)
	}
	if owned, _ := b.ledger.Owned(); len(owned) != 2 {
		t.Errorf("owned %v", owned)
	}
	if !strings.Contains(b.kinds(), "resource-left") {
		t.Error("nobody is told of what is left")
	}
}

func TestCloseWithoutDestroyer(t *testing.T) {
	b := newBench(nil)
	if err := b.ledger.Intend(step.Resource{Kind: "y:widget-pool", Key: "k", Where: "there", Build: "b"}); err != nil {
		t.Fatal(err)
	}
	err := b.Close(t.Context(), context.Background())
	if err == nil || !strings.Contains(err.Error(), "widget pool k in there by hand") {
		t.Errorf("%v", err)
	}
}

// hanging makes destroyers wait until their context ends.
func hanging(b *bench) {
	b.Handle("x", step.DestroyerFunc(func(ctx context.Context, _ step.Resource) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}))
}

func TestCloseStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		hanging(b)
		b.acquire(t, "1")
		b.acquire(t, "2")
		stop, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(5*time.Second, func() { cancel(errFailed) })
		begin := time.Now()
		// A single cause is reported once, however many resources it affects.
		if err := b.Close(t.Context(), stop); !errors.Is(err, errFailed) || strings.Count(err.Error(), errFailed.Error()) != 1 {
			t.Error(err)
		}
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("took %s", took)
		}
		if owned, _ := b.ledger.Owned(); len(owned) != 2 {
			t.Errorf("owned %v", owned)
		}
	})
}

func TestCloseGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		hanging(b)
		b.acquire(t, "1")
		begin := time.Now()
		err := b.Close(t.Context(), context.Background())
		if took := time.Since(begin); err == nil || took != time.Minute || !strings.Contains(err.Error(), "longer than 1m0s") {
			t.Errorf("%v after %s", err, took)
		}
	})
}

func TestLeave(t *testing.T) {
	b := newBench(nil)
	b.acquire(t, "1")
	left, err := b.Leave(t.Context())
	if err != nil || len(left) != 1 || left[0].ID != "id-1" || len(b.gone) > 0 {
		t.Errorf("%v, %v, %v", left, err, b.gone)
	}
	if owned, _ := b.ledger.Owned(); len(owned) != 1 {
		t.Error("a sweep would not find it")
	}
}

func TestAs(t *testing.T) {
	b := newBench(nil)
	other := b.As("shell")
	other.Handle("z", step.DestroyerFunc(func(context.Context, step.Resource) error { return nil }))
	other.Say(t.Context(), "hi")
	if e := b.events[0]; e.Source != "shell" || e.Build != "b" {
		t.Errorf("%+v", e)
	}
	if err := b.Destroyers().Destroy(t.Context(), step.Resource{Kind: "z:thing"}); err != nil {
		t.Error("what one handles the other does not:", err)
	}
}

// TestEventJSON checks that events survive encoding as JSON, with errors as text.
func TestEventJSON(t *testing.T) {
	in := step.Event{
		Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Kind: step.StepFailed, Build: "b", Step: "s", Text: "t",
		Elapsed: time.Second, Error: errFailed, Progress: &step.Progress{Done: 1, Total: 2, Unit: "B"},
		Resource: &step.Resource{Kind: "x:y", Key: "k"},
	}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out step.Event
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	if out.Error == nil || out.Error.Error() != errFailed.Error() || *out.Progress != *in.Progress || out.Resource.Key != "k" {
		t.Errorf("%s comes back as %+v", b, out)
	}
	again, err := json.Marshal(out)
	if err != nil || string(again) != string(b) {
		t.Errorf("%s, then %s", b, again)
	}
}

func TestResourceString(t *testing.T) {
	for want, r := range map[string]step.Resource{
		"instance i-1 in us-east-1": {Kind: "ec2:instance", Key: "k", ID: "i-1", Where: "us-east-1"},
		"key pair packer_1":         {Kind: "ec2:key-pair", Key: "packer_1"},
	} {
		if got := r.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

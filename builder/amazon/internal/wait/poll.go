package wait

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"
	"time"
)

// Poll polls things of one kind for all callers in the process that wait for them. One
// call covers all of them, so that many waits take as many calls as one. It polls often
// when a change is expected soon, which it estimates from earlier waits, and rarely
// otherwise. Its exported fields are set before it is used and are not changed afterwards.
type Poll[T any] struct {
	// Look queries the state of things by their IDs, at most Batch of them. Things that do
	// not exist, or not yet, are missing from the result.
	Look func(ctx context.Context, ids []string) (map[string]T, error)

	// Passes reports whether an error of Look is temporary, such as a network error: the
	// poll is then repeated later. Other errors end all waits.
	Passes func(error) bool

	Batch int
	Tempo Tempo

	mu      sync.Mutex
	waiting []*waiter[T]
	wake    chan struct{}              // nil while no poll is running
	cancel  context.CancelFunc         // cancels the poll in progress
	last    time.Time                  // time of the last poll
	broken  int                        // number of consecutive polls that have failed
	since   time.Time                  // time of the first of them
	trouble error                      // error of the last one
	past    map[string][]time.Duration // how long waits took, by their kind; the newest last
}

// Tempo defines the minimum intervals between polls.
type Tempo struct {
	Fast  time.Duration // when a change is expected soon
	Early time.Duration // first pause of a wait if changes may happen at once; 0 if they do not
}

// Span is the interval in which a wait is expected to end, measured from its start.
type Span struct{ Soonest, Latest time.Duration }

// Wait is a wait for one thing.
type Wait[T any] struct {
	ID   string // of the thing
	What string // for messages: "image ami-1 to become available"
	Watch

	// Later is the time until the first poll.
	Later time.Duration

	// Kind names waits of similar duration. Usual is their duration until one has been
	// observed.
	Kind  string
	Usual Span

	// Expect, if not nil, estimates the end of this wait better than earlier waits do. ok
	// is false if it has no estimate.
	Expect func() (s Span, ok bool)

	// Voice, if not nil, is called from time to time while polls keep failing.
	Voice func(text string)

	// Judge reports whether the wait is over, with an error if it has failed. found is
	// false if the thing does not exist. It is called by one goroutine at a time, and must
	// not block.
	Judge func(v T, found bool) (done bool, err error)
}

type waiter[T any] struct {
	Wait[T]
	start   time.Time
	next    time.Time
	said    time.Time // when Voice was last called
	outcome chan outcome[T]
}

type outcome[T any] struct {
	v   T
	err error
}

// spread is the relative random variation of pauses, so that processes that started
// together do not poll in step.
const spread = 0.1

// soon is the time within which changes that may happen at once usually do. Pauses until
// then are short, because a build has little else to wait for.
const soon = 2 * time.Second

// remembered is the number of past waits of each kind whose duration is kept.
const remembered = 8

// longest is the maximum pause after failed polls.
const longest = 30 * time.Second

// Trouble is how long polls must fail before the first message, and Again the interval of
// further messages.
const (
	Trouble = 10 * time.Second
	Again   = 30 * time.Second
)

// Until waits until Judge ends the wait, and returns the last state of w's thing. When ctx
// ends, the error is its cause.
func (p *Poll[T]) Until(ctx context.Context, w Wait[T]) (T, error) {
	var zero T
	if err := context.Cause(ctx); err != nil {
		return zero, err
	}
	me := &waiter[T]{Wait: w, start: time.Now(), outcome: make(chan outcome[T], 1)}
	me.next = me.start.Add(w.Later)
	p.join(me)
	defer p.leave(me)
	limit := time.NewTimer(w.Limit)
	defer limit.Stop()
	select {
	case o := <-me.outcome:
		return o.v, o.err
	case <-ctx.Done():
		return zero, context.Cause(ctx)
	case <-limit.C:
		return zero, p.inVain(w)
	}
}

// inVain returns the error of a wait that took too long. It includes the error of the polls
// if they failed.
func (p *Poll[T]) inVain(w Wait[T]) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := inVain(w.Limit, w.What)
	if p.broken > 0 {
		err = fmt.Errorf("%w; the last attempt failed: %w", err, p.trouble)
	}
	return err
}

func inVain(after time.Duration, what string) error {
	return fmt.Errorf("timed out after %s waiting for %s; raise aws_polling { max_attempts } to wait longer", after.Round(time.Second), what)
}

func (p *Poll[T]) join(w *waiter[T]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = append(p.waiting, w)
	if p.wake == nil {
		p.wake = make(chan struct{}, 1)
		go p.run(p.wake)
	}
	p.stir()
}

func (p *Poll[T]) leave(w *waiter[T]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = slices.DeleteFunc(p.waiting, func(o *waiter[T]) bool { return o == w })
	if len(p.waiting) == 0 && p.cancel != nil {
		p.cancel()
	}
	p.stir()
}

// stir makes run check the waits again. The caller holds the lock.
func (p *Poll[T]) stir() {
	select {
	case p.wake <- struct{}{}: // a nil channel is never ready
	default:
	}
}

// run polls as long as there are waits.
func (p *Poll[T]) run(wake <-chan struct{}) {
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	for {
		p.mu.Lock()
		if len(p.waiting) == 0 {
			p.wake = nil
			p.mu.Unlock()
			return
		}
		alarm.Reset(time.Until(p.when()))
		p.mu.Unlock()
		select {
		case <-wake:
		case <-alarm.C:
			p.look()
		}
	}
}

// when returns the time of the next poll. The more waits there are, the fewer polls are
// made for a single one. The caller holds the lock.
func (p *Poll[T]) when() time.Time {
	next := p.waiting[0].next
	for _, w := range p.waiting {
		if w.next.Before(next) {
			next = w.next
		}
	}
	apart := p.Tempo.Fast
	if early := p.Tempo.Early; early > 0 {
		apart = min(apart, time.Duration(len(p.waiting))*early)
	}
	if p.broken > 0 {
		apart = min(longest, p.Tempo.Fast<<min(p.broken, 10))
	}
	if soonest := p.last.Add(apart); next.Before(soonest) {
		return soonest
	}
	return next
}

// look polls the things that are due, and others that fit into the same calls.
func (p *Poll[T]) look() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p.mu.Lock()
	now := time.Now()
	sort.SliceStable(p.waiting, func(i, j int) bool { return p.waiting[i].next.Before(p.waiting[j].next) })
	var ids []string
	for _, w := range p.waiting {
		if w.next.After(now) && len(ids)%p.Batch == 0 {
			break
		}
		if !slices.Contains(ids, w.ID) {
			ids = append(ids, w.ID)
		}
	}
	p.cancel = cancel
	p.mu.Unlock()
	found := map[string]T{}
	var err error
	for batch := range slices.Chunk(ids, p.Batch) {
		var some map[string]T
		if some, err = p.Look(ctx, batch); err != nil {
			break
		}
		maps.Copy(found, some)
	}
	p.mu.Lock()
	p.cancel, p.last = nil, time.Now()
	var say []func()
	switch {
	case ctx.Err() != nil: // no wait remains
	case err == nil:
		p.broken = 0
		p.tell(ids, found)
	case p.Passes(err):
		if p.broken == 0 {
			p.since = now
		}
		p.broken, p.trouble = p.broken+1, err
		say = p.complain()
	default:
		p.fail(ids, err)
	}
	p.mu.Unlock()
	for _, f := range say {
		f()
	}
}

// complain returns the functions that report failing polls to waits without a recent
// report. The caller holds the lock.
func (p *Poll[T]) complain() (say []func()) {
	for _, w := range p.waiting {
		begin := p.since
		if w.start.After(begin) {
			begin = w.start
		}
		lasted := p.last.Sub(begin)
		if w.Voice == nil || lasted < Trouble || !w.said.IsZero() && p.last.Sub(w.said) < Again {
			continue
		}
		w.said = p.last
		text := fmt.Sprintf("Still waiting for %s; checking on it has been failing for %s: %s", w.What, lasted.Round(time.Second), p.trouble)
		say = append(say, func() { w.Voice(text) })
	}
	return say
}

// tell passes the results to Judge. The caller holds the lock.
func (p *Poll[T]) tell(ids []string, found map[string]T) {
	p.waiting = slices.DeleteFunc(p.waiting, func(w *waiter[T]) bool {
		if !slices.Contains(ids, w.ID) {
			return false
		}
		v, ok := found[w.ID]
		done, err := w.Judge(v, ok)
		if done || err != nil {
			w.outcome <- outcome[T]{v, err}
		} else {
			w.next = p.last.Add(p.pause(w))
		}
		if done && err == nil {
			p.remember(w.Kind, p.last.Sub(w.start))
		}
		return done || err != nil
	})
}

// fail ends waits with an error. The caller holds the lock.
func (p *Poll[T]) fail(ids []string, err error) {
	p.waiting = slices.DeleteFunc(p.waiting, func(w *waiter[T]) bool {
		if !slices.Contains(ids, w.ID) {
			return false
		}
		w.outcome <- outcome[T]{err: err}
		return true
	})
}

// remember records how long a wait took. The caller holds the lock.
func (p *Poll[T]) remember(kind string, took time.Duration) {
	if p.past == nil {
		p.past = map[string][]time.Duration{}
	}
	past := append(p.past[kind], took)
	p.past[kind] = past[max(0, len(past)-remembered):]
}

// pause returns the time until w needs the next poll. The caller holds the lock.
func (p *Poll[T]) pause(w *waiter[T]) time.Duration {
	span := w.Usual
	if past := p.past[w.Kind]; len(past) > 0 {
		span = Span{slices.Min(past) * 9 / 10, slices.Max(past) * 11 / 10}
	}
	if w.Expect != nil {
		if better, ok := w.Expect(); ok {
			span = better
		}
	}
	passed := p.last.Sub(w.start)
	pause := min(max(span.pause(passed), p.Tempo.Fast), w.Delay)
	if early := p.Tempo.Early; early > 0 {
		grown := passed / 2
		if passed < soon {
			grown = passed / 8
		}
		pause = min(pause, max(grown, early))
	}
	return time.Duration(float64(pause) * (1 - spread*rand.Float64())) // only to spread the load
}

// pause returns half the time until s.Soonest before the span, zero within it, and a
// quarter of the time since s.Latest after it.
func (s Span) pause(passed time.Duration) time.Duration {
	switch {
	case passed < s.Soonest:
		return (s.Soonest - passed) / 2
	case passed <= s.Latest:
		return 0
	}
	return (passed - s.Latest) / 4
}

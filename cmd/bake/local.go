package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/spf13/pflag"

	"bake/internal/local"
	"bake/run/localcloud"
	"bake/step"
	"bake/ui"
)

// localOptions returns the options of the local cloud for the case that this process opens
// it.
func (p *program) localOptions(emit func(step.Event)) (local.Options, error) {
	dir, err := p.env.cloudDir()
	return local.Options{
		Dir: dir, Getenv: p.env.get, Log: p.log.Logger, Egress: p.env.get("BAKE_ALLOW_EGRESS"), Mirror: p.env.get("BAKE_MIRROR"), Progress: localcloud.Progress(p.now, emit), Rehearsing: p.rehearsing,
		Opening: func(pid int) {
			who := "Another process"
			if pid != 0 {
				who = fmt.Sprintf("Process %d", pid)
			}
			fmt.Fprintf(p.stderr, "%s is opening or closing the local cloud in %s: waiting for it.\n", who, dir)
		},
		Waiting: func() {
			fmt.Fprintln(p.stderr, "Another bake is using the local cloud that this one serves: waiting for it to finish. Press Ctrl-C twice to stop immediately.")
		},
	}, err
}

// rehearsing prints how many fault rules apply, and the seed that reproduces the faults.
func (p *program) rehearsing(rules int, seed uint64) {
	what := "1 fault rule applies"
	if rules != 1 {
		what = fmt.Sprintf("%d fault rules apply", rules)
	}
	fmt.Fprintf(p.stderr, "Rehearsal: %s; the seed is %d.\n", what, seed)
}

// faultsFlag registers the flag for a file of rules.
func faultsFlag(flags *pflag.FlagSet, value *string) {
	flags.StringVar(value, "faults", "", "inject failures into the local cloud, according to the rules in this JSON `file`")
}

// openLocal opens the local cloud. egress is the value of -allow-egress, and faults that
// of -faults. emit receives the progress of preparing bases.
func (p *program) openLocal(ctx context.Context, egress, faults string, emit func(step.Event)) (*localcloud.Cloud, error) {
	o, err := p.joinOptions(egress, emit)
	if err != nil {
		return nil, err
	}
	o.Faults = faults
	return localcloud.Open(ctx, o)
}

// joinOptions returns [program.localOptions] for a cloud that may be served already.
// egress is the value of -allow-egress.
func (p *program) joinOptions(egress string, emit func(step.Event)) (local.Options, error) {
	o, err := p.localOptions(emit)
	o.EgressAsked, o.Egress = egress != "", cmp.Or(egress, o.Egress)
	return o, err
}

// diskWatch looks at the directory of the local cloud whenever a step fails: afterwards, the teardown
// may have made room on its disk.
type diskWatch struct {
	cloud   atomic.Pointer[localcloud.Cloud] // nil until it is open
	trouble atomic.Pointer[string]           // the first that was found; nil if there was none
}

// watched returns emit with a look at each failure.
func (w *diskWatch) watched(emit func(step.Event)) func(step.Event) {
	return func(e step.Event) {
		if cloud := w.cloud.Load(); cloud != nil && e.Kind == step.StepFailed {
			if text := cloud.Trouble(); text != "" {
				w.trouble.CompareAndSwap(nil, &text)
			}
		}
		emit(e)
	}
}

// text returns a paragraph about what was found; it is empty if there was no trouble.
func (w *diskWatch) text() string {
	if text := w.trouble.Load(); text != nil {
		return "\n" + *text + "."
	}
	return ""
}

// withLocal runs fn with the local cloud, until a signal ends its context. Progress is
// shown on standard error.
func (p *program) withLocal(ctx context.Context, egress, faults string, fn func(context.Context, *localcloud.Cloud) error) (err error) {
	ctx, stop, release := p.interrupts(ctx, ignoreSignals)
	defer release()
	emit, done := p.progressDisplay()
	defer done()
	c, err := p.openLocal(ctx, egress, faults, emit)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close(stop)) }()
	ctx, unwatch := c.Watch(ctx)
	defer unwatch()
	err = fn(ctx, c)
	if gone, ok := errors.AsType[*localcloud.GoneError](context.Cause(ctx)); ok {
		return gone // other errors follow from this one
	}
	if err != nil && !errors.Is(err, errReported) {
		if trouble := c.Trouble(); trouble != "" {
			return fmt.Errorf("%w\n%s", err, trouble)
		}
	}
	return err
}

// progressDisplay shows events on standard error, for commands whose standard
// output is their result.
func (p *program) progressDisplay() (emit func(step.Event), done func()) {
	options := ui.PlainOptions{Color: p.stderr.draws() && p.env.colors()}
	if p.stderr.draws() && p.env.get("TERM") != "dumb" {
		s := ui.NewScreen(ui.NewLive(p.stderr, options), p.stderr.size)
		return s.Handle, s.Close
	}
	var mu sync.Mutex
	plain := ui.NewPlain(p.stderr, options)
	return func(e step.Event) {
		mu.Lock()
		defer mu.Unlock()
		plain.Handle(e)
	}, func() {}
}

package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"bake/run"
)

// interrupted is the cause of a context that a signal has cancelled.
type interrupted struct{ signal os.Signal }

func (e interrupted) Error() string { return fmt.Sprintf("cancelled: received %s", e.signal) }

// Outcome is that of the run: the exit code of a program that a signal ends.
func (e interrupted) Outcome() run.Outcome {
	if n, ok := e.signal.(syscall.Signal); ok && n > 0 {
		return run.Outcome(128 + int(n))
	}
	return run.OutcomeCancelled
}

// Cancelling is what the run says of it.
func (e interrupted) Cancelling() string {
	return fmt.Sprintf("Cancelling build after receiving %s", e.signal)
}

// errUnread is the cause of a context that was cancelled since nobody reads the
// output any more.
var errUnread unread

type unread struct{}

func (unread) Error() string { return "cancelled: the program reading bake's output has exited" }

// Outcome is that of a Ctrl-C, which often ends the reader before bake hears of it.
func (unread) Outcome() run.Outcome { return run.OutcomeCancelled }

// Cancelling is what the run says of it.
func (unread) Cancelling() string {
	return "Cancelling build: the program reading its output has exited"
}

// listenEarly has Ctrl-C's signal wait for who listens to it, where it would be lost until then: a shell
// begins what it runs in the background with the signal ignored.
func listenEarly() chan os.Signal {
	early := make(chan os.Signal, 1)
	if signal.Ignored(os.Interrupt) {
		signal.Notify(early, os.Interrupt)
	}
	return early
}

// interrupts returns two contexts: the first signal that asks the program to end
// cancels ctx, the second one cancels stop too, and a third one kills. The echo of a
// signal counts as none: timeout(1), like other supervisors, signals the process and then
// the group that it is in. A person's Ctrl-C has no echo. When nobody reads standard output or standard error any more, that cancels ctx and counts as
// no signal: Ctrl-C ends both "bake build | tee log" and its reader, in any order.
// told is called with each cause. The caller releases the contexts.
//
// From the first call on, writing to a pipe that nobody reads is an error and not
// the end of the program, since there is something to clean up.
func (p *program) interrupts(parent context.Context, told func(n int, cause error)) (ctx, stop context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(parent)
	stop, cancelStop := context.WithCancelCause(context.WithoutCancel(parent))
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, ending()...)
	signal.Stop(p.early)
	if len(p.early) > 0 && len(signals) == 0 { // in both it is the same one
		signals <- <-p.early
	}
	// Not ignored, which the programs that bake starts would inherit. Sockets
	// raise it too, so only a failed write tells that an output is meant.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	done := make(chan struct{})
	go func() {
		outGone, errGone := p.stdout.gone, p.stderr.gone
		cancelUnread := func() {
			outGone, errGone = nil, nil
			if ctx.Err() == nil {
				told(0, errUnread)
				cancel(errUnread)
			}
		}
		var first time.Time
		for n := 0; ; {
			select {
			case s := <-signals:
				if n == 1 && s != os.Interrupt && time.Since(first) < time.Second {
					continue
				}
				n, first = n+1, time.Now()
				told(n, interrupted{s})
				if n == 1 {
					cancel(interrupted{s})
					continue
				}
				signal.Stop(signals)
				cancelStop(interrupted{s})
				return
			case <-outGone:
				cancelUnread()
			case <-errGone:
				cancelUnread()
			case <-done:
				return
			}
		}
	}()
	return ctx, stop, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
		cancelStop(nil)
	}
}

// ending are the signals that ask the program to end.
func ending() []os.Signal {
	wanted := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		wanted = append(wanted, syscall.SIGHUP)
	}
	return wanted
}

// interruptible calls do with a context that a signal ends; a second one kills. The signal
// is the error then, and not what failed because of it. When nobody reads the output any
// more, the program ends at once.
func interruptible(parent context.Context, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, ending()...)
	defer signal.Stop(signals)
	go func() {
		select {
		case s := <-signals:
			signal.Stop(signals)
			cancel(interrupted{s})
		case <-ctx.Done():
		}
	}()
	err := do(ctx)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// ignoreSignals is for commands that say nothing about being ended.
func ignoreSignals(int, error) {}

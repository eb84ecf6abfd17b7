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

// Cancelling returns the message in the log of the run.
func (e interrupted) Cancelling() string {
	return fmt.Sprintf("Cancelling build after receiving %s", e.signal)
}

// errUnread is the cause of a context that was cancelled because the reader of the output
// has gone away.
var errUnread unread

type unread struct{}

func (unread) Error() string { return "cancelled: the program reading bake's output has exited" }

// Outcome is that of a Ctrl-C, which often ends the reader before bake receives it.
func (unread) Outcome() run.Outcome { return run.OutcomeCancelled }

// Cancelling returns the message in the log of the run.
func (unread) Cancelling() string {
	return "Cancelling build: the program reading its output has exited"
}

// listenEarly buffers the signal of Ctrl-C until a listener is ready, so that it is not
// lost: a shell starts background processes with the signal ignored.
func listenEarly() chan os.Signal {
	early := make(chan os.Signal, 1)
	if signal.Ignored(os.Interrupt) {
		signal.Notify(early, os.Interrupt)
	}
	return early
}

// interrupts returns two contexts: the first signal that asks the program to end cancels
// ctx, the second one also cancels stop, and a third one kills the program. A signal that
// is sent again immediately does not count: timeout(1), like other supervisors, signals
// the process and then its process group. A person's Ctrl-C has no such echo. When the
// reader of standard output or standard error has gone away, ctx is cancelled, which does
// not count as a signal: Ctrl-C ends both "bake build | tee log" and its reader, in any
// order. told is called with each cause. The caller releases the contexts.
//
// From the first call on, writing to a pipe without a reader is an error and does not end
// the program, since it has to clean up.
func (p *program) interrupts(parent context.Context, told func(n int, cause error)) (ctx, stop context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(parent)
	stop, cancelStop := context.WithCancelCause(context.WithoutCancel(parent))
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, ending()...)
	signal.Stop(p.early)
	if len(p.early) > 0 && len(signals) == 0 { // in both it is the same one
		signals <- <-p.early
	}
	// The signal is not ignored, because programs that bake starts would inherit that.
	// Sockets raise it too, so only a failed write shows that an output is affected.
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
				n++
				told(n, interrupted{s})
				first = time.Now() // not before: what told writes may have to wait
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

// ending returns the signals that ask the program to end.
func ending() []os.Signal {
	wanted := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		wanted = append(wanted, syscall.SIGHUP)
	}
	return wanted
}

// interruptible calls do with a context that a signal cancels; a second signal kills the
// program. After a signal, the error is the signal and not the failure that it caused.
// When the reader of the output has gone away, the program ends at once.
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

// ignoreSignals is for commands that print nothing when they are ended.
func ignoreSignals(int, error) {}

package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// interrupted is the cause of a context that a signal has cancelled.
type interrupted struct{ signal os.Signal }

func (e interrupted) Error() string { return fmt.Sprintf("cancelled: received %s", e.signal) }

// interrupts returns two contexts: the first signal that asks the program to end
// cancels ctx, the second one cancels stop too, and a third one kills. told is
// called with each signal. The caller releases them.
func interrupts(parent context.Context, told func(n int, s os.Signal)) (ctx, stop context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(parent)
	stop, cancelStop := context.WithCancelCause(context.WithoutCancel(parent))
	signals := make(chan os.Signal, 2)
	wanted := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		wanted = append(wanted, syscall.SIGHUP)
	}
	signal.Notify(signals, wanted...)
	done := make(chan struct{})
	go func() {
		for n := 1; ; n++ {
			select {
			case s := <-signals:
				told(n, s)
				if n == 1 {
					cancel(interrupted{s})
					continue
				}
				signal.Stop(signals)
				cancelStop(interrupted{s})
				return
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

// ignoreSignals is for commands that say nothing about being ended.
func ignoreSignals(int, os.Signal) {}

//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

// TestEarlySignal: a signal to a background job of a script is not lost if it arrives before bake
// listens for signals.
func TestEarlySignal(t *testing.T) {
	signal.Ignore(os.Interrupt)
	defer signal.Reset(os.Interrupt)
	p := &program{early: listenEarly(), stdout: newOutput(&bytes.Buffer{}), stderr: newOutput(&bytes.Buffer{})}
	if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); len(p.early) == 0 && time.Since(begin) < time.Minute; {
		time.Sleep(time.Millisecond)
	}
	ctx, stop, release := p.interrupts(t.Context(), ignoreSignals)
	defer release()
	select {
	case <-ctx.Done():
	case <-time.After(time.Minute):
		t.Fatal("the signal is lost")
	}
	if cause, ok := errors.AsType[interrupted](context.Cause(ctx)); !ok || cause.signal != os.Interrupt {
		t.Errorf("the cause is %v", context.Cause(ctx))
	}
	if stop.Err() != nil {
		t.Error("it counts twice")
	}
}

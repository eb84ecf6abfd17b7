//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"bake/fleet"
	"bake/run"
)

// elsewhere is an engine whose run of a fleet ends long after it was cancelled, or never.
type elsewhere struct {
	fleet.Engine
	t     *testing.T
	never bool
	again chan struct{}
}

func (e *elsewhere) Run(ctx context.Context, f *fleet.Fleet, o fleet.RunOptions) (fleet.Status, error) {
	interrupt := func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
			e.t.Error(err)
		}
	}
	o.OnStatus(fleet.Status{Cells: []fleet.CellStatus{{Cell: fleet.Cell{Image: "web", Account: "111111111111", Region: "eu-west-1"}, State: fleet.StateRunning}}})
	interrupt()
	<-ctx.Done()
	if e.never {
		interrupt()
		<-e.again
	}
	return fleet.Status{Run: "x", State: fleet.StateCancelled}, nil
}

// The first Ctrl-C cancels the run on the engine and waits for it; the second one leaves.
func TestFleetElsewhereIsInterrupted(t *testing.T) {
	for _, never := range []bool{false, true} {
		var out bytes.Buffer
		p := &program{stdout: newOutput(&out), stderr: newOutput(&out), now: time.Now}
		e := &elsewhere{t: t, never: never, again: make(chan struct{})}
		s, err := p.runOnEngine(t.Context(), e, &fleet.Fleet{Name: "nightly"}, fleet.RunOptions{})
		switch {
		case !never && (err != nil || s.State != fleet.StateCancelled):
			t.Errorf("%v, %+v", err, s)
		case never && (run.OutcomeOf(err) != run.OutcomeCancelled || !errors.As(err, new(interrupted)) || !strings.Contains(err.Error(), "bake fleet status nightly shows its progress")):
			t.Errorf("after the second: %v", err)
		}
		for _, want := range []string{"web/111111111111/eu-west-1: running", "Cancelling the run of fleet nightly"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("it is not said that %q:\n%s", want, out.String())
			}
		}
		close(e.again)
	}
}

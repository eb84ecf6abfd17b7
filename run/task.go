package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"bake/step"
)

// TaskOptions are the options of [Task].
type TaskOptions struct {
	State   State
	Command string           // the user's command line, for the ledger
	Name    string           // used instead of the name of a build
	Emit    func(step.Event) // gets every event; it is called by one goroutine at a time, and may be nil
	Now     func() time.Time // nil: time.Now

	// When Stop is done, the deletion of what do has left stops. If it is nil, this never
	// happens.
	Stop context.Context
}

// Task runs a function that creates resources without a build, with its own ledger and
// log. When do returns, Task deletes everything that do has acquired and not kept, even
// if ctx has ended; if this process is killed, a sweep does so. The error is a
// *[FailedError] that lists what could not be deleted, if anything. run is the id to sweep
// by.
func Task(ctx context.Context, o TaskOptions, do func(context.Context, *step.Scope) error) (run string, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Stop == nil {
		o.Stop = context.Background()
	}
	run = NewID()
	events, err := openEvents(o.State, run, false, o.Emit)
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, events.close()) }()
	start := o.Now()
	ledger, err := step.CreateLedger(o.State.Ledgers(), step.Header{Run: run, Started: start, PID: os.Getpid(), Command: o.Command})
	if err != nil {
		return run, err
	}
	scope := step.NewScope(step.Scope{
		Run: step.Invocation{ID: run, Command: o.Command, Start: start}, Build: o.Name,
		Ledger: ledger, Emit: events.handle, Grace: teardownGrace,
	})
	err = do(ctx, scope)
	undone := scope.Close(ctx, o.Stop)
	left, lost := ledger.Owned()
	if lost = errors.Join(lost, ledger.Close()); lost != nil {
		return run, errors.Join(err, undone, fmt.Errorf("the ledger of the run: %w", lost))
	}
	if len(left) > 0 {
		return run, &FailedError{Outcome: OutcomeLeft, Left: left, Errs: []error{errors.Join(err, undone)}}
	}
	return run, errors.Join(err, undone)
}

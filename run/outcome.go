package run

import (
	"context"
	"errors"
	"slices"

	"bake/engine"
	"bake/step"
)

// Outcome is the result of a run or a sweep, for use by programs. Its value is bake's exit
// code. After a signal, it is 128 plus the number of the signal.
type Outcome int

// The outcomes.
const (
	OutcomeDone         Outcome = 0
	OutcomeFailed       Outcome = 1 // a wrong template or command line, or any other failure
	OutcomeGate         Outcome = 2 // a gate is closed: an image, or its machine, does not meet the requirements
	OutcomeReused       Outcome = 3 // done, and nothing had to be built; only on request
	OutcomeLeft         Outcome = 4 // something was left behind
	OutcomeRefused      Outcome = 5 // by the cloud, before a machine or an image was made
	OutcomeProvisioning Outcome = 6 // a provisioner failed
	OutcomePartial      Outcome = 7 // an image was made, but not copied, shared or tagged everywhere
	OutcomeTimeout      Outcome = 8
	OutcomeCancelled    Outcome = 130 // by SIGINT; any value above 128 means cancelled
)

// String returns the name for programs.
func (o Outcome) String() string {
	switch o {
	case OutcomeDone:
		return "done"
	case OutcomeGate:
		return "gate-closed"
	case OutcomeReused:
		return "reused"
	case OutcomeLeft:
		return "left-behind"
	case OutcomeRefused:
		return "refused"
	case OutcomeProvisioning:
		return "provisioning-failed"
	case OutcomePartial:
		return "partly-distributed"
	case OutcomeTimeout:
		return "timed-out"
	}
	if o > 128 {
		return "cancelled"
	}
	return "failed"
}

// worst orders the outcomes of failed builds, most serious first. A refusal comes last,
// since it means that nothing was made.
var worst = []Outcome{OutcomePartial, OutcomeGate, OutcomeProvisioning, OutcomeFailed, OutcomeRefused}

// OutcomeOf returns the outcome for an error of [Build] or [Sweep]. If the cause of a
// cancellation has a method Outcome() Outcome, that decides.
func OutcomeOf(err error) Outcome {
	if err == nil {
		return OutcomeDone
	}
	if failed, ok := errors.AsType[*FailedError](err); ok {
		return failed.Outcome
	}
	if swept, ok := errors.AsType[*SweepError](err); ok && len(swept.Left) > 0 {
		return OutcomeLeft
	}
	return ofCause(err)
}

// ofCause returns the outcome for the cause of a cancelled context or a failed call.
func ofCause(err error) Outcome {
	if told, ok := errors.AsType[interface {
		error
		Outcome() Outcome
	}](err); ok {
		return told.Outcome()
	}
	if errors.Is(err, step.ErrRefused) {
		return OutcomeRefused
	}
	return OutcomeFailed
}

// outcome returns the outcome of a run with context ctx, given its builds and whether
// resources are left.
func outcome(ctx context.Context, builds []engine.BuildResult, left bool) Outcome {
	if left {
		return OutcomeLeft
	}
	if cause := context.Cause(ctx); cause != nil {
		if _, fast := errors.AsType[*engine.FailFastError](cause); !fast { // the failed builds decide
			return ofCause(cause)
		}
	}
	all := []Outcome{}
	for _, b := range builds {
		if _, ok := errors.AsType[*engine.FailFastError](b.Err); !ok {
			all = append(all, ofFailure(b))
		}
	}
	for _, o := range worst {
		if slices.Contains(all, o) {
			return o
		}
	}
	return OutcomeFailed
}

func ofFailure(b engine.BuildResult) Outcome {
	switch {
	case b.Err == nil:
		return OutcomeDone
	case b.Failure == engine.GateClosed:
		return OutcomeGate
	case b.Failure == engine.Provisioning:
		return OutcomeProvisioning
	case b.Failure == engine.Distributing:
		return OutcomePartial
	case b.Failure == engine.Refused:
		return OutcomeRefused
	}
	return OutcomeFailed
}

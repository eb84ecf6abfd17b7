package run

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"bake/engine"
	"bake/step"
)

// TestOutcome: resources left behind count most, then the reason of a cancellation, then
// the most serious failure of a build.
func TestOutcome(t *testing.T) {
	failed := func(f engine.Failure) engine.BuildResult {
		return engine.BuildResult{Err: errors.New("failed"), Failure: f}
	}
	refused, provisioning, partial, other := failed(engine.Refused), failed(engine.Provisioning), failed(engine.Distributing), failed("")
	stopped := engine.BuildResult{Err: &engine.FailFastError{}}
	late := &TimeoutError{}
	for _, test := range []struct {
		cause  error
		builds []engine.BuildResult
		left   bool
		want   Outcome
	}{
		{nil, []engine.BuildResult{refused}, false, OutcomeRefused},
		{nil, []engine.BuildResult{{}, refused, other}, false, OutcomeFailed},
		{nil, []engine.BuildResult{other, provisioning, refused}, false, OutcomeProvisioning},
		{nil, []engine.BuildResult{provisioning, partial}, false, OutcomePartial},
		{nil, []engine.BuildResult{stopped, refused}, false, OutcomeRefused},
		{nil, []engine.BuildResult{stopped, provisioning}, false, OutcomeProvisioning},
		{late, []engine.BuildResult{partial}, false, OutcomeTimeout},
		{errors.New("unread"), []engine.BuildResult{provisioning}, false, OutcomeFailed},
		{late, []engine.BuildResult{partial}, true, OutcomeLeft},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		if test.cause != nil {
			cancel(test.cause)
		}
		if got := outcome(ctx, test.builds, test.left); got != test.want {
			t.Errorf("%v, %+v, left %t: %s, want %s", test.cause, test.builds, test.left, got, test.want)
		}
		cancel(nil)
	}
}

// TestOutcomeOf: an outcome is found however its error is wrapped.
func TestOutcomeOf(t *testing.T) {
	for _, test := range []struct {
		err  error
		want Outcome
	}{
		{nil, OutcomeDone},
		{errors.New("wrong"), OutcomeFailed},
		{&FailedError{Outcome: OutcomePartial}, OutcomePartial},
		{&SweepError{Left: []error{errors.New("stays")}}, OutcomeLeft},
		{&SweepError{Unreadable: errors.New("damaged")}, OutcomeFailed},
		{errors.Join(&TemplateError{}, &TimeoutError{}), OutcomeTimeout},
		{fmt.Errorf("list the images: %w", step.ErrRefused), OutcomeRefused},
	} {
		for _, err := range []error{test.err, errors.Join(test.err, errors.New("and the cloud did not close"))} {
			if test.err == nil && err != nil {
				continue
			}
			if got := OutcomeOf(err); got != test.want {
				t.Errorf("%v: %s, want %s", err, got, test.want)
			}
		}
	}
}

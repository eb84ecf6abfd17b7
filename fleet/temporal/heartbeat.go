package temporal

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"bake/step"
)

const (
	// beat is the interval at which an activity sends heartbeats, and learns of its
	// cancellation.
	beat = 3 * time.Second

	// beatTime limits a heartbeat: a busy service may be slow. The SDK uses half of it for
	// a call.
	beatTime = 20 * time.Second

	// heartbeatTimeout is the time without heartbeats after which a worker counts as dead:
	// several intervals, since a busy service may lose a heartbeat.
	heartbeatTimeout = 45 * time.Second

	// silence is how long the service may fail to answer before an activity ends by itself.
	// It is shorter than heartbeatTimeout, so that no other worker continues a run that the
	// activity tears down.
	silence = heartbeatTimeout * 2 / 3
)

// errCutOff is the cause of the cancellation of an activity whose heartbeats the service
// has not answered for so long that it is about to time out.
var errCutOff = errors.New("the worker was cut off from the Temporal service")

// progress is the content of a heartbeat: the amount of the run's log that has been
// written.
type progress struct {
	Events int64     `json:"events"`
	Step   string    `json:"step,omitempty"`
	Failed []attempt `json:"failed,omitempty"` // earlier attempts at a teardown
}

// watch is [activities.alive] for an activity that emits events: the returned emit counts
// events and passes them on. Each heartbeat includes the failed attempts.
func (a *activities) watch(ctx context.Context, emit func(step.Event), failed ...attempt) (_ context.Context, _ func(step.Event), end func(last ...any)) {
	var events atomic.Int64
	var at atomic.Pointer[string]
	ctx, end = a.alive(ctx, func() any {
		p := progress{Events: events.Load(), Failed: failed}
		if s := at.Load(); s != nil {
			p.Step = *s
		}
		return p
	})
	return ctx, func(e step.Event) {
		events.Add(1)
		if e.Kind == step.StepStarted {
			at.Store(&e.Step)
		}
		a.metrics.event(e)
		if emit != nil {
			emit(e)
		}
	}, end
}

// nothing returns empty details for the heartbeats of an activity that has none.
func nothing() any { return nil }

// alive sends heartbeats until the caller calls end, even after a cancellation. Each
// carries the result of says, which the next attempt receives. If the activity fails, the
// next attempt receives the arguments of end instead, if there are any. The returned
// context ends when the service has cancelled the activity, which its cause shows
// ([temporal.IsCanceledError]), or when the service no longer waits for the activity. The
// heartbeats of the SDK itself would end the activity after a single late one.
func (a *activities) alive(ctx context.Context, says func() any) (_ context.Context, end func(last ...any)) {
	whole := ctx
	token := activity.GetInfo(ctx).TaskToken
	apart, stop := context.WithCancel(context.WithoutCancel(ctx)) // heartbeats continue during the teardown after a cancellation
	ctx, cancel := context.WithCancelCause(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		pulse(apart, cancel, func(ctx context.Context) error { return a.client.RecordActivityHeartbeat(ctx, token, says()) })
	}()
	return ctx, func(last ...any) {
		stop()
		<-over
		cancel(nil)
		if len(last) > 0 { // the SDK sends it before the error
			activity.RecordHeartbeat(whole, last...)
		}
	}
}

// pulse calls send at every beat until ctx ends, but not immediately, since most
// activities finish sooner. It calls cancel with the reason when the activity must end.
func pulse(ctx context.Context, cancel context.CancelCauseFunc, send func(context.Context) error) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for heard := time.Now(); ; { // send time of the last heartbeat that was answered
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		sent, limit := time.Now(), beatTime
		if left := silence - time.Since(heard); left > 0 {
			limit = min(limit, left)
		}
		call, end := context.WithTimeout(ctx, limit)
		err := send(call)
		end()
		switch {
		case err == nil:
			heard = sent
		case unwanted(err):
			cancel(err)
		case time.Since(heard) >= silence:
			cancel(fmt.Errorf("%w: %w", errCutOff, err))
		}
	}
}

// unwanted reports whether the service has answered a heartbeat with this error because
// the activity was cancelled or has timed out, or its workflow no longer exists.
func unwanted(err error) bool {
	_, nowhere := errors.AsType[*serviceerror.NamespaceNotFound](err)
	return temporal.IsCanceledError(err) || isNotFound(err) || nowhere || errors.Is(err, activity.ErrActivityPaused) || errors.Is(err, activity.ErrActivityReset)
}

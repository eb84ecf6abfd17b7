package temporal

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	sdk "go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bake/fleet"
)

// waitsFor is the outcome of a run of web whose image may enter its channel at a time.
func waitsFor(run string, until time.Time) fleet.Outcome {
	return fleet.Outcome{Cell: web, Run: run, Result: fleet.Reused, Image: fleet.Image{ID: "ami-1"}, Waits: fleet.Waits{Soaking: []fleet.Soak{{Channel: "stable", Until: until}}}}
}

// anew returns the input with which a workflow continues as a new run.
func anew(t *testing.T, env *testsuite.TestWorkflowEnvironment) (in fleet.PendingImage) {
	t.Helper()
	var further *workflow.ContinueAsNewError
	if err := env.GetWorkflowError(); !errors.As(err, &further) {
		t.Fatalf("it does not wait anew: %v", err)
	}
	if err := converter.GetDefaultDataConverter().FromPayloads(further.Input, &in); err != nil {
		t.Fatal(err)
	}
	return in
}

// TestOfferedAgain: an image that is offered again waits in a new run of its workflow, so that
// histories do not grow every night; webhooks are notified once of a failure in all of them. Offers
// of other images, and unknown signals, change nothing.
func TestOfferedAgain(t *testing.T) {
	f := &fake{promotions: 1000}
	env := f.env(t)
	began := env.Now()
	const night = 24 * time.Hour
	other := pending(waitsFor("r2", began))
	other.Outcome.Cell.Region = "us-west-2"
	for name, what := range map[string]any{"later-version": "x", againSignal: other} {
		env.RegisterDelayedCallback(func() { env.SignalWorkflow(name, what) }, 2*time.Hour)
	}
	env.RegisterDelayedCallback(func() { env.SignalWorkflow(againSignal, []int{1}) }, 3*time.Hour)
	env.RegisterDelayedCallback(func() { env.SignalWorkflow(againSignal, pending(waitsFor("r2", began.Add(night)))) }, night)
	env.ExecuteWorkflow(approvalWorkflow, pending(waitsFor("r1", began.Add(time.Hour))))
	in := anew(t, env)
	if took := env.Now().Sub(began); took < night || took > night+time.Minute || in.Outcome.Run != "r2" || len(in.Places) != 1 || !in.Since.IsZero() || in.Notified != "the channel is locked" {
		t.Errorf("after %s: %+v", took, in)
	}
	want := []string{"notify failed its image cannot enter its channels, which is tried again: the channel is locked"}
	if !slices.Equal(f.log, want) {
		t.Errorf("it did %q", f.log)
	}

	f = &fake{promotions: 30}
	env = f.env(t)
	env.ExecuteWorkflow(approvalWorkflow, in)
	if err := env.GetWorkflowError(); err != nil || len(f.log) != 1 || !strings.HasPrefix(f.log[0], "promote ") || f.promotions > 0 {
		t.Errorf("it did %q, %v; %d promotions would have failed", f.log, err, f.promotions)
	}

	f = &fake{promotions: 30}
	env = f.env(t)
	in.Notified = "the role may not"
	env.ExecuteWorkflow(approvalWorkflow, in)
	if log, _ := unasked(f.log, nil); !slices.Equal(log, want) {
		t.Errorf("of another reason, webhooks hear %q", log)
	}
}

// TestOfferedWhileBusy: an offer is not lost if it arrives while an image is promoted, or
// while webhooks are notified that it is gone.
func TestOfferedWhileBusy(t *testing.T) {
	for busy, want := range map[string][]string{
		promoteActivity: nil,
		notifyActivity:  {"notify failed its image waits for its channels no more: there is no such image"},
	} {
		f := &fake{promotions: -1}
		env := f.env(t)
		told := false
		env.SetOnActivityStartedListener(func(i *activity.Info, _ context.Context, _ converter.EncodedValues) {
			if i.ActivityType.Name == busy && !told {
				told = true
				env.SignalWorkflow(againSignal, pending(waitsFor("r2", env.Now().Add(time.Hour))))
			}
		})
		env.ExecuteWorkflow(approvalWorkflow, pending(waitsFor("r1", env.Now())))
		if in := anew(t, env); in.Outcome.Run != "r2" || !slices.Equal(f.log, want) {
			t.Errorf("%s: it did %q, and goes on with %+v", busy, f.log, in.Outcome)
		}
	}
}

// TestCancelledWhileTelling: cancelling a wait while webhooks are notified of a failed promotion is
// not a failure: the wait was cancelled, or is over because the image is gone.
func TestCancelledWhileTelling(t *testing.T) {
	for promotions, gone := range map[int]bool{-1: true, 1000: false} {
		f := &fake{promotions: promotions}
		env := f.env(t)
		env.SetOnActivityStartedListener(func(i *activity.Info, _ context.Context, _ converter.EncodedValues) {
			if i.ActivityType.Name == notifyActivity {
				env.CancelWorkflow()
			}
		})
		env.ExecuteWorkflow(approvalWorkflow, pending(waitsFor("r1", env.Now())))
		var w fleet.Waits
		if err := env.GetWorkflowError(); gone && err == nil {
			if err := env.GetWorkflowResult(&w); err != nil || w.Failed != "there is no such image" {
				t.Errorf("it waits for %+v, %v", w, err)
			}
		} else if gone || !sdk.IsCanceledError(err) {
			t.Errorf("gone: %t: it ended with %v", gone, err)
		}
	}
}

// deaf makes signals from a workflow to another one fail unless hears returns true.
type deaf struct {
	interceptor.WorkerInterceptorBase
	interceptor.WorkflowInboundInterceptorBase
	interceptor.WorkflowOutboundInterceptorBase
	hears func() bool
}

func (d *deaf) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	one := &deaf{hears: d.hears}
	one.WorkflowInboundInterceptorBase.Next = next
	return one
}

func (d *deaf) Init(next interceptor.WorkflowOutboundInterceptor) error {
	d.WorkflowOutboundInterceptorBase.Next = next
	return d.WorkflowInboundInterceptorBase.Next.Init(d)
}

func (d *deaf) SignalExternalWorkflow(ctx workflow.Context, id, run, name string, v any) workflow.Future {
	if d.hears() {
		return d.WorkflowOutboundInterceptorBase.Next.SignalExternalWorkflow(ctx, id, run, name, v)
	}
	f, set := workflow.NewFuture(ctx)
	set.SetError(errors.New("gone"))
	return f
}

// TestCannotWait: if the image of a cell cannot be offered, because the waiting workflow is ending
// or does not answer, this is retried for a while and then reported; the cell has not failed.
func TestCannotWait(t *testing.T) {
	for name, c := range map[string]struct {
		fails int
		want  []string
	}{
		"a few times": {waitTries - 1, nil},
		"without end": {1000, []string{"notify failed its image does not wait for its channels, which the next run of the fleet, or bake images promote, has it enter: gone"}},
	} {
		f := &fake{}
		env := f.env(t)
		f.stage = func(_ context.Context, in stageIn) (stageOut, error) {
			out := waitsFor(in.Run, env.Now().Add(100*time.Hour))
			return stageOut{Outcome: &out}, nil
		}
		var out fleet.Outcome
		env.RegisterWorkflowWithOptions(func(ctx workflow.Context) error {
			if err := workflow.ExecuteChildWorkflow(ctx, bakeWorkflow, bakeIn{Cell: web}).Get(ctx, nil); err != nil {
				return err
			}
			return workflow.ExecuteChildWorkflow(ctx, bakeWorkflow, bakeIn{Cell: web}).Get(ctx, &out)
		}, workflow.RegisterOptions{Name: "twice"})
		signals := 0
		env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{&deaf{hears: func() bool {
			signals++
			return signals > c.fails
		}}}})
		env.ExecuteWorkflow("twice")
		log, _ := unasked(f.log, nil)
		if err := env.GetWorkflowError(); err != nil || out.Result != fleet.Reused || !slices.Equal(log, c.want) || signals != min(c.fails+1, waitTries) {
			t.Errorf("%s: %+v, %v, after %d signals; it did %q", name, out, err, signals, log)
		}
		if text := out.Waits.Text(); (c.want == nil) != (len(out.Soaking) == 1) || c.want != nil && text != "could not enter its channels: nothing has it wait for them: gone" {
			t.Errorf("%s: the status says %q", name, text)
		}
	}
}

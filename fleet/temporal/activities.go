package temporal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"bake/builder/amazon"
	"bake/engine"
	"bake/fleet"
	"bake/run"
	"bake/run/localcloud"
	"bake/step"
)

// activities are what workers do for workflows.
type activities struct {
	host    fleet.Host
	key     run.Key
	fleets  map[string]*fleet.Fleet
	metrics *Metrics
	looks   looks
}

// beat is how often an activity says that it is alive, and hears that it is cancelled.
const beat = 2 * time.Second

// payloadLimit is a little less than what the service takes in one piece.
const payloadLimit = 1_900_000

// progress is what a heartbeat says: how far the log of the run has come.
type progress struct {
	Events int64  `json:"events"`
	Step   string `json:"step,omitempty"`
}

// watch sends heartbeats until the caller calls end, and counts the events that emit gets.
func (a *activities) watch(ctx context.Context, emit func(step.Event)) (func(step.Event), func()) {
	var events atomic.Int64
	var at atomic.Pointer[string]
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		for tick := time.NewTicker(beat); ; {
			p := progress{Events: events.Load()}
			if s := at.Load(); s != nil {
				p.Step = *s
			}
			activity.RecordHeartbeat(ctx, p)
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
		}
	}()
	return func(e step.Event) {
			events.Add(1)
			if e.Kind == step.StepStarted {
				at.Store(&e.Step)
			}
			a.metrics.event(e)
			if emit != nil {
				emit(e)
			}
		}, func() {
			cancel()
			<-over
		}
}

// stage does one stage of the run of a cell. That the run has failed is in what it returns;
// its error says that the stage may be tried again.
func (a *activities) stage(ctx context.Context, in stageIn) (stageOut, error) {
	started := time.Now()
	o, err := a.host.Options(ctx, in.Cell, in.Parents)
	if err != nil { // the template is wrong, or not what the fleet was when it began
		return stageOut{Left: in.State != nil, Outcome: failedOutcome(in, err)}, nil
	}
	emit, end := a.watch(ctx, o.Emit)
	defer end()
	o.Emit, o.State, o.ID, o.Stages, o.Parallel = emit, a.host.State, in.Run, true, 0
	o.Force = o.Force || in.Force
	var result run.Result
	if in.State == nil {
		result, err = run.Build(ctx, o)
	} else {
		if _, err := o.State.Import(in.State, a.key); err != nil {
			if errors.Is(err, step.ErrLive) { // an attempt that was given up is ending
				return stageOut{}, err
			}
			return stageOut{}, temporal.NewNonRetryableApplicationError(err.Error(), "State", err)
		}
		result, err = run.Resume(ctx, run.ResumeOptions{Options: o, Run: in.Run})
	}
	out := stageOut{Next: result.Next, Left: len(result.Left) > 0, Interrupted: errors.Is(err, engine.ErrInterrupted)}
	if len(out.Next) > 0 || out.Left {
		if out.State, err = a.export(in.Run, err); err != nil {
			return stageOut{}, err
		}
		if len(out.Next) > 0 {
			return out, nil
		}
	}
	out.Outcome = outcomeOf(in, result, err, started)
	a.metrics.ended(out.Outcome)
	if ctx.Err() != nil && !out.Left && out.Outcome.Result != fleet.Built {
		out.Outcome.Result = fleet.Cancelled
	}
	return out, nil
}

// export seals the state of a run, which other workers go on with. failure is passed on.
func (a *activities) export(id string, failure error) ([]byte, error) {
	sealed, err := a.host.State.Export(id, a.key)
	if err != nil && failure != nil {
		return nil, failure
	}
	if err == nil && len(sealed) > payloadLimit {
		err = fmt.Errorf("the state of run %s has %d bytes, which is more than the service takes", id, len(sealed))
	}
	return sealed, err
}

func failedOutcome(in stageIn, err error) *fleet.Outcome {
	return &fleet.Outcome{Cell: in.Cell, Result: fleet.Failed, Run: in.Run, Error: err.Error(), Code: int(run.OutcomeOf(err))}
}

// outcomeOf is how the run of a cell has ended.
func outcomeOf(in stageIn, r run.Result, err error, started time.Time) *fleet.Outcome {
	if err != nil {
		out := failedOutcome(in, err)
		if run.OutcomeOf(err) > 128 {
			out.Result = fleet.Cancelled
		}
		return out
	}
	out := fleet.Outcome{Cell: in.Cell, Result: fleet.Built, Run: in.Run, Started: started, Ended: time.Now()}
	if r.Reused() {
		out.Result = fleet.Reused
	}
	if made, ok := r.Image(in.Cell.Image); ok {
		out.Image = fleet.Image{ID: made.ID, IDs: made.IDs, Name: made.Name, Inputs: made.Inputs}
	}
	return &out
}

// available reports whether all images that a run waits for are there, or will never be.
func (a *activities) available(ctx context.Context, in availableIn) (bool, error) {
	o, err := a.host.Options(ctx, in.Cell, nil)
	if err != nil {
		return false, err
	}
	for _, region := range sorted(in.Images) {
		cloud := localcloud.Elsewhere(o.Template.Env)
		cloud.Within, cloud.Wait = o.Within, o.Wait
		settled, err := a.looks.settled(ctx, amazon.Place{Region: region, Cloud: cloud.In(region)}, in.Images[region])
		if err != nil || !settled {
			return false, err
		}
	}
	return true, nil
}

func sorted(m map[string][]string) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// teardown deletes what a run has left: what its state tells, and what carries its tag in
// the region of the cell.
func (a *activities) teardown(ctx context.Context, in teardownIn) error {
	emit, end := a.watch(ctx, a.host.Emit)
	defer end()
	o, err := a.host.Options(ctx, in.Cell, nil)
	if err != nil {
		return err
	}
	if in.State != nil {
		if _, err := a.host.State.Import(in.State, a.key); err != nil {
			return err
		}
	}
	clouds := &localcloud.Clouds{}
	sweep := run.SweepOptions{State: a.host.State, Run: in.Run, Clouds: clouds, Emit: emit, Command: "bake worker"}
	_, err = run.Sweep(ctx, sweep)
	sweep.Tags = &run.Tags{Regions: []string{in.Cell.Region}, Find: func(ctx context.Context, p amazon.Place, id string) ([]step.Resource, error) {
		p.Cloud = localcloud.Elsewhere(o.Template.Env)
		p.Cloud.Within, p.Cloud.Wait = o.Within, o.Wait
		p.Cloud = p.Cloud.In(in.Cell.Region)
		return amazon.FindTagged(ctx, p, id)
	}}
	_, terr := run.Sweep(ctx, sweep)
	if err = errors.Join(err, terr); err != nil {
		a.metrics.leak()
		return err
	}
	return a.host.State.Forget(in.Run)
}

// notify tells the webhooks of the fleet how a cell has ended.
func (a *activities) notify(ctx context.Context, out fleet.Outcome) error {
	return nil
}

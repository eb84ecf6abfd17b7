package temporal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"bake/builder/amazon"
	"bake/fleet"
	"bake/run"
	"bake/run/localcloud"
	"bake/step"
)

// activities implements the activities that workers execute.
type activities struct {
	host    fleet.Host
	key     run.Key
	client  client.Client
	fleets  map[string]*fleet.Fleet
	rates   map[string]*fleet.Rates // by fleet
	metrics *Metrics
	looks   looks
}

// payloadLimit is slightly below the service's limit on a payload, in bytes.
const payloadLimit = 1_900_000

// oneByOne makes emit safe for concurrent use.
func oneByOne(emit func(step.Event)) func(step.Event) {
	if emit == nil {
		return nil
	}
	var mu sync.Mutex
	return func(e step.Event) {
		mu.Lock()
		defer mu.Unlock()
		emit(e)
	}
}

// stage executes one stage of the run of a cell. The failure of a run is part of the
// result; an error means that the stage may be retried.
func (a *activities) stage(ctx context.Context, in stageIn) (stageOut, error) {
	started := time.Now()
	if err := named(in.Run); err != nil {
		return stageOut{}, err
	}
	o, err := a.options(ctx, in)
	if err != nil { // the template is wrong, or has changed since the fleet began
		return stageOut{Left: in.State != nil, Outcome: failedOutcome(in, err)}, nil
	}
	var waits fleet.Waits
	var places []step.Placement
	ctx, emit, end := a.watch(ctx, func(e step.Event) {
		switch e.Kind {
		case step.ChannelAsked:
			waits.Add(e.Channel)
		case step.ImagePlaced:
			places = append(places, *e.Placed)
		}
		if a.host.Emit != nil {
			e.Build = in.Cell.Short()
			a.host.Emit(e)
		}
	})
	defer end()
	a.hold(&o, in.Cell, in.Run)
	o.Emit, o.State, o.ID, o.Parent, o.Stages = emit, a.host.State, in.Run, in.FleetRun, true
	o.Force, o.ReuseOnly = o.Force || in.Force, in.Cell.ReuseOnly
	var result run.Result
	if in.State == nil {
		result, err = run.Build(ctx, o)
	} else {
		if err := a.restore(in.State); err != nil {
			return stageOut{}, err
		}
		result, err = run.Resume(ctx, run.ResumeOptions{Options: o, Run: in.Run})
	}
	// Of several builds, some may have failed and others be at a boundary.
	out := stageOut{Next: result.Next, Left: len(result.Left) > 0 || err != nil && len(result.Next) > 0, Interrupted: errors.Is(err, step.ErrInterrupted), Log: result.Log}
	if _, ran := errors.AsType[*run.FailedError](err); in.State != nil && err != nil && !ran { // such as a run of another version
		out.State, out.Left, out.Interrupted = in.State, true, true
	} else if len(out.Next) > 0 || out.Left {
		var eerr error
		if out.State, eerr = a.export(in.Run); eerr != nil {
			return stageOut{}, errors.Join(err, eerr)
		}
	}
	if len(out.Next) > 0 && err == nil {
		return out, nil
	}
	out.Next = nil
	if result.Run == "" {
		result.Run = in.Run
	}
	ended := fleet.Ended(in.Cell, result, waits, err, started, a.host.Now())
	if !ended.Waits.Over() {
		out.Places = places
	}
	if cause := context.Cause(ctx); cause != nil && !ended.Result.OK() {
		ended.Result, ended.Code = fleet.Cancelled, int(run.OutcomeCancelled)
		out.Interrupted = !temporal.IsCanceledError(cause) // the cell was not cancelled
	}
	out.Outcome = &ended
	return out, nil
}

// options returns the options of the run of a cell, if the cell is unchanged since the
// fleet's run began.
func (a *activities) options(ctx context.Context, in stageIn) (o run.Options, err error) {
	now, err := a.place(in.Cell)
	if err != nil {
		return o, err
	}
	if now.Role != in.Cell.Role {
		return o, fmt.Errorf("the run of the fleet was started with the role %q for %s, and the template of this worker has %q: start another run, or call bake fleet apply if a schedule started it", in.Cell.Role, in.Cell.Short(), now.Role)
	}
	return a.host.Options(ctx, in.Cell, in.Parents)
}

// restore restores the state of a run on this host. It retries while an abandoned attempt of the
// stage is still ending here.
func (a *activities) restore(state []byte) error {
	_, err := a.host.State.Import(state, a.key)
	if err != nil && !errors.Is(err, step.ErrLive) {
		return temporal.NewNonRetryableApplicationError(err.Error(), "State", err)
	}
	return err
}

// named returns an error if the id of a run, which comes from a history and is used in file
// names, is invalid.
func named(id string) error {
	if err := uuid.Validate(id); err != nil {
		return temporal.NewNonRetryableApplicationError(fmt.Sprintf("%q is not the id of a run", id), "Run", err)
	}
	return nil
}

// place returns the cell with the role that this worker's template defines for its account
// and region: the role in a history is not trusted. It returns an error if this worker's
// template does not have the fleet or the place.
func (a *activities) place(c fleet.Cell) (fleet.Cell, error) {
	f := a.fleets[c.Fleet]
	if f == nil {
		return c, fmt.Errorf("this worker does not work for the fleet %s", c.Fleet)
	}
	for _, o := range f.Cells {
		if o.Account == c.Account && o.Region == c.Region {
			c.Role = o.Role
			return c, nil
		}
	}
	return c, fmt.Errorf("the fleet %s of this worker's template has no cell in account %s, region %s", c.Fleet, c.Account, c.Region)
}

// hold restricts a run to the account, the region and the rate of a cell.
func (a *activities) hold(o *run.Options, c fleet.Cell, id string) {
	if o.Within == nil {
		o.Within = fleet.Within(c, id)
	}
	o.Wait = a.wait(c)
}

// wait returns a function that limits calls to the rate of the cell's account, and counts
// them.
func (a *activities) wait(c fleet.Cell) fleet.Wait {
	var wait fleet.Wait
	if rates := a.rates[c.Fleet]; rates != nil {
		wait = rates.Of(c.Account)
	}
	return func(ctx context.Context, service, region string) error {
		a.metrics.call(service, region)
		if wait == nil {
			return nil
		}
		return wait(ctx, service, region)
	}
}

// export seals the state of a run, which other workers continue.
func (a *activities) export(id string) ([]byte, error) {
	sealed, err := a.host.State.Export(id, a.key)
	if err == nil && len(sealed) > payloadLimit/4*3 { // it is transmitted in base64
		err = fmt.Errorf("the state of run %s has %d bytes, which is more than the service takes", id, len(sealed))
	}
	return sealed, err
}

func failedOutcome(in stageIn, err error) *fleet.Outcome {
	return &fleet.Outcome{Cell: in.Cell, Result: fleet.Failed, Run: in.Run, Error: err.Error(), Code: int(run.OutcomeOf(err))}
}

// cloud returns the cloud of the cell's run.
func (a *activities) cloud(ctx context.Context, c fleet.Cell, id, region string) (amazon.Cloud, error) {
	c, err := a.place(c)
	if err != nil {
		return amazon.Cloud{}, err
	}
	o, err := a.host.Options(ctx, c, nil)
	if err != nil {
		return amazon.Cloud{}, err
	}
	a.hold(&o, c, id)
	cloud := localcloud.FromEnvironment(o.Template.Env)
	if o.Cloud != nil {
		if cloud, err = a.host.Clouds.Named(ctx, localcloud.Name); err != nil {
			return cloud, err
		}
	}
	cloud.Within, cloud.Wait = o.Within, o.Wait
	return cloud.In(region), nil
}

// available reports whether all images that a run waits for exist, or have failed.
func (a *activities) available(ctx context.Context, in availableIn) (bool, error) {
	ctx, end := a.alive(ctx, nothing)
	defer end()
	for _, region := range slices.Sorted(maps.Keys(in.Images)) {
		cloud, err := a.cloud(ctx, in.Cell, in.Run, region)
		if err != nil {
			return false, err
		}
		settled, err := a.looks.settled(ctx, amazon.Place{Region: region, Cloud: cloud}, in.Images[region])
		if err != nil || !settled {
			return false, err
		}
	}
	return true, nil
}

// regions returns the regions in which a run of the cell creates resources: its own and
// those of copies.
func (a *activities) regions(ctx context.Context, c fleet.Cell) []string {
	regions := []string{c.Region}
	if a.host.Copies != nil {
		regions = append(regions, a.host.Copies(ctx, c)...)
	}
	return regions
}

// teardown deletes the resources that a run has left: those in its state, and those with
// its tag in the regions of the cell.
func (a *activities) teardown(ctx context.Context, in teardownIn) (out teardownOut, err error) {
	if err := named(in.Run); err != nil {
		return out, err
	}
	var before progress
	if activity.HasHeartbeatDetails(ctx) {
		_ = activity.GetHeartbeatDetails(ctx, &before) // otherwise their logs would not be found, or are on their hosts
	}
	out.Failed = before.Failed
	ctx, emit, end := a.watch(ctx, a.host.Emit, out.Failed...)
	defer end()
	if err := a.stateOf(ctx, in, emit); err != nil {
		return out, err
	}
	var logged []run.Position // start of each sweep's log
	sweep := run.SweepOptions{
		State: a.host.State, Run: in.Run, Clouds: a.host.Clouds.Waiting(a.wait(in.Cell)), Emit: emit, Command: "bake worker", Now: a.host.Now,
		Again: activity.GetInfo(ctx).Attempt > 1, Logged: func(from run.Position) { logged = append(logged, from) },
	}
	o, oerr := a.host.Options(ctx, in.Cell, nil)
	if oerr == nil { // otherwise it is deleted without spans
		sweep.Trace = o.Trace.Named("bake "+in.Cell.Image, "cloud.account.id", in.Cell.Account, "cloud.region", in.Cell.Region)
	}
	_, err = run.Sweep(ctx, sweep)
	sweep.Tags = &run.Tags{Regions: a.regions(ctx, in.Cell), Find: func(ctx context.Context, p amazon.Place, id string) (_ []step.Resource, err error) {
		if p.Cloud, err = a.cloud(ctx, in.Cell, in.Run, p.Region); err != nil {
			return nil, err
		}
		return amazon.FindTagged(ctx, p, id)
	}}
	_, terr := run.Sweep(ctx, sweep)
	err = errors.Join(err, terr)
	if err != nil {
		a.metrics.leak()
	}
	if out.Logged = len(logged) > 0; out.Logged && a.host.Reports != "" && oerr == nil && (err == nil || len(out.Failed) < mostAttempts) {
		var lerr error
		if out.Log, lerr = a.keepLog(ctx, o, in, logged[0]); lerr != nil {
			emit(step.Event{Kind: step.Warning, Time: a.host.Now(), Text: "the log of the teardown cannot be written to " + a.host.Reports + ", and is on this host: " + lerr.Error()})
		}
	}
	if err == nil {
		return out, a.host.State.Forget(in.Run)
	}
	if out.Logged && len(out.Failed) < mostAttempts {
		host, _ := os.Hostname()
		end(progress{Failed: append(out.Failed, attempt{in.Run, host, out.Log})})
	}
	return out, err
}

// stateOf restores the state of the run to be torn down on this host, if it is known and
// can be read. An error means that the caller should retry.
func (a *activities) stateOf(ctx context.Context, in teardownIn, emit func(step.Event)) error {
	state := in.State
	if state == nil && in.Workflow != "" {
		err := a.livesOf(ctx, in.Cell.ID(), in.Workflow, func(l life) {
			if l.Run == in.Run {
				state = l.State
			}
		})
		if err != nil {
			return err
		}
	}
	if state == nil {
		return nil
	}
	_, err := a.host.State.Import(state, a.key)
	if err == nil || errors.Is(err, step.ErrLive) { // a stage that was given up is ending
		return err
	}
	// For example because the key has changed: the tags can still be used.
	emit(step.Event{Kind: step.Warning, Time: a.host.Now(), Text: err.Error() + "; the run's remaining resources can only be found by their tags"})
	return nil
}

// keepLog stores the log of a teardown, from a position on, with the reports.
func (a *activities) keepLog(ctx context.Context, o run.Options, in teardownIn, from run.Position) (*run.LogPart, error) {
	cloud, err := a.cloud(ctx, in.Cell, in.Run, in.Cell.Region)
	if err != nil {
		return nil, err
	}
	a.hold(&o, in.Cell, in.Run)
	o.State, o.Now = a.host.State, a.host.Now
	return o.KeepLog(ctx, cloud, a.host.Reports, in.Run, from)
}

// notify calls the webhooks of the fleet with the outcome of a cell.
func (a *activities) notify(ctx context.Context, in notifyIn) error {
	f := a.fleets[in.Outcome.Cell.Fleet]
	if f == nil {
		return temporal.NewNonRetryableApplicationError("this worker does not know the fleet "+in.Outcome.Cell.Fleet, "Fleet", nil)
	}
	var mu sync.Mutex
	told := map[string]bool{} // by an earlier attempt, too
	if activity.HasHeartbeatDetails(ctx) {
		_ = activity.GetHeartbeatDetails(ctx, &told) // on an error they are sent again
	}
	ctx, end := a.alive(ctx, func() any {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(told)
	})
	defer end()
	var errs []error
	for _, n := range fleet.Notices(in.FleetRun, in.Outcome, a.before(ctx, in.Outcome.Cell)) {
		for i, w := range f.Notify {
			what := fmt.Sprint(i, " ", n.Kind, " ", n.Channel)
			if told[what] {
				continue
			}
			if err := w.Send(ctx, n); err != nil {
				errs = append(errs, err)
				continue
			}
			mu.Lock()
			told[what] = true
			mu.Unlock()
		}
	}
	if len(errs) > 0 {
		end(told)
	}
	return errors.Join(errs...)
}

// before returns the previous result of the cell, if the service knows it.
func (a *activities) before(ctx context.Context, c fleet.Cell) fleet.Result {
	query := fmt.Sprintf("WorkflowId = '%s' AND ExecutionStatus = 'Completed'", c.ID())
	found, err := a.client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query, PageSize: 1}) // the newest is listed first
	if err != nil || len(found.GetExecutions()) == 0 {
		return ""
	}
	var result string
	p := found.GetExecutions()[0].GetSearchAttributes().GetIndexedFields()[byResult.GetName()]
	if converter.GetDefaultDataConverter().FromPayload(p, &result) != nil {
		return ""
	}
	return fleet.Result(result)
}

// approve approves the image of a cell.
func (a *activities) approve(ctx context.Context, in approveIn) (err error) {
	if in.Outcome.Cell, err = a.place(in.Outcome.Cell); err != nil {
		return err
	}
	ctx, end := a.alive(ctx, nothing)
	defer end()
	return a.host.Approve(ctx, in.Outcome, in.Approval, a.wait(in.Outcome.Cell))
}

// promote moves the channels that admit the image of a cell to it.
func (a *activities) promote(ctx context.Context, in fleet.PendingImage) (said []step.Channel, err error) {
	if in.Outcome.Cell, err = a.place(in.Outcome.Cell); err != nil {
		return nil, err
	}
	ctx, emit, end := a.watch(ctx, a.host.Emit)
	defer end()
	said, err = a.host.Promote(ctx, in, a.wait(in.Outcome.Cell), emit)
	if errors.Is(err, fleet.ErrGone) {
		return nil, temporal.NewNonRetryableApplicationError(err.Error(), goneType, err)
	}
	return said, err
}

package temporal

import (
	"errors"
	"slices"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"bake/fleet"
	"bake/internal/prose"
)

// fleetIn is the input of the workflow of a fleet's run.
type fleetIn struct {
	Fleet    string       `json:"fleet"`
	Cells    []fleet.Cell `json:"cells"`
	Limits   fleet.Limits `json:"limits"`
	FailFast bool         `json:"fail_fast,omitempty"`
	Force    bool         `json:"force,omitempty"`
	Notify   bool         `json:"notify,omitempty"`
	Strict   bool         `json:"strict,omitempty"` // the workflow fails if a cell has failed

	// PauseAfter is the number of consecutive failures after which the schedule is paused;
	// 0: never.
	PauseAfter int `json:"pause_after,omitempty"`

	// Set if this workflow continues an earlier one.
	Run     string          `json:"run,omitempty"`
	Started time.Time       `json:"started,omitzero"`
	Paused  bool            `json:"paused,omitempty"`
	Done    []fleet.Outcome `json:"done,omitempty"`  // of all cells that have ended, failed ones too
	Asked   bool            `json:"asked,omitempty"` // an image's workflow has to report that it is within its limits
}

const (
	// mostChildren limits how many cells run at a time, because the service has its own
	// limit.
	mostChildren = 1000

	// longHistory is the number of events, and largeHistory the number of bytes, after which a
	// workflow continues as a new one, well before the service would end it.
	longHistory  = 20_000
	largeHistory = 20 << 20
)

// fleetRun is a run of a fleet.
type fleetRun struct {
	fleetIn
	order    *fleet.Order
	outcomes []fleet.Outcome // in the order in which they ended
	begun    map[string]time.Time
	children int
	draining bool // a new workflow takes over once no cell is running
	long     int  // number of long errors in the outcomes

	parts *parts // nil: the cells are children of this workflow
	freed bool   // the answer to Asked is being sent
	asks  int    // number of requests by this workflow
}

// runFleet bakes the cells of a fleet, each once the images that it needs exist.
func runFleet(ctx workflow.Context, in fleetIn) (fleet.Status, error) {
	if in.Run == "" {
		in.Run, in.Started = workflow.GetInfo(ctx).WorkflowExecution.RunID, workflow.Now(ctx)
	}
	if in.Limits.Parallel == 0 || in.Limits.Parallel > mostChildren {
		in.Limits.Parallel = mostChildren
	}
	r := &fleetRun{fleetIn: in, begun: map[string]time.Time{}}
	if err := r.goOn(); err != nil {
		return fleet.Status{}, temporal.NewNonRetryableApplicationError(err.Error(), "Order", err)
	}
	if err := workflow.SetQueryHandler(ctx, statusQuery, func() (fleet.Status, error) { return r.status(), nil }); err != nil {
		return fleet.Status{}, err
	}
	if len(in.Cells) > mostCells {
		if err := r.split(ctx); err != nil {
			return fleet.Status{}, err
		}
	}
	r.drive(ctx)
	if r.draining && !r.order.Over() {
		return fleet.Status{}, workflow.NewContinueAsNewError(ctx, fleetWorkflow, r.further())
	}
	s := r.status()
	s.Ended = workflow.Now(ctx)
	failed := slices.ContainsFunc(s.Cells, func(c fleet.CellStatus) bool { return c.Outcome == nil || !c.Outcome.Result.OK() })
	switch {
	case ctx.Err() != nil:
		s.State = fleet.StateCancelled
	case failed:
		s.State = fleet.StateFailed
	default:
		s.State = fleet.StateDone
	}
	if in.Strict && failed && ctx.Err() == nil { // with the status
		if in.PauseAfter > 0 {
			at := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{TaskQueue: workflowQueue(in.Fleet), StartToCloseTimeout: time.Minute, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 5}})
			if err := workflow.ExecuteActivity(at, pauseActivity, pauseIn{in.Fleet, in.PauseAfter}).Get(ctx, nil); err != nil {
				workflow.GetLogger(ctx).Warn("the schedule could not be paused", "fleet", in.Fleet, "error", err)
			}
		}
		return s, temporal.NewNonRetryableApplicationError("cells of the fleet "+in.Fleet+" have failed", "Failed", nil, s)
	}
	return s, nil
}

// goOn returns the order of the cells that earlier workflows have not finished. The end
// of a cell without an image has also ended the cells that need it.
func (r *fleetRun) goOn() (err error) {
	lost := map[string]bool{}
	for _, d := range r.Done {
		lost[d.Cell.ID()] = !d.Result.OK()
	}
	cells := slices.DeleteFunc(slices.Clone(r.Cells), func(c fleet.Cell) bool { return lost[c.ID()] })
	r.order, err = fleet.NewOrder(cells, r.Limits, r.FailFast, r.Done)
	if err != nil {
		return err
	}
	r.outcomes = slices.Clone(r.Done)
	for _, o := range r.outcomes {
		if len(o.Error) > shortError {
			r.long++
		}
	}
	r.order.Pause(r.Paused)
	return nil
}

// drive starts cells and handles their results until nothing is left to do.
func (r *fleetRun) drive(ctx workflow.Context) {
	selector := workflow.NewSelector(ctx)
	pauses, limits := workflow.GetSignalChannel(ctx, pauseSignal), workflow.GetSignalChannel(ctx, limitsSignal)
	pause := func(paused bool) {
		r.order.Pause(paused)
		r.parts.signal(ctx, pauseSignal, paused)
	}
	limit := func(l fleet.Limits) {
		if l.Parallel < r.Limits.Parallel || l.PerAccount < r.Limits.PerAccount {
			r.Asked = true
			r.asks++
		}
		r.Limits = l
		r.order.Limit(l)
	}
	selector.AddReceive(pauses, received(ctx, pause))
	selector.AddReceive(limits, received(ctx, limit))
	if r.parts != nil {
		selector.AddReceive(workflow.GetSignalChannel(ctx, freedSignal), received(ctx, r.parts.free))
	}
	defer func() { // the state for the next workflow
		for paused := false; pauses.ReceiveAsync(&paused); {
			pause(paused)
		}
		for l := (fleet.Limits{}); limits.ReceiveAsync(&l); {
			limit(l)
		}
	}()
	cells, cancel := workflow.WithCancel(ctx)
	selector.AddFuture(ended(ctx), func(workflow.Future) { r.end(r.order.Stop(workflow.Now(ctx), "cancelled")) })
	for !r.order.Over() {
		if info := workflow.GetInfo(ctx); info.GetCurrentHistoryLength() > longHistory || info.GetCurrentHistorySize() > largeHistory {
			r.draining = true
		}
		r.tellFreed(ctx, selector)
		if r.draining && r.children == 0 {
			return
		}
		switch {
		case r.draining:
		case r.parts != nil:
			r.beginParts(cells, selector)
		default:
			for _, c := range r.order.Begin() {
				r.begin(cells, c, selector)
			}
		}
		if r.order.Over() {
			return
		}
		selector.Select(ctx)
		if r.order.Stopped() {
			cancel()
			r.dropParts(workflow.Now(ctx))
		}
	}
}

// received returns a handler that calls do with the value of a signal.
func received[T any](ctx workflow.Context, do func(T)) func(workflow.ReceiveChannel, bool) {
	return func(c workflow.ReceiveChannel, _ bool) {
		var v T
		c.Receive(ctx, &v)
		do(v)
	}
}

// further returns the input of the workflow that continues this one.
func (r *fleetRun) further() fleetIn {
	in := r.fleetIn
	in.Paused, in.Done = r.order.Paused(), r.outcomes
	return in
}

// ended is ready once, when ctx is cancelled, whereas its channel would be ready
// repeatedly.
func ended(ctx workflow.Context) workflow.Future {
	f, set := workflow.NewFuture(ctx)
	workflow.Go(ctx, func(ctx workflow.Context) {
		ctx.Done().Receive(ctx, nil)
		set.Set(nil, nil)
	})
	return f
}

// end records the outcomes of cells that were never started.
func (r *fleetRun) end(others []fleet.Outcome) { r.outcomes = append(r.outcomes, others...) }

const (
	// longErrors is the number of cells whose errors may have up to longestError bytes in
	// the status; those of later cells are cut to shortError. The status must fit into one
	// message of the service; logs have each error in full.
	longErrors = 200
	shortError = 120
)

// ended records the outcome of a cell that was started.
func (r *fleetRun) ended(out fleet.Outcome) {
	if len(out.Error) > shortError {
		if r.long++; r.long > longErrors {
			out.Error = prose.Beginning(out.Error, shortError)
		}
	}
	r.outcomes = append(r.outcomes, out)
	r.end(r.order.End(out))
}

// begin starts the workflow that bakes a cell.
func (r *fleetRun) begin(ctx workflow.Context, c fleet.Cell, selector workflow.Selector) {
	r.begun[c.ID()] = workflow.Now(ctx)
	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID: c.ID(), TaskQueue: workflowQueue(r.Fleet), WaitForCancellation: true,
		ParentClosePolicy:     enums.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
		WorkflowIDReusePolicy: enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		TypedSearchAttributes: about(c),
	})
	in := bakeIn{Cell: c, Parents: r.order.Parents(c), Force: r.Force && !c.ReuseOnly, Notify: r.Notify, FleetRun: r.Run}
	r.children++
	selector.AddFuture(workflow.ExecuteChildWorkflow(child, bakeWorkflow, in), func(f workflow.Future) {
		r.children--
		var out fleet.Outcome
		if err := f.Get(ctx, &out); err != nil {
			out = fleet.Outcome{Cell: c, Result: fleet.Failed, Error: childError(err), Code: 1, Started: r.begun[c.ID()], Ended: workflow.Now(ctx)}
			if temporal.IsCanceledError(err) {
				out.Result, out.Code = fleet.Cancelled, 130
			}
		}
		r.ended(out)
	})
}

// childError returns why the workflow of a cell has no outcome.
func childError(err error) string {
	var started *temporal.ChildWorkflowExecutionAlreadyStartedError
	if errors.As(err, &started) {
		return "the cell is being baked by another run of the fleet"
	}
	return words(err)
}

// status returns the status of the run.
func (r *fleetRun) status() fleet.Status {
	s := fleet.Status{Fleet: r.Fleet, Run: r.Run, State: fleet.StateRunning, Started: r.Started}
	if r.order.Paused() {
		s.State = fleet.StatePaused
	}
	ended := map[string]*fleet.Outcome{}
	for i := range r.outcomes {
		ended[r.outcomes[i].Cell.ID()] = &r.outcomes[i]
	}
	for _, c := range r.Cells {
		one := fleet.CellStatus{Cell: c, State: fleet.StateWaiting}
		if at, ok := r.begun[c.ID()]; ok {
			one.State, one.Started = fleet.StateRunning, at
		}
		if out := ended[c.ID()]; out != nil {
			one.State, one.Outcome, one.Run, one.Started = fleet.State(out.Result), out, out.Run, out.Started
		}
		s.Cells = append(s.Cells, one)
	}
	return s
}

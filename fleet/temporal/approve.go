package temporal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"bake/fleet"
	"bake/step"
)

// approveIn says what is approved.
type approveIn struct {
	Outcome  fleet.Outcome  `json:"outcome"`
	Approval fleet.Approval `json:"approval"`
}

// approvalID is the id of the workflow in which the image of an outcome waits.
func approvalID(o fleet.Outcome) string {
	return "approval/" + o.Cell.Fleet + "/" + o.Cell.Short() + "/" + o.Run
}

// patience is how long an image waits for its channels. What bake images approve and bake images
// promote do can be done after that.
const patience = 30 * 24 * time.Hour

// approval waits until the image of an outcome is in the channels that it waits for, or is kept
// out of by something else. No worker is held meanwhile. Cancelled, it leaves them as they are.
func approval(ctx workflow.Context, o fleet.Outcome) error {
	w := fleet.Waits{Awaiting: slices.Clone(o.Awaiting), Soaking: slices.Clone(o.Soaking)}
	if err := workflow.SetQueryHandler(ctx, statusQuery, func() (fleet.Waits, error) { return w, nil }); err != nil {
		return err
	}
	approved := false
	err := workflow.SetUpdateHandlerWithOptions(ctx, approveUpdate, func(ctx workflow.Context, a fleet.Approval) error {
		w.Awaiting = slices.DeleteFunc(w.Awaiting, func(c string) bool { return c == a.Channel }) // two at a time are one
		at := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
			TaskQueue: promptQueue(o.Cell), StartToCloseTimeout: 5 * time.Minute, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 3},
		})
		err := workflow.ExecuteActivity(at, approveActivity, approveIn{o, a}).Get(ctx, nil)
		if err == nil {
			approved = true
		} else if !slices.Contains(w.Awaiting, a.Channel) {
			w.Awaiting = append(w.Awaiting, a.Channel)
		}
		return err
	}, workflow.UpdateHandlerOptions{Validator: func(_ workflow.Context, a fleet.Approval) error {
		switch {
		case a.By == "":
			return errors.New("an approval must say who approves")
		case !slices.Contains(w.Awaiting, a.Channel):
			return fmt.Errorf("the image does not wait for approval for the channel %q; %s", a.Channel, cmp.Or(w.Text(), "it waits for nothing"))
		}
		return nil
	}})
	if err != nil {
		return err
	}
	if workflow.GetVersion(ctx, "promotion", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		_, err = workflow.AwaitWithTimeout(ctx, patience, func() bool { return len(w.Awaiting) == 0 && workflow.AllHandlersFinished(ctx) })
		return err
	}
	for end := workflow.Now(ctx).Add(patience); ; {
		at := end
		for _, s := range w.Soaking {
			if s.Until.Before(at) {
				at = s.Until
			}
		}
		pause := max(at.Sub(workflow.Now(ctx)), time.Second)
		_, err := workflow.AwaitWithTimeout(ctx, pause, func() bool { return workflow.AllHandlersFinished(ctx) && (approved || w.Over()) })
		if err != nil || w.Over() && !approved || !workflow.Now(ctx).Before(end) {
			return err
		}
		approved = false
		if err := promote(ctx, o, &w); err != nil {
			return err
		}
	}
}

// promote offers the image of an outcome to its channels, and says what it waits for then. It is
// tried for a day.
func promote(ctx workflow.Context, o fleet.Outcome, w *fleet.Waits) error {
	at := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: promptQueue(o.Cell), StartToCloseTimeout: time.Hour, ScheduleToCloseTimeout: 24 * time.Hour, HeartbeatTimeout: heartbeatTimeout,
		WaitForCancellation: true, RetryPolicy: &temporal.RetryPolicy{InitialInterval: 5 * time.Second, MaximumInterval: 10 * time.Minute},
	})
	var said []step.Channel
	if err := workflow.ExecuteActivity(at, promoteActivity, o).Get(ctx, &said); err != nil {
		return err
	}
	// A channel that comes after none is not asked: a build has its image enter.
	w.Awaiting = slices.DeleteFunc(w.Awaiting, func(name string) bool {
		return slices.ContainsFunc(said, func(c step.Channel) bool { return c.Name == name })
	})
	w.Soaking = nil
	for _, c := range said {
		w.Add(&c)
	}
	return nil
}

// waiting makes the cells of a status wait for what their images wait for now, as far as the
// service can be asked.
func waiting(ctx context.Context, c client.Client, s *fleet.Status) {
	asked := 0
	for _, one := range s.Cells {
		o := one.Outcome
		if o == nil || o.Waits.Over() || asked == mostAsked {
			continue
		}
		asked++
		out, err := c.QueryWorkflowWithOptions(ctx, &client.QueryWorkflowWithOptionsRequest{
			WorkflowID: approvalID(*o), QueryType: statusQuery, QueryRejectCondition: enums.QUERY_REJECT_CONDITION_NOT_OPEN,
		})
		switch {
		case isNotFound(err), err == nil && out.QueryRejected != nil:
			o.Waits = fleet.Waits{}
		case err == nil:
			var now fleet.Waits
			if out.QueryResult.Get(&now) == nil {
				o.Waits = now
			}
		}
	}
}

// stopWaiting cancels what waits for the channels of a fleet's images, and reports whether
// something did.
func stopWaiting(ctx context.Context, c client.Client, f *fleet.Fleet) (stopped bool, err error) {
	found, err := listed(ctx, c, fmt.Sprintf("WorkflowType = '%s' AND BakeFleet = '%s' AND ExecutionStatus = 'Running'", approvalWorkflow, f.Name))
	errs := []error{err}
	for _, w := range found {
		err := c.CancelWorkflow(ctx, w.GetExecution().GetWorkflowId(), w.GetExecution().GetRunId())
		if stopped = stopped || err == nil; !isNotFound(err) {
			errs = append(errs, err)
		}
	}
	return stopped, errors.Join(errs...)
}

// approvable returns an error if no worker is there to approve the image of a cell: who asks
// would wait until one is.
func approvable(ctx context.Context, c client.Client, f *fleet.Fleet, cell fleet.Cell) error {
	p := &pollers{c: c}
	for queue, kind := range map[string]enums.TaskQueueType{workflowQueue(f.Name): enums.TASK_QUEUE_TYPE_WORKFLOW, promptQueue(cell): enums.TASK_QUEUE_TYPE_ACTIVITY} {
		if !p.there(ctx, queue, kind) {
			return fmt.Errorf("nothing is approved: no worker polls %s, where that is done; start a bake worker, or approve the image by bake images approve", queue)
		}
	}
	return nil
}

// Approve implements [fleet.Engine].
func (e *Engine) Approve(ctx context.Context, f *fleet.Fleet, a fleet.Approval) (err error) {
	defer func() { err = explained(f, err) }()
	s, err := e.Status(ctx, f)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.Cells, func(c fleet.CellStatus) bool { return c.Cell.ID() == a.Cell.ID() })
	if i < 0 || s.Cells[i].Outcome == nil || len(s.Cells[i].Outcome.Awaiting) == 0 {
		return fmt.Errorf("%w: in the last run of the fleet, %s has no image that waits for an approval; that of an older run is approved by bake images approve", fleet.ErrNoRun, a.Cell.Short())
	}
	return e.onRun(ctx, f, func(c client.Client) error {
		if err := approvable(ctx, c, f, a.Cell); err != nil {
			return err
		}
		h, err := c.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
			WorkflowID: approvalID(*s.Cells[i].Outcome), UpdateName: approveUpdate, Args: []any{a}, WaitForStage: client.WorkflowUpdateStageCompleted,
		})
		if err != nil {
			return err
		}
		return h.Get(ctx, nil)
	})
}

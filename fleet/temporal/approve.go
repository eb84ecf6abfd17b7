package temporal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"bake/fleet"
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

// patience is how long an image waits to be approved. It can be approved by bake images
// approve after that.
const patience = 30 * 24 * time.Hour

// approval waits until the image of an outcome is approved for all channels that need it.
func approval(ctx workflow.Context, o fleet.Outcome) error {
	awaiting := slices.Clone(o.Awaiting)
	err := workflow.SetUpdateHandlerWithOptions(ctx, approveUpdate, func(ctx workflow.Context, a fleet.Approval) error {
		awaiting = slices.DeleteFunc(awaiting, func(c string) bool { return c == a.Channel }) // two at a time are one
		at := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
			TaskQueue: promptQueue(o.Cell), StartToCloseTimeout: 5 * time.Minute, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 3},
		})
		err := workflow.ExecuteActivity(at, approveActivity, approveIn{o, a}).Get(ctx, nil)
		if err != nil {
			awaiting = append(awaiting, a.Channel)
		}
		return err
	}, workflow.UpdateHandlerOptions{Validator: func(_ workflow.Context, a fleet.Approval) error {
		switch {
		case a.By == "":
			return errors.New("an approval must say who approves")
		case !slices.Contains(awaiting, a.Channel):
			return fmt.Errorf("the image does not wait for the channel %q; it waits for %s", a.Channel, strings.Join(awaiting, ", "))
		}
		return nil
	}})
	if err != nil {
		return err
	}
	_, err = workflow.AwaitWithTimeout(ctx, patience, func() bool { return len(awaiting) == 0 && workflow.AllHandlersFinished(ctx) })
	return err
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

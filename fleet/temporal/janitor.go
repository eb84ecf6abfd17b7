package temporal

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	sdk "go.temporal.io/sdk/workflow"

	"bake/fleet"
)

// orphanAge is how long a workflow must have been closed before its runs are orphans: a
// stage that was in progress learns of the closing with its next heartbeat, and then tears
// down the run. Tests lower it.
var orphanAge = 10 * time.Minute

// mostOrphans is the maximum number of orphans that a janitor handles; the next one handles
// the rest.
const mostOrphans = 500

// janitorIn is the input of a janitor: the fleet whose runs it cleans up.
type janitorIn struct {
	Fleet string `json:"fleet"`
}

// orphansIn is a request for the orphans of workflows that were closed before a time.
type orphansIn struct {
	Fleet  string    `json:"fleet"`
	Before time.Time `json:"before"`
}

// janitorOf returns the schedule of a fleet's janitor, and its times.
func janitorOf(f *fleet.Fleet) (o *client.ScheduleOptions, when string) {
	return &client.ScheduleOptions{
		ID: janitorID(f.Name), TypedSearchAttributes: aboutSchedule(f),
		Spec: client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: time.Hour}}},
		Action: &client.ScheduleWorkflowAction{
			ID: janitorID(f.Name), Workflow: janitorWorkflow, Args: []any{janitorIn{f.Name}}, TaskQueue: workflowQueue(f.Name),
			TypedSearchAttributes: temporal.NewSearchAttributes(byFleet.ValueSet(f.Name)),
		},
		Overlap: enums.SCHEDULE_OVERLAP_POLICY_SKIP, CatchupWindow: time.Minute,
	}, "every hour"
}

// leftID returns the id of the workflow that deletes the remains of a run. Its existence
// is the janitor's record that the run was handled.
func leftID(run string) string { return "left/" + run }

// janitor starts to delete the remains of closed workflows. It does not wait for the
// deletion.
func janitor(ctx sdk.Context, in janitorIn) error {
	at := sdk.WithActivityOptions(ctx, sdk.ActivityOptions{
		TaskQueue: workflowQueue(in.Fleet), StartToCloseTimeout: 30 * time.Minute, HeartbeatTimeout: heartbeatTimeout, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 3},
	})
	var orphans []teardownIn
	if err := sdk.ExecuteActivity(at, orphansActivity, orphansIn{in.Fleet, sdk.Now(ctx).Add(-orphanAge)}).Get(ctx, &orphans); err != nil {
		return err
	}
	var errs []error
	for _, o := range orphans {
		child := sdk.WithChildOptions(ctx, sdk.ChildWorkflowOptions{
			WorkflowID: leftID(o.Run), TaskQueue: workflowQueue(in.Fleet), ParentClosePolicy: enums.PARENT_CLOSE_POLICY_ABANDON,
			WorkflowIDReusePolicy: enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY, TypedSearchAttributes: about(o.Cell),
		})
		err := sdk.ExecuteChildWorkflow(child, leftWorkflow, o).GetChildWorkflowExecution().Get(ctx, nil)
		if err != nil && !temporal.IsWorkflowExecutionAlreadyStartedError(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// left deletes the remains of a run.
func left(ctx sdk.Context, in teardownIn) error {
	if err := sdk.UpsertTypedSearchAttributes(ctx, byPhase.ValueSet("teardown")); err != nil {
		return err
	}
	return tearDown(ctx, in)
}

// life is a run of a cell, according to the history of a workflow.
type life struct {
	teardownIn
	over bool // it has ended regularly, or was torn down
	open bool // the workflow is in progress
}

// readLives calls add for the runs that the events record, in order.
func readLives(read converter.DataConverter, events iter.Seq2[*history.HistoryEvent, error], add func(life)) error {
	lives := map[string]*life{}
	var order []*life
	of := map[int64]*life{}    // by the event that schedules the activity
	stages := map[int64]bool{} // ids of the activities that are stages
	for e, err := range events {
		if err != nil {
			return err
		}
		if s := e.GetActivityTaskScheduledEventAttributes(); s != nil {
			var in stageIn
			stage := s.GetActivityType().GetName() == stageActivity
			if !stage && s.GetActivityType().GetName() != teardownActivity {
				continue
			}
			if err := read.FromPayloads(s.GetInput(), &in); err != nil { // the input of a teardown is a subset of it
				return err
			}
			l := lives[in.Run]
			if l == nil {
				l = &life{teardownIn: teardownIn{Cell: in.Cell, Run: in.Run}}
				lives[in.Run], order = l, append(order, l)
			}
			if in.State != nil {
				l.State = in.State
			}
			of[e.GetEventId()], stages[e.GetEventId()] = l, stage
		}
		if c := e.GetActivityTaskCompletedEventAttributes(); c != nil {
			if err := of[c.GetScheduledEventId()].completed(read, c, stages[c.GetScheduledEventId()]); err != nil {
				return err
			}
		}
	}
	for _, l := range order {
		add(*l)
	}
	return nil
}

// completed records the result of a stage of the run, or of its teardown.
func (l *life) completed(read converter.DataConverter, c *history.ActivityTaskCompletedEventAttributes, stage bool) error {
	if l == nil {
		return nil // another activity
	}
	if !stage {
		l.over = true
		return nil
	}
	var out stageOut
	if err := read.FromPayloads(c.GetResult(), &out); err != nil {
		return err
	}
	if out.State != nil {
		l.State = out.State
	}
	l.over = out.Outcome != nil && !out.Left
	return nil
}

// eventsOf returns the events of a history, and the error that ends it early.
func eventsOf(h client.HistoryEventIterator) iter.Seq2[*history.HistoryEvent, error] {
	return func(yield func(*history.HistoryEvent, error) bool) {
		for h.HasNext() && yield(h.Next()) {
		}
	}
}

// livesOf calls add for the runs that the history of a workflow records.
func (a *activities) livesOf(ctx context.Context, id, run string, add func(life)) error {
	h := a.client.GetWorkflowHistory(ctx, id, run, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	err := readLives(sealed(a.key, false), eventsOf(h), add)
	if isNotFound(err) { // the service no longer keeps it
		return nil
	}
	return err
}

// orphans returns the runs whose workflow was closed before it could tear them down, and
// that no janitor has begun to tear down. A workflow that was reset continues the runs of
// the closed one: those are not orphans.
func (a *activities) orphans(ctx context.Context, in orphansIn) ([]teardownIn, error) {
	ctx, end := a.alive(ctx, nothing)
	defer end()
	return a.findOrphans(ctx, in)
}

func (a *activities) findOrphans(ctx context.Context, in orphansIn) (all []teardownIn, err error) {
	var statuses []string
	for _, s := range orphaned {
		statuses = append(statuses, "'"+s.String()+"'")
	}
	query := fmt.Sprintf("WorkflowType = '%s' AND BakeFleet = '%s' AND ExecutionStatus IN (%s) AND CloseTime < '%s'", bakeWorkflow, in.Fleet, strings.Join(statuses, ", "), in.Before.UTC().Format(time.RFC3339))
	closed, err := listed(ctx, a.client, query)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, w := range closed {
		id := w.GetExecution().GetWorkflowId()
		if seen[id] {
			continue
		}
		seen[id] = true
		found, err := a.orphansOf(ctx, id, in.Before)
		if err != nil {
			return nil, err
		}
		if all = append(all, found...); len(all) >= mostOrphans {
			return all[:mostOrphans], nil
		}
	}
	return all, nil
}

// orphansOf returns the orphans of the workflows with an id.
func (a *activities) orphansOf(ctx context.Context, id string, before time.Time) (orphans []teardownIn, err error) {
	executions, err := listed(ctx, a.client, fmt.Sprintf("WorkflowId = '%s'", id))
	if err != nil {
		return nil, err
	}
	now, err := a.client.DescribeWorkflowExecution(ctx, id, "") // which may not be listed yet
	if err != nil && !isNotFound(err) {
		return nil, err
	}
	if info := now.GetWorkflowExecutionInfo(); info != nil { // the last one read counts
		executions = append(slices.DeleteFunc(executions, func(w *workflow.WorkflowExecutionInfo) bool {
			return w.GetExecution().GetRunId() == info.GetExecution().GetRunId()
		}), info)
	}
	lives := map[string]life{}
	var order []string
	for _, w := range executions {
		at := w.GetExecution().GetRunId()
		young := w.GetCloseTime() == nil || w.GetCloseTime().AsTime().After(before)
		err := a.livesOf(ctx, id, at, func(l life) {
			was, again := lives[l.Run]
			if !again {
				order = append(order, l.Run)
			}
			l.Workflow = at
			l.over, l.open = l.over || was.over, young || was.open
			lives[l.Run] = l
		})
		if err != nil {
			return nil, err
		}
	}
	for _, run := range order {
		l := lives[run]
		if l.over || l.open {
			continue
		}
		begun, err := a.leftBegun(ctx, run)
		if err != nil {
			return nil, err
		}
		if !begun {
			l.State = nil // it is large, and already in the history
			orphans = append(orphans, l.teardownIn)
		}
	}
	return orphans, nil
}

// orphaned are the statuses of workflows that were closed before they could tear down their runs.
var orphaned = []enums.WorkflowExecutionStatus{enums.WORKFLOW_EXECUTION_STATUS_TERMINATED, enums.WORKFLOW_EXECUTION_STATUS_TIMED_OUT, enums.WORKFLOW_EXECUTION_STATUS_FAILED}

// leftBegun reports whether the deletion of a run's remains is in progress or done.
func (a *activities) leftBegun(ctx context.Context, run string) (bool, error) {
	d, err := a.client.DescribeWorkflowExecution(ctx, leftID(run), "")
	if isNotFound(err) {
		return false, nil
	}
	status := d.GetWorkflowExecutionInfo().GetStatus()
	return status == enums.WORKFLOW_EXECUTION_STATUS_RUNNING || status == enums.WORKFLOW_EXECUTION_STATUS_COMPLETED, err
}

// listed returns the executions that match a query.
func listed(ctx context.Context, c client.Client, query string) (all []*workflow.WorkflowExecutionInfo, err error) {
	r := &workflowservice.ListWorkflowExecutionsRequest{Query: query, PageSize: 200}
	for {
		page, err := c.ListWorkflow(ctx, r)
		if err != nil {
			return nil, err
		}
		all = append(all, page.GetExecutions()...)
		if r.NextPageToken = page.GetNextPageToken(); len(r.NextPageToken) == 0 {
			return all, nil
		}
	}
}

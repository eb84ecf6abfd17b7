package temporal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"bake/fleet"
)

// overlaps maps the names of policies in templates to Temporal's.
var overlaps = map[string]enums.ScheduleOverlapPolicy{
	"skip":            enums.SCHEDULE_OVERLAP_POLICY_SKIP,
	"buffer_one":      enums.SCHEDULE_OVERLAP_POLICY_BUFFER_ONE,
	"buffer_all":      enums.SCHEDULE_OVERLAP_POLICY_BUFFER_ALL,
	"cancel_other":    enums.SCHEDULE_OVERLAP_POLICY_CANCEL_OTHER,
	"terminate_other": enums.SCHEDULE_OVERLAP_POLICY_TERMINATE_OTHER,
	"allow_all":       enums.SCHEDULE_OVERLAP_POLICY_ALLOW_ALL,
}

// Apply implements [fleet.Engine]: it updates the search attributes and the schedules of
// the fleet to match the template.
func (e *Engine) Apply(ctx context.Context, f *fleet.Fleet, prune bool) (done fleet.Applied, err error) {
	defer func() { err = explained(f, err) }()
	if f.Schedule != nil {
		if _, ok := overlaps[f.Schedule.Overlap]; !ok {
			return done, fmt.Errorf("the schedule of the fleet %s: there is no overlap %q", f.Name, f.Schedule.Overlap)
		}
	}
	if err := tooLarge(input(f, f.Cells)); err != nil {
		return done, err
	}
	c, err := e.dial(ctx, f)
	if err != nil {
		return done, err
	}
	defer c.Close()
	made, err := attributes(ctx, c, f)
	if err != nil {
		return done, err
	}
	if len(made) > 0 {
		done.Changes = append(done.Changes, "Created the search attributes "+strings.Join(made, ", ")+".")
	}
	change := func(id string, o *client.ScheduleOptions, when string) error {
		said, err := schedule(ctx, c.ScheduleClient(), id, o, when)
		done.Changes = append(done.Changes, said...)
		return err
	}
	own, when := scheduleOf(f)
	if err := change(fleetID(f.Name), own, when); err != nil {
		return done, err
	}
	own, when = janitorOf(f)
	if err := change(janitorID(f.Name), own, when); err != nil {
		return done, err
	}
	if done.Stale, err = stale(ctx, c, f); err != nil || !prune {
		return done, err
	}
	var kept []string
	var errs []error
	for _, id := range done.Stale {
		_, name, _ := strings.Cut(id, "/")
		_, _, running, err := last(ctx, c, &fleet.Fleet{Name: name, Engine: f.Engine})
		switch {
		case err != nil && !errors.Is(err, fleet.ErrNoRun):
		case running: // its janitor may still be needed
			err = fmt.Errorf("the schedule %s is not deleted, since the fleet %s, which the template does not have any more, is being run: cancel that with a template that has it", id, name)
		default:
			err = change(id, nil, "")
		}
		if err != nil {
			kept, errs = append(kept, id), append(errs, err)
		}
	}
	done.Stale = kept
	return done, errors.Join(errs...)
}

// stale returns the schedules of this template that no longer belong to any of its fleets.
func stale(ctx context.Context, c client.Client, f *fleet.Fleet) (ids []string, err error) {
	all, err := c.ScheduleClient().List(ctx, client.ScheduleListOptions{PageSize: 100, Query: fmt.Sprintf("BakeTemplate = '%s'", templateOf(f))})
	if err != nil {
		return nil, err
	}
	for all.HasNext() {
		one, err := all.Next()
		if err != nil {
			return nil, err
		}
		kind, name, ok := strings.Cut(one.ID, "/")
		if ok && (kind+"/"+name == fleetID(name) || kind+"/"+name == janitorID(name)) && !slices.Contains(f.Fleets, name) {
			ids = append(ids, one.ID)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// schedule creates or updates a schedule; when describes its times. If o is nil, it
// deletes the schedule.
func schedule(ctx context.Context, c client.ScheduleClient, id string, o *client.ScheduleOptions, when string) (said []string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("the schedule %s: %w", id, err)
		}
	}()
	h := c.GetHandle(ctx, id)
	_, err = h.Describe(ctx)
	missing := isNotFound(err)
	switch {
	case err != nil && !missing:
		return nil, err
	case o == nil && missing:
		return nil, nil
	case o == nil:
		if err := h.Delete(ctx); err != nil {
			return nil, err
		}
		return []string{"Deleted the schedule " + id + "."}, nil
	case missing:
		if _, err := c.Create(ctx, *o); err != nil {
			return nil, err
		}
		return []string{"Created the schedule " + id + ": " + when + "."}, nil
	}
	err = h.Update(ctx, client.ScheduleUpdateOptions{DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
		s := in.Description.Schedule // its state, such as a pause, stays
		s.Action, s.Spec = o.Action, &o.Spec
		s.Policy = &client.SchedulePolicies{Overlap: o.Overlap, CatchupWindow: o.CatchupWindow}
		return &client.ScheduleUpdate{Schedule: &s, TypedSearchAttributes: &o.TypedSearchAttributes}, nil
	}})
	if err != nil {
		return nil, err
	}
	return []string{"Updated the schedule " + id + ": " + when + "."}, nil
}

// scheduleOf returns the schedule of a fleet and its times; nil if it has none.
func scheduleOf(f *fleet.Fleet) (o *client.ScheduleOptions, when string) {
	s := f.Schedule
	if s == nil {
		return nil, ""
	}
	in := input(f, f.Cells)
	in.Strict, in.PauseAfter = true, s.PauseAfterFailures
	catchUp := s.CatchUp
	if catchUp == 0 {
		catchUp = time.Minute // as short as the service allows
	}
	return &client.ScheduleOptions{
		ID: fleetID(f.Name), TypedSearchAttributes: aboutSchedule(f),
		Spec: client.ScheduleSpec{CronExpressions: []string{s.Cron}, TimeZoneName: s.Timezone, Jitter: s.Jitter},
		Action: &client.ScheduleWorkflowAction{
			ID: fleetID(f.Name), Workflow: fleetWorkflow, Args: []any{in}, TaskQueue: workflowQueue(f.Name),
			TypedSearchAttributes: temporal.NewSearchAttributes(byFleet.ValueSet(f.Name)),
		},
		Overlap: overlaps[s.Overlap], CatchupWindow: catchUp,
	}, s.Cron + " in " + cmp.Or(s.Timezone, "UTC")
}

// Pause implements [fleet.Engine]. It pauses the current run and the schedule.
func (e *Engine) Pause(ctx context.Context, f *fleet.Fleet) error { return e.pause(ctx, f, true) }

// Unpause implements [fleet.Engine].
func (e *Engine) Unpause(ctx context.Context, f *fleet.Fleet) error { return e.pause(ctx, f, false) }

func (e *Engine) pause(ctx context.Context, f *fleet.Fleet, paused bool) (err error) {
	defer func() { err = explained(f, err) }()
	return e.onRun(ctx, f, func(c client.Client) error {
		h := c.ScheduleClient().GetHandle(ctx, fleetID(f.Name))
		var err error
		if paused {
			err = h.Pause(ctx, client.SchedulePauseOptions{Note: "bake fleet pause"})
		} else {
			err = h.Unpause(ctx, client.ScheduleUnpauseOptions{Note: "bake fleet resume"})
		}
		if err != nil && !isNotFound(err) {
			return err
		}
		scheduled := err == nil
		id, run, running, err := last(ctx, c, f)
		switch {
		case err == nil && running:
			return c.SignalWorkflow(ctx, id, run, pauseSignal, paused)
		case (err == nil || errors.Is(err, fleet.ErrNoRun)) && scheduled:
			return nil
		case err == nil:
			return fmt.Errorf("the fleet %s has no schedule, and is not being run", f.Name)
		}
		return err
	})
}

// pauseIn defines when to pause the schedule of a fleet.
type pauseIn struct {
	Fleet    string `json:"fleet"`
	Failures int    `json:"failures"` // consecutive failures, including the calling run
}

// pauseSchedule pauses the schedule of a fleet if this many consecutive runs have failed.
// The service itself could only pause it after the first failure.
func (a *activities) pauseSchedule(ctx context.Context, in pauseIn) error {
	query := fmt.Sprintf("WorkflowType = '%s' AND BakeFleet = '%s' AND ExecutionStatus != 'Running' AND ExecutionStatus != 'ContinuedAsNew'", fleetWorkflow, in.Fleet)
	found, err := a.client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query, PageSize: 100}) // the newest come first
	if err != nil {
		return err
	}
	failures := 1
	for _, w := range found.GetExecutions() {
		if w.GetStatus() != enums.WORKFLOW_EXECUTION_STATUS_FAILED {
			break
		}
		failures++
	}
	if failures < in.Failures {
		return nil
	}
	note := fmt.Sprintf("%d runs have failed in a row", failures)
	return a.client.ScheduleClient().GetHandle(ctx, fleetID(in.Fleet)).Pause(ctx, client.SchedulePauseOptions{Note: note})
}

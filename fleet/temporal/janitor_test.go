package temporal

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	common "go.temporal.io/api/common/v1"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	query "go.temporal.io/api/query/v1"
	"go.temporal.io/api/serviceerror"
	taskqueue "go.temporal.io/api/taskqueue/v1"
	api "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/types/known/timestamppb"

	"bake/fleet"
	"bake/run"
)

// service is a client of a service that has these executions, the newest last.
type service struct {
	client.Client
	executions []execution

	begun *fleetIn // what ExecuteWorkflow was called with

	polled    []string // task queues that workers poll
	cancelled []string // runs that were terminated

	waits map[string]fleet.Waits // what images wait for according to open workflows, by id
}

type execution struct {
	id, run string
	status  enums.WorkflowExecutionStatus
	history []*history.HistoryEvent
	result  fleet.Status
	waited  fleet.Waits // the result of a workflow in which an image has waited
	err     error
	silent  *int // how often the service does not answer a query for the result; may be nil

	children []*api.PendingChildExecutionInfo
	pending  []*api.PendingActivityInfo
}

func (e execution) info() *api.WorkflowExecutionInfo {
	info := &api.WorkflowExecutionInfo{Execution: &common.WorkflowExecution{WorkflowId: e.id, RunId: e.run}, Status: e.status}
	if e.status != enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
		info.CloseTime = timestamppb.New(time.Unix(1000, 0))
	}
	return info
}

// ListWorkflow supports the queries of this package, as far as these tests need them.
func (s *service) ListWorkflow(_ context.Context, r *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	out := &workflowservice.ListWorkflowExecutionsResponse{}
	for _, e := range slices.Backward(s.executions) {
		q := r.GetQuery()
		running := e.status == enums.WORKFLOW_EXECUTION_STATUS_RUNNING
		switch {
		case strings.Contains(q, "'"+approvalWorkflow+"'") != strings.HasPrefix(e.id, "approval/"),
			strings.Contains(q, "WorkflowId = ") && !strings.Contains(q, "'"+e.id+"'"),
			strings.Contains(q, "RunId = ") && !strings.Contains(q, "'"+e.run+"'"),
			strings.Contains(q, "'Running'") && !running,
			strings.Contains(q, "'Terminated'") && e.status != enums.WORKFLOW_EXECUTION_STATUS_TERMINATED:
			continue
		}
		out.Executions = append(out.Executions, e.info())
	}
	return out, nil
}

func (s *service) DescribeWorkflowExecution(_ context.Context, id, _ string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	for _, e := range slices.Backward(s.executions) {
		if e.id == id {
			return &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: e.info(), PendingChildren: e.children, PendingActivities: e.pending}, nil
		}
	}
	return nil, serviceerror.NewNotFound("there is none")
}

func (s *service) DescribeTaskQueue(_ context.Context, queue string, _ enums.TaskQueueType) (*workflowservice.DescribeTaskQueueResponse, error) {
	out := &workflowservice.DescribeTaskQueueResponse{}
	if slices.Contains(s.polled, queue) {
		out.Pollers = []*taskqueue.PollerInfo{{}}
	}
	return out, nil
}

// QueryWorkflowWithOptions returns what images wait for.
func (s *service) QueryWorkflowWithOptions(_ context.Context, r *client.QueryWorkflowWithOptionsRequest) (*client.QueryWorkflowWithOptionsResponse, error) {
	w, open := s.waits[r.WorkflowID]
	if !open {
		return &client.QueryWorkflowWithOptionsResponse{QueryRejected: &query.QueryRejected{}}, nil
	}
	return &client.QueryWorkflowWithOptionsResponse{QueryResult: value{w}}, nil
}

// QueryWorkflow finds no worker that answers in time.
func (s *service) QueryWorkflow(context.Context, string, string, string, ...any) (converter.EncodedValue, error) {
	return nil, serviceerror.NewDeadlineExceeded("no worker has answered")
}

// value is the answer to a query.
type value struct{ v any }

func (v value) HasValue() bool { return true }
func (v value) Get(to any) error {
	p, err := converter.GetDefaultDataConverter().ToPayloads(v.v)
	if err != nil {
		return err
	}
	return decode(p, to)
}

func (s *service) CancelWorkflow(_ context.Context, _, run string) error {
	s.cancelled = append(s.cancelled, run)
	return nil
}

func (s *service) GetWorkflowHistory(_ context.Context, id, run string, _ bool, _ enums.HistoryEventFilterType) client.HistoryEventIterator {
	for _, e := range s.executions {
		if e.id == id && e.run == run {
			return &iterator{e.history}
		}
	}
	return &iterator{}
}

func (s *service) GetWorkflow(_ context.Context, id, run string) client.WorkflowRun {
	for _, e := range s.executions {
		if e.id == id && (e.run == run || run == "") {
			return e
		}
	}
	return execution{err: serviceerror.NewNotFound("there is none")}
}

func (s *service) ExecuteWorkflow(_ context.Context, _ client.StartWorkflowOptions, _ any, args ...any) (client.WorkflowRun, error) {
	in := args[0].(fleetIn)
	s.begun = &in
	return execution{id: "fleet/nightly", run: "new"}, nil
}

func (e execution) GetID() string    { return e.id }
func (e execution) GetRunID() string { return e.run }

func (e execution) GetFirstExecutionRunID() string { return e.run }

func (e execution) Get(_ context.Context, to any) error {
	if e.silent != nil && *e.silent > 0 {
		*e.silent--
		return fmt.Errorf("it is overrun: %w", serviceerror.NewDeadlineExceeded("context deadline exceeded"))
	}
	if s, ok := to.(*fleet.Status); ok && e.err == nil {
		*s = e.result
	}
	if w, ok := to.(*fleet.Waits); ok && e.err == nil {
		*w = e.waited
	}
	return e.err
}
func (e execution) GetWithOptions(ctx context.Context, to any, _ client.WorkflowRunGetOptions) error {
	return e.Get(ctx, to)
}

type iterator struct{ left []*history.HistoryEvent }

func (i *iterator) HasNext() bool { return len(i.left) > 0 }

func (i *iterator) Next() (*history.HistoryEvent, error) {
	e := i.left[0]
	i.left = i.left[1:]
	return e, nil
}

func payloads(t *testing.T, v any) *common.Payloads {
	t.Helper()
	p, err := converter.GetDefaultDataConverter().ToPayloads(v)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// did is an activity in a history: historyOf returns the events of consecutive ones. An activity
// without an end is in progress.
type did struct {
	name    string
	in, out any
	host    string // of the worker; empty: unknown
}

func historyOf(t *testing.T, all ...did) (events []*history.HistoryEvent) {
	t.Helper()
	for i, one := range all {
		id := int64(10*i + 1)
		events = append(events, &history.HistoryEvent{EventId: id, Attributes: &history.HistoryEvent_ActivityTaskScheduledEventAttributes{
			ActivityTaskScheduledEventAttributes: &history.ActivityTaskScheduledEventAttributes{ActivityType: &common.ActivityType{Name: one.name}, Input: payloads(t, one.in)},
		}})
		if one.host != "" {
			events = append(events, &history.HistoryEvent{EventId: id + 1, Attributes: &history.HistoryEvent_ActivityTaskStartedEventAttributes{
				ActivityTaskStartedEventAttributes: &history.ActivityTaskStartedEventAttributes{ScheduledEventId: id, Identity: "42@" + one.host + "@queue"},
			}})
		}
		if one.out != nil {
			events = append(events, &history.HistoryEvent{EventId: id + 2, Attributes: &history.HistoryEvent_ActivityTaskCompletedEventAttributes{
				ActivityTaskCompletedEventAttributes: &history.ActivityTaskCompletedEventAttributes{ScheduledEventId: id, Result: payloads(t, one.out)},
			}})
		}
	}
	return events
}

// TestOrphans: the runs of terminated workflows are found, with their state, but not those
// that have ended, continue in a reset workflow, or are being torn down.
func TestOrphans(t *testing.T) {
	const running, terminated, completed = enums.WORKFLOW_EXECUTION_STATUS_RUNNING, enums.WORKFLOW_EXECUTION_STATUS_TERMINATED, enums.WORKFLOW_EXECUTION_STATUS_COMPLETED
	launched := func(run string) did {
		return did{name: stageActivity, in: stageIn{Cell: web, Run: run}, out: stageOut{State: []byte("state of " + run)}}
	}
	going := func(run string) did {
		return did{name: stageActivity, in: stageIn{Cell: web, Run: run, State: []byte("state of " + run)}, out: nil}
	}
	ended := func(run string, left bool) did {
		return did{name: stageActivity, in: stageIn{Cell: web, Run: run}, out: stageOut{Outcome: &fleet.Outcome{Run: run}, Left: left}}
	}
	looked := did{name: availableActivity, in: availableIn{Cell: web, Run: "r1"}, out: true}
	gone := did{name: teardownActivity, in: teardownIn{Cell: web, Run: "r1"}, out: struct{}{}}
	for name, c := range map[string]struct {
		executions []execution
		want       []string
	}{
		"provisioning": {[]execution{{run: "w1", status: terminated, history: historyOf(t, launched("r1"), looked, going("r1"))}}, []string{"r1 of w1"}},
		"launching":    {[]execution{{run: "w1", status: terminated, history: historyOf(t, did{name: stageActivity, in: stageIn{Cell: web, Run: "r1"}, out: nil})}}, []string{"r1 of w1"}},
		"over":         {[]execution{{run: "w1", status: terminated, history: historyOf(t, launched("r1"), ended("r1", false))}}, nil},
		"left":         {[]execution{{run: "w1", status: terminated, history: historyOf(t, launched("r1"), ended("r1", true))}}, []string{"r1 of w1"}},
		"torn down":    {[]execution{{run: "w1", status: terminated, history: historyOf(t, launched("r1"), ended("r1", true), gone)}}, nil},
		"second life":  {[]execution{{run: "w1", status: terminated, history: historyOf(t, launched("r1"), gone, launched("r2"))}}, []string{"r2 of w1"}},
		"reset": {[]execution{
			{run: "w1", status: terminated, history: historyOf(t, launched("r1"), going("r1"))}, {run: "w2", status: running, history: historyOf(t, launched("r1"), going("r1"))},
		}, nil},
		"reset and over": {[]execution{
			{run: "w1", status: terminated, history: historyOf(t, launched("r1"), going("r1"))}, {run: "w2", status: completed, history: historyOf(t, launched("r1"), ended("r1", false))},
		}, nil},
		"baked again": {[]execution{
			{run: "w1", status: terminated, history: historyOf(t, launched("r1"))}, {run: "w2", status: running, history: historyOf(t, launched("r2"))},
		}, []string{"r1 of w1"}},
		"seen to": {[]execution{{id: leftID("r1"), run: "l1", status: running}, {run: "w1", status: terminated, history: historyOf(t, launched("r1"))}}, nil},
		"tried":   {[]execution{{id: leftID("r1"), run: "l1", status: enums.WORKFLOW_EXECUTION_STATUS_FAILED}, {run: "w1", status: terminated, history: historyOf(t, launched("r1"))}}, []string{"r1 of w1"}},
	} {
		for i := range c.executions {
			if c.executions[i].id == "" {
				c.executions[i].id = web.ID()
			}
		}
		key, _ := run.NewKey("a key for the tests")
		a := &activities{client: &service{executions: c.executions}, key: key}
		found, err := a.findOrphans(t.Context(), orphansIn{"nightly", time.Unix(2000, 0)})
		var got []string
		for _, o := range found {
			got = append(got, o.Run+" of "+o.Workflow)
			if o.State != nil || o.Cell.ID() != web.ID() {
				t.Errorf("%s: %+v", name, o)
			}
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
		if young, err := a.findOrphans(t.Context(), orphansIn{"nightly", time.Unix(500, 0)}); err != nil || len(young) > 0 {
			t.Errorf("%s: what has ended just now is an orphan: %v, %v", name, young, err)
		}
		if name == "provisioning" {
			var state string
			if err := a.livesOf(t.Context(), web.ID(), "w1", func(l life) { state = string(l.State) }); err != nil || state != "state of r1" {
				t.Errorf("the state: %q, %v", state, err)
			}
		}
	}
}

// TestJanitor: each orphan is torn down by a separate workflow, which retries until nothing
// is left.
func TestJanitor(t *testing.T) {
	f := &fake{teardowns: 3}
	for _, run := range []string{"r1", "r1", "r2"} { // of two janitors, say
		f.orphans = append(f.orphans, teardownIn{Cell: web, Run: run, Workflow: "w1"})
	}
	env := f.env(t)
	var begun []string
	env.SetOnChildWorkflowStartedListener(func(i *workflow.Info, _ workflow.Context, _ converter.EncodedValues) {
		begun = append(begun, i.WorkflowExecution.ID)
	})
	env.ExecuteWorkflow(janitorWorkflow, janitorIn{"nightly"})
	if err := env.GetWorkflowError(); err != nil {
		t.Error(err)
	}
	if want := []string{"left/r1", "left/r2"}; !slices.Equal(slices.Sorted(slices.Values(begun)), want) {
		t.Errorf("it has begun %q", begun)
	}

	f = &fake{teardowns: 3}
	env = f.env(t)
	env.ExecuteWorkflow(leftWorkflow, teardownIn{Cell: web, Run: "r1", Workflow: "w1"})
	if err := env.GetWorkflowError(); err != nil || !slices.Equal(f.gone, []string{"r1"}) {
		t.Errorf("torn down: %q, %v", f.gone, err)
	}
}

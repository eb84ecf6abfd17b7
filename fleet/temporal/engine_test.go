package temporal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	api "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	sdk "go.temporal.io/sdk/temporal"
	"google.golang.org/grpc"

	"bake/fleet"
	"bake/internal/delay"
)

// TestResume: a failed run is continued by one that reuses its images, and a run can be
// found by its id.
func TestResume(t *testing.T) {
	const first, second = "0197a1b2-0000-4000-8000-000000000001", "0197a1b2-0000-4000-8000-000000000002"
	f := &fleet.Fleet{Name: "nightly", Cells: nightly()}
	state := func(built int) (s fleet.Status) {
		s = fleet.Status{Fleet: "nightly", Run: first, State: fleet.StateFailed}
		for i, c := range f.Cells {
			out := &fleet.Outcome{Cell: c, Result: fleet.Failed}
			if i < built {
				out.Result = fleet.Built
			}
			s.Cells = append(s.Cells, fleet.CellStatus{Cell: c, State: fleet.State(out.Result), Outcome: out})
		}
		return s
	}
	began := []*history.HistoryEvent{{Attributes: &history.HistoryEvent_WorkflowExecutionStartedEventAttributes{
		WorkflowExecutionStartedEventAttributes: &history.WorkflowExecutionStartedEventAttributes{Input: payloads(t, fleetIn{Fleet: "nightly", Cells: f.Cells, FailFast: true, Strict: true})},
	}}}
	scheduled := sdk.NewNonRetryableApplicationError("cells of the fleet nightly have failed", "Failed", nil, state(2))
	s := func() *service {
		return &service{executions: []execution{
			{id: "fleet/nightly", run: first, status: enums.WORKFLOW_EXECUTION_STATUS_COMPLETED, history: began, result: state(4)},
			{id: "fleet/nightly-2026-11-29", run: second, status: enums.WORKFLOW_EXECUTION_STATUS_FAILED, history: began, err: fmt.Errorf("it has failed: %w", scheduled)},
		}}
	}
	for which, want := range map[string]int{"last": 2, first: 4, second: 2} {
		c := s()
		if _, err := (&Engine{}).resume(t.Context(), c, f, fleet.RunOptions{Resume: which}); err != nil {
			t.Errorf("%s: %v", which, err)
		}
		if c.begun == nil || len(c.begun.Done) != want || !c.begun.FailFast || c.begun.Strict || len(c.begun.Cells) != len(f.Cells) {
			t.Errorf("%s: it has begun %+v", which, c.begun)
		}
	}
	c := s()
	c.executions[1].err, c.executions[1].result = nil, state(len(f.Cells))
	for which, want := range map[string]string{"last": "all cells of the run " + second + " have their images", "x' OR": "has no run", "0197a1b2-0000-4000-8000-000000000003": "no such run"} {
		if _, err := (&Engine{}).resume(t.Context(), c, f, fleet.RunOptions{Resume: which}); err == nil || !strings.Contains(err.Error(), want) || c.begun != nil {
			t.Errorf("%s: %v", which, err)
		}
	}
	c.executions = append(c.executions, execution{id: "fleet/nightly", run: "now", status: enums.WORKFLOW_EXECUTION_STATUS_RUNNING, result: state(1)})
	if got, err := (&Engine{}).resume(t.Context(), c, f, fleet.RunOptions{Resume: "last"}); err != nil || len(got.Cells) != len(f.Cells) || c.begun != nil {
		t.Errorf("one that goes on: %+v, %v", got, err)
	}
}

// TestWithoutWorkers: commands that show, cancel or approve report at once that there is no
// worker. Of a large fleet, the unfinished cells are known.
func TestWithoutWorkers(t *testing.T) {
	f := &fleet.Fleet{Name: "nightly", Cells: nightly()}
	began := []*history.HistoryEvent{{Attributes: &history.HistoryEvent_WorkflowExecutionStartedEventAttributes{
		WorkflowExecutionStartedEventAttributes: &history.WorkflowExecutionStartedEventAttributes{Input: payloads(t, input(f, f.Cells))},
	}}}
	running := enums.WORKFLOW_EXECUTION_STATUS_RUNNING
	c := &service{executions: []execution{
		{id: "fleet/nightly/base/1", run: "image", status: running, children: []*api.PendingChildExecutionInfo{{WorkflowId: f.Cells[0].ID(), WorkflowTypeName: bakeWorkflow}}},
		{id: "fleet/nightly", run: "now", status: running, history: began, children: []*api.PendingChildExecutionInfo{
			{WorkflowId: "fleet/nightly/base/1", RunId: "image", WorkflowTypeName: imageWorkflow},
			{WorkflowId: "fleet/nightly/gone/2", WorkflowTypeName: imageWorkflow},
			{WorkflowId: f.Cells[3].ID(), WorkflowTypeName: bakeWorkflow},
		}},
	}}
	s, err := (&Engine{}).query(t.Context(), c, f, "fleet/nightly", "now", &pollers{c: c})
	if err != nil || len(s.Cells) != len(f.Cells) || !slices.Equal(s.Unpolled, []string{"bake/nightly"}) {
		t.Fatalf("%+v, %v", s, err)
	}
	for i, one := range s.Cells {
		if goesOn := i == 0 || i == 3; (one.State == fleet.StateRunning) != goesOn {
			t.Errorf("%s is %s", one.Cell.Short(), one.State)
		}
	}
	if err := (&Engine{}).cancel(t.Context(), c, f); err == nil || !strings.Contains(err.Error(), "no worker polls bake/nightly;") || !slices.Equal(c.cancelled, []string{"now"}) {
		t.Errorf("cancelled: %q, %v", c.cancelled, err)
	}
	for _, polled := range []string{"", "bake/nightly", promptQueue(f.Cells[0])} {
		c.polled = []string{polled}
		if err := approvable(t.Context(), c, f, f.Cells[0]); err == nil || !strings.Contains(err.Error(), "no worker polls bake/nightly") || strings.Contains(err.Error(), "polls "+polled+",") {
			t.Errorf("with a worker for %q: %v", polled, err)
		}
	}
	c.polled = []string{"bake/nightly", promptQueue(f.Cells[0])}
	if err := approvable(t.Context(), c, f, f.Cells[0]); err != nil {
		t.Error(err)
	}
	if err := (&Engine{}).cancel(t.Context(), c, f); err != nil || len(c.cancelled) != 2 {
		t.Errorf("with workers: %q, %v", c.cancelled, err)
	}
}

// TestFollowsThroughSilence: following a run continues while the service does not answer,
// and reports how the run ends.
func TestFollowsThroughSilence(t *testing.T) {
	f := &fleet.Fleet{Name: "nightly", Cells: nightly()}
	began := []*history.HistoryEvent{{Attributes: &history.HistoryEvent_WorkflowExecutionStartedEventAttributes{
		WorkflowExecutionStartedEventAttributes: &history.WorkflowExecutionStartedEventAttributes{Input: payloads(t, input(f, f.Cells))},
	}}}
	silent := 2
	w := execution{id: "fleet/nightly", run: "now", status: enums.WORKFLOW_EXECUTION_STATUS_RUNNING, history: began, result: fleet.Status{State: fleet.StateDone}, silent: &silent}
	if s, err := (&Engine{}).follow(t.Context(), &service{executions: []execution{w}}, f, w, nil); err != nil || s.State != fleet.StateDone || silent != 0 {
		t.Errorf("%s, %v", s.State, err)
	}
}

// busy is a service whose worker answers no query in time, and a run that ends once it is
// cancelled.
type busy struct {
	*service
	patience time.Duration
	ended    chan struct{}
}

func (b busy) QueryWorkflow(ctx context.Context, _, _, _ string, _ ...any) (converter.EncodedValue, error) {
	return nil, cmp.Or(delay.For(ctx, b.patience), serviceerror.NewDeadlineExceeded("nobody answers"))
}

func (b busy) CancelWorkflow(context.Context, string, string) error {
	close(b.ended)
	return nil
}

func (b busy) GetID() string    { return "fleet/nightly" }
func (b busy) GetRunID() string { return "now" }

func (b busy) GetFirstExecutionRunID() string { return "now" }

func (b busy) Get(_ context.Context, result any) error {
	<-b.ended
	result.(*fleet.Status).State = fleet.StateCancelled
	return nil
}

func (b busy) GetWithOptions(ctx context.Context, result any, _ client.WorkflowRunGetOptions) error {
	return b.Get(ctx, result)
}

// TestFollowsWhatIsBusy: a worker that answers slowly does not delay a cancellation, and following
// the run reports that the worker cannot be queried.
func TestFollowsWhatIsBusy(t *testing.T) {
	f := &fleet.Fleet{Name: "nightly", Cells: nightly()}
	for patience, want := range map[time.Duration][]string{time.Hour: {""}, time.Second: {"nobody answers", "nobody answers", ""}} {
		synctest.Test(t, func(t *testing.T) {
			b := busy{&service{polled: []string{workflowQueue(f.Name)}}, patience, make(chan struct{})}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second-time.Millisecond)
			defer cancel()
			began := time.Now()
			var told []string
			s, err := (&Engine{}).follow(ctx, b, f, b, func(s fleet.Status) { told = append(told, s.Unanswered) })
			if took := time.Since(began); err != nil || s.State != fleet.StateCancelled || took > 10*time.Second {
				t.Errorf("answers after %s: it was %s after %s, %v", patience, s.State, took, err)
			}
			if !slices.Equal(told, want) {
				t.Errorf("answers after %s: told were %q", patience, told)
			}
		})
	}
}

// TestWaiting: the status of a fleet shows what its images wait for, and the end of the waits ends
// the status of a fleet that is not running.
func TestWaiting(t *testing.T) {
	f := &fleet.Fleet{Name: "nightly", Cells: nightly()}
	s := fleet.Status{Fleet: f.Name}
	soaks := fleet.Waits{Soaking: []fleet.Soak{{Channel: "beta", Until: time.Unix(1000, 0)}}}
	for i, c := range f.Cells[:4] {
		out := &fleet.Outcome{Cell: c, Run: fmt.Sprint("r", i), Result: fleet.Built, Waits: soaks}
		if i == 3 {
			out.Waits = fleet.Waits{}
		}
		s.Cells = append(s.Cells, fleet.CellStatus{Cell: c, State: "built", Outcome: out})
	}
	c := &service{waits: map[string]fleet.Waits{approvalID(*s.Cells[0].Outcome): soaks, approvalID(*s.Cells[1].Outcome): {Awaiting: []string{"stable"}}, approvalID(*s.Cells[3].Outcome): soaks}}
	c.executions = []execution{
		{id: "fleet/nightly", run: "done", status: enums.WORKFLOW_EXECUTION_STATUS_COMPLETED},
		{id: approvalID(*s.Cells[2].Outcome), run: "over", status: enums.WORKFLOW_EXECUTION_STATUS_COMPLETED, waited: fleet.Waits{Kept: []string{"beta: it was taken back"}}},
	}
	waiting(t.Context(), c, &s, &pollers{c: c})
	if got := s.Cells[1].Outcome.Text(); got != soaks.Text() {
		t.Errorf("nobody answers: %q, want %q", got, soaks.Text())
	}
	c.polled = []string{workflowQueue(f.Name)}
	waiting(t.Context(), c, &s, &pollers{c: c})
	for i, want := range []string{soaks.Text(), "waits for approval for stable", "kept out of beta: it was taken back", ""} {
		if got := s.Cells[i].Outcome.Text(); got != want {
			t.Errorf("%s: %q, want %q", s.Cells[i].Cell.Short(), got, want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		if err := (&Engine{}).cancel(t.Context(), c, f); err == nil || !strings.Contains(err.Error(), "is not being run, and no image of it waits") || len(c.cancelled) > 0 {
			t.Errorf("nothing goes on: %q, %v", c.cancelled, err)
		}
		for i := range 2 {
			c.executions = append(c.executions, execution{id: approvalID(*s.Cells[i].Outcome), run: fmt.Sprint("wait", i), status: enums.WORKFLOW_EXECUTION_STATUS_RUNNING})
		}
		if err := (&Engine{}).cancel(t.Context(), c, f); err != nil || !slices.Equal(slices.Sorted(slices.Values(c.cancelled)), []string{"wait0", "wait1"}) {
			t.Errorf("images wait: %q, %v", c.cancelled, err)
		}
	})
}

// TestKeyThatCannotBeRead: an unreadable key is an error, since without the key histories could
// not be read.
func TestKeyThatCannotBeRead(t *testing.T) {
	e := &Engine{Host: fleet.Host{Env: []string{"BAKE_FLEET_KEY_FILE=/none/key"}}}
	if _, err := e.dial(t.Context(), &fleet.Fleet{Name: "nightly", Engine: &fleet.Temporal{Address: "127.0.0.1:1"}}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "BAKE_FLEET_KEY_FILE") {
		t.Error(err)
	}
}

// fresh is a service whose search attributes were created just now, or never.
type fresh struct {
	service
	operatorservice.OperatorServiceClient
	refuses int // number of queries
	made    bool
}

func (f *fresh) OperatorService() operatorservice.OperatorServiceClient { return f }

func (f *fresh) ListSearchAttributes(context.Context, *operatorservice.ListSearchAttributesRequest, ...grpc.CallOption) (*operatorservice.ListSearchAttributesResponse, error) {
	r := &operatorservice.ListSearchAttributesResponse{CustomAttributes: map[string]enums.IndexedValueType{}}
	if f.made {
		r.CustomAttributes[byFleet.GetName()] = enums.INDEXED_VALUE_TYPE_KEYWORD
	}
	return r, nil
}

func (f *fresh) ListWorkflow(ctx context.Context, r *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	if f.refuses--; f.refuses >= 0 {
		return nil, serviceerror.NewInvalidArgument("column name 'BakeFleet' is not a valid search attribute")
	}
	return f.service.ListWorkflow(ctx, r)
}

// TestFreshAttributes: a service accepts new search attributes in queries some seconds later,
// which is waited for. There is no wait if it has none.
func TestFreshAttributes(t *testing.T) {
	f := &fleet.Fleet{Name: "nightly", Engine: &fleet.Temporal{Namespace: "bake"}}
	for name, c := range map[string]struct {
		refuses int
		made    bool
		want    string // of the error
		after   time.Duration
	}{
		"known":       {0, true, "the fleet has no such run", 0},
		"just made":   {3, true, "the fleet has no such run", 3 * time.Second},
		"never made":  {9, false, "the namespace bake has no search attributes, which bake fleet apply makes", 0},
		"not by long": {999, true, "is not a valid search attribute", attributesKnown},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			_, _, _, err := last(t.Context(), &fresh{refuses: c.refuses, made: c.made}, f)
			took := time.Since(began)
			if err == nil || !strings.Contains(err.Error(), c.want) || took < c.after || took > c.after+2*time.Second {
				t.Errorf("%s: after %s: %v", name, took, err)
			}
		})
	}
}

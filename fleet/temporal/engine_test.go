package temporal

import (
	"fmt"
	"strings"
	"testing"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	sdk "go.temporal.io/sdk/temporal"

	"bake/fleet"
)

// TestResume: a run that has failed is gone on with by one that has its images, and one that
// is to be found by its id.
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

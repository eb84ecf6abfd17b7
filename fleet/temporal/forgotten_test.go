package temporal

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflow/v1"

	"bake/fleet"
	"bake/internal/turns"
)

// TestForgottenTask: if the worker of a query for an image dies before its first heartbeat,
// another worker takes over soon, and not only after the timeout of the activity.
func TestForgottenTask(t *testing.T) {
	turns.Skip(t, 10)
	w := newReal(t, strings.ReplaceAll(fleetSource, "NAME", "base")+`build { sources = ["amazon-ebs.base"] }`,
		regexp.MustCompile(`(?m)^image "(web|db)".*\n`).ReplaceAllString(strings.Replace(fleetBakefile, "[image.base, image.web, image.db]", "[image.base]", 1), ""))
	w.serve()
	if _, err := w.engine.Apply(t.Context(), w.fleet, false); err != nil {
		t.Fatal(err)
	}
	c, err := w.engine.dial(t.Context(), w.fleet)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cell := w.fleet.Cells[0]
	first := w.worker()
	ended := make(chan fleet.Status, 1)
	go func() {
		s, err := w.engine.Run(t.Context(), w.fleet, fleet.RunOptions{Cells: []fleet.Cell{cell}})
		if err != nil {
			t.Error(err)
		}
		ended <- s
	}()
	w.wait("the worker looks at an image", func() bool {
		d, err := c.DescribeWorkflowExecution(t.Context(), cell.ID(), "")
		return err == nil && slices.ContainsFunc(d.GetPendingActivities(), func(p *workflow.PendingActivityInfo) bool {
			return p.GetActivityType().GetName() == availableActivity && p.GetState() == enums.PENDING_ACTIVITY_STATE_STARTED
		})
	})
	kill(t, first)
	died := time.Now()
	w.worker()
	s := <-ended
	took := time.Since(died).Round(time.Second)
	t.Logf("it took %s, of which a worker is missed after %s", took, heartbeatTimeout)
	if s.State != fleet.StateDone || took < heartbeatTimeout-5*time.Second || took > 3*time.Minute {
		t.Errorf("%s after %s", s.State, took)
	}
}

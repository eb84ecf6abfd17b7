package temporal

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.temporal.io/sdk/client"

	"bake/fleet"
)

// TestPartsOnTemporal: the images of a fleet that is too large for one workflow have workflows of
// their own. If the workflow of a cell is terminated, the janitor deletes the cell's resources.
func TestPartsOnTemporal(t *testing.T) {
	var sources strings.Builder
	for _, name := range []string{"base", "web", "db"} {
		sources.WriteString(strings.ReplaceAll(fleetSource, "NAME", name))
	}
	w := newReal(t, sources.String()+fleetTemplate, fleetBakefile)
	if err := os.WriteFile(filepath.Join(w.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(workerSmall, "1")
	defer lower()()
	w.serve()
	if _, err := w.engine.Apply(t.Context(), w.fleet, false); err != nil {
		t.Fatal(err)
	}
	w.worker()
	cells := slices.DeleteFunc(slices.Clone(w.fleet.Cells), func(c fleet.Cell) bool { return c.Image == "db" })
	s, err := w.engine.Run(t.Context(), w.fleet, fleet.RunOptions{Cells: cells})
	if err != nil || s.State != fleet.StateDone || len(s.Cells) != len(cells) || len(cells) <= mostCells {
		t.Fatalf("%s, %d cells, %v", s.State, len(s.Cells), err)
	}
	const image = "fleet/nightly/base/1"
	w.save(map[string]string{"fleet-parts": fleetID("nightly"), "image-done": image})

	if err := os.Remove(filepath.Join(w.dir, "go")); err != nil {
		t.Fatal(err)
	}
	c, err := w.engine.dial(t.Context(), w.fleet)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if d, err := c.DescribeWorkflowExecution(t.Context(), image, ""); err != nil || d.GetWorkflowExecutionInfo().GetType().GetName() != imageWorkflow {
		t.Errorf("%s: %v, %v", image, d, err)
	}
	begun, ended := w.begun(), make(chan error, 1)
	go func() {
		_, err := w.engine.Run(t.Context(), w.fleet, fleet.RunOptions{Cells: cells[:1], Force: true})
		ended <- err
	}()
	w.wait("the cell is provisioned", func() bool { return w.begun() > begun })
	if err := c.TerminateWorkflow(t.Context(), cells[0].ID(), "", "a test"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Logf("the run whose cell was terminated: %v", err)
	}
	var id string
	w.wait("the janitor has found what it left", func() bool {
		j, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: janitorID("nightly") + "/test", TaskQueue: workflowQueue("nightly")}, janitorWorkflow, janitorIn{"nightly"})
		if err == nil {
			err = j.Get(t.Context(), nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		all, err := listed(t.Context(), c, "WorkflowType = '"+leftWorkflow+"'")
		if err != nil || len(all) == 0 {
			return false
		}
		id = all[0].GetExecution().GetWorkflowId()
		w.save(map[string]string{"janitor-done": j.GetID()})
		return true
	})
	if err := c.GetWorkflow(t.Context(), id, "").Get(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if left, images := w.machines(); len(left) > 0 || images != len(cells) {
		t.Errorf("%d images; left: %q", images, left)
	}
	w.save(map[string]string{"left-done": id})
}

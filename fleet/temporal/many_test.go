package temporal

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"

	"bake/fleet"
	"bake/internal/turns"
)

// manyRegions is the number of regions in each account.
var manyRegions = []string{
	"us-east-1", "us-east-2", "us-west-1", "us-west-2", "ca-central-1", "sa-east-1", "eu-west-1", "eu-west-2", "eu-west-3", "eu-central-1",
	"eu-north-1", "ap-south-1", "ap-southeast-1", "ap-southeast-2", "ap-northeast-1",
}

// manyFleet returns a template with a number of images in a number of regions of two accounts, and
// its bake file.
func manyFleet(images, regions int, limits string) (template, bakefile string) {
	var sources, blocks strings.Builder
	var builds, names []string
	for i := range images {
		name := fmt.Sprint("i", i)
		sources.WriteString(strings.ReplaceAll(fleetSource, "NAME", name))
		builds, names = append(builds, strconv.Quote("amazon-ebs."+name)), append(names, "image."+name)
		fmt.Fprintf(&blocks, "image %q { sources = [\"amazon-ebs.%s\"] }\n", name, name)
	}
	_, fleetBlock, _ := strings.Cut(fleetBakefile, "fleet \"nightly\"")
	fleetBlock = strings.Replace(fleetBlock, "image.base, image.web, image.db", strings.Join(names, ", "), 1)
	fleetBlock = strings.Replace(fleetBlock, `"eu-west-1", "us-west-2"`, `"`+strings.Join(manyRegions[:regions], `", "`)+`"`, 1)
	fleetBlock = strings.Replace(fleetBlock, "  matrix {", "  limits {\n"+limits+"  }\n  matrix {", 1)
	return sources.String() + "build { sources = [" + strings.Join(builds, ", ") + "] }\n", blocks.String() + "fleet \"nightly\"" + fleetBlock
}

// resident returns the memory of a process in MB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize() >> 20
}

// TestTwoHundredCellsOnTemporal: many cells are limited to the rate, as counted by EC2, and it
// determines their duration. The memory of a worker does not grow with the number of its cells.
func TestTwoHundredCellsOnTemporal(t *testing.T) {
	turns.Skip(t, 10)
	heldCells(t, 50, 10, 24)
}

// TestManyCellsOnTemporal is the same test with few cells.
func TestManyCellsOnTemporal(t *testing.T) { heldCells(t, 2, 20, 8) }

func heldCells(t *testing.T, images int, rate float64, parallel int) {
	template, bakefile := manyFleet(images, 2, fmt.Sprintf("    parallel = %d\n    api_rate = { ec2 = %g }\n", parallel, rate))
	w := newReal(t, template, bakefile)
	address, calls := w.Watch()
	t.Setenv("AWS_ENDPOINT_URL", address)
	w.serve()
	took := manyCells(w, func() { calls.Held(t, rate) })
	ideal := 0.0
	for _, at := range calls.Places() {
		ideal = max(ideal, float64(len(at))/rate)
	}
	t.Logf("the calls of the cells alone take %.0f s at %.0f a second", ideal, rate)
	if took.Seconds() > 2*ideal+30 {
		t.Errorf("it took %s, and could have been done in %.0f s", took, ideal)
	}
}

// thousandVar enables the test that takes too long for CI.
const thousandVar = "BAKE_TEST_THOUSAND"

// TestThousandCellsOnTemporal: more cells than a workflow may have children are baked by a
// workflow for each image. No workflow comes near the limits of the service, and no worker near
// the limit on its memory.
func TestThousandCellsOnTemporal(t *testing.T) {
	if os.Getenv(thousandVar) == "" {
		t.Skipf("it takes many minutes: %s=1 runs it", thousandVar)
	}
	template, bakefile := manyFleet(35, 15, "    parallel = 40\n")
	w := newReal(t, template, bakefile)
	w.serve()
	manyCells(w, func() {})
	c, err := w.engine.dial(t.Context(), w.fleet)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := listed(t.Context(), c, "BakeFleet = 'nightly'")
	if err != nil {
		t.Fatal(err)
	}
	count, events, bytes := map[string]int{}, map[string]int64{}, map[string]int64{}
	for _, one := range all {
		kind := one.GetType().GetName()
		count[kind]++
		events[kind] = max(events[kind], one.GetHistoryLength())
		bytes[kind] = max(bytes[kind], one.GetHistorySizeBytes())
	}
	for _, kind := range slices.Sorted(maps.Keys(count)) {
		t.Logf("%d workflows %s have %d events and %d kB at most", count[kind], kind, events[kind], bytes[kind]>>10)
		if bytes[kind] == 0 || events[kind] > 10_240 || bytes[kind] > 10<<20 { // at which the service warns; it terminates workflows with 5 times as many
			t.Errorf("a workflow %s has %d events and %d bytes", kind, events[kind], bytes[kind])
		}
	}
	if count[bakeWorkflow] != len(w.fleet.Cells) || count[imageWorkflow] < 35 || count[fleetWorkflow] == 0 {
		t.Errorf("of %d cells there are the workflows %v", len(w.fleet.Cells), count)
	}
}

// manyCells runs a fleet with one worker, and returns how long it took. It calls look every 20
// cells. All cells have to be built, nothing else is left, and the worker's memory does not grow.
func manyCells(w *real, look func()) time.Duration {
	t := w.t
	t.Helper()
	if _, err := w.engine.Apply(t.Context(), w.fleet, false); err != nil {
		t.Fatal(err)
	}
	pid := w.worker().Process.Pid
	c, err := w.engine.dial(t.Context(), w.fleet)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	type end struct {
		status fleet.Status
		err    error
	}
	ended := make(chan end, 1)
	began := time.Now()
	go func() {
		s, err := w.engine.Run(t.Context(), w.fleet, fleet.RunOptions{Cells: w.fleet.Cells})
		ended <- end{s, err}
	}()
	type sample struct{ cells, memory int }
	var samples []sample
	var s fleet.Status
	shown := 0
	for over := false; !over; {
		select {
		case e := <-ended:
			s, err, over = e.status, e.err, true
		case <-time.After(2 * time.Second): // a status of all would cost the worker more than the cells
			done, err := c.CountWorkflow(t.Context(), &workflowservice.CountWorkflowExecutionsRequest{Query: "WorkflowType = 'Bake' AND ExecutionStatus = 'Completed'"})
			if err != nil {
				continue // it is busy
			}
			n := int(done.GetCount())
			samples = append(samples, sample{n, resident(t, pid)})
			if n/20 > shown {
				shown = n / 20
				t.Logf("%d cells in %s: the worker has %d MB", n, time.Since(began).Round(time.Second), resident(t, pid))
				look()
			}
		}
	}
	took := time.Since(began)
	for _, c := range s.Cells {
		if c.Outcome == nil || c.Outcome.Result != fleet.Built {
			t.Errorf("%s: %+v", c.Cell.Short(), c.Outcome)
		}
	}
	if err != nil || s.State != fleet.StateDone {
		t.Fatalf("%s, %v", s.State, err)
	}
	if left, made := w.machines(); len(left) > 0 || made != len(w.fleet.Cells) {
		t.Errorf("%d images; left: %q", made, left)
	}
	look()
	t.Logf("%d cells in %.0f s", len(s.Cells), took.Seconds())
	early, late := 0, 0
	for _, one := range samples {
		switch {
		case one.cells < len(s.Cells)/4:
		case one.cells < len(s.Cells)/2:
			early = max(early, one.memory)
		default:
			late = max(late, one.memory)
		}
	}
	if (early == 0 || late == 0) && len(s.Cells) > 8 { // so few may end between two looks
		t.Errorf("the memory of the worker is not known: of %d looks, none was in the second quarter, or none in the second half", len(samples))
	}
	if early > 0 && late > early+early/5 {
		t.Errorf("the worker has %d MB in the second half, and %d MB in the second quarter", late, early)
	}
	return took
}

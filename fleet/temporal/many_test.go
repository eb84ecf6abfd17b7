package temporal

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	api "go.temporal.io/api/workflow/v1"

	"bake/fleet"
	"bake/internal/turns"
)

// manyFleet is a template with so many images in two regions of two accounts, and its bake file.
func manyFleet(images int, limits string) (template, bakefile string) {
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
	fleetBlock = strings.Replace(fleetBlock, "  matrix {", "  limits {\n"+limits+"  }\n  matrix {", 1)
	return sources.String() + "build { sources = [" + strings.Join(builds, ", ") + "] }\n", blocks.String() + "fleet \"nightly\"" + fleetBlock
}

// resident is the memory that a process has, in MB.
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

// TestTwoHundredCellsOnTemporal: as EC2 sees it, many cells are held to the rate, which is what
// they take the time for, and a worker's memory does not grow with the cells that it has done.
func TestTwoHundredCellsOnTemporal(t *testing.T) {
	turns.Skip(t, 10)
	manyCells(t, 50, 10, 24)
}

// TestManyCellsOnTemporal is that with few cells.
func TestManyCellsOnTemporal(t *testing.T) { manyCells(t, 2, 20, 8) }

func manyCells(t *testing.T, images int, rate float64, parallel int) {
	template, bakefile := manyFleet(images, fmt.Sprintf("    parallel = %d\n    api_rate = { ec2 = %g }\n", parallel, rate))
	w := newReal(t, template, bakefile)
	w.serve()
	address, calls := w.Watch()
	t.Setenv("AWS_ENDPOINT_URL", address)
	if _, err := w.engine.Apply(t.Context(), w.fleet, false); err != nil {
		t.Fatal(err)
	}
	pid := w.worker().Process.Pid
	type sample struct{ cells, memory int }
	var samples []sample
	shown := 0
	began := time.Now()
	s, err := w.engine.Run(t.Context(), w.fleet, fleet.RunOptions{Cells: w.fleet.Cells, Told: func(s fleet.Status) {
		n := 0
		for _, c := range s.Cells {
			if c.Outcome != nil {
				n++
			}
		}
		samples = append(samples, sample{n, resident(t, pid)})
		if n/20 > shown {
			shown = n / 20
			t.Logf("%d cells in %s: the worker has %d MB", n, time.Since(began).Round(time.Second), resident(t, pid))
			calls.Held(t, rate)
		}
	}})
	took := time.Since(began)
	for _, c := range s.Cells {
		if c.Outcome == nil || c.Outcome.Result != fleet.Built {
			t.Errorf("%s: %+v", c.Cell.Short(), c.Outcome)
		}
	}
	if err != nil || s.State != fleet.StateDone {
		t.Fatalf("%s, %v", s.State, err)
	}
	if left, made := w.machines(); len(left) > 0 || made != 4*images {
		t.Errorf("%d images; left: %q", made, left)
	}
	calls.Held(t, rate)
	ideal := 0.0
	for _, at := range calls.Places() {
		ideal = max(ideal, float64(len(at))/rate)
	}
	t.Logf("%d cells in %.0f s; their calls alone take %.0f s at %.0f a second", len(s.Cells), took.Seconds(), ideal, rate)
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
	if early > 0 && late > early+early/5 {
		t.Errorf("the worker has %d MB in the second half, and %d MB in the second quarter", late, early)
	}
	if took.Seconds() > 2*ideal+30 {
		t.Errorf("it took %s, and could have been done in %.0f s", took, ideal)
	}
}

// TestTwelveHundredCellsOnTemporal: the cells of a fleet that has more than a workflow has
// children end at once here. All do, no history comes near the limits of the service, and a run that is
// cancelled ends.
func TestTwelveHundredCellsOnTemporal(t *testing.T) {
	turns.Skip(t, 20)
	const images, accounts, regions = 30, 10, 4
	template, bakefile := manyFleet(images, "    parallel = 100\n")
	template = regexp.MustCompile(`(?s)source "amazon-ebs" ("\w+") \{.*?\n\}\n`).ReplaceAllString(template, "source \"null\" $1 { communicator = \"none\" }\n")
	template, bakefile = strings.ReplaceAll(template, "amazon-ebs.", "null."), strings.ReplaceAll(bakefile, "amazon-ebs.", "null.")
	list := func(form string, n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(form, i+1))
		}
		return "[" + strings.Join(all, ", ") + "]"
	}
	bakefile = regexp.MustCompile(`account = .*`).ReplaceAllString(bakefile, "account = "+list(`"1111111111%02d"`, accounts))
	bakefile = regexp.MustCompile(`region  = .*`).ReplaceAllString(bakefile, "region  = "+list(`"eu-west-%d"`, regions))
	w := newReal(t, template, bakefile)
	w.serve()
	if len(w.fleet.Cells) != images*accounts*regions {
		t.Fatalf("%d cells", len(w.fleet.Cells))
	}
	if _, err := w.engine.Apply(t.Context(), w.fleet, false); err != nil {
		t.Fatal(err)
	}
	pid := w.worker().Process.Pid
	most := 0
	shown := 0
	began := time.Now()
	ended := func(s fleet.Status) (n int) {
		for _, c := range s.Cells {
			if c.Outcome != nil {
				n++
			}
		}
		return n
	}
	s, err := w.engine.Run(t.Context(), w.fleet, fleet.RunOptions{Cells: w.fleet.Cells, Told: func(s fleet.Status) {
		most = max(most, resident(t, pid))
		if n := ended(s) / 200; n > shown {
			shown = n
			t.Logf("%d cells in %s: the worker has %d MB", ended(s), time.Since(began).Round(time.Second), resident(t, pid))
		}
	}})
	if err != nil || s.State != fleet.StateDone || ended(s) != len(w.fleet.Cells) {
		t.Fatalf("%s, %d cells, %v", s.State, ended(s), err)
	}
	t.Logf("%d cells in %s; the worker has had %d MB", len(s.Cells), time.Since(began).Round(time.Second), most)
	c, err := w.engine.dial(t.Context(), w.fleet)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	image := ""
	for _, kind := range []string{fleetWorkflow, imageWorkflow, bakeWorkflow} {
		var found []*api.WorkflowExecutionInfo
		w.wait("the service lists its workflows", func() bool {
			if found, err = listed(t.Context(), c, fmt.Sprintf("WorkflowType = '%s' AND ExecutionStatus = 'Completed'", kind)); err != nil {
				t.Fatal(err)
			}
			return len(found) >= map[string]int{fleetWorkflow: 1, imageWorkflow: images, bakeWorkflow: len(s.Cells)}[kind]
		})
		events, size := int64(0), int64(0)
		for _, one := range found {
			events, size = max(events, one.GetHistoryLength()), max(size, one.GetHistorySizeBytes())
		}
		t.Logf("%d workflows %s: %d events and %d kB at most", len(found), kind, events, size>>10)
		if events > longHistory || size > largeHistory {
			t.Errorf("the history of a workflow %s has %d events and %d bytes", kind, events, size)
		}
		if kind == imageWorkflow {
			image = found[0].GetExecution().GetWorkflowId()
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err = w.engine.Run(ctx, w.fleet, fleet.RunOptions{Cells: w.fleet.Cells, Told: func(s fleet.Status) {
		if ended(s) > 0 {
			cancel()
		}
	}})
	t.Logf("a run that was cancelled has ended %d cells", ended(s))
	if err != nil || s.State != fleet.StateCancelled || ended(s) != len(w.fleet.Cells) {
		t.Errorf("%s, %d cells, %v", s.State, ended(s), err)
	}
	w.save(map[string]string{"fleet-of-parts": fleetID(w.fleet.Name), "image": image})
}

package temporal

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

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

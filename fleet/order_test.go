package fleet

import (
	"slices"
	"strings"
	"testing"
	"time"

	"bake/run"
)

// grid is a fleet of images, in which each needs the one before it, in accounts and regions.
func grid(images, accounts, regions []string) (cells []Cell) {
	for i, image := range images {
		for _, account := range accounts {
			for _, region := range regions {
				c := Cell{Fleet: "nightly", Image: image, Account: account, Region: region}
				if i > 0 {
					c.Needs = []string{Cell{Fleet: "nightly", Image: images[i-1], Account: account, Region: region}.ID()}
				}
				cells = append(cells, c)
			}
		}
	}
	return cells
}

func names(cells []Cell) string {
	var all []string
	for _, c := range cells {
		all = append(all, c.Short())
	}
	return strings.Join(all, " ")
}

func results(all []Outcome) string {
	var out []string
	for _, o := range all {
		out = append(out, o.Cell.Short()+"="+string(o.Result))
	}
	return strings.Join(out, " ")
}

func order(t *testing.T, cells []Cell, l Limits, failFast bool, done ...Outcome) *Order {
	t.Helper()
	o, err := NewOrder(cells, l, failFast, done)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, not %q", what, got, want)
	}
}

func TestOrder(t *testing.T) {
	cells := grid([]string{"base", "web"}, []string{"1", "2"}, []string{"r"})
	end := func(o *Order, i int, r Result) string {
		return results(o.End(Outcome{Cell: cells[i], Result: r, Ended: time.Unix(1, 0)}))
	}
	o := order(t, cells, Limits{}, false)
	expect(t, "at first, the parents", names(o.Begin()), "base/1/r base/2/r")
	expect(t, "nothing twice", names(o.Begin()), "")
	expect(t, "a parent of one account", end(o, 0, Built), "")
	expect(t, "lets its child begin", names(o.Begin()), "web/1/r")
	expect(t, "a parent that fails", end(o, 1, Failed), "web/2/r=skipped")
	expect(t, "what has ended already", end(o, 1, Built), "")
	if o.Over() {
		t.Error("it is over, though web/1/r runs")
	}
	expect(t, "the parents of a child", results(o.Parents(cells[2])), "base/1/r=built")
	end(o, 2, Reused)
	expect(t, "all", results(o.Outcomes()), "base/1/r=built base/2/r=failed web/1/r=reused web/2/r=skipped")
	if !o.Over() {
		t.Error("it is not over")
	}
}

func TestOrderLimits(t *testing.T) {
	cells := grid([]string{"a"}, []string{"1", "2"}, []string{"r", "s", "t"})
	o := order(t, cells, Limits{PerAccount: 2}, false)
	expect(t, "two of each account", names(o.Begin()), "a/1/r a/1/s a/2/r a/2/s")
	o.End(Outcome{Cell: cells[1], Result: Failed})
	expect(t, "the next of the account", names(o.Begin()), "a/1/t")
	o = order(t, cells, Limits{Parallel: 3, PerAccount: 2}, false)
	expect(t, "three in all", names(o.Begin()), "a/1/r a/1/s a/2/r")
	o.Pause(true)
	o.End(Outcome{Cell: cells[0], Result: Built})
	expect(t, "paused", names(o.Begin()), "")
	o.Pause(false)
	expect(t, "not paused", names(o.Begin()), "a/1/t")
	expect(t, "running", names(o.Running()), "a/1/s a/1/t a/2/r")
	expect(t, "waiting", names(o.in(cellWaits)), "a/2/s a/2/t")
}

func TestOrderStops(t *testing.T) {
	cells := grid([]string{"base", "web", "app"}, []string{"1"}, []string{"r", "s"})
	o := order(t, cells, Limits{Parallel: 1}, true)
	o.Begin()
	expect(t, "a failure", results(o.End(Outcome{Cell: cells[0], Result: Failed})),
		"base/1/s=cancelled web/1/r=cancelled web/1/s=cancelled app/1/r=cancelled app/1/s=cancelled")
	if !o.Stopped() || !o.Over() || len(o.Begin()) > 0 {
		t.Error("it goes on")
	}
	o = order(t, cells, Limits{}, false)
	o.Begin()
	expect(t, "a cell that is cancelled by itself", results(o.End(Outcome{Cell: cells[0], Result: Cancelled})), "web/1/r=cancelled app/1/r=cancelled")
	expect(t, "stop", results(o.Stop(time.Time{}, "")), "web/1/s=cancelled app/1/s=cancelled")
	expect(t, "what runs is left", names(o.Running()), "base/1/s")
}

// Images of an earlier attempt that exist are not baked again; the others are.
func TestOrderGoesOn(t *testing.T) {
	cells := grid([]string{"base", "web"}, []string{"1"}, []string{"r", "s"})
	o := order(t, cells, Limits{}, false, Outcome{Cell: cells[0], Result: Built, Image: Image{ID: "ami-1"}}, Outcome{Cell: cells[1], Result: Failed}, Outcome{Cell: Cell{Image: "other"}, Result: Built})
	expect(t, "begin", names(o.Begin()), "base/1/s web/1/r")
	expect(t, "ended", results(o.Outcomes()), "base/1/r=built")
	if id := builtBy(o.Parents(cells[2]))["base"].ID; id != "ami-1" {
		t.Errorf("the parent is %q", id)
	}
}

func TestOrderRefuses(t *testing.T) {
	cells := grid([]string{"base", "web"}, []string{"1"}, []string{"r"})
	if _, err := NewOrder(append(slices.Clone(cells), cells[0]), Limits{}, false, nil); err == nil {
		t.Error("a cell twice")
	}
	if _, err := NewOrder([]Cell{cells[1], cells[0]}, Limits{}, false, nil); err == nil {
		t.Error("a child before its parent")
	}
}

func TestSelect(t *testing.T) {
	cells := grid([]string{"base", "web", "app"}, []string{"1", "2"}, []string{"r", "s"})
	for _, test := range []struct{ patterns, want string }{
		{"", ""},
		{"web/1/r", "base/1/r? web/1/r"},
		{"bake/nightly/app/2/s", "base/2/s? web/2/s? app/2/s"},
		{"base/*", "base/1/r base/1/s base/2/r base/2/s"},
		{"web/*/r base/1/r", "base/1/r base/2/r? web/1/r web/2/r"},
		{"none", "error"},
		{"web/1/r web/1/x", "error"},
	} {
		chosen, err := Select(cells, strings.Fields(test.patterns))
		var got []string
		for _, c := range chosen {
			mark := ""
			if c.ReuseOnly {
				mark = "?"
			}
			got = append(got, c.Short()+mark)
		}
		text := strings.Join(got, " ")
		if err != nil {
			text = "error"
		}
		want := test.want
		if want == "" {
			want = names(cells)
		}
		expect(t, test.patterns, text, want)
	}
}

// Cells that are cancelled because one has failed leave the exit code to that one, whatever
// they were cancelled with.
func TestFailFastCode(t *testing.T) {
	cells := []Cell{{Fleet: "f", Image: "a"}, {Fleet: "f", Image: "b"}}
	o, err := NewOrder(cells, Limits{}, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	o.Begin()
	o.End(Outcome{Cell: cells[0], Result: Failed, Code: int(run.OutcomeProvisioning)})
	o.End(Outcome{Cell: cells[1], Result: Cancelled, Code: int(run.OutcomeCancelled)})
	if got := Worst(o.Outcomes()); got != run.OutcomeProvisioning {
		t.Errorf("the exit code is %d", got)
	}
}

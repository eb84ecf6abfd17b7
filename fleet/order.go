package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Order determines which cells of a fleet may start, given the outcomes of others. It is
// deterministic, without clock, I/O or goroutines, so that every engine can use it,
// including one that replays its history. It is not safe for concurrent use.
type Order struct {
	cells    []Cell
	at       map[string]int // by ID; only looked up
	states   []cellState
	outcomes []Outcome // of cells that have ended
	limits   Limits
	failFast bool

	paused, stopped bool
	fast            bool // stopped because a cell has failed
	running         int
	accounts        map[string]int // running cells of each account; only looked up
}

type cellState int

const (
	cellWaits cellState = iota
	cellRuns
	cellEnded
)

// NewOrder returns the order of cells. Cells whose image exists according to done, which
// is from an earlier attempt, count as ended; the others begin anew. failFast cancels all
// others when a cell has failed.
func NewOrder(cells []Cell, limits Limits, failFast bool, done []Outcome) (*Order, error) {
	o := &Order{
		cells: cells, at: map[string]int{}, states: make([]cellState, len(cells)), outcomes: make([]Outcome, len(cells)),
		limits: limits, failFast: failFast, accounts: map[string]int{},
	}
	for i, c := range cells {
		if _, twice := o.at[c.ID()]; twice {
			return nil, fmt.Errorf("the cell %s is there twice", c.ID())
		}
		for _, id := range c.Needs {
			if _, before := o.at[id]; !before {
				return nil, fmt.Errorf("the cell %s needs %s, which does not come before it", c.ID(), id)
			}
		}
		o.at[c.ID()] = i
	}
	for _, d := range done {
		if i, ok := o.at[d.Cell.ID()]; ok && d.Result.OK() {
			o.states[i], o.outcomes[i] = cellEnded, d
		}
	}
	return o, nil
}

// Limit changes how many cells may run at a time. Cells that run already continue.
func (o *Order) Limit(l Limits) { o.limits = l }

// Within reports whether the running cells are within the limits, which may not be so
// after [Order.Limit].
func (o *Order) Within() bool {
	if o.limits.Parallel > 0 && o.running > o.limits.Parallel {
		return false
	}
	for _, n := range o.accounts {
		if o.limits.PerAccount > 0 && n > o.limits.PerAccount {
			return false
		}
	}
	return true
}

// Begin returns the cells to start now, and counts them as running.
func (o *Order) Begin() (begin []Cell) {
	if o.paused || o.stopped {
		return nil
	}
	for i, c := range o.cells {
		switch {
		case o.limits.Parallel > 0 && o.running >= o.limits.Parallel:
			return begin
		case o.states[i] != cellWaits || o.limits.PerAccount > 0 && o.accounts[c.Account] >= o.limits.PerAccount || !o.ready(c):
			continue
		}
		o.states[i] = cellRuns
		o.running++
		o.accounts[c.Account]++
		begin = append(begin, c)
	}
	return begin
}

func (o *Order) ready(c Cell) bool {
	return !slices.ContainsFunc(c.Needs, func(id string) bool {
		i := o.at[id]
		return o.states[i] != cellEnded || !o.outcomes[i].Result.OK()
	})
}

// Parents returns the outcomes of the cells that c needs.
func (o *Order) Parents(c Cell) (all []Outcome) {
	for _, id := range c.Needs {
		all = append(all, o.outcomes[o.at[id]])
	}
	return all
}

// End records the outcome of a running cell, and returns the outcomes of other cells that
// end because of it. It ignores an outcome of a cell that is not running.
func (o *Order) End(of Outcome) (others []Outcome) {
	i, ok := o.at[of.Cell.ID()]
	if !ok || o.states[i] != cellRuns {
		return nil
	}
	o.running--
	o.accounts[of.Cell.Account]--
	if o.fast && of.Result == Cancelled && of.Code >= 128 {
		of.Code = 0 // the cell that failed has the reason
	}
	o.states[i], o.outcomes[i] = cellEnded, of
	switch {
	case of.Result.OK():
	case o.failFast && of.Result == Failed:
		o.fast = !o.stopped
		return o.Stop(of.Ended, "cancelled, because "+of.Cell.Short()+" failed")
	default:
		return o.skip(of.Ended)
	}
	return nil
}

// skip ends the cells whose parents have ended without an image. Parents come first.
func (o *Order) skip(at time.Time) (skipped []Outcome) {
	for i, c := range o.cells {
		if o.states[i] != cellWaits {
			continue
		}
		for _, id := range c.Needs {
			p := o.at[id]
			if o.states[p] != cellEnded || o.outcomes[p].Result.OK() {
				continue
			}
			out := Outcome{Cell: c, Result: Skipped, Ended: at, Error: "not built, because " + o.cells[p].Short() + ", which it needs, was not"}
			if o.outcomes[p].Result == Cancelled {
				out.Result, out.Error = Cancelled, ""
			}
			o.states[i], o.outcomes[i] = cellEnded, out
			skipped = append(skipped, out)
			break
		}
	}
	return skipped
}

// Stop cancels all waiting cells. The caller cancels the running ones, and reports their
// end with [Order.End].
func (o *Order) Stop(at time.Time, why string) (cancelled []Outcome) {
	o.stopped = true
	for i, c := range o.cells {
		if o.states[i] == cellWaits {
			o.states[i], o.outcomes[i] = cellEnded, Outcome{Cell: c, Result: Cancelled, Ended: at, Error: why}
			cancelled = append(cancelled, o.outcomes[i])
		}
	}
	return cancelled
}

// Stopped reports whether running cells must be cancelled: [Order.Stop] was called, or a
// cell has failed and the others must not continue.
func (o *Order) Stopped() bool { return o.stopped }

// Pause prevents waiting cells from starting, or with false allows it again. Running cells
// continue.
func (o *Order) Pause(paused bool) { o.paused = paused }

// Paused reports whether starting cells is suspended.
func (o *Order) Paused() bool { return o.paused }

// Running returns the cells that are running.
func (o *Order) Running() []Cell { return o.in(cellRuns) }

func (o *Order) in(s cellState) (all []Cell) {
	for i, c := range o.cells {
		if o.states[i] == s {
			all = append(all, c)
		}
	}
	return all
}

// Over reports whether all cells have ended.
func (o *Order) Over() bool {
	return !slices.ContainsFunc(o.states, func(s cellState) bool { return s != cellEnded })
}

// Outcomes returns the outcomes of ended cells, in the order of the cells.
func (o *Order) Outcomes() (all []Outcome) {
	for i, s := range o.states {
		if s == cellEnded {
			all = append(all, o.outcomes[i])
		}
	}
	return all
}

// Select returns the cells that match one of the patterns, and the cells that they need,
// which are only reused. A pattern is the ID of a cell, or IMAGE/ACCOUNT/REGION, in which
// * matches any text. Without patterns, it returns all cells. A pattern that matches no
// cell is an error.
func Select(cells []Cell, patterns []string) ([]Cell, error) {
	if len(patterns) == 0 {
		return cells, nil
	}
	wanted := map[string]bool{}
	for _, p := range patterns {
		matched := false
		for _, c := range cells {
			if fits(p, c.ID()) || fits(p, c.Short()) {
				matched, wanted[c.ID()] = true, true
			}
		}
		if !matched {
			return nil, fmt.Errorf("%q matches no cell of the fleet; a cell is IMAGE/ACCOUNT/REGION, such as %s, and * matches anything", p, cells[0].Short())
		}
	}
	needed := map[string]bool{}
	for _, c := range slices.Backward(cells) { // children first
		if wanted[c.ID()] || needed[c.ID()] {
			for _, id := range c.Needs {
				needed[id] = true
			}
		}
	}
	var chosen []Cell
	for _, c := range cells {
		if !wanted[c.ID()] && !needed[c.ID()] {
			continue
		}
		c.ReuseOnly = !wanted[c.ID()]
		chosen = append(chosen, c)
	}
	return chosen, nil
}

// fits reports whether the whole text matches a pattern, in which * matches any text.
func fits(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	if !strings.HasPrefix(text, parts[0]) {
		return false
	}
	text = text[len(parts[0]):]
	last := len(parts) - 1
	for _, p := range parts[1:last] {
		i := strings.Index(text, p)
		if i < 0 {
			return false
		}
		text = text[i+len(p):]
	}
	return strings.HasSuffix(text, parts[last])
}

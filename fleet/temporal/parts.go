package temporal

import (
	"fmt"
	"slices"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"bake/fleet"
)

const (
	// mostCells is how many cells a workflow has as its children. The workflow of a larger fleet
	// has one for each image, whose children they are.
	mostCells = 1000

	// mostParts is how many images of such a fleet go on at a time, each with a part of the
	// limits.
	mostParts = 20
)

// parts are the workflows that bake the images of a large fleet.
type parts struct {
	begun   int     // how many ever were, in this workflow
	waiting []*part // whose cells could begin
	running []*part
}

// part is an image of a large fleet, with the cells of it that could begin at the same time.
type part struct {
	id     string // of its workflow
	cells  []fleet.Cell
	limits fleet.Limits // its part of them
	child  workflow.ChildWorkflowFuture
}

// split has images baked by workflows of their own.
func (r *fleetRun) split(ctx workflow.Context) error {
	r.parts = &parts{}
	r.order.Limit(fleet.Limits{}) // that is what the parts are held to
	return workflow.SetQueryHandler(ctx, partsQuery, func() (ids []string, _ error) {
		for _, p := range r.parts.running {
			ids = append(ids, p.id)
		}
		return ids, nil
	})
}

// signal tells all workflows that bake images something.
func (p *parts) signal(ctx workflow.Context, name string, v any) {
	if p == nil {
		return
	}
	for _, one := range p.running {
		one.child.SignalChildWorkflow(ctx, name, v) // one that has ended need not know
	}
}

// beginParts starts the workflows of images whose parents are there, as many as the limits can
// be divided by. What becomes free goes to one that waits, or else to those that go on: together
// they never have more than there is.
func (r *fleetRun) beginParts(ctx workflow.Context, selector workflow.Selector) {
	var last *part
	for _, c := range r.order.Begin() {
		if last == nil || last.cells[0].Image != c.Image {
			last = &part{}
			r.parts.waiting = append(r.parts.waiting, last)
		}
		last.cells = append(last.cells, c)
	}
	if len(r.parts.running) > 0 || len(r.parts.waiting) == 0 {
		return
	}
	n := min(len(r.parts.waiting), mostParts, r.Limits.Parallel)
	if r.Limits.PerAccount > 0 {
		n = min(n, r.Limits.PerAccount)
	}
	for i, l := range divide(r.Limits, n) {
		r.beginPart(ctx, r.parts.waiting[i], l, selector)
	}
	r.parts.waiting = r.parts.waiting[n:]
}

// divide divides limits into n parts. None of them is nothing if no limit is less than n.
func divide(l fleet.Limits, n int) []fleet.Limits {
	all := make([]fleet.Limits, n)
	for i := range all {
		all[i] = l
		all[i].Parallel, all[i].PerAccount = (l.Parallel+i)/n, (l.PerAccount+i)/n
	}
	return all
}

// beginPart starts the workflow of an image, which gets to know its parents.
func (r *fleetRun) beginPart(ctx workflow.Context, p *part, l fleet.Limits, selector workflow.Selector) {
	r.parts.begun++
	r.children++
	p.id, p.limits = fmt.Sprintf("%s/%s/%d", fleetID(r.Fleet), p.cells[0].Image, r.parts.begun), l
	in := r.fleetIn
	in.Strict, in.PauseAfter, in.Limits, in.Paused, in.Cells, in.Done = false, 0, l, r.order.Paused(), nil, nil
	there := map[string]bool{}
	for _, c := range p.cells {
		for _, o := range r.order.Parents(c) {
			if !there[o.Cell.ID()] {
				there[o.Cell.ID()] = true
				o.Cell.Needs = nil // they are there
				in.Cells, in.Done = append(in.Cells, o.Cell), append(in.Done, o)
			}
		}
	}
	in.Cells = append(in.Cells, p.cells...)
	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID: p.id, TaskQueue: workflowQueue(r.Fleet), WaitForCancellation: true,
		ParentClosePolicy:     enums.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
		TypedSearchAttributes: temporal.NewSearchAttributes(byFleet.ValueSet(r.Fleet), byImage.ValueSet(p.cells[0].Image)),
	})
	p.child = workflow.ExecuteChildWorkflow(child, imageWorkflow, in)
	r.parts.running = append(r.parts.running, p)
	selector.AddFuture(p.child, func(f workflow.Future) {
		r.children--
		var all []fleet.Outcome
		err := f.Get(ctx, &all)
		r.endPart(p, all, err, workflow.Now(ctx))
		r.passOn(ctx, p.limits, selector)
	})
}

// endPart takes how the cells of a part have ended.
func (r *fleetRun) endPart(p *part, all []fleet.Outcome, err error, at time.Time) {
	r.parts.running = slices.DeleteFunc(r.parts.running, func(o *part) bool { return o == p })
	ended := map[string]fleet.Outcome{}
	for _, o := range all {
		ended[o.Cell.ID()] = o
	}
	for _, c := range p.cells {
		out, ok := ended[c.ID()]
		if !ok {
			out = fleet.Outcome{Cell: c, Result: fleet.Failed, Code: 1, Ended: at, Error: "the workflow of its image, " + p.id + ", has not ended as it should"}
			switch {
			case temporal.IsCanceledError(err):
				out.Result, out.Code, out.Error = fleet.Cancelled, 130, "cancelled"
			case err != nil:
				out.Error = childError(err)
			}
		}
		r.outcomes = append(r.outcomes, out)
		r.end(r.order.End(out))
	}
}

// passOn gives the limits of a part that has ended to another one, or to all that go on.
func (r *fleetRun) passOn(ctx workflow.Context, free fleet.Limits, selector workflow.Selector) {
	switch running := r.parts.running; {
	case r.order.Stopped() || r.draining:
	case len(running) == 0: // all of them are free then
	case len(r.parts.waiting) > 0:
		next := r.parts.waiting[0]
		r.parts.waiting = r.parts.waiting[1:]
		r.beginPart(ctx, next, free, selector)
	default:
		for i, l := range divide(free, len(running)) {
			p := running[i]
			if l.Parallel+l.PerAccount > 0 {
				p.limits.Parallel += l.Parallel
				p.limits.PerAccount += l.PerAccount
				p.child.SignalChildWorkflow(ctx, limitsSignal, p.limits)
			}
		}
	}
}

// dropParts ends the cells of parts that were not begun, since the run is cancelled.
func (r *fleetRun) dropParts(at time.Time) {
	if r.parts == nil {
		return
	}
	for _, p := range r.parts.waiting {
		for _, c := range p.cells {
			out := fleet.Outcome{Cell: c, Result: fleet.Cancelled, Ended: at, Error: "cancelled"}
			r.outcomes = append(r.outcomes, out)
			r.end(r.order.End(out))
		}
	}
	r.parts.waiting = nil
}

// runImage bakes the cells of an image of a large fleet, and returns how they ended. It begins
// with those that they need, too, which are there.
func runImage(ctx workflow.Context, in fleetIn) ([]fleet.Outcome, error) {
	r := &fleetRun{fleetIn: in, begun: map[string]time.Time{}}
	if err := r.goOn(); err != nil {
		return nil, temporal.NewNonRetryableApplicationError(err.Error(), "Order", err)
	}
	if err := workflow.SetQueryHandler(ctx, statusQuery, func() (fleet.Status, error) { return r.status(), nil }); err != nil {
		return nil, err
	}
	r.drive(ctx)
	if r.draining && !r.order.Over() {
		return nil, workflow.NewContinueAsNewError(ctx, imageWorkflow, r.further())
	}
	return r.outcomes, nil
}

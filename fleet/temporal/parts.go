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

// mostCells is the maximum number of cells that are children of one workflow. The workflow
// of a larger fleet has a child for each image, whose children are the cells. Tests lower
// it.
var mostCells = 1000

// mostParts is the maximum number of images of a large fleet that run at a time, each
// with a part of the limits.
const mostParts = 20

// parts are the workflows that bake the images of a large fleet.
type parts struct {
	begun   int          // number of parts started by this workflow
	left    fleet.Limits // unassigned capacity
	waiting []*part      // whose cells could start
	running []*part
}

// part is an image of a large fleet, with those of its cells that could start at the same
// time.
type part struct {
	id     string // of its workflow
	cells  []fleet.Cell
	limits fleet.Limits  // its share of the limits
	asked  *fleet.Limits // lower limits that the part was asked to observe; nil: none
	child  workflow.ChildWorkflowFuture
}

// freed is the signal of an image's workflow that its running cells are within its limits,
// after these were lowered.
type freed struct {
	ID     string       `json:"id"` // of the workflow
	Limits fleet.Limits `json:"limits"`
}

// split makes separate workflows bake the images.
func (r *fleetRun) split(ctx workflow.Context) error {
	r.parts = &parts{left: r.Limits}
	r.order.Limit(fleet.Limits{}) // the parts enforce the limits
	return workflow.SetQueryHandler(ctx, partsQuery, func() (ids []string, _ error) {
		for _, p := range r.parts.running {
			ids = append(ids, p.id)
		}
		return ids, nil
	})
}

// signal sends a signal to all workflows that bake images.
func (p *parts) signal(ctx workflow.Context, name string, v any) {
	if p == nil {
		return
	}
	for _, one := range p.running {
		one.child.SignalChildWorkflow(ctx, name, v) // a part that has ended ignores it
	}
}

// beginParts starts the workflows of images whose parents exist, as many as the limits can
// be divided among, and asks running parts for a share if nothing is left. Capacity that
// no image waits for goes to the running parts. Together the parts never exceed the
// limits.
func (r *fleetRun) beginParts(ctx workflow.Context, selector workflow.Selector) {
	var last *part
	for _, c := range r.order.Begin() {
		if last == nil || last.cells[0].Image != c.Image {
			last = &part{}
			r.parts.waiting = append(r.parts.waiting, last)
		}
		last.cells = append(last.cells, c)
	}
	p := r.parts
	if n := min(len(p.waiting), mostParts-len(p.running), most(p.left, r.Limits)); n > 0 {
		for i, l := range divide(p.left, n) {
			r.beginPart(ctx, p.waiting[i], l, selector)
		}
		p.waiting, p.left = p.waiting[n:], fleet.Limits{}
	}
	if len(p.waiting) > 0 {
		p.ask(ctx, r.Limits)
	} else {
		p.give(ctx)
	}
}

// most returns the maximum number of parts that the remaining limits can be divided into.
func most(left, all fleet.Limits) int {
	if all.PerAccount > 0 {
		return min(left.Parallel, left.PerAccount)
	}
	return left.Parallel
}

// ask requests capacity from the parts that have more than an equal share.
func (p *parts) ask(ctx workflow.Context, all fleet.Limits) {
	n := min(len(p.running)+len(p.waiting), mostParts, most(all, all))
	if n <= len(p.running) {
		return
	}
	fair := divide(all, n)[n-1]
	for _, one := range p.running {
		l := one.limits
		l.Parallel, l.PerAccount = min(l.Parallel, fair.Parallel), min(l.PerAccount, fair.PerAccount)
		if one.asked == nil && (l.Parallel < one.limits.Parallel || l.PerAccount < one.limits.PerAccount) {
			one.asked = &l
			one.child.SignalChildWorkflow(ctx, limitsSignal, l)
		}
	}
}

// free takes back the capacity that a part has given up.
func (p *parts) free(f freed) {
	for _, one := range p.running {
		if one.id == f.ID && one.asked != nil && one.asked.Parallel == f.Limits.Parallel && one.asked.PerAccount == f.Limits.PerAccount {
			p.left.Parallel += one.limits.Parallel - f.Limits.Parallel
			p.left.PerAccount += one.limits.PerAccount - f.Limits.PerAccount
			one.limits, one.asked = *one.asked, nil
		}
	}
}

// give distributes the unused capacity among the running parts, except parts that were
// asked to give up some of theirs: their limits are not known until they answer.
func (p *parts) give(ctx workflow.Context) {
	to := slices.DeleteFunc(slices.Clone(p.running), func(one *part) bool { return one.asked != nil })
	if len(to) == 0 || p.left.Parallel+p.left.PerAccount == 0 {
		return
	}
	for i, l := range divide(p.left, len(to)) {
		if l.Parallel+l.PerAccount > 0 {
			to[i].limits.Parallel += l.Parallel
			to[i].limits.PerAccount += l.PerAccount
			to[i].child.SignalChildWorkflow(ctx, limitsSignal, to[i].limits)
		}
	}
	p.left = fleet.Limits{}
}

// tellFreed answers the parent of this image's workflow, if the parent has asked for a
// share.
func (r *fleetRun) tellFreed(ctx workflow.Context, selector workflow.Selector) {
	parent := workflow.GetInfo(ctx).ParentWorkflowExecution
	if !r.Asked || r.freed || parent == nil || !r.order.Within() {
		return
	}
	r.freed = true
	asks, answer := r.asks, freed{workflow.GetInfo(ctx).WorkflowExecution.ID, r.Limits}
	selector.AddFuture(workflow.SignalExternalWorkflow(ctx, parent.ID, "", freedSignal, answer), func(workflow.Future) {
		r.Asked, r.freed = r.asks > asks, false
	})
}

// divide divides limits into n parts, the larger ones first, because the first parts are
// needed by others. No part is zero unless a limit is less than n.
func divide(l fleet.Limits, n int) []fleet.Limits {
	all := make([]fleet.Limits, n)
	for i := range all {
		all[i] = l
		all[i].Parallel, all[i].PerAccount = (l.Parallel+n-1-i)/n, (l.PerAccount+n-1-i)/n
	}
	return all
}

// beginPart starts the workflow of an image, with the outcomes of its parents.
func (r *fleetRun) beginPart(ctx workflow.Context, p *part, l fleet.Limits, selector workflow.Selector) {
	r.parts.begun++
	r.children++
	p.id, p.limits = fmt.Sprintf("%s/%s/%d", fleetID(r.Fleet), p.cells[0].Image, r.parts.begun), l
	in := r.fleetIn
	in.Strict, in.PauseAfter, in.Asked, in.Limits, in.Paused, in.Cells, in.Done = false, 0, false, l, r.order.Paused(), nil, nil
	there := map[string]bool{}
	for _, c := range p.cells {
		for _, o := range r.order.Parents(c) {
			if !there[o.Cell.ID()] {
				there[o.Cell.ID()] = true
				o.Cell.Needs = nil // they exist
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
	})
}

// endPart records the outcomes of the cells of a part.
func (r *fleetRun) endPart(p *part, all []fleet.Outcome, err error, at time.Time) {
	r.parts.running = slices.DeleteFunc(r.parts.running, func(o *part) bool { return o == p })
	r.parts.left.Parallel += p.limits.Parallel
	r.parts.left.PerAccount += p.limits.PerAccount
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
		r.ended(out)
	}
}

// dropParts ends the cells of parts that were not started, because the run was
// cancelled.
func (r *fleetRun) dropParts(at time.Time) {
	if r.parts == nil {
		return
	}
	for _, p := range r.parts.waiting {
		for _, c := range p.cells {
			r.ended(fleet.Outcome{Cell: c, Result: fleet.Cancelled, Ended: at, Error: "cancelled"})
		}
	}
	r.parts.waiting = nil
}

// runImage bakes the cells of an image of a large fleet, and returns how they ended. Its
// input includes the outcomes of the cells that they need.
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

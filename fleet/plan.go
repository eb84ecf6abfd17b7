package fleet

import (
	"context"
	"fmt"
	"strings"

	"bake/golden/plan"
	"bake/internal/prose"
	"bake/run"
)

// Planned is the planned action for a cell.
type Planned struct {
	Cell    string            `json:"cell"`
	Image   string            `json:"image"`
	Account string            `json:"account"`
	Region  string            `json:"region"`
	Action  string            `json:"action"` // build, reuse, or none if it cannot be determined
	Reason  string            `json:"reason,omitempty"`
	Since   string            `json:"since,omitempty"`
	Changes []plan.Change     `json:"changes"`          // not nil
	Images  map[string]string `json:"images,omitempty"` // images that would be reused, by region
}

// unplanned is the action of a cell that could not be planned.
const unplanned = "none"

// Plan returns what a run of the fleet would do for cells, as returned by [Select]. It
// creates nothing. Each cell is planned after the cells that it needs, as in a run. If a
// needed image would be built, the inputs of the cell are not known yet, so the cell would
// be built as well. force means that nothing is reused. An error means that no cell could
// be planned.
func (f *Fleet) Plan(ctx context.Context, h Host, cells []Cell, force bool) ([]Planned, error) {
	order, err := NewOrder(cells, f.Limits, false, nil)
	if err != nil {
		return nil, err
	}
	rates := NewRates(f.Limits.APIRate)
	rows := map[string]Planned{}
	type planned struct {
		row Planned
		out Outcome
	}
	ended := make(chan planned)
	for !order.Over() {
		for _, c := range order.Begin() {
			parents := order.Parents(c)
			go func() {
				row, out := c.plan(ctx, h, rates, parents, force)
				ended <- planned{row, out}
			}()
		}
		one := <-ended
		rows[one.out.Cell.ID()] = one.row
		order.End(one.out)
	}
	var all []Planned
	for _, c := range cells {
		row, ok := rows[c.ID()]
		if !ok {
			row = f.follows(c, rows)
			rows[c.ID()] = row
		}
		all = append(all, row)
	}
	return all, context.Cause(ctx)
}

// follows returns the plan for a cell that waits for other cells that would be built.
func (f *Fleet) follows(c Cell, rows map[string]Planned) Planned {
	row := c.planned()
	row.Action, row.Reason = string(run.Builds), "an image that it refers to is built first"
	for _, id := range c.Needs {
		if parent, ok := f.Cell(id); ok && rows[id].Action != string(run.Reuses) {
			row.Reason = "the image " + parent.Image + ", which it refers to, is built first"
		}
		if rows[id].Action == unplanned {
			row.Action, row.Reason = unplanned, "it is not known what becomes of "+id
		}
	}
	return row
}

func (c Cell) planned() Planned {
	return Planned{Cell: c.Short(), Image: c.Image, Account: c.Account, Region: c.Region, Changes: []plan.Change{}}
}

// plan plans the cell. Its outcome is OK if its image exists.
func (c Cell) plan(ctx context.Context, h Host, rates *Rates, parents []Outcome, force bool) (Planned, Outcome) {
	row, out := c.planned(), Outcome{Cell: c, Result: Failed}
	o, err := h.Options(ctx, c, parents)
	var result run.Result
	if err == nil {
		o.Within, o.Wait, o.Force = Within(c, "plan"), rates.Of(c.Account), force
		result, err = run.Plan(ctx, o)
	}
	if err != nil {
		row.Action, row.Reason = unplanned, Ended(c, result, Waits{}, err, h.Now(), h.Now()).Error
		return row, out
	}
	row.Action = string(run.Reuses)
	for _, one := range result.Plan() {
		if one.Action == run.Builds {
			row.Action, row.Reason, row.Since, row.Changes = string(one.Action), one.Reason, one.Since, one.Changes
			return row, out
		}
		row.Images = one.Images
	}
	made, _ := result.Image(c.Image)
	out.Result, out.Image = Reused, Image{ID: made.ID, IDs: made.IDs, Name: made.Name, Inputs: made.Inputs}
	return row, out
}

// PlanText formats a plan, and returns how many cells would be built, and how many could
// not be planned.
func PlanText(all []Planned) (text string, builds, wrong int) {
	var b strings.Builder
	for _, r := range all {
		switch r.Action {
		case string(run.Builds):
			builds++
			fmt.Fprintf(&b, "%s: build, because %s\n", r.Cell, prose.Printable(r.Reason))
			for _, c := range r.Changes {
				fmt.Fprintf(&b, "  %s\n", prose.Printable(c.String()))
			}
		case string(run.Reuses):
			fmt.Fprintf(&b, "%s: reuse %s\n", r.Cell, r.Images[r.Region])
		default:
			wrong++
			fmt.Fprintf(&b, "%s: cannot be planned: %s\n", r.Cell, printableLines(r.Reason))
		}
	}
	fmt.Fprintf(&b, "%d to build, %d to reuse", builds, len(all)-builds-wrong)
	if wrong > 0 {
		fmt.Fprintf(&b, ", %d that cannot be planned", wrong)
	}
	return b.String(), builds, wrong
}

// printableLines applies [prose.Printable] to each line of a text from an external source,
// such as diagnostics.
func printableLines(text string) string {
	all := strings.Split(text, "\n")
	for i, l := range all {
		all[i] = prose.Printable(strings.ReplaceAll(l, "\t", "    "))
	}
	return strings.Join(all, "\n")
}

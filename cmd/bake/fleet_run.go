package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bake/fleet"
	"bake/golden/plan"
	"bake/run"
)

// fleetRunOptions are the flags of bake fleet run.
type fleetRunOptions struct {
	fleetFlags
	displayOptions
	cells     commaList
	resume    string
	failFast  bool
	force     bool
	detailed  bool
	exitCodes choice
}

func (p *program) fleetRunCommand() *cobra.Command {
	var o fleetRunOptions
	cmd := &cobra.Command{
		Use:   "run [FLEET]",
		Short: "Bake the cells of a fleet",
		Long: `Bake the images of a fleet in its accounts and regions: each after those that it refers to,
and as many at a time as its limits block allows. Images whose inputs have not changed are
reused. If a cell fails, those that need its image are skipped, and the others go on.

If bake is killed, -resume goes on with the run: cells that have their images are not baked
again, and of the others what is left is gone on with, or deleted and begun again.

Ctrl-C ends the run, as it ends bake build: what was created to make images is deleted.
A fleet is run once at a time.`,
		Example: `  bake fleet run nightly
  bake fleet run nightly -only 'web/*'
  bake fleet run nightly -local
  bake fleet run nightly -resume`,
		Args: atMost("the fleet"),
		RunE: func(cmd *cobra.Command, args []string) error {
			reused, failure, err := p.fleetRun(cmd.Context(), &o, args)
			if reused && err == nil && o.detailed {
				return p.allReused(o.exitCodes)
			}
			return p.ended(failure, err, o.exitCodes)
		},
		Annotations: map[string]string{exitCodes: runExitCodes},
	}
	o.register(p, cmd)
	o.registerLocal(cmd.Flags())
	flags := cmd.Flags()
	egressFlag(flags, &o.egress)
	flags.StringVar(&o.cloudInit, "cloud-init-timeout", "", "wait up to this `duration` for cloud-init on a new machine before the first provisioner; 0: do not wait; default: $"+cloudInitVariable+", or 5m")
	cellsFlag(cmd, &o.cells)
	flags.BoolVar(&o.failFast, "fail-fast", false, "cancel the other cells once one has failed")
	flags.BoolVar(&o.force, "force", false, "build what could be reused, and replace existing images")
	flags.StringVar(&o.resume, "resume", "", "go on with a `run` whose process has died; without a value: with the last one")
	flags.Lookup("resume").NoOptDefVal = lastRun
	flags.BoolVar(&o.detailed, "detailed-exitcode", false, "exit with 3 if nothing had to be built, because all images were reused")
	p.exitCodesFlag(flags, &o.exitCodes)
	flags.BoolVar(&o.color, "color", true, "disable colored output")
	flags.BoolVar(&o.timestamps, "timestamp-ui", false, "prefix each line of a cell's output with a timestamp")
	return cmd
}

// lastRun is the value of -resume without one.
const lastRun = "last"

func cellsFlag(cmd *cobra.Command, cells *commaList) {
	cmd.Flags().Var(cells, "only", "only these `cells`, separated by commas, or repeated: IMAGE/ACCOUNT/REGION, in which * stands for anything")
}

// fleetError is the error of a run some of whose cells failed.
type fleetError struct {
	text    string
	outcome run.Outcome
}

func (e *fleetError) Error() string        { return e.text }
func (e *fleetError) Outcome() run.Outcome { return e.outcome }

// fleetRun returns whether all was reused, how the run ended, and what is still to be said of
// it.
func (p *program) fleetRun(ctx context.Context, o *fleetRunOptions, args []string) (reused bool, failure, err error) {
	defer func() {
		if failure == nil {
			failure = err
		}
	}()
	if err := p.env.checkExitCodes(); err != nil {
		return false, nil, err
	}
	if o.egress != "" && !o.local {
		return false, nil, usageError{"-allow-egress applies to the local cloud only: use it with -local", "bake fleet run"}
	}
	if o.resume != "" && (len(o.cells) > 0 || o.failFast || o.force) {
		return false, nil, usageError{"-resume goes on with the cells and options of the run: -only, -fail-fast and -force cannot be combined with it", "bake fleet run"}
	}
	t, one, err := p.oneFleet(ctx, &o.fleetFlags, "bake fleet run", args)
	if err != nil {
		return false, nil, err
	}
	cells, err := fleet.Select(one.Cells, o.cells)
	if err != nil {
		return false, nil, err
	}
	if o.local {
		one.Engine = nil // it is this process that has the cloud
	}
	status, err := p.fleetDo(ctx, o, t, one, fleet.RunOptions{
		Cells: cells, FailFast: o.failFast, Force: o.force, Resume: o.resume, Command: p.log.secrets.Redact(p.commandLine()),
	})
	if status.Run == "" {
		return false, nil, err
	}
	p.json.result = status
	all := outcomesOf(status)
	p.say(fleetSummary(one, status, o.local))
	worst := fleet.Worst(all)
	switch {
	case err != nil:
		return false, nil, err
	case worst != run.OutcomeDone:
		return false, &fleetError{"some cells have no image", worst}, errReported
	}
	return everyReused(all), nil, nil
}

// fleetDo runs the cells, with a display.
func (p *program) fleetDo(ctx context.Context, o *fleetRunOptions, t *fleet.Template, one *fleet.Fleet, ro fleet.RunOptions) (status fleet.Status, err error) {
	state, err := p.env.state()
	if err != nil {
		return status, err
	}
	h := p.fleetHost(&o.fleetFlags, t, state)
	if one.Engine != nil {
		e, err := p.fleetEngine(ctx, one, h.Host) // before there is a display
		if err != nil {
			return status, err
		}
		return p.runOnEngine(ctx, e, one, ro)
	}
	o.onLocal = o.local
	feed := p.openFeed(o.displayOptions)
	defer feed.close()
	ctx, stop, release := p.interrupts(ctx, ignoreSignals)
	defer release()
	h.stop, h.trace = stop, p.traces("bake", p.env, feed)
	defer h.trace.Close()
	end := h.connect(p, &o.fleetFlags, feed.emit, one)
	defer func() { err = errors.Join(err, end(stop)) }()
	return fleet.NewLocal(h.Host).Run(ctx, one, ro)
}

// runOnEngine runs a fleet that others bake, and shows how it goes. The first signal cancels
// the run, and the second one leaves that to those others.
func (p *program) runOnEngine(ctx context.Context, e fleet.Engine, one *fleet.Fleet, ro fleet.RunOptions) (fleet.Status, error) {
	ctx, stop, release := p.interrupts(ctx, func(n int, _ error) {
		if n <= 1 {
			p.say("Cancelling the run of fleet " + one.Name + "; it is over when its workers have deleted what its cells made. To leave that to them, press Ctrl-C again.")
		}
	})
	defer release()
	ro.Told = p.cellChanges()
	type end struct {
		status fleet.Status
		err    error
	}
	ended := make(chan end, 1)
	go func() {
		s, err := e.Run(ctx, one, ro)
		ended <- end{s, err}
	}()
	select {
	case e := <-ended:
		if cause := context.Cause(ctx); cause != nil && e.err != nil {
			e.err = fmt.Errorf("%w: %w", cause, e.err)
		}
		return e.status, e.err
	case <-stop.Done():
		return fleet.Status{}, fmt.Errorf("%w: the run of fleet %s ends once its workers have deleted what its cells made, or when a worker is there again; bake fleet status %s shows how it goes", context.Cause(stop), one.Name, one.Name)
	}
}

func outcomesOf(s fleet.Status) (all []fleet.Outcome) {
	for _, c := range s.Cells {
		if c.Outcome != nil {
			all = append(all, *c.Outcome)
		}
	}
	return all
}

func everyReused(all []fleet.Outcome) bool {
	for _, o := range all {
		if o.Result != fleet.Reused {
			return false
		}
	}
	return len(all) > 0
}

// fleetSummary says how the cells of a run ended.
func fleetSummary(one *fleet.Fleet, s fleet.Status, local bool) string {
	then, by := "the next run of the fleet, or bake images promote, has it enter then", ""
	if one.Engine != nil {
		then, by = "the fleet has it enter then", " -by NAME"
	}
	var b strings.Builder
	count := map[fleet.Result]int{}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nCELL\tRESULT\tTOOK\tIMAGE")
	failed := false
	for _, o := range outcomesOf(s) {
		count[o.Result]++
		failed = failed || !o.Result.OK()
		image, took := "-", "-"
		if o.Image.ID != "" {
			image = o.Image.ID
		}
		if !o.Started.IsZero() {
			took = o.Ended.Sub(o.Started).Round(time.Second).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", o.Cell.Short(), o.Result, took, image)
	}
	_ = w.Flush() // into memory
	var parts []string
	for _, r := range []fleet.Result{fleet.Built, fleet.Reused, fleet.Failed, fleet.Skipped, fleet.Cancelled} {
		if n := count[r]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, r))
		}
	}
	b.WriteString(strings.Join(parts, ", "))
	for _, o := range outcomesOf(s) {
		for _, k := range o.Soaking {
			fmt.Fprintf(&b, "\n%s may enter channel %s from %s on: %s", o.Image.ID, k.Channel, k.Until.Local().Format(time.DateTime), then)
		}
		for _, channel := range o.Awaiting {
			fmt.Fprintf(&b, "\nTo approve %s: bake fleet approve %s/%s %s%s", o.Image.ID, one.Name, o.Cell.Short(), channel, by)
		}
	}
	if failed {
		on := ""
		if local {
			on = " -local"
		}
		fmt.Fprintf(&b, "\nTo bake what has no image: bake fleet run %s%s -resume", one.Name, on)
	}
	return b.String()
}

// fleetPlanOptions are the flags of bake fleet plan.
type fleetPlanOptions struct {
	fleetFlags
	cells           commaList
	force, detailed bool
}

func (p *program) fleetPlanCommand() *cobra.Command {
	var o fleetPlanOptions
	cmd := &cobra.Command{
		Use:   "plan [FLEET]",
		Short: "Say what each cell of a fleet would do, and why",
		Long: `Say of each cell of a fleet whether its image would be built or reused, and which inputs
have changed since, as 'bake plan' does. Nothing is created or changed. Each account is
asked, with the role of its cells. Of a cell that needs an image which would be built, it
is not known yet what it would be made of, so that it would be built too.`,
		Example: `  bake fleet plan nightly
  bake fleet plan nightly -detailed-exitcode`,
		Args: atMost("the fleet"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return interruptible(cmd.Context(), func(ctx context.Context) error { return p.fleetPlan(ctx, &o, args) })
		},
		Annotations: map[string]string{exitCodes: "0    done\n1    failed\n3    nothing would be built (with -detailed-exitcode alone)"},
	}
	o.register(p, cmd)
	o.registerLocal(cmd.Flags())
	cellsFlag(cmd, &o.cells)
	cmd.Flags().BoolVar(&o.force, "force", false, "plan a bake fleet run -force, which builds every image")
	cmd.Flags().BoolVar(&o.detailed, "detailed-exitcode", false, "exit with 3 if nothing would be built")
	return cmd
}

// plannedCell is what bake fleet plan -json says of a cell.
type plannedCell struct {
	Cell    string            `json:"cell"`
	Image   string            `json:"image"`
	Account string            `json:"account"`
	Region  string            `json:"region"`
	Action  string            `json:"action"` // build, reuse, or none: it cannot be found out
	Reason  string            `json:"reason,omitempty"`
	Since   string            `json:"since,omitempty"`
	Changes []plan.Change     `json:"changes"`
	Images  map[string]string `json:"images,omitempty"` // that would be reused, by region
}

func (p *program) fleetPlan(ctx context.Context, o *fleetPlanOptions, args []string) (err error) {
	t, one, err := p.oneFleet(ctx, &o.fleetFlags, "bake fleet plan", args)
	if err != nil {
		return err
	}
	cells, err := fleet.Select(one.Cells, o.cells)
	if err != nil {
		return err
	}
	state, err := p.env.state()
	if err != nil {
		return err
	}
	h := p.fleetHost(&o.fleetFlags, t, state)
	open, end := p.shared(&o.fleetFlags, one)
	if o.local {
		h.open = open
	}
	defer func() { err = errors.Join(err, end(ctx)) }()
	rows, err := p.planCells(ctx, h, one, cells, o.force)
	if err != nil {
		return err
	}
	builds, wrong := p.showPlannedCells(rows)
	switch {
	case wrong > 0:
		return errReported
	case builds == 0 && o.detailed:
		p.json.outcome = run.OutcomeReused.String()
		return outcomeError{errReported, int(run.OutcomeReused)}
	}
	return nil
}

// planCells plans each cell after those that it needs, as they are run.
func (p *program) planCells(ctx context.Context, h *fleetHost, f *fleet.Fleet, cells []fleet.Cell, force bool) ([]plannedCell, error) {
	order, err := fleet.NewOrder(cells, f.Limits, false, nil)
	if err != nil {
		return nil, err
	}
	rates := fleet.NewRates(f.Limits.APIRate)
	rows := map[string]plannedCell{}
	var mu sync.Mutex
	ended := make(chan fleet.Outcome)
	for !order.Over() {
		for _, c := range order.Begin() {
			parents := order.Parents(c)
			go func() {
				row, out := p.planCell(ctx, h, rates, c, parents, force)
				mu.Lock()
				rows[c.ID()] = row
				mu.Unlock()
				ended <- out
			}()
		}
		order.End(<-ended)
	}
	var all []plannedCell
	for _, c := range cells {
		row, ok := rows[c.ID()]
		if !ok { // its parent would be built
			row = cellRow(c)
			row.Action, row.Reason = "build", "an image that it refers to is built first"
			for _, id := range c.Needs {
				if parent, ok := f.Cell(id); ok && rows[id].Action != "reuse" {
					row.Reason = "the image " + parent.Image + ", which it refers to, is built first"
				}
				if rows[id].Action == "none" {
					row.Action, row.Reason = "none", "it is not known what becomes of "+id
				}
			}
			rows[c.ID()] = row
		}
		all = append(all, row)
	}
	return all, context.Cause(ctx)
}

func cellRow(c fleet.Cell) plannedCell {
	return plannedCell{Cell: c.Short(), Image: c.Image, Account: c.Account, Region: c.Region, Changes: []plan.Change{}}
}

// planCell plans a cell. Its outcome is OK if its image is there.
func (p *program) planCell(ctx context.Context, h *fleetHost, rates *fleet.Rates, c fleet.Cell, parents []fleet.Outcome, force bool) (plannedCell, fleet.Outcome) {
	row, out := cellRow(c), fleet.Outcome{Cell: c, Result: fleet.Failed}
	o, err := h.Options(ctx, c, parents)
	var result run.Result
	if err == nil {
		o.Within, o.Wait, o.Force = fleet.Within(c, "plan"), rates.Of(c.Account), force
		result, err = run.Plan(ctx, o)
	}
	if err != nil {
		row.Action, row.Reason = "none", fleet.Ended(c, result, fleet.Waits{}, err, o.Now(), o.Now()).Error
		return row, out
	}
	row.Action = "reuse"
	for _, one := range result.Plan() {
		if one.Action == run.Builds {
			row.Action, row.Reason, row.Since, row.Changes = string(one.Action), one.Reason, one.Since, one.Changes
			return row, out
		}
		row.Images = one.Images
	}
	made, _ := result.Image(c.Image)
	out.Result, out.Image = fleet.Reused, fleet.Image{ID: made.ID, IDs: made.IDs, Name: made.Name, Inputs: made.Inputs}
	return row, out
}

// showPlannedCells shows a plan, and says how many cells would be built, and of how many it
// is not known.
func (p *program) showPlannedCells(rows []plannedCell) (builds, wrong int) {
	var b strings.Builder
	for _, r := range rows {
		switch r.Action {
		case "build":
			builds++
			fmt.Fprintf(&b, "%s: build, because %s\n", r.Cell, r.Reason)
			for _, c := range r.Changes {
				fmt.Fprintf(&b, "  %s\n", c)
			}
		case "reuse":
			fmt.Fprintf(&b, "%s: reuse %s\n", r.Cell, r.Images[r.Region])
		default:
			wrong++
			fmt.Fprintf(&b, "%s: cannot be planned: %s\n", r.Cell, r.Reason)
		}
	}
	fmt.Fprintf(&b, "%d to build, %d to reuse", builds, len(rows)-builds-wrong)
	if wrong > 0 {
		fmt.Fprintf(&b, ", %d that cannot be planned", wrong)
	}
	if p.json.on {
		p.json.result = struct {
			Cells []plannedCell `json:"cells"`
		}{list(rows)}
		return builds, wrong
	}
	p.say(b.String())
	return builds, wrong
}

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"bake/fleet"
	"bake/run"
)

// fleetRunOptions are the flags of bake fleet run.
type fleetRunOptions struct {
	fleetFlags
	displayOptions
	cells     commaList
	cloudInit string // how long to wait for cloud-init
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
		Long: `Bake the images of a fleet in its accounts and regions: each after the images it depends
on, and as many at a time as the limits block allows. Images whose inputs have not changed
are reused. If a cell fails, the cells that need its image are skipped; the others go on.

If bake is killed, -resume continues the run: cells that have their images are not baked
again; the others are resumed where possible, or cleaned up and started again.

Ctrl-C cancels the run: as with bake build, everything created only to make the images is
deleted. Only one run of a fleet can be in progress at a time.`,
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
	cloudInitFlag(flags, &o.cloudInit)
	cellsFlag(cmd, &o.cells)
	flags.BoolVar(&o.failFast, "fail-fast", false, "cancel the other cells once one has failed")
	flags.BoolVar(&o.force, "force", false, "build images that could be reused, and replace existing ones")
	flags.StringVar(&o.resume, "resume", "", "continue a `run` whose process has died; without a value: the last one")
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
	cmd.Flags().Var(cells, "only", "include only these `cells`: IMAGE/ACCOUNT/REGION with * as a wildcard; separated by commas, or repeated")
}

// fleetError is the error of a run some of whose cells failed.
type fleetError struct {
	text    string
	outcome run.Outcome
}

func (e *fleetError) Error() string        { return e.text }
func (e *fleetError) Outcome() run.Outcome { return e.outcome }

// fleetRun returns whether everything was reused, how the run ended, and an error that
// still has to be reported.
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
	cloudInit, err := p.env.cloudInit(o.cloudInit, "bake fleet run")
	if err != nil {
		return false, nil, err
	}
	if o.resume != "" && (len(o.cells) > 0 || o.failFast || o.force || o.cloudInit != "") {
		return false, nil, usageError{"-resume uses the cells and options of the run: -only, -fail-fast, -force and -cloud-init-timeout cannot be combined with it", "bake fleet run"}
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
	if one.Engine != nil && o.cloudInit != "" {
		return false, nil, usageError{"-cloud-init-timeout has no effect on a fleet with an engine block, whose cells are baked by workers: set " + cloudInitVariable + " in the environment of the workers", "bake fleet run"}
	}
	status, err := p.fleetDo(ctx, o, t, one, fleet.RunOptions{
		Cells: cells, FailFast: o.failFast, Force: o.force, CloudInit: &cloudInit, Resume: o.resume, Command: p.log.secrets.Redact(p.commandLine()),
	})
	if status.Run == "" {
		return false, nil, err
	}
	p.json.result = status
	p.say(one.Summary(status, o.local, p.stdout.columns()))
	worst := fleet.Worst(status.Outcomes())
	switch {
	case err != nil:
		return false, nil, err
	case worst != run.OutcomeDone:
		return false, &fleetError{"some cells have no image", worst}, errReported
	}
	return status.Reused(), nil, nil
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

// runOnEngine runs a fleet on an engine, whose workers bake it, and shows the progress. The
// first signal cancels the run; the second one ends only this process, and the workers
// finish the cancellation.
func (p *program) runOnEngine(ctx context.Context, e fleet.Engine, one *fleet.Fleet, ro fleet.RunOptions) (fleet.Status, error) {
	ctx, stop, release := p.interrupts(ctx, func(n int, _ error) {
		if n <= 1 {
			p.say("Cancelling the run of fleet " + one.Name + "; it is over when its workers have deleted what its cells made. To leave that to them, press Ctrl-C again.")
		}
	})
	defer release()
	ro.OnStatus = p.cellChanges()
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
		return fleet.Status{}, fmt.Errorf("%w: the run of fleet %s ends once its workers have deleted what its cells made, or when a worker is there again; bake fleet status %s shows its progress", context.Cause(stop), one.Name, one.Name)
	}
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
		Short: "Show what each cell of a fleet would do, and why",
		Long: `Show for each cell of a fleet whether its image would be built or reused, and which inputs
have changed, as 'bake plan' does. Nothing is created or changed. Each account is queried
with the role of its cells. A cell whose parent image would be built would be built too.`,
		Example: `  bake fleet plan nightly
  bake fleet plan nightly -detailed-exitcode`,
		Args: atMost("the fleet"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return interruptible(cmd.Context(), func(ctx context.Context) error { return p.fleetPlan(ctx, &o, args) })
		},
		Annotations: map[string]string{exitCodes: "0    done\n1    failed\n3    nothing would be built (only with -detailed-exitcode)"},
	}
	o.register(p, cmd)
	o.registerLocal(cmd.Flags())
	cellsFlag(cmd, &o.cells)
	cmd.Flags().BoolVar(&o.force, "force", false, "plan a bake fleet run -force, which builds every image")
	cmd.Flags().BoolVar(&o.detailed, "detailed-exitcode", false, "exit with 3 if nothing would be built")
	return cmd
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
	cloud := p.shared(&o.fleetFlags, one)
	if o.local {
		h.open = cloud.Open
	}
	defer func() { err = errors.Join(err, cloud.Close(ctx)) }()
	all, err := one.Plan(ctx, h.Host, cells, o.force)
	if err != nil {
		return err
	}
	p.json.result = struct {
		Cells []fleet.Planned `json:"cells"`
	}{list(all)}
	text, builds, wrong := fleet.PlanText(all)
	p.say(text)
	switch {
	case wrong > 0:
		return errReported
	case builds == 0 && o.detailed:
		p.json.outcome = run.OutcomeReused.String()
		return outcomeError{errReported, int(run.OutcomeReused)}
	}
	return nil
}

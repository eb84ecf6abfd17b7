package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bake/builder/amazon"
	"bake/builder/amazon/images"
	"bake/engine"
	"bake/fleet"
	"bake/golden/channels"
	"bake/internal/local"
	"bake/run"
	"bake/run/localcloud"
	"bake/run/trace"
	"bake/step"
	"bake/ui/prompt"
)

// fleetFlags are the flags of all commands about fleets.
type fleetFlags struct {
	templateFlags
	path      string
	local     bool
	egress    string
	cloudInit string
}

func (f *fleetFlags) register(p *program, cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.path, "template", ".", "read the fleet block beside this `template`")
	f.registerVars(flags)
	p.jsonFlag(cmd)
}

// registerLocal is for commands that look at accounts themselves.
func (f *fleetFlags) registerLocal(flags *pflag.FlagSet) {
	flags.BoolVar(&f.local, "local", false, "use the local cloud instead of AWS, with the accounts and roles of the fleet; no account needed")
	f.registerReleases(flags)
}

// registerRehearsal is for commands about what 'bake fleet run' has begun.
func (f *fleetFlags) registerRehearsal(flags *pflag.FlagSet) {
	flags.BoolVar(&f.local, "local", false, "with an engine block: the run that 'bake fleet run -local' began on this machine, not that of the engine")
}

func (p *program) fleetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Bake many images in many accounts and regions",
		Long: `Bake the images of a fleet block, which stands in a *.bake.hcl file beside the template,
in each of its accounts and regions. An image in an account and region is a cell of the
fleet, and is called IMAGE/ACCOUNT/REGION. Without an engine block, the fleet is run by the
process of 'bake fleet run'; with one, by Temporal and its workers.`,
		RunE: p.noCommand,
		Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(
		p.fleetPlanCommand(),
		p.fleetRunCommand(),
		p.fleetApplyCommand(),
		p.fleetStatusCommand(),
		p.fleetLogsCommand(),
		p.fleetCancelCommand(),
		p.fleetApproveCommand(),
		p.fleetPauseCommand(),
		p.fleetResumeCommand(),
	)
	return cmd
}

// loadFleets reads the fleets of the template.
func (p *program) loadFleets(ctx context.Context, f *fleetFlags, command string) (*fleet.Template, error) {
	o, err := f.options(p, command, f.path)
	if err != nil {
		return nil, err
	}
	o.DataSources = p.components(o, f.releases)(ctx, p.parts()).DataSources
	t, diags := fleet.Load(ctx, o)
	if diags.HasErrors() {
		return nil, &templateError{Diags: diags, Files: t.Files}
	}
	p.diagnostics(t.Files, diags)
	return t, nil
}

// oneFleet reads the template, and returns the fleet of that name.
func (p *program) oneFleet(ctx context.Context, f *fleetFlags, command string, args []string) (*fleet.Template, *fleet.Fleet, error) {
	t, err := p.loadFleets(ctx, f, command)
	if err != nil {
		return nil, nil, err
	}
	one, err := t.Fleet(strings.Join(args, ""))
	return t, one, err
}

// fleetEngine is the engine of a fleet. If this program has not got it, another one does the
// whole command, and how that has ended is the error.
func (p *program) fleetEngine(ctx context.Context, f *fleet.Fleet, h fleet.Host) (e fleet.Engine, err error) {
	if f.Engine == nil {
		return fleet.NewLocal(h), nil
	}
	if e, err = temporalEngine(ctx, h, f.Engine); e != nil || err != nil {
		return e, err
	}
	return nil, p.handOver()
}

// onFleet calls do with the fleet that args name, and the engine that it is run by.
func (p *program) onFleet(cmd *cobra.Command, f *fleetFlags, args []string, do func(ctx context.Context, e fleet.Engine, one *fleet.Fleet) error) error {
	return interruptible(cmd.Context(), func(ctx context.Context) error {
		t, one, err := p.oneFleet(ctx, f, cmd.CommandPath(), args)
		if err != nil {
			return err
		}
		return p.withEngine(ctx, f, t, one, func(e fleet.Engine) error { return do(ctx, e, one) })
	})
}

// withEngine calls do with the engine of a fleet, for commands that run nothing by themselves.
func (p *program) withEngine(ctx context.Context, f *fleetFlags, t *fleet.Template, one *fleet.Fleet, do func(fleet.Engine) error) (err error) {
	state, err := p.env.state()
	if err != nil {
		return err
	}
	if f.local {
		one.Engine = nil // it is a process here that has the cloud
	}
	h := p.fleetHost(f, t, state)
	h.Approve = p.approveCell(f, nil)
	h.Clouds = &localcloud.Clouds{Open: func(ctx context.Context) (*localcloud.Cloud, error) {
		return p.openLocal(ctx, "", "", func(step.Event) {}) // which has logs of workers that bake there
	}}
	defer func() { err = errors.Join(err, h.Clouds.Close(ctx)) }()
	e, err := p.fleetEngine(ctx, one, h.Host)
	if err != nil {
		return err
	}
	return do(e)
}

// fleetHost is what this program gives to an engine.
type fleetHost struct {
	fleet.Host
	open  func(ctx context.Context, emit func(step.Event)) (*localcloud.Cloud, error) // nil: AWS
	stop  context.Context
	trace *trace.Tracer

	said sync.Map // diagnostics that were shown
}

func (p *program) fleetHost(f *fleetFlags, t *fleet.Template, state run.State) *fleetHost {
	h := &fleetHost{stop: context.Background()}
	h.Host = fleet.Host{
		State: state, Local: f.local, Env: slices.Concat(p.env, p.keys), Now: p.now, Copies: t.Copies, Reports: t.Reports,
		Options: func(_ context.Context, c fleet.Cell, parents []fleet.Outcome) (run.Options, error) {
			cloudInit, err := p.env.cloudInit(f.cloudInit)
			if err != nil {
				return run.Options{}, err
			}
			template, err := f.template(p, "bake fleet", f.path)
			if err != nil {
				return run.Options{}, err
			}
			i, err := t.Instance(c, parents)
			if err != nil {
				return run.Options{}, err
			}
			template.Instance = &i
			return run.Options{
				Template: template, State: state, Command: p.commandLine(), OnError: engine.Cleanup, CloudInit: cloudInit, Trace: ofCell(h.trace, c),
				Components: p.components(template.Options, f.releases), Cloud: h.open, Stop: h.stop, Doubts: h.doubts(p),
				Unattended: prompt.ErrNoTerminal, Connect: ncProxy(), Now: p.now, Version: version,
			}, nil
		},
	}
	if t.Reports != "" {
		local := func(ctx context.Context) (amazon.Cloud, error) { return h.Clouds.Named(ctx, localcloud.Name) }
		h.Log = state.LogReader(localcloud.Elsewhere(p.env), local, p.env, t.Reports)
	}
	return h
}

// doubts shows what is doubtful about the template once, and not for each cell.
func (h *fleetHost) doubts(p *program) func(run.Diagnosis) {
	return func(d run.Diagnosis) {
		var fresh run.Diagnosis
		for _, one := range d.Diags {
			if _, again := h.said.LoadOrStore(fmt.Sprint(one.Subject, one.Summary, one.Detail), true); !again {
				fresh.Diags = append(fresh.Diags, one)
			}
		}
		p.diagnostics(d.Files, fresh.Diags)
	}
}

// shared is the local cloud of the cells of fleets.
func (p *program) shared(f *fleetFlags, fleets ...*fleet.Fleet) *fleet.Shared {
	return &fleet.Shared{Fleets: fleets, Options: func(emit func(step.Event)) (local.Options, error) {
		return p.joinOptions(f.egress, emit)
	}}
}

// connect makes the cells of the host use the local cloud, if -local says so, and events go to
// emit. The caller calls end when nothing runs any more.
func (h *fleetHost) connect(p *program, f *fleetFlags, emit func(step.Event), fleets ...*fleet.Fleet) (end func(context.Context) error) {
	h.Emit, h.Clouds = emit, &localcloud.Clouds{}
	if !f.local {
		return func(context.Context) error { return nil }
	}
	cloud := p.shared(f, fleets...)
	h.open = cloud.Open
	h.Clouds.Open = func(ctx context.Context) (*localcloud.Cloud, error) { return cloud.Open(ctx, emit) }
	return cloud.Close
}

func (p *program) fleetApplyCommand() *cobra.Command {
	var f fleetFlags
	var prune bool
	cmd := &cobra.Command{
		Use:   "apply [FLEET]",
		Short: "Have a fleet run by its schedule",
		Long: `Create or update the schedule of a fleet in Temporal, as its schedule block says, and what
else it needs there, such as the schedule of its janitor, which deletes what terminated
workflows have left. A fleet without a schedule block loses the schedule that it had, and
with -prune so do fleets that the template had, and has no more. It takes an engine block. Without one, nothing that goes on all the time is part of bake: have
cron or a timer of systemd run 'bake fleet run'.`,
		Example: `  bake fleet apply nightly`,
		Args:    atMost("the fleet"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.onFleet(cmd, &f, args, func(ctx context.Context, e fleet.Engine, one *fleet.Fleet) error {
				done, err := e.Apply(ctx, one, prune)
				if errors.Is(err, fleet.ErrNotHere) {
					return noSchedule(one)
				}
				done.Changes = list(done.Changes)
				p.json.result = done
				said := done.Changes
				switch {
				case err != nil: // some may be done
				case len(said) == 0:
					said = []string{"Nothing has changed."}
				case one.Schedule == nil:
					said = append(said, fmt.Sprintf("The fleet %s has no schedule block: only bake fleet run %s runs it.", one.Name, one.Name))
				}
				if len(done.Stale) > 0 && !prune {
					said = append(said, fmt.Sprintf("The template has no fleets any more for the schedules %s: bake fleet apply -prune deletes them.", strings.Join(done.Stale, ", ")))
				}
				if len(said) > 0 {
					p.say(strings.Join(said, "\n"))
				}
				return err
			})
		},
	}
	f.register(p, cmd)
	cmd.Flags().BoolVar(&prune, "prune", false, "delete the schedules of fleets that this template had, and has no more")
	return cmd
}

// noSchedule says how a fleet without an engine is run by a schedule.
func noSchedule(f *fleet.Fleet) error {
	cron, zone := "30 2 * * *", ""
	if s := f.Schedule; s != nil {
		cron, zone = s.Cron, "CRON_TZ="+s.Timezone+"\n  "
	}
	return fmt.Errorf(`the template has no engine block, so that there is nothing that begins the fleet by a schedule. Add one for Temporal, or have cron do it, with a line such as

  %s%s cd DIRECTORY && bake fleet run %s

or a timer of systemd`, zone, cron, f.Name)
}

func (p *program) fleetCancelCommand() *cobra.Command {
	var f fleetFlags
	cmd := &cobra.Command{
		Use:   "cancel [FLEET]",
		Short: "Cancel the run of a fleet that is in progress",
		Long: `Cancel the run of a fleet that is in progress: cells that wait do not begin, and what the
others have made is deleted. Images that are finished stay, and those that soak or wait for
approval enter no channel by themselves any more. The command returns once that is done.`,
		Example: `  bake fleet cancel nightly`,
		Args:    atMost("the fleet"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.onFleet(cmd, &f, args, func(ctx context.Context, e fleet.Engine, one *fleet.Fleet) error {
				err := e.Cancel(ctx, one)
				if err == nil {
					p.say("Fleet " + one.Name + " is cancelled.")
				}
				return err
			})
		},
	}
	f.register(p, cmd)
	f.registerRehearsal(cmd.Flags())
	return cmd
}

func (p *program) fleetPauseCommand() *cobra.Command {
	var f fleetFlags
	cmd := &cobra.Command{
		Use:   "pause [FLEET]",
		Short: "Begin no more cells of a fleet",
		Long: `Keep the cells of a fleet from beginning, until 'bake fleet resume': in the run that is in
progress, and in new ones that nobody asks for. With an engine block these are the runs of
its schedule, and 'bake fleet run' runs the fleet all the same; without one, cron may have
called 'bake fleet run', so that it runs nothing. Cells that have begun go on, and images
that are finished enter their channels as ever, which 'bake fleet cancel' ends.`,
		Example: `  bake fleet pause nightly`,
		Args:    atMost("the fleet"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.onFleet(cmd, &f, args, func(ctx context.Context, e fleet.Engine, one *fleet.Fleet) error {
				err := e.Pause(ctx, one)
				if err == nil {
					p.say("Fleet " + one.Name + " is paused.")
				}
				return err
			})
		},
	}
	f.register(p, cmd)
	f.registerRehearsal(cmd.Flags())
	return cmd
}

func (p *program) fleetResumeCommand() *cobra.Command {
	var f fleetFlags
	cmd := &cobra.Command{
		Use:   "resume [FLEET]",
		Short: "End the pause of a fleet",
		Long: `End the pause of a fleet. A run whose process has died is gone on with by
'bake fleet run -resume'.`,
		Example: `  bake fleet resume nightly`,
		Args:    atMost("the fleet"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.onFleet(cmd, &f, args, func(ctx context.Context, e fleet.Engine, one *fleet.Fleet) error {
				err := e.Unpause(ctx, one)
				if err == nil {
					p.say("Fleet " + one.Name + " is not paused any more.")
				}
				return err
			})
		},
	}
	f.register(p, cmd)
	f.registerRehearsal(cmd.Flags())
	return cmd
}

func (p *program) fleetApproveCommand() *cobra.Command {
	var f fleetFlags
	var by string
	cmd := &cobra.Command{
		Use:   "approve CELL CHANNEL",
		Short: "Approve the image of a cell for a channel that asks for it",
		Long: `Approve the newest image of a cell for a channel whose block has approval = true. Where the
fleet is run by bake itself, that is what 'bake images approve' does, in the account and
region of the cell; 'bake images promote' and the next run of the fleet look at it.
CELL is FLEET/IMAGE/ACCOUNT/REGION, or IMAGE/ACCOUNT/REGION if there is one fleet.`,
		Example: `  bake fleet approve web/111111111111/eu-west-1 stable`,
		Args:    exactly("the cell", "the channel"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.onCell(cmd, &f, args[0], func(ctx context.Context, e fleet.Engine, one *fleet.Fleet, c fleet.Cell) error {
				if by != "" && one.Engine == nil {
					return usageError{"-by takes an engine block: without one, AWS knows whose credentials these are", "bake fleet approve"}
				}
				if by == "" && one.Engine != nil {
					return usageError{"an approval says who approves: use -by NAME", "bake fleet approve"}
				}
				if err := p.hasChannel(ctx, &f, c, args[1]); err != nil {
					return err
				}
				if err := e.Approve(ctx, one, fleet.Approval{Cell: c, Channel: args[1], By: by, At: p.now()}); err != nil {
					return err
				}
				p.say("The image of " + c.Short() + " is approved for channel " + args[1] + ".")
				return nil
			})
		},
	}
	f.register(p, cmd)
	f.registerLocal(cmd.Flags())
	cmd.Flags().StringVar(&by, "by", "", "`name` of who approves; with an engine block alone, since AWS knows whose credentials these are")
	return cmd
}

// hasChannel is an error unless the image of a cell has a channel of that name which takes an
// approval.
func (p *program) hasChannel(ctx context.Context, f *fleetFlags, c fleet.Cell, name string) error {
	t, err := f.template(p, "bake fleet approve", f.path)
	if err != nil {
		return err
	}
	t.AllowUnset = true // no variable says which channels there are
	block, err := run.Image(ctx, t, p.components(t.Options, f.releases)(ctx, p.parts()), c.Image)
	if err != nil {
		return err
	}
	return block.Approvable(c.Image, name)
}

// onCell is onFleet with the cell that a name means.
func (p *program) onCell(cmd *cobra.Command, f *fleetFlags, name string, do func(ctx context.Context, e fleet.Engine, one *fleet.Fleet, c fleet.Cell) error) error {
	return interruptible(cmd.Context(), func(ctx context.Context) error {
		t, err := p.loadFleets(ctx, f, cmd.CommandPath())
		if err != nil {
			return err
		}
		one, c, err := t.Cell(name)
		if err != nil {
			return err
		}
		return p.withEngine(ctx, f, t, one, func(e fleet.Engine) error { return do(ctx, e, one, c) })
	})
}

// approveCell approves the image of a cell in its account and region. clouds have the local
// cloud if this process has opened it; nil: it is opened for the approval.
func (p *program) approveCell(f *fleetFlags, clouds *localcloud.Clouds) func(context.Context, fleet.Outcome, fleet.Approval, fleet.Wait) error {
	return func(ctx context.Context, o fleet.Outcome, a fleet.Approval, wait fleet.Wait) (err error) {
		var cloud amazon.Cloud
		switch {
		case f.local && clouds != nil:
			if cloud, err = clouds.Named(ctx, localcloud.Name); err != nil {
				return err
			}
		case f.local:
			emit, done := p.progressDisplay()
			defer done()
			c, err := p.openLocal(ctx, "", "", emit)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.Close(ctx)) }()
			cloud = c.Cloud
		}
		cloud.Wait = wait
		account, err := p.accountOf(ctx, cloud, o.Cell, "approve")
		if err != nil {
			return err
		}
		_, _, err = account.Approve(ctx, o.Image.ID, channels.ApprovalTag(a.Channel), a.At)
		return err
	}
}

// accountOf is the account of a cell, in a session of its role that has this name.
func (p *program) accountOf(ctx context.Context, cloud amazon.Cloud, c fleet.Cell, session string) (*images.Account, error) {
	cloud.Within = fleet.Within(c, session)
	return images.Open(ctx, images.Place{Regions: []string{c.Region}, Env: p.env, Cloud: cloud})
}

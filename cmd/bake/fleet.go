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
	"bake/engine"
	"bake/fleet"
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
	path   string
	local  bool
	egress string
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

// registerRehearsal registers the flag of commands that work on runs of 'bake fleet run'.
func (f *fleetFlags) registerRehearsal(flags *pflag.FlagSet) {
	flags.BoolVar(&f.local, "local", false, "with an engine block: use the run that 'bake fleet run -local' started on this machine, not that of the engine")
}

func (p *program) fleetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Bake images in several accounts and regions",
		Long: `Bake the images of a fleet block, in a *.bake.hcl file beside the template, in each of its
accounts and regions. One image in one account and region is a cell of the fleet, named
IMAGE/ACCOUNT/REGION. Without an engine block, 'bake fleet run' itself runs the fleet;
with one, Temporal and its workers do.`,
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

// fleetEngine returns the engine of a fleet. If this program does not contain the engine,
// another program runs the whole command, and the returned error is the outcome of that
// program.
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

// fleetHost is the interface of this program to an engine.
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
			cloudInit, err := p.env.cloudInit("", "bake fleet")
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
				Components: p.components(template.Options, f.releases), Cloud: h.open, Stop: h.stop, OnWarnings: h.doubts(p),
				Unattended: prompt.ErrNoTerminal, Connect: ncProxy(), Now: p.now, Version: version,
			}, nil
		},
	}
	if t.Reports != "" {
		local := func(ctx context.Context) (amazon.Cloud, error) { return h.Clouds.Named(ctx, localcloud.Name) }
		h.Log = state.LogReader(localcloud.FromEnvironment(p.env), local, p.env, t.Reports)
	}
	return h
}

// doubts shows warnings about the template only once, and not for each cell.
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

// shared returns the local cloud of the cells of fleets.
func (p *program) shared(f *fleetFlags, fleets ...*fleet.Fleet) *fleet.Shared {
	return &fleet.Shared{Fleets: fleets, Options: func(emit func(step.Event)) (local.Options, error) {
		return p.joinOptions(f.egress, emit)
	}}
}

// connect makes the cells of the host use the local cloud, if -local is set, and sends
// events to emit. The caller calls end when nothing runs any more.
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

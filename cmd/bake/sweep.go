package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"bake/run"
	"bake/run/localcloud"
)

// sweepOptions are the flags of bake sweep.
type sweepOptions struct {
	run             string
	tags            bool
	region, profile string
	local           bool
	force, dryRun   bool
}

func (p *program) sweepCommand() *cobra.Command {
	var o sweepOptions
	cmd := &cobra.Command{
		Use:   "sweep",
		Short: "Clean up after runs that crashed or were killed",
		Long: `Delete what runs left behind that crashed, were killed, lost power, failed to tear
down, or used -on-error=abort. What they own is recorded in their ledgers; runs
still in progress are left alone, and so are those with -on-error=keep, unless -run
names them.

With -tags no ledger is needed: everything in a region that has the tag bake:run is
deleted, except what belongs to a run in progress on this host. Runs in progress on
other hosts cannot be told from dead ones, so on AWS name the run with -run, or use
-force to delete what all of them created.`,
		Example: `  bake sweep
  bake sweep -dry-run
  bake sweep -tags -region us-east-1 -run 5e0d7c1e-2c5b-4a58-9a3f-3d3f3e1b8a55`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.sweep(cmd.Context(), o) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.run, "run", "", "sweep only the run with this `id`")
	flags.BoolVar(&o.tags, "tags", false, "find what to delete by the run tag instead of the ledgers")
	flags.StringVar(&o.region, "region", "", "with -tags: the `region` to look in; default: as in every AWS tool")
	flags.StringVar(&o.profile, "profile", "", "with -tags: the `profile` to take credentials from")
	flags.BoolVar(&o.local, "local", false, "sweep only what is on the local cloud")
	flags.BoolVar(&o.force, "force", false, "with -tags: delete what any run has created")
	flags.BoolVar(&o.dryRun, "dry-run", false, "show what would be deleted, but delete nothing")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) sweep(ctx context.Context, o sweepOptions) (err error) {
	if !o.tags && (o.region != "" || o.profile != "" || o.force) {
		return usageError{"-region, -profile and -force only work with -tags: otherwise the ledgers say where to look", "bake sweep"}
	}
	state, err := p.env.state()
	if err != nil {
		return err
	}
	ctx, stop, release := p.interrupts(ctx, ignoreSignals)
	defer release()
	progress, done := p.progressDisplay()
	defer done()
	clouds := &localcloud.Clouds{Open: func(ctx context.Context) (*localcloud.Cloud, error) { return p.openLocal(ctx, "", "", progress) }}
	defer func() { err = errors.Join(err, clouds.Close(stop)) }()
	feed := p.openFeed(displayOptions{color: true, prompts: true})
	defer feed.close()
	options := run.SweepOptions{
		State: state, Run: o.run, Local: o.local, DryRun: o.dryRun, Command: "bake sweep -tags", Clouds: clouds,
		Found: func(s run.SweptRun) { p.say(s.String()) },
		Swept: func(s run.SweptRun, err error) {
			if err != nil {
				p.report(err)
				p.say(leftText(s.Run, s.Left))
			}
		},
		Emit: feed.emit, Now: p.now,
	}
	if o.tags {
		options.Tags = &run.Tags{Region: o.region, Profile: o.profile, Every: o.force}
	}
	swept, err := run.Sweep(ctx, options)
	if errors.Is(err, run.ErrEveryRun) {
		return usageError{"name the run with -run, or use -force to delete what any run has created, even one still in progress on another machine", "bake sweep"}
	}
	p.json.result = sweepResult{o.dryRun, list(swept)}
	if err == nil && len(swept) == 0 {
		p.say("Nothing to sweep.")
	}
	if incomplete, ok := errors.AsType[*run.SweepError](err); ok {
		p.report(incomplete.Unreadable)
		p.report(incomplete.Other)
		return errReported
	}
	return err
}

// sweepResult is what bake sweep -json ends with.
type sweepResult struct {
	DryRun bool           `json:"dry_run"`
	Runs   []run.SweptRun `json:"runs"`
}

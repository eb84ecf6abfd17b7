package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	ages "bake/internal/age"
	"bake/run"
	"bake/run/localcloud"
)

// sweepOptions are the flags of bake sweep.
type sweepOptions struct {
	run             string
	tags            bool
	region, profile string
	regions         []string
	olderThan       age
	local           bool
	force, dryRun   bool
	exitCodes       choice
}

func (p *program) sweepCommand() *cobra.Command {
	var o sweepOptions
	cmd := &cobra.Command{
		Use:   "sweep",
		Short: "Clean up after runs that crashed or were killed",
		Long: `Delete the resources of runs that crashed, were killed, lost power, failed to clean up,
or used -on-error=abort, according to their ledgers. Runs in progress are left alone, and
so are runs kept with -on-error=keep, which are listed, unless -run names them.

With -tags, no ledger is needed: everything in a region that has the tag bake:run is
deleted, except resources of runs that are in progress or kept on this host, or whose
ledger on this host cannot be read. Live runs on other hosts look like dead ones: on AWS,
select one run with -run, delete only old resources with -older-than, or use -force to
also delete what live runs on other hosts have made. Finished images no longer have the
tag, so they are never deleted.

-older-than compares the creation time that AWS reports. A resource without one counts as
old as the newest resource of its build, and never older than the build. Resources of
unknown age are left alone. Without -tags, resources are as old as their run. Choose an
age that is longer than any of your builds take.`,
		Example: `  bake sweep
  bake sweep -dry-run
  bake sweep -tags -region us-east-1 -run 5e0d7c1e-2c5b-4a58-9a3f-3d3f3e1b8a55
  bake sweep -tags -older-than 24h -regions all`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			failure, err := p.sweep(cmd.Context(), o)
			return p.ended(failure, err, o.exitCodes)
		},
		Annotations: map[string]string{exitCodes: sweepExitCodes},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.run, "run", "", "sweep only the run with this `ID`; without -tags, its beginning is enough")
	flags.BoolVar(&o.tags, "tags", false, "find what to delete by the run tag instead of the ledgers")
	flags.StringVar(&o.region, "region", "", "with -tags: the `region` to use; default: the usual AWS settings")
	flags.StringSliceVar(&o.regions, "regions", nil, "with -tags: the `regions` to use, separated by commas; all: those enabled for the account")
	flags.Var(&o.olderThan, "older-than", "delete only resources of at least this `age`, such as 24h, 7d or 1d12h")
	flags.StringVar(&o.profile, "profile", "", "with -tags: the `profile` to take credentials from")
	flags.BoolVar(&o.local, "local", false, "sweep only the local cloud")
	flags.BoolVar(&o.force, "force", false, "with -tags: also delete what live runs on other hosts have made")
	flags.BoolVar(&o.dryRun, "dry-run", false, "show what would be deleted, but delete nothing")
	p.exitCodesFlag(flags, &o.exitCodes)
	p.jsonFlag(cmd)
	return cmd
}

// sweepOptions returns what the flags ask for, and shows what is found. *spared is set if something
// is left alone.
func (p *program) sweepOptions(o sweepOptions, spared *bool) run.SweepOptions {
	options := run.SweepOptions{
		Run: o.run, Local: o.local, DryRun: o.dryRun, OlderThan: time.Duration(o.olderThan), Command: "bake sweep -tags", Now: p.now,
		Found: func(s run.SweptRun) { p.say(s.String()) },
		Swept: func(s run.SweptRun, err error) {
			if err != nil {
				p.report(err)
				p.say(leftText(s.Run, s.Left))
			}
		},
		Spared: func(s run.Spared) {
			*spared = true
			p.say(s.String())
		},
	}
	if p.json.on {
		options.Resource = func(r run.SweptResource) { p.writeJSON(p.header("swept-resource"), r) }
	}
	if o.tags {
		options.Tags = &run.Tags{Regions: o.where(), All: o.everywhere(), Profile: o.profile, Every: o.force}
	}
	return options
}

// sweep returns how the sweep ended, and an error that still has to be reported.
func (p *program) sweep(ctx context.Context, o sweepOptions) (failure, err error) {
	defer func() {
		if failure == nil {
			failure = err
		}
	}()
	if err := p.env.checkExitCodes(); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	state, err := p.env.state()
	if err != nil {
		return nil, err
	}
	if o.run != "" && !o.tags { // the tag of a run may be all that is known here
		if o.run, err = state.FindOwner(o.run); err != nil {
			return nil, err
		}
	}
	ctx, stop, release := p.interrupts(ctx, ignoreSignals)
	defer release()
	progress, done := p.progressDisplay()
	defer done()
	var disk diskWatch
	clouds := &localcloud.Clouds{Open: func(ctx context.Context) (*localcloud.Cloud, error) {
		cloud, err := p.openLocal(ctx, "", "", progress)
		disk.cloud.Store(cloud)
		return cloud, err
	}}
	defer func() { err = errors.Join(err, clouds.Close(stop)) }()
	feed := p.openFeed(displayOptions{color: true, prompts: true})
	defer feed.close()
	spared := false
	options := p.sweepOptions(o, &spared)
	options.State, options.Clouds, options.Emit = state, clouds, disk.watched(feed.emit)
	swept, err := run.Sweep(ctx, options)
	if errors.Is(err, run.ErrEveryRun) {
		return nil, usageError{"name the run with -run, give an age with -older-than, or use -force to delete what any run has created, even one still in progress on another machine", "bake sweep"}
	}
	p.json.result = sweepResult{o.dryRun, list(swept)}
	switch {
	case err != nil || len(swept) > 0:
	case spared:
		p.say("Nothing else to sweep.")
	default:
		p.say("Nothing to sweep.")
	}
	if incomplete, ok := errors.AsType[*run.SweepError](err); ok {
		p.report(incomplete.Unreadable)
		p.report(incomplete.Other)
		if text := disk.text(); text != "" {
			p.say(text)
		}
		return err, errReported
	}
	return nil, err
}

// check complains about flags that do not go together.
func (o *sweepOptions) check() error {
	switch {
	case !o.tags && (o.region != "" || o.regions != nil || o.profile != "" || o.force):
		return usageError{"-region, -regions, -profile and -force require -tags: without it, the ledgers determine where to look", "bake sweep"}
	case o.region != "" && o.regions != nil:
		return usageError{"-region and -regions cannot be combined", "bake sweep"}
	case o.regions != nil && !o.everywhere() && slices.Contains(o.regions, "all"):
		return usageError{"-regions takes either all or names of regions", "bake sweep"}
	case slices.Contains(o.regions, "") || o.regions != nil && len(o.regions) == 0:
		return usageError{"-regions contains an empty name", "bake sweep"}
	}
	return nil
}

// everywhere reports whether all regions of the account are selected.
func (o *sweepOptions) everywhere() bool { return slices.Equal(o.regions, []string{"all"}) }

// where returns the regions selected by name.
func (o *sweepOptions) where() []string {
	if o.region != "" {
		return []string{o.region}
	}
	return o.regions
}

// age is the value of a flag: a duration that may have days, and is not 0.
type age time.Duration

func (a *age) Type() string { return "duration" }

func (a *age) String() string {
	if *a == 0 {
		return ""
	}
	return time.Duration(*a).String()
}

func (a *age) Set(text string) error {
	parsed, err := ages.Parse(text)
	*a = age(parsed)
	return err
}

// sweepResult is the last object of bake sweep -json.
type sweepResult struct {
	DryRun bool           `json:"dry_run"`
	Runs   []run.SweptRun `json:"runs"`
}

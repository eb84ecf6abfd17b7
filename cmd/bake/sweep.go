package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"bake/builder/amazon"
	"bake/run/localcloud"
	"bake/step"
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
still in progress are left alone.

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

// tagged finds what carries a run tag and belongs to no run that is going on here,
// newest last, as a ledger would hold it.
func tagged(ctx context.Context, c *localcloud.Clouds, o sweepOptions, live []string) ([]step.Resource, error) {
	place := amazon.Place{Region: o.region, Profile: o.profile}
	if o.local {
		cloud, err := c.Named(ctx, localcloud.Name)
		if err != nil {
			return nil, err
		}
		place.Cloud = cloud
	} else if o.run == "" && !o.force && !o.dryRun {
		return nil, usageError{"name the run with -run, or use -force to delete what any run has created, even one still in progress on another machine", "bake sweep"}
	}
	found, err := amazon.FindTagged(ctx, place, o.run)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(r step.Resource) bool { return slices.Contains(live, r.With["run"]) })
	slices.Reverse(found) // ledgers are torn down from their end
	return found, nil
}

// dead is the ledger of a run that has ended without deleting everything. As a
// [step.Ledger] it owns what can be deleted.
type dead struct {
	ledger *step.FileLedger
	owned  []step.Resource
}

func (d dead) Intend(r step.Resource) error { return d.ledger.Intend(r) }
func (d dead) Created(key, id string) error { return d.ledger.Created(key, id) }
func (d dead) Gone(key string) error        { return d.ledger.Gone(key) }
func (d dead) Owned() ([]step.Resource, error) {
	owned, err := d.ledger.Owned()
	return slices.DeleteFunc(owned, func(r step.Resource) bool { return uncertain(d.ledger, r) }), err
}

// temporary are the kinds of resource that no build hands to its user.
var temporary = []string{"instance", "key-pair", "security-group", "network-interface", "launch-template", "instance-profile", "role"}

// uncertain says whether r may be the user's by now: the line of l that would tell
// cannot be read.
func uncertain(l *step.FileLedger, r step.Resource) bool {
	_, kind, _ := strings.Cut(r.Kind, ":")
	return l.Doubtful(r.Key) && !slices.Contains(temporary, kind)
}

func (p *program) sweep(ctx context.Context, o sweepOptions) (err error) {
	if !o.tags && (o.region != "" || o.profile != "" || o.force) {
		return usageError{"-region, -profile and -force only work with -tags: otherwise the ledgers say where to look", "bake sweep"}
	}
	state, err := p.env.stateDir()
	if err != nil {
		return err
	}
	found, live, err := deadRuns(ledgerDir(state), o.run)
	defer func() {
		for _, d := range found {
			err = errors.Join(err, d.ledger.Close())
		}
	}()
	if o.tags {
		err = nil // what ledgers fail to tell, tags do
	} else if err != nil {
		p.report(err)
		err = errReported
	}
	if o.run != "" && slices.Contains(live, o.run) {
		return fmt.Errorf("run %s is still in progress; stop it with Ctrl-C", o.run)
	}

	ctx, stop, release := p.interrupts(ctx, ignoreSignals)
	defer release()
	emit, done := p.progressDisplay()
	defer done()
	clouds := &localcloud.Clouds{Open: func(ctx context.Context) (*localcloud.Cloud, error) { return p.openLocal(ctx, "", emit) }}
	defer func() { err = errors.Join(err, clouds.Close(stop)) }()
	if o.tags {
		for _, d := range found {
			if err := d.ledger.Close(); err != nil {
				return err
			}
		}
		found = nil
		tagged, terr := tagged(ctx, clouds, o, live)
		if terr != nil {
			return terr
		}
		if len(tagged) > 0 {
			d, aerr := p.adopt(ledgerDir(state), tagged)
			if aerr != nil {
				return aerr
			}
			found = []dead{d}
		}
	}
	found = slices.DeleteFunc(found, func(d dead) bool {
		if len(d.owned) > 0 && (!o.local || localcloud.Only(d.owned)) {
			return false
		}
		err = errors.Join(err, d.ledger.Close())
		return true
	})
	swept := sweepResult{DryRun: o.dryRun, Runs: []sweptRun{}}
	defer func() { p.json.result = swept }()
	if len(found) == 0 {
		if err == nil {
			p.say("Nothing to sweep.")
		}
		return err
	}
	if o.dryRun {
		for _, d := range found {
			p.say(d.String())
			swept.Runs = append(swept.Runs, sweptRun{d.ledger.Header.Run, d.ledger.Header.Started, d.ledger.Header.Command, list(d.owned), list(d.owned)})
		}
		return err
	}
	events, ferr := p.openFeed(displayOptions{color: true, prompts: true}, uuid.NewString(), state)
	if ferr != nil {
		return ferr
	}
	defer func() { err = errors.Join(err, events.close()) }()
	for _, d := range found {
		p.say(d.String())
		if derr := destroyAll(ctx, d, clouds.Destroyers(), events.emit); derr != nil {
			p.report(derr)
			p.say(leftText(d.ledger.Header.Run, d.left()))
			err = errReported
		}
		if len(d.left()) == 0 {
			os.RemoveAll(keysDir(state, d.ledger.Header.Run))
		}
		swept.Runs = append(swept.Runs, sweptRun{d.ledger.Header.Run, d.ledger.Header.Started, d.ledger.Header.Command, list(d.owned), list(d.left())})
	}
	return err
}

// sweepResult is what bake sweep -json ends with.
type sweepResult struct {
	DryRun bool       `json:"dry_run"`
	Runs   []sweptRun `json:"runs"`
}

// sweptRun is a run that has died.
type sweptRun struct {
	Run     string          `json:"run"`
	Started time.Time       `json:"started"`
	Command string          `json:"command_line"`
	Owned   []step.Resource `json:"resources"`   // before the sweep
	Left    []step.Resource `json:"left_behind"` // after it
}

func (d dead) String() string {
	var b strings.Builder
	h := d.ledger.Header
	fmt.Fprintf(&b, "Run %s", h.Run)
	if !h.Started.IsZero() { // else its ledger has lost that line
		fmt.Fprintf(&b, " of %s (%s)", h.Started.Local().Format(time.DateTime), h.Command)
	}
	b.WriteString(":")
	for _, r := range d.owned {
		fmt.Fprintf(&b, "\n  %s", r)
	}
	return b.String()
}

// left returns what d's ledger still owns.
func (d dead) left() []step.Resource {
	owned, err := d.Owned()
	if err != nil {
		return d.owned
	}
	return owned
}

// damageText says what is lost with the unreadable lines of a ledger, and how to go on.
func damageText(path string, l *step.FileLedger, owned []step.Resource) string {
	id := strings.TrimSuffix(filepath.Base(path), ".jsonl")
	var b strings.Builder
	fmt.Fprintf(&b, "the ledger %s is damaged: %v", path, l.Damage)
	for _, r := range owned {
		if uncertain(l, r) {
			fmt.Fprintf(&b, "\n  not deleted, since it may belong to a finished build: %s", r)
		}
	}
	fmt.Fprintf(&b, "\nTo find what is missing from it: bake sweep -tags -run %s -region REGION (with -local for the local cloud). Then delete the file.", id)
	return b.String()
}

// deadRuns opens the ledgers of runs that have ended, all or the one of run, and
// names the runs that have not. The caller closes the ledgers. The error says which
// of them cannot be read, or not all of them; it does not keep the others from
// being found.
func deadRuns(dir, run string) (found []dead, live []string, err error) {
	paths, err := step.Ledgers(dir)
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	for _, path := range paths {
		id := strings.TrimSuffix(filepath.Base(path), ".jsonl")
		l, err := step.OpenLedger(path)
		if errors.Is(err, step.ErrLive) {
			live = append(live, id)
			continue
		}
		if errors.Is(err, os.ErrNotExist) {
			continue // its run has just ended well
		}
		if err != nil {
			if run == "" || id == run {
				errs = append(errs, err)
			}
			continue
		}
		if run != "" && id != run {
			errs = append(errs, l.Close())
			continue
		}
		d := dead{ledger: l}
		if l.Damage != nil {
			l.Header.Run = id // whatever its first line says
			all, _ := l.Owned()
			errs = append(errs, errors.New(damageText(path, l, all)))
		}
		owned, err := d.Owned()
		errs = append(errs, err)
		d.owned = owned
		found = append(found, d)
	}
	return found, live, errors.Join(errs...)
}

// adopt writes what was found by its tags into a ledger, so that the sweep can
// be swept up after as any other run.
func (p *program) adopt(dir string, found []step.Resource) (dead, error) {
	l, err := step.CreateLedger(dir, step.Header{Run: uuid.NewString(), Started: p.now(), PID: os.Getpid(), Command: "bake sweep -tags"})
	if err != nil {
		return dead{}, err
	}
	for _, r := range found {
		if err := l.Intend(r); err != nil {
			return dead{}, err
		}
		if err := l.Created(r.Key, r.ID); err != nil {
			return dead{}, err
		}
	}
	return dead{ledger: l, owned: found}, nil
}

// destroyAll tears down whatever the ledger owns, as the builds that made it
// would, until ctx ends.
func destroyAll(ctx context.Context, l step.Ledger, ds step.Destroyers, emit func(step.Event)) error {
	owned, err := l.Owned()
	if err != nil {
		return err
	}
	var builds []string
	for _, r := range owned {
		if !slices.Contains(builds, r.Build) {
			builds = append(builds, r.Build)
		}
	}
	var errs []error
	for _, name := range builds {
		s := step.NewScope(step.Scope{Build: name, Ledger: l, Emit: emit, Grace: teardownGrace})
		for prefix, d := range ds {
			s.Handle(prefix, d)
		}
		errs = append(errs, s.Close(ctx, ctx))
	}
	return errors.Join(errs...)
}

package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"bake/builder/amazon"
	"bake/plugin/host"
	"bake/run/localcloud"
	"bake/run/trace"
	"bake/step"
	"bake/step/onhost"
)

// SweepOptions define what [Sweep] deletes.
type SweepOptions struct {
	State  State
	Run    string // only what this run or its parts have left, even if it was kept; empty for all
	Local  bool   // only what is on the local cloud
	DryRun bool   // delete nothing

	// OlderThan, if not 0, is the minimum age of resources to delete. A resource in a
	// ledger is as old as its run.
	OlderThan time.Duration

	Tags    *Tags  // where to look for run tags; nil: use the ledgers
	Command string // the user's command line, for the ledger of resources that were found by tags

	// Clouds hold the resources and provide their destroyers, unless Destroyers is set.
	// The caller closes them. Nil means AWS alone.
	Clouds     *localcloud.Clouds
	Destroyers step.Destroyers

	// Found is called for each run before its remaining resources are deleted, and Swept
	// after that, with the error for those that could not be deleted. Spared is called for
	// each run that is left alone. Resource is called last, for every resource examined.
	// Each may be nil.
	Found    func(SweptRun)
	Swept    func(SweptRun, error)
	Spared   func(Spared)
	Resource func(SweptResource)

	// Trace records the deletion as the part "teardown" of the trace of Run. It may be nil.
	Trace *trace.Tracer

	// If Logged is set, Run must be set, and the sweep writes its events to the log of Run
	// instead of to a log of its own. Logged is called when they have been written, with the
	// position of the first of them.
	Logged func(from Position)

	// Again reports that Run was swept before: the sweep is recorded in the trace only if
	// something is deleted.
	Again bool

	// Emit gets every event of a deletion. It is called by one goroutine at a time, and
	// may be nil.
	Emit func(step.Event)

	Now func() time.Time // nil: time.Now
}

// Tags define where to search for run tags.
type Tags struct {
	Regions []string // none: that of the AWS configuration
	All     bool     // all regions that are enabled for the account, instead of Regions
	Profile string   // empty: as the AWS configuration says
	Every   bool     // resources of any run, even in AWS, where runs may be in progress on other hosts

	// Find lists resources with the tag of a run, or of any run, and Enabled the regions
	// of an account. Nil: [amazon.FindTagged] and [amazon.Regions].
	Find    func(context.Context, amazon.Place, string) ([]step.Resource, error)
	Enabled func(context.Context, amazon.Place) ([]string, error)
}

// ErrEveryRun is the error of a sweep by tags in AWS that names neither a run nor an age,
// without [Tags.Every]: the resources may belong to runs in progress.
var ErrEveryRun = errors.New("a sweep by tags must name the run")

// SweptRun is a run that has ended and left something behind.
type SweptRun struct {
	Run     string          `json:"run"`
	Started time.Time       `json:"started"`
	Command string          `json:"command_line"`
	Owned   []step.Resource `json:"resources"`   // before the sweep
	Left    []step.Resource `json:"left_behind"` // after the sweep; everything in a dry run
}

// String lists what the run owned before the sweep.
func (s SweptRun) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Run %s", s.Run)
	if !s.Started.IsZero() { // otherwise its ledger has lost that line
		fmt.Fprintf(&b, " of %s (%s)", s.Started.Local().Format(time.DateTime), s.Command)
	}
	b.WriteString(":")
	var unseen []string
	for _, r := range s.Owned {
		fmt.Fprintf(&b, "\n  %s", r)
		if p := r.With["plugin"]; p != "" && !slices.Contains(unseen, p) {
			unseen = append(unseen, p)
		}
	}
	if len(unseen) > 0 {
		fmt.Fprintf(&b, "\nA plugin deletes its resources when bake is killed, but bake cannot see whether it did. Look for machines and images of %s.", strings.Join(unseen, ", "))
	}
	return b.String()
}

// SweepError is the error of an incomplete sweep.
type SweepError struct {
	Unreadable error   // which ledgers cannot be read, or not all of them; nil if all can
	Left       []error // of the runs some of whose resources could not be deleted
	Other      error   // other errors, such as a region that denies access or a log that cannot be written
}

func (e *SweepError) Error() string { return errors.Join(e.Unwrap()...).Error() }

func (e *SweepError) Unwrap() []error {
	return slices.DeleteFunc(append([]error{e.Unreadable, e.Other}, e.Left...), func(err error) bool { return err == nil })
}

// complete sets defaults for options that the caller has not set.
func (o *SweepOptions) complete() {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Clouds == nil {
		o.Clouds = new(localcloud.Clouds)
	}
	if o.Destroyers == nil {
		o.Destroyers = o.Clouds.Destroyers()
		prefix, _, _ := strings.Cut(host.ProcessKind, ":")
		o.Destroyers[prefix] = step.DestroyerFunc(host.DestroyProcess)
		o.Destroyers[onhost.Prefix] = step.DestroyerFunc(onhost.Destroy)
	}
}

// Sweep deletes what finished runs have left behind: runs that crashed or were killed,
// that could not delete their resources, or that kept them on request. It leaves runs in
// progress alone. When ctx ends, Sweep abandons the current deletion, and what is left
// stays in the ledgers.
//
// It returns the runs that had left resources. The error is a *[SweepError] if the sweep
// was incomplete; a failure in one run does not stop the sweep of the others.
func Sweep(ctx context.Context, o SweepOptions) (swept []SweptRun, err error) {
	if o.Logged != nil && o.Run == "" {
		return nil, errors.New("SweepOptions.Logged requires Run: a sweep of all runs is in no run's log")
	}
	o.complete()
	all := o.State.survey(o.Run)
	found := all.dead
	defer func() {
		for _, d := range found {
			err = errors.Join(err, d.close())
		}
	}()
	if o.Run != "" && all.others[o.Run] == inProgress {
		return nil, fmt.Errorf("run %s is still in progress; stop it with Ctrl-C", o.Run)
	}
	if len(all.live) > 0 {
		return nil, fmt.Errorf("run %s is still in progress, because run %s, which is a part of it, is; stop it with Ctrl-C", o.Run, strings.Join(all.live, ", "))
	}
	if o.Run != "" && len(found) == 0 && !o.DryRun {
		o.State.forgetRun(o.Run) // it owns nothing
	}
	incomplete := &SweepError{Unreadable: all.err}
	if o.Tags != nil {
		incomplete.Unreadable = nil // the tags replace unreadable ledgers
		if o.Run == "" {
			incomplete.Unreadable = all.unopened // but do not tell whether their runs are over
		}
		found, err = o.byTags(ctx, found, all, incomplete)
		if err != nil {
			return nil, err
		}
	} else {
		o.spare(all.kept)
	}
	found = slices.DeleteFunc(found, func(d dead) bool {
		if len(d.owned) > 0 && (!o.Local || onThisHost(d.owned)) && !o.young(d) {
			return false
		}
		err = errors.Join(err, d.close())
		return true
	})
	if len(found) > 0 {
		var more error
		swept, more = o.sweep(ctx, found, incomplete)
		err = errors.Join(err, more)
	}
	if !o.DryRun {
		o.State.forgetJournals(o.Now())
	}
	if len(incomplete.Unwrap()) > 0 {
		incomplete.Other = errors.Join(incomplete.Other, err)
		err = incomplete
	}
	return swept, err
}

// onThisHost reports whether all resources in owned are on the local cloud, or on this
// host.
func onThisHost(owned []step.Resource) bool {
	return localcloud.Only(slices.DeleteFunc(slices.Clone(owned), func(r step.Resource) bool {
		return r.Kind == host.ProcessKind || strings.HasPrefix(r.Kind, onhost.Prefix+":")
	}))
}

// byTags returns one entry that owns everything that is found by tags, in place of the runs
// in found, whose ledgers it closes.
func (o SweepOptions) byTags(ctx context.Context, found []dead, all survey, incomplete *SweepError) ([]dead, error) {
	for _, d := range found {
		if err := d.close(); err != nil {
			return nil, err
		}
	}
	runs := []string{o.Run} // resources of parts of a run have their own tags
	for _, d := range found {
		if o.Run != "" && d.header.Parent == o.Run {
			runs = append(runs, d.header.Run)
		}
	}
	tagged, err := o.tagged(ctx, runs, incomplete)
	if err != nil {
		return nil, err
	}
	tagged = o.choose(tagged, all)
	if len(tagged) == 0 {
		return nil, nil
	}
	d := dead{header: step.Header{Run: NewID(), Started: o.Now(), PID: os.Getpid(), Command: o.Command}, owned: tagged}
	if !o.DryRun { // after a dry run, a later sweep would delete what is in such a ledger
		d.ledger, err = adopt(o.State.Ledgers(), d.header, tagged)
	}
	return []dead{d}, err
}

// tagged finds the resources with the tag of one of the runs, newest last, as in a
// ledger. It adds regions that cannot be searched to incomplete.
func (o SweepOptions) tagged(ctx context.Context, runs []string, incomplete *SweepError) ([]step.Resource, error) {
	place := amazon.Place{Profile: o.Tags.Profile}
	if o.Local {
		cloud, err := o.Clouds.Named(ctx, localcloud.Name)
		if err != nil {
			return nil, err
		}
		place.Cloud = cloud
	} else if o.Run == "" && !o.Tags.Every && !o.DryRun && o.OlderThan == 0 {
		return nil, ErrEveryRun
	}
	regions, err := o.Tags.regions(ctx, place)
	if err != nil {
		return nil, err
	}
	if len(regions) == 1 { // an error then fails the sweep
		place.Region = regions[0]
		found, err := o.Tags.find(ctx, place, runs)
		slices.Reverse(found) // ledgers are torn down from their end
		return found, err
	}
	found, errs := make([][]step.Resource, len(regions)), make([]error, len(regions))
	var each errgroup.Group
	each.SetLimit(regionsAtOnce)
	for i, region := range regions {
		each.Go(func() error {
			in := place
			in.Region = region
			if found[i], errs[i] = o.Tags.find(ctx, in, runs); errs[i] != nil {
				errs[i] = fmt.Errorf("region %s was not swept: %w", region, errs[i])
			}
			return nil
		})
	}
	_ = each.Wait() // the errors are in errs
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	incomplete.Other = errors.Join(errs...)
	return merged(found), nil
}

// regionsAtOnce is how many regions are searched concurrently. AWS limits calls per
// region.
const regionsAtOnce = 8

// merged returns the resources found in all regions. Each region counts as a build, so that
// regions are torn down concurrently. Global resources, such as roles, which are found in
// every region, are listed once.
func merged(found [][]step.Resource) (all []step.Resource) {
	seen := map[string]bool{}
	for _, in := range found {
		slices.Reverse(in) // ledgers are torn down from their end
		for _, r := range in {
			if !seen[r.Key] {
				seen[r.Key] = true
				r.Build = r.Where
				all = append(all, r)
			}
		}
	}
	return all
}

// regions returns the regions to search: "" is that of the AWS configuration.
func (t *Tags) regions(ctx context.Context, place amazon.Place) ([]string, error) {
	switch {
	case t.All:
		enabled := t.Enabled
		if enabled == nil {
			enabled = amazon.Regions
		}
		return enabled(ctx, place)
	case len(t.Regions) == 0:
		return []string{""}, nil
	}
	return slices.Compact(slices.Sorted(slices.Values(t.Regions))), nil
}

// find lists the resources with the tag of one of the runs, or of any run if runs is
// empty.
func (t *Tags) find(ctx context.Context, place amazon.Place, runs []string) (all []step.Resource, err error) {
	find := t.Find
	if find == nil {
		find = amazon.FindTagged
	}
	for _, run := range runs {
		found, err := find(ctx, place, run)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// sweep deletes what the runs found own. It does not close ledgers.
func (o SweepOptions) sweep(ctx context.Context, found []dead, incomplete *SweepError) (swept []SweptRun, err error) {
	emit := o.Emit
	if !o.DryRun {
		in := NewID()
		if o.Logged != nil {
			in = o.Run
		}
		events, failed := openEvents(o.State, in, o.Logged != nil, o.Emit)
		if failed != nil {
			return nil, failed
		}
		defer func() {
			err = errors.Join(err, events.close())
			if o.Logged != nil {
				o.Logged(events.from)
			}
		}()
		events.trace = o.Trace.Begin(trace.Run{ID: o.Run, Part: "teardown", Stages: true, Again: o.Again})
		defer func() {
			if left := errors.Join(append(incomplete.Left, err)...); left != nil {
				events.trace.Fail(left)
			}
			events.trace.End()
		}()
		emit = events.handle
	}
	for _, d := range found {
		h := d.header
		s := SweptRun{h.Run, h.Started, h.Command, listed(d.owned), listed(d.owned)}
		fates := &fates{why: map[string]error{}}
		if o.Found != nil {
			o.Found(s)
		}
		if o.DryRun {
			swept = append(swept, s)
			o.tell(d, s, fates, nil)
			continue
		}
		err := destroyAll(ctx, d, fates.watch(o.Destroyers), emit)
		s.Left = listed(d.left())
		if err != nil {
			incomplete.Left = append(incomplete.Left, err)
		}
		if len(s.Left) == 0 {
			os.RemoveAll(o.State.keys(h.Run))
			o.State.forgetRun(h.Run)
		}
		swept = append(swept, s)
		if o.Swept != nil {
			o.Swept(s, err)
		}
		o.tell(d, s, fates, err)
	}
	return swept, err
}

// listed returns a copy of rs that is not nil, so that JSON has [] and not null.
func listed(rs []step.Resource) []step.Resource { return append([]step.Resource{}, rs...) }

// dead is the ledger of a run that has ended without deleting everything. It implements
// [step.Ledger], but owns only resources that may be deleted.
type dead struct {
	header step.Header
	ledger *step.FileLedger // nil in a dry run by tags
	owned  []step.Resource
}

func (d dead) close() error {
	if d.ledger == nil {
		return nil
	}
	return d.ledger.Close()
}

func (d dead) Intend(r step.Resource) error { return d.ledger.Intend(r) }
func (d dead) Created(key, id string) error { return d.ledger.Created(key, id) }
func (d dead) Gone(keys ...string) error    { return d.ledger.Gone(keys...) }
func (d dead) Owned() ([]step.Resource, error) {
	owned, err := d.ledger.Owned()
	return slices.DeleteFunc(owned, func(r step.Resource) bool { return uncertain(d.ledger, r) }), err
}

// temporary are the kinds of resource that builds never hand over to the user.
var temporary = []string{"instance", "key-pair", "security-group", "network-interface", "launch-template", "instance-profile", "role", "process", "directory"}

// uncertain reports whether r may have been handed over to the user: the line of l that
// would record that cannot be read.
func uncertain(l *step.FileLedger, r step.Resource) bool {
	_, kind, _ := strings.Cut(r.Kind, ":")
	return l.Doubtful(r.Key) && !slices.Contains(temporary, kind)
}

// left returns what d's ledger still owns.
func (d dead) left() []step.Resource {
	owned, err := d.Owned()
	if err != nil {
		return d.owned
	}
	return owned
}

// damageText describes a ledger with unreadable lines, what is not deleted because of them,
// and what the user can do.
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

// survey summarizes the ledgers of all runs, or of one run.
type survey struct {
	dead     []dead            // runs that have ended; the caller closes their ledgers
	kept     []Spared          // runs that keep their resources
	others   map[string]Reason // why runs that are not among the dead are left alone
	live     []string          // runs in progress that are parts of the requested run
	unopened error             // which ledgers cannot be opened
	err      error             // the same, and which are damaged
}

// survey opens the ledgers of runs that have ended, of all or of one run. An unreadable
// ledger does not affect the others.
func (s State) survey(run string) survey {
	all := survey{others: map[string]Reason{}}
	paths, err := step.Ledgers(s.Ledgers())
	unopened, damaged := []error{err}, []error(nil)
	for _, path := range paths {
		id := strings.TrimSuffix(filepath.Base(path), ".jsonl")
		if run != "" && id != run { // do not lock it: its run may be about to resume
			if h, err := step.ReadHeader(path); err == nil && h.Parent != run {
				continue
			}
		}
		l, err := step.OpenLedger(path)
		switch {
		case errors.Is(err, step.ErrLive):
			all.others[id] = inProgress
			if h, err := step.ReadHeader(path); err == nil && run != "" && h.Parent == run {
				all.live = append(all.live, id)
			}
			continue
		case errors.Is(err, os.ErrNotExist):
			continue // its run has just ended successfully
		case err != nil:
			if all.others[id] = unknown; run == "" || id == run {
				unopened = append(unopened, unwritable(err))
			}
			continue
		case run != "" && id != run && l.Header.Parent != run:
			damaged = append(damaged, l.Close())
			continue
		}
		owned, err := dead{ledger: l}.Owned()
		damaged = append(damaged, err)
		d := dead{l.Header, l, owned}
		if why := s.kept(id); run == "" && why != "" {
			all.others[id] = why
			if len(owned) > 0 {
				all.kept = append(all.kept, Spared{id, l.Header.Started, why, owned})
			}
			damaged = append(damaged, l.Close())
			continue
		}
		if run == "" && len(owned) == 0 && l.Damage == nil { // the run may be starting, and waiting for its ledger
			damaged = append(damaged, l.Close())
			continue
		}
		if l.Damage != nil {
			d.header.Run = id // the first line may be damaged
			lines, _ := l.Owned()
			damaged = append(damaged, errors.New(damageText(path, l, lines)))
		}
		all.dead = append(all.dead, d)
	}
	all.unopened = errors.Join(unopened...)
	all.err = errors.Join(append(unopened, damaged...)...)
	return all
}

// unwritable adds what to do to the error of a ledger that cannot be opened because its file
// system is read-only or its permissions forbid it.
func unwritable(err error) error {
	if errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; nothing of this run was deleted, because bake must record deletions there: "+
			"make the directory writable and repeat the command", err)
	}
	return err
}

// adopt writes resources that were found by their tags into a ledger, so that an
// interrupted sweep can itself be swept like any other run.
func adopt(dir string, h step.Header, found []step.Resource) (*step.FileLedger, error) {
	l, err := step.CreateLedger(dir, h)
	if err != nil {
		return nil, err
	}
	for _, r := range found {
		if err := l.Intend(r); err != nil {
			return l, err
		}
		if err := l.Created(r.Key, r.ID); err != nil {
			return l, err
		}
	}
	return l, nil
}

// destroyAll tears down everything that the ledger owns until ctx ends, all builds
// concurrently. emit may be called by several goroutines.
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
	errs := make([]error, len(builds))
	var all sync.WaitGroup
	for i, name := range builds {
		s := step.NewScope(step.Scope{Build: name, Ledger: l, Emit: emit, Grace: teardownGrace})
		for prefix, d := range ds {
			s.Handle(prefix, d)
		}
		all.Go(func() { errs[i] = s.Close(ctx, ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}

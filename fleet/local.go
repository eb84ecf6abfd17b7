package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"bake/engine"
	"bake/internal/delay"
	"bake/internal/filelock"
	"bake/run"
	"bake/step"
)

// local is the engine in this process: what it does, other processes see in the folder of
// the fleet, and ask for there.
type local struct{ host Host }

// NewLocal returns the engine that bakes cells in this process.
func NewLocal(h Host) Engine {
	if h.Now == nil {
		h.Now = time.Now
	}
	return &local{h}
}

// Apply implements [Engine]: nothing here can begin a fleet by a schedule.
func (l *local) Apply(context.Context, *Fleet) ([]string, error) { return nil, ErrNotHere }

// Work implements [Engine]: the process that runs a fleet does all of it.
func (l *local) Work(context.Context, WorkerOptions) error { return ErrNotHere }

// looks is how often a run looks for what other processes ask.
const looks = 300 * time.Millisecond

// CancelledError is the cause that a run of a fleet was cancelled with by another process.
type CancelledError struct{ Fleet string }

func (e *CancelledError) Error() string { return "cancelled by bake fleet cancel" }

// Outcome is that of the runs of cells.
func (e *CancelledError) Outcome() run.Outcome { return run.OutcomeCancelled }

// Cancelling is what their logs say.
func (e *CancelledError) Cancelling() string {
	return "Cancelling build: the fleet " + e.Fleet + " was cancelled"
}

// Run implements [Engine].
func (l *local) Run(ctx context.Context, f *Fleet, o RunOptions) (Status, error) {
	dir := folderOf(l.host.State, f.Name)
	lock, err := dir.lock()
	switch {
	case errors.Is(err, filelock.ErrLocked):
		return Status{}, fmt.Errorf("the fleet %s is being run already: bake fleet status %s shows how it goes", f.Name, f.Name)
	case err != nil:
		return Status{}, fmt.Errorf("the folder of the fleet: %w; set BAKE_STATE_DIR to use another directory", err)
	}
	defer lock.Close()
	if dir.has(pausedFile) {
		return Status{}, fmt.Errorf("the fleet %s is paused: bake fleet resume %s ends that", f.Name, f.Name)
	}
	a, err := l.attempt(dir, f, o)
	if err != nil {
		return Status{}, err
	}
	defer a.journal.file.Close()
	handle, end, err := l.host.State.Record(a.Run, o.Resume != "", l.host.Emit)
	if err != nil {
		return Status{}, err
	}
	a.handle = handle
	err = a.run(ctx)
	status, serr := l.Status(ctx, f)
	return status, errors.Join(err, serr, end())
}

// attempt is a run of a fleet that goes on in this process.
type attempt struct {
	header
	host    Host
	fleet   *Fleet
	dir     folder
	order   *Order
	journal *journal
	before  past // what was known when it began
	last    map[string]Result
	rates   *Rates
	handle  func(step.Event)
	told    func(Status)
	began   time.Time // by the clock that is never set

	notices sync.WaitGroup
}

// attempt begins a run, or goes on with one.
func (l *local) attempt(dir folder, f *Fleet, o RunOptions) (*attempt, error) {
	a := &attempt{host: l.host, fleet: f, dir: dir, rates: NewRates(f.Limits.APIRate), told: o.Told, last: lastResults(dir), began: time.Now()}
	var err error
	if o.Resume == "" {
		a.header = header{f.Name, uuid.NewString(), l.host.Now(), o.Command, o.Cells, o.FailFast, o.Force, o.Local}
		if a.order, err = NewOrder(a.Cells, f.Limits, a.FailFast, nil); err != nil {
			return nil, err
		}
		a.journal, err = dir.create(a.header)
		return a, err
	}
	if a.before, err = dir.find(f.Name, strings.TrimPrefix(o.Resume, "last")); err != nil {
		return nil, err
	}
	a.header = a.before.header
	if a.Local != o.Local {
		return nil, fmt.Errorf("the run %s is on %s: go on with it there", a.Run, map[bool]string{true: "the local cloud, with -local", false: "AWS, without -local"}[a.Local])
	}
	if !slices.ContainsFunc(a.Cells, func(c Cell) bool { return !a.before.ended[c.ID()].Result.OK() }) {
		return nil, fmt.Errorf("there is nothing to go on with: all cells of the run %s have their images", a.Run)
	}
	if a.order, err = NewOrder(a.Cells, f.Limits, a.FailFast, a.before.outcomes()); err != nil {
		return nil, err
	}
	os.Remove(dir.path(a.Run + cancelEnd))
	a.journal, err = dir.reopen(a.before)
	return a, err
}

// lastResults are how the cells of a fleet ended the last time that they did.
func lastResults(dir folder) map[string]Result {
	last := map[string]Result{}
	for _, p := range slices.Backward(dir.all()) { // the oldest first
		for _, o := range p.outcomes() {
			if o.Result != Skipped && o.Result != Cancelled {
				last[o.Cell.ID()] = o.Result
			}
		}
	}
	return last
}

// run bakes the cells. The error is that of the journal.
func (a *attempt) run(ctx context.Context) error {
	var names []string
	for _, c := range a.Cells {
		names = append(names, c.Short())
	}
	a.handle(step.Event{Time: a.host.Now(), Kind: step.RunStarted, Text: strings.Join(names, "\n"), Command: a.Command})
	for _, o := range a.order.Outcomes() {
		a.handle(step.Event{Time: a.host.Now(), Kind: step.BuildFinished, Build: o.Cell.Short(), Reused: o.Result == Reused})
	}
	err := a.loop(ctx)
	a.notices.Wait()
	now := a.host.Now()
	a.handle(step.Event{Time: now, Kind: step.RunFinished, Elapsed: time.Since(a.began), Error: context.Cause(ctx)})
	os.Remove(a.dir.path(a.Run + cancelEnd))
	return errors.Join(err, a.journal.write(line{Over: &now}))
}

// loop begins cells and takes how they end, until all have.
func (a *attempt) loop(parent context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	ended := make(chan Outcome)
	look := time.NewTicker(looks)
	defer look.Stop()
	stopped := ctx.Done()
	for !a.order.Over() {
		for _, c := range a.order.Begin() {
			id := uuid.NewString()
			err = errors.Join(err, a.journal.write(line{Began: &began{c.ID(), id, a.host.Now()}}))
			parents := a.order.Parents(c)
			go func() { ended <- a.bake(ctx, c, parents, id) }()
		}
		if a.told != nil {
			a.told(a.status())
		}
		var all []Outcome
		select {
		case o := <-ended:
			all = append([]Outcome{o}, a.order.End(o)...)
			if a.order.Stopped() {
				cancel(&engine.FailFastError{Build: o.Cell.Short(), Err: errors.New(o.Error)})
			}
		case <-stopped:
			stopped = nil
			if cause := context.Cause(ctx); !a.order.Stopped() {
				all = a.order.Stop(a.host.Now(), cause.Error())
			}
		case <-look.C:
			a.order.Pause(a.dir.has(pausedFile))
			if a.dir.has(a.Run + cancelEnd) {
				cancel(&CancelledError{a.Fleet})
			}
		}
		for _, o := range all {
			err = errors.Join(err, a.end(ctx, o))
		}
	}
	return err
}

// end records how a cell ended.
func (a *attempt) end(ctx context.Context, o Outcome) error {
	err := a.journal.write(line{Ended: &o})
	if o.Run == "" { // it never began
		a.handle(step.Event{Time: o.Ended, Kind: step.BuildFailed, Build: o.Cell.Short(), Error: errors.New(o.Error)})
	}
	for _, n := range Notices(a.Run, o, a.last[o.Cell.ID()]) {
		for _, w := range a.fleet.Notify {
			a.notices.Go(func() {
				if err := w.Tell(context.WithoutCancel(ctx), n); err != nil {
					a.handle(step.Event{Time: a.host.Now(), Kind: step.Warning, Build: n.Cell, Text: sentence(err)})
				}
			})
		}
	}
	return err
}

// bake bakes a cell with a run that has this id.
func (a *attempt) bake(ctx context.Context, c Cell, parents []Outcome, id string) Outcome {
	speaker := &speaker{cell: c, handle: a.handle}
	started := a.host.Now()
	began := time.Now()
	a.handle(step.Event{Time: started, Kind: step.BuildStarted, Build: c.Short()})
	result, err := a.build(ctx, c, parents, id, speaker.emit)
	if result.Run == "" {
		result.Run = id
	}
	o := Ended(c, result, err, started, a.host.Now())
	o.Awaiting = speaker.awaiting
	end := step.Event{Time: o.Ended, Kind: step.BuildFinished, Build: c.Short(), Elapsed: time.Since(began), Reused: o.Result == Reused}
	if err != nil {
		end.Kind, end.Error, end.Step, end.Place = step.BuildFailed, errors.New(o.Error), speaker.failed.Step, speaker.failed.Place
	}
	a.handle(end)
	return o
}

// build builds the image of a cell, or goes on with a run that had begun to when its process
// died. What cannot be gone on with is deleted, and the cell begins again.
func (a *attempt) build(ctx context.Context, c Cell, parents []Outcome, id string, emit func(step.Event)) (run.Result, error) {
	o, err := a.host.Options(ctx, c, parents)
	if err != nil {
		return run.Result{}, err
	}
	o.ID, o.Whole, o.Emit, o.Force, o.ReuseOnly = id, a.Run, emit, a.Force || o.Force, c.ReuseOnly
	o.Wait = a.rates.Of(c.Account)
	if o.Within == nil {
		o.Within = Within(c, id)
	}
	dead, ok := a.before.began[c.ID()]
	if _, ended := a.before.ended[c.ID()]; !ok || ended {
		return run.Build(ctx, o)
	}
	if m, err := a.host.State.Resumable(dead.Run, false); err == nil {
		again := o
		again.Template.Vars = slices.DeleteFunc(slices.Clone(o.Template.Vars), func(v string) bool {
			name, _, _ := strings.Cut(v, "=")
			return !slices.Contains(m.Asked, name)
		})
		result, err := run.Resume(ctx, run.ResumeOptions{Options: again, Run: m.Run})
		if err == nil && len(result.Planned) == 0 { // what is resumed is not decided about again
			if now, perr := run.Plan(ctx, o); perr == nil {
				result.Planned = now.Planned // the digest of its inputs, which those made from it record
			}
		}
		if result.Run != "" || ctx.Err() != nil {
			return result, err
		}
	}
	if _, err := run.Sweep(ctx, run.SweepOptions{State: a.host.State, Run: dead.Run, Clouds: a.host.Clouds, Emit: emit, Now: a.host.Now}); err != nil {
		return run.Result{}, fmt.Errorf("what is left of the run %s cannot be deleted: %w", dead.Run, err)
	}
	return run.Build(ctx, o)
}

// speaker passes the events of the run of a cell on as those of one build.
type speaker struct {
	cell     Cell
	handle   func(step.Event)
	failed   step.Event // of the first build that failed
	awaiting []string   // channels that the image waits for
}

func (s *speaker) emit(e step.Event) {
	switch e.Kind {
	case step.RunStarted, step.RunFinished, step.BuildStarted, step.BuildFinished:
		return
	case step.BuildFailed:
		if s.failed.Kind == "" {
			s.failed = e
		}
		return
	case step.ChannelAsked:
		if Unapproved(e.Channel) {
			s.awaiting = append(s.awaiting, e.Channel.Name)
		}
	}
	e.Build = s.cell.Short()
	s.handle(e)
}

// Unapproved reports whether the image is not in a channel only because nobody has approved
// it.
func Unapproved(c *step.Channel) bool {
	return c != nil && !c.Names && len(c.Reasons) == 1 && strings.HasPrefix(c.Reasons[0], unapproved)
}

// unapproved is how the reason of a channel begins that waits for approval.
const unapproved = "nobody has approved it"

// status is how the run goes, as far as it is known without a look at the disk.
func (a *attempt) status() Status {
	s := Status{Fleet: a.Fleet, Run: a.Run, State: StateRunning, Started: a.Started}
	if a.order.Paused() {
		s.State = StatePaused
	}
	at := map[string]*Outcome{}
	for _, o := range a.order.Outcomes() {
		at[o.Cell.ID()] = &o
	}
	running := map[string]bool{}
	for _, c := range a.order.Running() {
		running[c.ID()] = true
	}
	for _, c := range a.Cells {
		one := CellStatus{Cell: c, State: StateWaiting}
		if o := at[c.ID()]; o != nil {
			one.State, one.Outcome, one.Run, one.Started = State(o.Result), o, o.Run, o.Started
		} else if running[c.ID()] {
			one.State = StateRunning
		}
		s.Cells = append(s.Cells, one)
	}
	return s
}

// Status implements [Engine].
func (l *local) Status(_ context.Context, f *Fleet) (Status, error) {
	dir := folderOf(l.host.State, f.Name)
	p, err := dir.find(f.Name, "")
	if err != nil {
		return Status{}, err
	}
	live := p.over.IsZero() && dir.live()
	s := Status{Fleet: f.Name, Run: p.Run, Started: p.Started, Ended: p.over}
	for _, c := range p.Cells {
		one := CellStatus{Cell: c, State: StateWaiting}
		o, ended := p.ended[c.ID()]
		b, begun := p.began[c.ID()]
		switch {
		case ended:
			one.State, one.Outcome, one.Run, one.Started = State(o.Result), &o, o.Run, o.Started
		case begun && live:
			one.State, one.Run, one.Started, one.Phase = StateRunning, b.Run, b.At, l.phase(b.Run)
		case begun:
			one.State, one.Run, one.Started = StateCrashed, b.Run, b.At
		}
		s.Cells = append(s.Cells, one)
	}
	all := p.outcomes()
	switch {
	case live && dir.has(pausedFile):
		s.State = StatePaused
	case live:
		s.State = StateRunning
	case p.over.IsZero():
		s.State = StateCrashed
	case slices.ContainsFunc(all, func(o Outcome) bool { return o.Result == Failed }):
		s.State = StateFailed
	case slices.ContainsFunc(all, func(o Outcome) bool { return o.Result == Cancelled }):
		s.State = StateCancelled
	default:
		s.State = StateDone
	}
	return s, nil
}

// phase is the step that a run is in, as its log tells.
func (l *local) phase(id string) (name string) {
	_ = l.host.State.Events(id, func(e step.Event) { // without a log there is no phase
		if e.Kind == step.StepStarted {
			name, _, _ = strings.Cut(e.Step, " > ")
		}
	})
	return name
}

// Logs implements [Engine].
func (l *local) Logs(_ context.Context, f *Fleet, c Cell, emit func(step.Event)) error {
	for _, p := range folderOf(l.host.State, f.Name).all() {
		if !slices.ContainsFunc(p.Cells, func(o Cell) bool { return o.ID() == c.ID() }) {
			continue
		}
		return l.host.State.Events(p.Run, func(e step.Event) {
			switch {
			case e.Kind == step.RunStarted:
				e.Text = c.Short()
				emit(e)
			case e.Kind == step.RunFinished, e.Build == c.Short():
				emit(e)
			}
		})
	}
	return fmt.Errorf("%w: %s has not been baked on this machine", ErrNoRun, c.Short())
}

// Cancel implements [Engine]. It returns when all is deleted that the cells have made.
func (l *local) Cancel(ctx context.Context, f *Fleet) error {
	dir := folderOf(l.host.State, f.Name)
	p, err := dir.find(f.Name, "")
	if err != nil {
		return err
	}
	if !p.over.IsZero() || !dir.live() {
		return fmt.Errorf("the fleet %s is not being run", f.Name)
	}
	if err := dir.ask(p.Run + cancelEnd); err != nil {
		return err
	}
	for dir.live() {
		if err := delay.For(ctx, looks); err != nil {
			return err
		}
	}
	return nil
}

// Pause implements [Engine].
func (l *local) Pause(_ context.Context, f *Fleet) error {
	return folderOf(l.host.State, f.Name).ask(pausedFile)
}

// Unpause implements [Engine].
func (l *local) Unpause(_ context.Context, f *Fleet) error {
	err := os.Remove(folderOf(l.host.State, f.Name).path(pausedFile))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the fleet %s is not paused", f.Name)
	}
	return err
}

// Approve implements [Engine]: the image of the last run in which the cell had one is approved.
func (l *local) Approve(ctx context.Context, f *Fleet, a Approval) error {
	for _, p := range folderOf(l.host.State, f.Name).all() {
		if o, ok := p.ended[a.Cell.ID()]; ok && o.Result.OK() && o.Image.ID != "" {
			return l.host.Approve(ctx, o, a)
		}
	}
	return fmt.Errorf("%w: %s has no image that was baked on this machine", ErrNoRun, a.Cell.Short())
}

// sentence is an error as a sentence.
func sentence(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

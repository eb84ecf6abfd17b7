package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"bake/engine"
	"bake/internal/delay"
	"bake/internal/filelock"
	"bake/internal/prose"
	"bake/run"
	"bake/step"
)

// local is the engine in this process. Other processes read its state, and send it
// requests, in the folder of the fleet.
type local struct {
	host Host

	mu     sync.Mutex
	phases map[string]phase // of runs in progress
}

// phase is the position to which the log of a run has been read, and its current step.
type phase struct {
	at   run.Position
	name string
}

// NewLocal returns the engine that bakes cells in this process.
func NewLocal(h Host) Engine {
	if h.Now == nil {
		h.Now = time.Now
	}
	return &local{host: h, phases: map[string]phase{}}
}

// Apply implements [Engine]. This engine has no schedules.
func (l *local) Apply(context.Context, *Fleet, bool) (Applied, error) {
	return Applied{}, ErrNotHere
}

// Work implements [Engine]. This engine has no workers: the process that runs a fleet
// does everything.
func (l *local) Work(context.Context, WorkerOptions) error { return ErrNotHere }

// looks is the interval at which a run checks for requests of other processes.
const looks = 300 * time.Millisecond

// cancelledError is the cause if another process cancelled the run of a fleet.
type cancelledError struct{ Fleet string }

func (e *cancelledError) Error() string { return "cancelled by bake fleet cancel" }

// Outcome returns the outcome of the runs of cells.
func (e *cancelledError) Outcome() run.Outcome { return run.OutcomeCancelled }

// Cancelling returns the message in the logs of the cells.
func (e *cancelledError) Cancelling() string {
	return "Cancelling build: the fleet " + e.Fleet + " was cancelled"
}

// Run implements [Engine].
func (l *local) Run(ctx context.Context, f *Fleet, o RunOptions) (Status, error) {
	dir := folderOf(l.host.State, f)
	lock, err := dir.lock()
	switch {
	case errors.Is(err, filelock.ErrLocked):
		return Status{}, fmt.Errorf("the fleet %s is being run already: bake fleet status %s shows its progress", f.Name, f.Name)
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
	if o.Resume == "" {
		l.warnOfDead(dir, a)
	}
	err = a.run(ctx)
	own, serr := dir.read(a.Run)
	return l.status(dir, own), errors.Join(err, serr, end())
}

// attempt is a run of a fleet in this process.
type attempt struct {
	header
	host    Host
	fleet   *Fleet
	dir     folder
	order   *Order
	journal *journal
	before  journalState // the state when it began
	last    map[string]Result
	rates   *Rates
	handle  func(step.Event)
	told    func(Status)
	began   time.Time // by the monotonic clock

	notices sync.WaitGroup
}

// attempt starts or resumes a run.
func (l *local) attempt(dir folder, f *Fleet, o RunOptions) (*attempt, error) {
	a := &attempt{host: l.host, fleet: f, dir: dir, rates: NewRates(f.Limits.APIRate), told: o.OnStatus, last: lastResults(dir, l.host.Local), began: time.Now()}
	var err error
	if o.Resume == "" {
		a.header = header{f.Name, f.Dir, run.NewID(), l.host.Now(), o.Command, o.Cells, o.FailFast, o.Force, l.host.Local, o.CloudInit}
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
	if a.Local != l.host.Local {
		return nil, fmt.Errorf("the run %s is on %s: resume it there", a.Run, map[bool]string{true: "the local cloud, with -local", false: "AWS, without -local"}[a.Local])
	}
	if a.Cells, err = f.Today(a.Run, a.Cells); err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(a.Cells, func(c Cell) bool { return !a.before.ended[c.ID()].Result.OK() }) {
		return nil, fmt.Errorf("there is nothing to resume: all cells of the run %s have their images", a.Run)
	}
	if a.order, err = NewOrder(a.Cells, f.Limits, a.FailFast, a.before.outcomes()); err != nil {
		return nil, err
	}
	os.Remove(dir.path(a.Run + cancelEnd))
	a.journal, err = dir.reopen(a.before, l.host.Now())
	return a, err
}

// Today returns the cells of a run, which began with the cells in begun, with their
// current definitions and roles in the fleet.
func (f *Fleet) Today(run string, begun []Cell) (cells []Cell, err error) {
	old := map[string]Cell{}
	for _, c := range begun {
		if _, ok := f.Cell(c.Short()); !ok {
			return nil, fmt.Errorf("the fleet %s no longer has the cell %s of the run %s: start a new run; bake sweep -run %s deletes what is left of the old one", f.Name, c.Short(), run, run)
		}
		old[c.ID()] = c
	}
	for _, c := range f.Cells {
		was, ok := old[c.ID()]
		if !ok {
			continue
		}
		for _, id := range c.Needs {
			if _, ok := old[id]; !ok {
				return nil, fmt.Errorf("the cell %s now needs %s, which is not in the run %s: start a new run; bake sweep -run %s deletes what is left of the old one", c.Short(), id, run, run)
			}
		}
		c.ReuseOnly = was.ReuseOnly
		cells = append(cells, c)
	}
	return cells, nil
}

// warnOfDead warns about earlier runs that still own something.
func (l *local) warnOfDead(dir folder, a *attempt) {
	all, err := dir.all()
	if err != nil {
		a.warn("%s", prose.Sentence(err.Error()))
	}
	for _, p := range all {
		if p.Run != a.Run && a.left(p) {
			a.warn("The run %s of the fleet was killed and left resources behind: 'bake fleet run %s%s -resume=%s' resumes it, and 'bake sweep -run %s' deletes them.", p.Run, p.Fleet, map[bool]string{true: " -local"}[p.Local], p.Run, p.Run)
		}
	}
}

func (a *attempt) warn(format string, args ...any) {
	a.handle(step.Event{Time: a.host.Now(), Kind: step.Warning, Text: fmt.Sprintf(format, args...)})
}

// left reports whether runs of cells without a recorded end own something.
func (a *attempt) left(p journalState) bool {
	for _, runs := range p.open {
		if slices.ContainsFunc(runs, a.owns) {
			return true
		}
	}
	return false
}

// owns reports whether a finished run may own something.
func (a *attempt) owns(run string) bool {
	l, err := step.OpenLedger(a.host.State.Ledger(run))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	owned, err := l.Owned()
	err = errors.Join(err, l.Close())
	return len(owned) > 0 || err != nil || l.Damage != nil
}

// lastResults returns the last results of the cells of a fleet, on the local cloud or in
// AWS.
func lastResults(dir folder, local bool) map[string]Result {
	last := map[string]Result{}
	all, _ := dir.all()                      // nothing is known about the others
	for _, p := range slices.Backward(all) { // the oldest first
		if p.Local != local {
			continue
		}
		for _, o := range p.outcomes() {
			if o.Result != Skipped && o.Result != Cancelled {
				last[o.Cell.ID()] = o.Result
			}
		}
	}
	return last
}

// run bakes the cells. It returns errors of the journal.
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
	err = errors.Join(err, a.journal.write(line{Over: &now}))
	os.Remove(a.dir.path(a.Run + cancelEnd)) // a process that waits for the lock then reads the journal
	return err
}

// loop starts cells and records their ends, until all have ended.
func (a *attempt) loop(parent context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	ended := make(chan Outcome)
	look := time.NewTicker(looks)
	defer look.Stop()
	stopped := ctx.Done()
	for !a.order.Over() {
		for _, c := range a.order.Begin() {
			id := run.NewID()
			parents := a.order.Parents(c)
			if werr := a.journal.write(line{Began: &began{c.ID(), id, a.host.Now()}}); werr != nil {
				err = errors.Join(err, werr) // a run that is not recorded is not started
				go func() { ended <- Ended(c, run.Result{}, Waits{}, werr, time.Time{}, a.host.Now()) }()
				continue
			}
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
				cancel(&cancelledError{a.Fleet})
			}
		}
		for _, o := range all {
			err = errors.Join(err, a.end(ctx, o))
		}
	}
	return err
}

// end records the outcome of a cell.
func (a *attempt) end(ctx context.Context, o Outcome) error {
	err := a.journal.write(line{Ended: &o})
	if o.Run == "" { // never started
		a.handle(step.Event{Time: o.Ended, Kind: step.BuildFailed, Build: o.Cell.Short(), Error: errors.New(o.Error)})
	}
	if a.Local { // a rehearsal
		return err
	}
	for _, n := range Notices(a.Run, o, a.last[o.Cell.ID()]) {
		for _, w := range a.fleet.Notify {
			a.notices.Go(func() {
				if err := w.Send(context.WithoutCancel(ctx), n); err != nil {
					a.handle(step.Event{Time: a.host.Now(), Kind: step.Warning, Build: n.Cell, Text: prose.Sentence(err.Error())})
				}
			})
		}
	}
	return err
}

// bake bakes a cell in a run with this id.
func (a *attempt) bake(ctx context.Context, c Cell, parents []Outcome, id string) Outcome {
	speaker := &speaker{cell: c, handle: a.handle}
	started := a.host.Now()
	began := time.Now()
	a.handle(step.Event{Time: started, Kind: step.BuildStarted, Build: c.Short()})
	result, err := a.build(ctx, c, parents, id, speaker.emit)
	if result.Run == "" {
		result.Run = id
	}
	o := Ended(c, result, speaker.waits, err, started, a.host.Now())
	end := step.Event{Time: o.Ended, Kind: step.BuildFinished, Build: c.Short(), Elapsed: time.Since(began), Reused: o.Result == Reused}
	if err != nil {
		end.Kind, end.Error, end.Step, end.Place = step.BuildFailed, errors.New(o.Error), speaker.failed.Step, speaker.failed.Place
	}
	a.handle(end)
	return o
}

// options returns the host's options for a cell, with those of the fleet's run.
func (a *attempt) options(ctx context.Context, c Cell, parents []Outcome) (run.Options, error) {
	o, err := a.host.Options(ctx, c, parents)
	if a.CloudInit != nil {
		o.CloudInit = *a.CloudInit
	}
	o.Force = o.Force || a.Force
	return o, err
}

// build builds the image of a cell, or resumes a run of the cell whose process died. If
// that run cannot be resumed, its resources are deleted, and the cell starts again.
func (a *attempt) build(ctx context.Context, c Cell, parents []Outcome, id string, emit func(step.Event)) (run.Result, error) {
	o, err := a.options(ctx, c, parents)
	if err != nil {
		return run.Result{}, err
	}
	o.ID, o.Parent, o.Emit, o.ReuseOnly = id, a.Run, emit, c.ReuseOnly
	o.Wait = a.rates.Of(c.Account)
	if o.Within == nil {
		o.Within = Within(c, id)
	}
	made, done := a.finished(c)
	again, m := false, run.Memory{}
	if !done {
		again, m = a.resumable(c)
	}
	for _, dead := range a.before.open[c.ID()] {
		if !again || dead != m.Run {
			if err := a.sweep(ctx, c, dead, emit); err != nil {
				return run.Result{}, err
			}
		}
	}
	if done {
		_ = a.host.State.Events(made.Run, func(e step.Event) { // already read
			if e.Kind == step.ChannelAsked {
				emit(e) // the channels that the image waits for
			}
		})
		decide(ctx, o, &made)
		return made, nil
	}
	if again {
		result, err := a.resume(ctx, o, m)
		if result.Run != "" || ctx.Err() != nil {
			return result, err
		}
		emit(step.Event{Time: a.host.Now(), Kind: step.Warning, Text: prose.Sentence("the cell begins again: " + err.Error())})
		if err := a.sweep(ctx, c, m.Run, emit); err != nil {
			return run.Result{}, err
		}
	}
	return run.Build(ctx, o)
}

// resumable returns the newest dead run of a cell that can be resumed, if there is one:
// with the same role, because the run is bound to it.
func (a *attempt) resumable(c Cell) (ok bool, m run.Memory) {
	for _, dead := range slices.Backward(a.before.open[c.ID()]) {
		m, err := a.host.State.Resumable(dead, false)
		if err == nil && (m.Within == nil || m.Within.Role == c.Role) {
			return true, m
		}
	}
	return false, m
}

// resume resumes a dead run. The result has no run if that was not possible.
func (a *attempt) resume(ctx context.Context, o run.Options, m run.Memory) (run.Result, error) {
	again := o
	again.Template.Vars = slices.DeleteFunc(slices.Clone(o.Template.Vars), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return !slices.Contains(m.Asked, name)
	})
	result, err := run.Resume(ctx, run.ResumeOptions{Options: again, Run: m.Run})
	if err == nil {
		decide(ctx, o, &result)
	}
	return result, err
}

// decide adds the digest of the inputs, which images made from this one record, to the
// result of a run for which there was no new decision.
func decide(ctx context.Context, o run.Options, result *run.Result) {
	if len(result.Planned) > 0 {
		return
	}
	if now, err := run.Plan(ctx, o); err == nil {
		result.Planned = now.Planned
	}
}

// finished returns the newest run of a cell that has made its image although the journal
// does not record it, because the process died before that.
func (a *attempt) finished(c Cell) (made run.Result, ok bool) {
	for _, dead := range slices.Backward(a.before.open[c.ID()]) {
		if made, ok := a.host.State.Finished(dead); ok && !a.owns(dead) {
			return made, true
		}
	}
	return made, false
}

// sweep deletes the resources that a dead run of a cell has left.
func (a *attempt) sweep(ctx context.Context, c Cell, dead string, emit func(step.Event)) error {
	_, err := run.Sweep(ctx, run.SweepOptions{State: a.host.State, Run: dead, Clouds: a.host.Clouds.Waiting(a.rates.Of(c.Account)), Emit: emit, Now: a.host.Now})
	if err != nil {
		return fmt.Errorf("what is left of the run %s cannot be deleted: %w", dead, err)
	}
	return nil
}

// speaker forwards the events of a cell's run as those of a single build.
type speaker struct {
	cell   Cell
	handle func(step.Event)
	failed step.Event // of the first build that failed
	waits  Waits
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
		s.waits.Add(e.Channel)
	}
	e.Build = s.cell.Short()
	s.handle(e)
}

// status returns the status of the run, as far as it is known without reading files.
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
	dir := folderOf(l.host.State, f)
	p, err := dir.find(f.Name, "")
	if err != nil {
		return Status{}, err
	}
	return l.status(dir, p), nil
}

// status returns the status of a run, in progress or ended.
func (l *local) status(dir folder, p journalState) Status {
	live := p.over.IsZero() && dir.live()
	s := Status{Fleet: p.Fleet, Run: p.Run, Started: p.Started, Ended: p.over}
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
	return s
}

// phase returns the current step of a run, according to its log.
func (l *local) phase(id string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.phases[id]
	at, err := l.host.State.Lines(id, p.at, func(line []byte) bool {
		var e step.Event
		if bytes.Contains(line, []byte(step.StepStarted)) && json.Unmarshal(line, &e) == nil && e.Kind == step.StepStarted {
			p.name, _, _ = strings.Cut(e.Step, " > ")
		}
		return true
	})
	if err == nil { // without a log there is no phase
		p.at = at
	}
	l.phases[id] = p
	return p.name
}

// Logs implements [Engine].
func (l *local) Logs(_ context.Context, f *Fleet, c Cell, emit func(step.Event)) error {
	all, err := folderOf(l.host.State, f).all()
	if err != nil {
		return err
	}
	for _, p := range all {
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

// Cancel implements [Engine]. It returns when everything that the cells have made is
// deleted.
func (l *local) Cancel(ctx context.Context, f *Fleet) error {
	dir := folderOf(l.host.State, f)
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
	for dir.live() && dir.has(p.Run+cancelEnd) {
		if err := delay.For(ctx, looks); err != nil {
			return err
		}
	}
	if p, err = dir.read(p.Run); err != nil {
		return err
	}
	switch {
	case p.over.IsZero() && !dir.live():
		return fmt.Errorf("the run %s was killed before it had deleted the resources of its cells: bake sweep -run %s deletes them, and bake fleet run %s -resume=%s resumes the run", p.Run, p.Run, f.Name, p.Run)
	case !slices.ContainsFunc(p.outcomes(), func(o Outcome) bool { return o.Result == Cancelled }):
		return fmt.Errorf("the run %s had ended before it could be cancelled: bake fleet status %s shows how", p.Run, f.Name)
	}
	return nil
}

// Pause implements [Engine].
func (l *local) Pause(_ context.Context, f *Fleet) error {
	return folderOf(l.host.State, f).ask(pausedFile)
}

// Unpause implements [Engine].
func (l *local) Unpause(_ context.Context, f *Fleet) error {
	err := os.Remove(folderOf(l.host.State, f).path(pausedFile))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the fleet %s is not paused", f.Name)
	}
	return err
}

// Approve implements [Engine]: the image of the last run in which the cell had one is approved.
func (l *local) Approve(ctx context.Context, f *Fleet, a Approval) error {
	all, err := folderOf(l.host.State, f).all()
	if err != nil {
		return err
	}
	for _, p := range all {
		if o, ok := p.ended[a.Cell.ID()]; ok && p.Local == l.host.Local && o.Result.OK() && o.Image.ID != "" {
			o.Cell = a.Cell // with its current role
			return l.host.Approve(ctx, o, a, NewRates(f.Limits.APIRate).Of(a.Cell.Account))
		}
	}
	return fmt.Errorf("%w: %s has no image that was baked on this machine", ErrNoRun, a.Cell.Short())
}

package fleet

import (
	"context"
	"errors"
	"time"

	"bake/run"
	"bake/run/localcloud"
	"bake/step"
)

// Engine runs fleets. Its methods may be called in other processes than the one that runs
// the fleet.
type Engine interface {
	// Apply makes the engine run the fleet on its schedule, and returns what it has
	// changed, even with an error: then another call does the rest. With prune it deletes
	// the schedules of fleets that are no longer in the template.
	Apply(ctx context.Context, f *Fleet, prune bool) (Applied, error)

	// Run runs cells of the fleet to their end. The error says why that was not possible;
	// failed cells are reported in the status.
	Run(ctx context.Context, f *Fleet, o RunOptions) (Status, error)

	// Status returns the status of the fleet's current run, or of its last one.
	Status(ctx context.Context, f *Fleet) (Status, error)

	// Logs calls emit for the events of a cell in the current run, or in the last one.
	Logs(ctx context.Context, f *Fleet, c Cell, emit func(step.Event)) error

	// Cancel ends the current run: what its cells have made is deleted. Images that wait
	// for their channels stop waiting, and the channels stay as they are.
	Cancel(ctx context.Context, f *Fleet) error

	// Approve approves the image of a cell for a channel.
	Approve(ctx context.Context, f *Fleet, a Approval) error

	// Pause prevents further cells of the current run from starting, and also scheduled
	// runs, or all runs if cron is the schedule. Unpause reverts that.
	Pause(ctx context.Context, f *Fleet) error
	Unpause(ctx context.Context, f *Fleet) error

	// Work executes the engine's tasks for cells until ctx ends, and then finishes the
	// tasks that it has begun.
	Work(ctx context.Context, o WorkerOptions) error
}

// ErrNotHere is the error of an operation that the engine in this process does not
// support; the caller adds advice.
var ErrNotHere = errors.New("not without an engine block")

// ErrNoRun means that a fleet has never been run, or is not being run.
var ErrNoRun = errors.New("the fleet has no such run")

// ErrGone is the error of an operation on an image that no longer exists, or that is no
// longer in the template.
var ErrGone = errors.New("there is no such image any more")

// Applied is what [Engine.Apply] has done.
type Applied struct {
	Changes []string `json:"changes"`         // sentences
	Stale   []string `json:"stale,omitempty"` // schedules of fleets that are no longer in the template
}

// RunOptions are the options of [Engine.Run].
type RunOptions struct {
	Cells     []Cell         // as [Select] returns them
	FailFast  bool           // cancel the other cells once one has failed
	Force     bool           // build even what could be reused
	CloudInit *time.Duration // how long cells that this process bakes wait for cloud-init; nil: as [Host] says

	Resume  string // the id of a run of the fleet to continue, or "last"; empty: a new run
	Command string // the user's command line, without secrets

	// OnStatus gets the status whenever it has changed. It may be nil.
	OnStatus func(Status)
}

// Approval is the approval of an image for a channel.
type Approval struct {
	Cell    Cell      `json:"cell"`
	Channel string    `json:"channel"`
	By      string    `json:"by"`
	At      time.Time `json:"at"`
}

// PendingImage is an image that waits for its channels.
type PendingImage struct {
	Outcome  Outcome          `json:"outcome"`
	Places   []step.Placement `json:"places,omitempty"` // where the image is
	Since    time.Time        `json:"since,omitzero"`   // it waits
	Notified string           `json:"told,omitempty"`   // why it could not enter them, as last sent to webhooks
}

// Wait waits until a service may be called in a region.
type Wait = func(ctx context.Context, service, region string) error

// WorkerOptions select the cells that a worker works for; empty means all.
type WorkerOptions struct {
	Fleets            []*Fleet
	Accounts, Regions []string
}

// Host is what the program provides to an engine.
type Host struct {
	// Options returns the options of the run that bakes a cell. parents are the outcomes
	// of the cells that it needs. The caller may change the result, such as Emit and ID.
	Options func(ctx context.Context, c Cell, parents []Outcome) (run.Options, error)

	// Copies are the regions that the image of a cell is copied to, as far as they are known.
	// Nil: none.
	Copies func(ctx context.Context, c Cell) []string

	// Log calls emit for the events of a part of a run's log that its worker has stored
	// with the reports. If the part does not exist, the error is an [fs.ErrNotExist]. Nil
	// means that the template has no place for reports.
	Log func(ctx context.Context, id string, part run.LogPart, emit func(step.Event)) error

	// Reports is the place for reports that the template names; empty: none.
	Reports string

	// Approve approves the image of an outcome. It calls wait before each request, unless
	// wait is nil.
	Approve func(ctx context.Context, o Outcome, a Approval, wait Wait) error

	// Promote moves channels that an image may have to wait for to the image, if their
	// rules admit it, and returns the state of each. Engines that wait on behalf of images
	// call it. The error is [ErrGone] if the image no longer exists.
	Promote func(ctx context.Context, o PendingImage, wait Wait, emit func(step.Event)) ([]step.Channel, error)

	State  run.State
	Local  bool               // cells are baked on the local cloud
	Env    []string           // "NAME=value"
	Clouds *localcloud.Clouds // clouds with the resources of dead runs
	Emit   func(step.Event)   // events of cells that are baked here; may be nil
	Now    func() time.Time
}

// State is the state of a run of a fleet, or of a cell.
type State string

// The states. The state of a cell that has ended is its [Result].
const (
	StateWaiting   State = "waiting"
	StateRunning   State = "running"
	StatePaused    State = "paused"
	StateDone      State = "done"
	StateFailed    State = "failed" // ended, but some images are missing
	StateCancelled State = "cancelled"
	StateCrashed   State = "crashed" // its process has died
)

// Status is the status of a run of a fleet.
type Status struct {
	Fleet   string       `json:"fleet"`
	Run     string       `json:"run"`
	State   State        `json:"state"`
	Started time.Time    `json:"started,omitzero"`
	Ended   time.Time    `json:"ended,omitzero"`
	Next    time.Time    `json:"next,omitzero"` // when the schedule starts the next run
	Cells   []CellStatus `json:"cells"`

	// SchedulePaused is why the schedule starts no runs; empty if it does, or if there is no
	// schedule.
	SchedulePaused string `json:"schedule_paused,omitempty"`

	// Unpolled are the task queues that the run needs and that no worker has polled for
	// minutes: their tasks wait until one does.
	Unpolled []string `json:"unpolled,omitempty"`

	// Unanswered is the reason why a run that is being followed cannot be queried; the
	// other fields then hold what was known before. It is empty if the run answers.
	Unanswered string `json:"unanswered,omitempty"`
}

// CellStatus is the status of a cell.
type CellStatus struct {
	Cell    Cell      `json:"cell"`
	State   State     `json:"state"`
	Phase   string    `json:"phase,omitempty"` // what it is doing
	Run     string    `json:"run,omitempty"`   // its id
	Started time.Time `json:"started,omitzero"`
	Outcome *Outcome  `json:"outcome,omitempty"` // nil: it has not ended
}

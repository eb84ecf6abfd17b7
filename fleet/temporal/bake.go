package temporal

import (
	"errors"
	"fmt"
	"slices"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"bake/fleet"
	"bake/internal/prose"
	"bake/run"
	"bake/step"
)

// bakeIn is the input of the workflow that bakes a cell.
type bakeIn struct {
	Cell     fleet.Cell      `json:"cell"`
	Parents  []fleet.Outcome `json:"parents,omitempty"` // of the cells that it needs
	Force    bool            `json:"force,omitempty"`
	Notify   bool            `json:"notify,omitempty"` // the fleet has webhooks
	FleetRun string          `json:"whole,omitempty"`  // the run of the fleet
}

// notifyIn is the input of the activity that calls the webhooks.
type notifyIn struct {
	FleetRun string        `json:"whole,omitempty"`
	Outcome  fleet.Outcome `json:"outcome"`
}

// stageIn is the input of a stage.
type stageIn struct {
	Cell     fleet.Cell      `json:"cell"`
	Parents  []fleet.Outcome `json:"parents,omitempty"`
	Force    bool            `json:"force,omitempty"`
	Run      string          `json:"run"`
	FleetRun string          `json:"whole,omitempty"`
	State    []byte          `json:"state,omitempty"` // sealed; nil for the first stage
}

// stageOut is the result of a stage.
type stageOut struct {
	State []byte          `json:"state,omitempty"` // sealed
	Next  []step.Boundary `json:"next,omitempty"`  // none: the run is over, with Outcome

	Outcome     *fleet.Outcome   `json:"outcome,omitempty"`
	Interrupted bool             `json:"interrupted,omitempty"` // the run has to start again
	Left        bool             `json:"left,omitempty"`        // something has to be torn down
	Log         *run.LogPart     `json:"log,omitempty"`         // nil: its log is only on the host of its worker
	Places      []step.Placement `json:"places,omitempty"`      // locations of the image, if it waits for channels
}

// availableIn lists the images that a run waits for.
type availableIn struct {
	Cell   fleet.Cell          `json:"cell"`
	Run    string              `json:"run"`
	Images map[string][]string `json:"images"` // by region
}

// teardownIn identifies the run to tear down.
type teardownIn struct {
	Cell  fleet.Cell `json:"cell"`
	Run   string     `json:"run"`
	State []byte     `json:"state,omitempty"` // sealed; nil if unknown

	// Workflow is the run of the cell's workflow whose history contains the state, if State
	// does not.
	Workflow string `json:"workflow,omitempty"`
}

// teardownOut is the result of a teardown. The name of its log is in the same field as
// that of a stage.
type teardownOut struct {
	Logged bool         `json:"logged,omitempty"` // something was found
	Log    *run.LogPart `json:"log,omitempty"`    // nil: its log is only on the host of its worker
	Failed []attempt    `json:"failed,omitempty"` // before this one, of the first mostAttempts
}

// attempt is a teardown that has failed, and was tried again.
type attempt struct {
	Run  string       `json:"run"`
	Host string       `json:"host"`
	Log  *run.LogPart `json:"log,omitempty"` // nil: its log is only on that host
}

// mostAttempts is the number of attempts at a teardown whose logs are kept. A teardown is
// retried indefinitely, and later logs say the same.
const mostAttempts = 10

const (
	// lives is the maximum number of times that a cell is started when stages are
	// interrupted.
	lives = 5

	// firstRest is the pause before the second start; it doubles before each further one, so
	// that an overloaded system can recover.
	firstRest = 10 * time.Second
)

// bake bakes a cell, and always deletes everything else that it has made.
func bake(ctx workflow.Context, in bakeIn) (fleet.Outcome, error) {
	b := &baking{bakeIn: in, status: fleet.CellStatus{Cell: in.Cell, State: fleet.StateRunning, Started: workflow.Now(ctx)}}
	if err := workflow.SetQueryHandler(ctx, statusQuery, func() (fleet.CellStatus, error) { return b.status, nil }); err != nil {
		return fleet.Outcome{}, err
	}
	var out fleet.Outcome
	for life := 1; ; life++ {
		var end ending
		out, end = b.live(ctx)
		if !end.unlucky() || ctx.Err() != nil || !b.again(ctx, life, end, &out) {
			break
		}
	}
	if out.Result == fleet.Cancelled && ctx.Err() == nil {
		out.Result, out.Code = fleet.Failed, 1
	}
	out.Error = prose.Beginning(out.Error, longestError)
	out.Cell, out.Started, out.Ended = in.Cell, b.status.Started, workflow.Now(ctx)
	b.status.Outcome, b.status.State = &out, fleet.State(out.Result)
	b.phase(ctx, "")
	workflow.GetMetricsHandler(ctx).WithTags(map[string]string{resultTag: string(out.Result)}).Counter(cellsCounter).Inc(1)
	if err := workflow.UpsertTypedSearchAttributes(ctx, byResult.ValueSet(string(out.Result))); err != nil {
		return out, err
	}
	b.after(ctx, &out)
	return out, nil
}

// longestError limits the size of an error in the outcome of a cell, in bytes, because the
// status of a fleet contains many outcomes. The log has the whole error.
const longestError = 1 << 10

// baking is the state of a workflow that bakes a cell.
type baking struct {
	bakeIn
	status fleet.CellStatus
	places []step.Placement // locations of the image, if it waits for channels
}

// ending is the reason why a life has ended.
type ending struct {
	service     enums.TimeoutType // of an activity that the service has ended; 0: none
	awaiting    bool              // the activity checked the images that the life waited for
	interrupted bool              // reported by a stage
	cancelled   bool              // reported by a stage
}

// unlucky reports whether another life may succeed, by any version of [baking.again].
func (e ending) unlucky() bool { return e.service != 0 || e.interrupted || e.cancelled }

// again waits until the cell may start again after this many lives. It returns false if
// the cell must not start again. If the cell is cancelled during the wait, again sets
// out. A stage that has used up its time is not repeated, because it would do so again.
func (b *baking) again(ctx workflow.Context, lived int, end ending, out *fleet.Outcome) bool {
	late := end.service == enums.TIMEOUT_TYPE_START_TO_CLOSE
	if workflow.GetVersion(ctx, "rest", workflow.DefaultVersion, 1) == workflow.DefaultVersion { // as in testdata/bake-again.json.gz
		return lived < 3 && !late && !end.awaiting
	}
	if lived >= lives || late || end.cancelled && !end.interrupted {
		return false
	}
	b.phase(ctx, "rest")
	if err := workflow.Sleep(ctx, firstRest<<(lived-1)); err != nil {
		*out = b.ended(ctx, b.status.Run, err)
		return false
	}
	return true
}

// live bakes the cell in one run.
func (b *baking) live(ctx workflow.Context) (out fleet.Outcome, why ending) {
	var id string
	if err := workflow.SideEffect(ctx, func(workflow.Context) any { return run.NewID() }).Get(&id); err != nil {
		return fleet.Outcome{Result: fleet.Failed, Error: err.Error()}, ending{}
	}
	b.status.Run = id
	next := []step.Boundary{{Next: step.StageLaunch}}
	in := stageIn{Cell: b.Cell, Parents: b.Parents, Force: b.Force, Run: id, FleetRun: b.FleetRun}
	dirty := true // until a stage reports that nothing is left
	defer func() {
		if dirty {
			b.tearDown(ctx, teardownIn{Cell: b.Cell, Run: id, State: in.State}, &out)
		}
	}()
	for {
		if err := b.await(ctx, next); err != nil {
			return b.ended(ctx, id, err), ending{service: timeout(err), awaiting: true}
		}
		var end stageOut
		err := workflow.ExecuteActivity(b.stageContext(ctx, next), stageActivity, in).Get(ctx, &end)
		if end.State != nil {
			in.State = end.State
		}
		switch {
		case err != nil:
			return b.ended(ctx, id, err), ending{service: timeout(err)}
		case end.Outcome != nil:
			dirty, b.places = end.Left, end.Places
			return *end.Outcome, ending{interrupted: end.Interrupted, cancelled: end.Outcome.Result == fleet.Cancelled}
		}
		next = end.Next
	}
}

// timeout returns the kind of timeout by which the service has ended an activity with
// this error, or 0. The worker has then died or become unreachable, or the activity
// hung. The time limits of the template result in an outcome and not in an error.
func timeout(err error) enums.TimeoutType {
	var t *temporal.TimeoutError
	if !errors.As(err, &t) {
		return 0
	}
	return t.TimeoutType()
}

// ended returns the outcome of a run that the workflow has ended.
func (b *baking) ended(ctx workflow.Context, id string, err error) fleet.Outcome {
	out := fleet.Outcome{Cell: b.Cell, Result: fleet.Failed, Run: id, Error: words(err), Code: 1}
	if ctx.Err() != nil || temporal.IsCanceledError(err) {
		out.Result, out.Error, out.Code = fleet.Cancelled, "cancelled", 130
	}
	return out
}

// words returns the text of an error without Temporal's wrapping.
func words(err error) string {
	var told *temporal.ApplicationError
	if errors.As(err, &told) {
		return told.Message()
	}
	switch timeout(err) {
	case 0:
		return err.Error()
	case enums.TIMEOUT_TYPE_HEARTBEAT:
		return "the worker has died, or was cut off from the service"
	case enums.TIMEOUT_TYPE_START_TO_CLOSE:
		return "the stage has taken longer than it may"
	}
	return "no worker has done it in time"
}

// phase sets the current phase of the cell.
func (b *baking) phase(ctx workflow.Context, what string) {
	if b.status.Phase == what {
		return
	}
	b.status.Phase = what
	shown := what
	if shown == "" {
		shown = string(fleet.StateDone)
	}
	_ = workflow.UpsertTypedSearchAttributes(ctx, byPhase.ValueSet(shown)) // only for display
}

// longestStage is the time limit of a stage; some builds consist of a single one. A dead
// worker is detected much sooner by missing heartbeats.
const longestStage = 24 * time.Hour

// stageContext returns the context for the stage that follows the boundaries: its task
// queue and options.
func (b *baking) stageContext(ctx workflow.Context, next []step.Boundary) workflow.Context {
	stage := next[0].Next
	what := string(stage)
	if stage == step.StageProvision && next[0].Of > 0 {
		what = fmt.Sprintf("%s %d of %d", stage, min(next[0].Done+1, next[0].Of), next[0].Of)
	}
	b.phase(ctx, what)
	o := workflow.ActivityOptions{
		TaskQueue: apiQueue(b.Cell), StartToCloseTimeout: longestStage, HeartbeatTimeout: heartbeatTimeout, WaitForCancellation: true,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: 5 * time.Second, MaximumInterval: time.Minute, MaximumAttempts: 10,
			NonRetryableErrorTypes: []string{"TemporalTimeout:StartToClose"}, // otherwise a machine that hangs would run for ten days
		},
	}
	if slices.ContainsFunc(next, func(n step.Boundary) bool { return n.Next.OnMachine() }) {
		o.TaskQueue = machineQueue(b.Cell)
	}
	if stage == step.StageLaunch { // if the worker has died, it is not known what the stage has made
		o.RetryPolicy.MaximumAttempts = 1
	}
	return workflow.WithActivityOptions(ctx, o)
}

// The pauses between queries of the images that a run waits for.
const (
	firstLook = 5 * time.Second
	lookPause = 30 * time.Second
)

// await waits until the images at the boundaries exist or have failed. It occupies no
// worker while it waits.
func (b *baking) await(ctx workflow.Context, next []step.Boundary) error {
	in := availableIn{Cell: b.Cell, Run: b.status.Run, Images: map[string][]string{}}
	for _, n := range next {
		if n.Next == step.StageWait {
			in.Images[n.Region] = append(in.Images[n.Region], n.Image)
		}
	}
	if len(in.Images) == 0 {
		return nil
	}
	b.phase(ctx, string(step.StageWait))
	look := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: promptQueue(b.Cell), StartToCloseTimeout: 5 * time.Minute, HeartbeatTimeout: heartbeatTimeout,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 5 * time.Second, MaximumAttempts: 20},
	})
	for pause := firstLook; ; pause = min(2*pause, lookPause) {
		var settled bool
		if err := workflow.ExecuteActivity(look, availableActivity, in).Get(ctx, &settled); err != nil || settled {
			return err
		}
		if err := workflow.Sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// tearDown deletes the remains of a run. It has no time limit, and continues if the
// workflow is cancelled.
func (b *baking) tearDown(ctx workflow.Context, in teardownIn, out *fleet.Outcome) {
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	b.phase(ctx, "teardown")
	if err := tearDown(ctx, in); err != nil { // not before the workflow is terminated
		out.Error += "; teardown: " + words(err)
	}
}

// tearDown makes a worker delete the remains of a run, and retries until it succeeds.
func tearDown(ctx workflow.Context, in teardownIn) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: promptQueue(in.Cell), StartToCloseTimeout: time.Hour, HeartbeatTimeout: heartbeatTimeout,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: time.Second, MaximumInterval: 5 * time.Minute},
	})
	return workflow.ExecuteActivity(ctx, teardownActivity, in).Get(ctx, nil)
}

// notify calls the webhooks of a cell's fleet with an outcome. A failed notification is
// not a failure of the cell.
func notify(ctx workflow.Context, cell fleet.Cell, in notifyIn) {
	at := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: workflowQueue(cell.Fleet), StartToCloseTimeout: 30 * time.Minute, HeartbeatTimeout: heartbeatTimeout,
		RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 5},
	})
	if err := workflow.ExecuteActivity(at, notifyActivity, in).Get(ctx, nil); err != nil {
		workflow.GetLogger(ctx).Warn("no notification was sent", "cell", cell.ID(), "error", err)
	}
}

// waitTries is the number of attempts to offer the image of a cell to the workflow that
// waits for its channels, with pauses that double from one second: that workflow may be
// ending when it is signalled.
const waitTries = 6

// after calls the webhooks with the outcome, and makes the image wait for its channels. If
// the image cannot wait, the cell has not failed, since it has made the image: out and the
// webhooks report it.
func (b *baking) after(ctx workflow.Context, out *fleet.Outcome) {
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	if b.Notify {
		notify(ctx, b.Cell, notifyIn{b.FleetRun, *out})
	}
	if out.Waits.Over() {
		return
	}
	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID: approvalID(*out), TaskQueue: workflowQueue(b.Cell.Fleet), ParentClosePolicy: enums.PARENT_CLOSE_POLICY_ABANDON,
		TypedSearchAttributes: about(b.Cell),
	})
	pending := fleet.PendingImage{Outcome: *out, Places: b.places}
	for try := range waitTries {
		// The child may outlive the cell: an approval can take days.
		err := workflow.ExecuteChildWorkflow(child, approvalWorkflow, pending).GetChildWorkflowExecution().Get(ctx, nil)
		if temporal.IsWorkflowExecutionAlreadyStartedError(err) { // an earlier run has made the image, and this one reused it
			err = workflow.SignalExternalWorkflow(ctx, approvalID(*out), "", againSignal, pending).Get(ctx, nil)
		}
		if err == nil {
			return
		}
		if try == waitTries-1 {
			out.Waits = fleet.Waits{Failed: prose.Beginning("nothing has it wait for them: "+words(err), longestError)}
			notPromoted(ctx, pending.Outcome, "its image does not wait for its channels, which the next run of the fleet, or bake images promote, has it enter: "+prose.Beginning(words(err), longestError))
			return
		}
		_ = workflow.Sleep(ctx, time.Second<<try) // which nothing cancels
	}
}

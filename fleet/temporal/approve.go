package temporal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"bake/fleet"
	"bake/internal/delay"
	"bake/internal/prose"
	"bake/step"
)

// approveIn is the input of an approval.
type approveIn struct {
	Outcome  fleet.Outcome  `json:"outcome"`
	Approval fleet.Approval `json:"approval"`
}

// approvalID returns the id of the workflow in which the image of an outcome waits. It does not
// depend on the run that made or reused the image.
func approvalID(o fleet.Outcome) string {
	return "approval/" + o.Cell.Fleet + "/" + o.Cell.Short() + "/" + o.Image.ID
}

const (
	// patience is how long an image waits for its channels, and soaked how long it waits after it
	// may enter the last one. After that, bake images approve and bake images promote still work.
	patience = 30 * 24 * time.Hour
	soaked   = 7 * 24 * time.Hour

	// An image that waits for an approval, or could not be promoted, is offered to its channels
	// again after 1/24 of the time that it has waited, within these limits: bake images approve
	// does not notify the workflow.
	firstOffer = time.Hour
	lastOffer  = 6 * time.Hour

	// stillSoaking is the pause before another attempt if an image has soaked for long enough by
	// the clock of the service, but not by that of the worker or of AWS.
	stillSoaking = time.Minute
)

// approval waits until an image is in the channels that it waits for, or something else
// keeps it out, and returns that reason. It occupies no worker while it waits. When
// cancelled, it leaves the channels as they are. A run that reuses the image offers it
// again: it then waits like a new image, in a new run of this workflow, because the
// template requests its channels again, whatever has entered them in the meantime.
func approval(ctx workflow.Context, in fleet.PendingImage) (fleet.Waits, error) {
	w := &waitingImage{offers: workflow.GetSignalChannel(ctx, againSignal), soonest: time.Second}
	w.begin(ctx, in)
	if err := w.handle(ctx); err != nil {
		return w.waits, err
	}
	for {
		if w.offered() {
			if err := w.beginAnew(ctx); err != nil {
				return w.waits, err
			}
		}
		now := workflow.Now(ctx)
		_, err := workflow.AwaitWithTimeout(ctx, max(w.next(now).Sub(now), w.soonest), func() bool {
			return w.offers.Len() > 0 || workflow.AllHandlersFinished(ctx) && (w.approved || w.settled())
		})
		switch {
		case err == nil && w.offers.Len() > 0:
			continue // it may be none
		case err != nil || w.settled() && !w.approved:
			return w.waits, err
		}
		over := !workflow.Now(ctx).Before(w.end)
		cancelled, err := w.promote(ctx)
		switch {
		case cancelled:
			return w.waits, err
		case isGone(err) && !w.offered():
			return w.waits, nil
		case over && !w.offered():
			return w.waits, err
		}
	}
}

// waitingImage is the state of a workflow in which an image waits for its channels.
type waitingImage struct {
	in    fleet.PendingImage
	waits fleet.Waits // what it waits for now
	end   time.Time   // of the wait

	offers workflow.ReceiveChannel // by runs that reuse the image
	anew   *fleet.PendingImage     // the last one of them

	approved bool          // since the last promotion
	soonest  time.Duration // until the next promotion
}

// begin starts the wait as for a new image.
func (w *waitingImage) begin(ctx workflow.Context, in fleet.PendingImage) {
	w.in, w.waits, w.anew = in, waitsOf(in.Outcome), nil
	w.in.Since = workflow.Now(ctx)
	w.end = w.in.Since.Add(patience)
}

// handle sets the handlers for queries of the status and for approvals of the image for a
// channel.
func (w *waitingImage) handle(ctx workflow.Context) error {
	if err := workflow.SetQueryHandler(ctx, statusQuery, func() (fleet.Waits, error) { return w.waits, nil }); err != nil {
		return err
	}
	return workflow.SetUpdateHandlerWithOptions(ctx, approveUpdate, w.approve, workflow.UpdateHandlerOptions{Validator: func(_ workflow.Context, a fleet.Approval) error {
		switch {
		case a.By == "":
			return errors.New("an approval must say who approves")
		case !slices.Contains(w.waits.Awaiting, a.Channel):
			return fmt.Errorf("the image does not wait for approval for the channel %q; %s", a.Channel, cmp.Or(w.waits.Text(), "it waits for nothing"))
		}
		return nil
	}})
}

// approve makes a worker record the approval. Of two simultaneous approvals for a
// channel, one counts.
func (w *waitingImage) approve(ctx workflow.Context, a fleet.Approval) error {
	w.waits.Awaiting = slices.DeleteFunc(w.waits.Awaiting, func(c string) bool { return c == a.Channel })
	at := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: promptQueue(w.in.Outcome.Cell), StartToCloseTimeout: 5 * time.Minute, HeartbeatTimeout: heartbeatTimeout, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 3},
	})
	err := workflow.ExecuteActivity(at, approveActivity, approveIn{w.in.Outcome, a}).Get(ctx, nil)
	if err == nil {
		w.approved = true
	} else if !slices.Contains(w.waits.Awaiting, a.Channel) {
		w.waits.Awaiting = append(w.waits.Awaiting, a.Channel)
	}
	return err
}

// offered reports whether a run has offered the image again. It ignores offers of other
// images.
func (w *waitingImage) offered() bool {
	for {
		var next fleet.PendingImage
		if !w.offers.ReceiveAsync(&next) {
			return w.anew != nil
		}
		if approvalID(next.Outcome) == approvalID(w.in.Outcome) {
			w.anew = &next
		}
	}
}

// beginAnew makes an image that was offered again wait in a new run of the workflow, which it
// requests by its error. In older histories, such as testdata/approval-done.json.gz, the image
// waits in the same run.
func (w *waitingImage) beginAnew(ctx workflow.Context) error {
	if workflow.GetVersion(ctx, "anew", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		w.begin(ctx, *w.anew)
		return nil
	}
	if err := workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) }); err != nil {
		return err
	}
	w.offered() // the last one counts
	w.anew.Notified = w.in.Notified
	return workflow.NewContinueAsNewError(ctx, approvalWorkflow, *w.anew)
}

// settled reports whether the image waits for nothing and nothing has failed.
func (w *waitingImage) settled() bool { return w.waits.Over() && w.waits.Failed == "" }

// next is when the image is promoted next, unless it is approved before. The wait does not end
// before the image has soaked.
func (w *waitingImage) next(now time.Time) time.Time {
	for _, s := range w.waits.Soaking {
		if s.Until.Add(soaked).After(w.end) {
			w.end = s.Until.Add(soaked)
		}
	}
	at := w.end
	if len(w.waits.Awaiting) > 0 || w.waits.Failed != "" {
		at = earlier(at, now.Add(min(max(now.Sub(w.in.Since)/24, firstOffer), lastOffer)))
	}
	for _, s := range w.waits.Soaking {
		if s.Until.After(now) || w.waits.Failed == "" {
			at = earlier(at, s.Until)
		}
	}
	return at
}

// promote offers the image to its channels, and notifies the webhooks of a failure: once
// for each reason. cancelled reports whether it was cancelled in the promotion, but not in
// the notification.
func (w *waitingImage) promote(ctx workflow.Context) (cancelled bool, err error) {
	w.approved, w.soonest = false, time.Second
	err = promote(ctx, w.in, &w.waits)
	switch {
	case err == nil:
		w.waits.Failed, w.in.Notified = "", ""
		if slices.ContainsFunc(w.waits.Soaking, func(s fleet.Soak) bool { return !s.Until.After(workflow.Now(ctx)) }) {
			w.soonest = stillSoaking
		}
	case ctx.Err() != nil:
		return true, err
	case isGone(err):
		if !w.offered() { // no run has offered it since
			w.waits = fleet.Waits{Failed: prose.Beginning(words(err), longestError)}
			notPromoted(ctx, w.in.Outcome, "its image waits for its channels no more: "+w.waits.Failed)
		}
	default:
		fresh := w.waits.Failed == ""
		if w.waits.Failed = prose.Beginning(words(err), longestError); fresh && w.waits.Failed != w.in.Notified {
			notPromoted(ctx, w.in.Outcome, "its image cannot enter its channels, which is tried again: "+w.waits.Failed)
			w.in.Notified = w.waits.Failed
		}
	}
	return false, err
}

// waitsOf returns what the image of an outcome waits for initially.
func waitsOf(o fleet.Outcome) fleet.Waits {
	return fleet.Waits{Awaiting: slices.Clone(o.Awaiting), Soaking: slices.Clone(o.Soaking)}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// notPromoted tells the webhooks why the image of an outcome could not be promoted: for the first
// time, after it could, or for good.
func notPromoted(ctx workflow.Context, o fleet.Outcome, why string) {
	o.Result, o.Error, o.Waits, o.Ended = fleet.Failed, why, fleet.Waits{}, workflow.Now(ctx)
	notify(ctx, o.Cell, notifyIn{Outcome: o})
}

// goneType is the type of a promotion error that is not worth retrying.
const goneType = "Gone"

func isGone(err error) bool {
	told, ok := errors.AsType[*temporal.ApplicationError](err)
	return ok && told.Type() == goneType
}

// promote offers an image to its channels, and records in w what it waits for
// afterwards. It starts when a worker is available, and is retried for a few minutes.
func promote(ctx workflow.Context, in fleet.PendingImage, w *fleet.Waits) error {
	at := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: promptQueue(in.Outcome.Cell), StartToCloseTimeout: time.Hour, HeartbeatTimeout: heartbeatTimeout,
		WaitForCancellation: true, RetryPolicy: &temporal.RetryPolicy{InitialInterval: 5 * time.Second, MaximumInterval: 2 * time.Minute, MaximumAttempts: 6},
	})
	var said []step.Channel
	if err := workflow.ExecuteActivity(at, promoteActivity, in).Get(ctx, &said); err != nil {
		return err
	}
	w.Awaiting, w.Soaking, w.Kept = nil, nil, nil
	for _, c := range said {
		w.Add(&c)
		if !c.Names && c.Until.IsZero() && !c.Approval {
			w.Kept = append(w.Kept, c.Name+": "+prose.Beginning(strings.Join(c.Reasons, "; "), longestError))
		}
	}
	return nil
}

// waiting adds to the cells of a status what their images wait for now, or why the images
// were kept out of channels, as far as the service can be queried.
func waiting(ctx context.Context, c client.Client, s *fleet.Status, p *pollers) {
	waits := func(one fleet.CellStatus) bool { return one.Outcome != nil && !one.Outcome.Waits.Over() }
	if !slices.ContainsFunc(s.Cells, waits) || !p.there(ctx, workflowQueue(s.Fleet), enums.TASK_QUEUE_TYPE_WORKFLOW) {
		return // without a worker, a query would not be answered
	}
	eachCell(ctx, s.Cells, waits, func(ctx context.Context, one *fleet.CellStatus) {
		out, err := c.QueryWorkflowWithOptions(ctx, &client.QueryWorkflowWithOptionsRequest{
			WorkflowID: approvalID(*one.Outcome), QueryType: statusQuery, QueryRejectCondition: enums.QUERY_REJECT_CONDITION_NOT_OPEN,
		})
		switch {
		case isNotFound(err):
			one.Outcome.Waits = fleet.Waits{}
		case err == nil && out.QueryRejected != nil:
			one.Outcome.Waits = waited(ctx, c, approvalID(*one.Outcome))
		case err == nil:
			var now fleet.Waits
			if out.QueryResult.Get(&now) == nil {
				one.Outcome.Waits = now
			}
		}
	})
}

// waited returns why an image that no longer waits was kept out of its channels, from the
// result of its workflow. It returns the zero value if there is no reason, or if the result
// is not known.
func waited(ctx context.Context, c client.Client, id string) (last fleet.Waits) {
	ctx, cancel := context.WithTimeout(ctx, cellsAnswer)
	defer cancel()
	if c.GetWorkflow(ctx, id, "").Get(ctx, &last) != nil {
		return fleet.Waits{}
	}
	last.Awaiting, last.Soaking = nil, nil // it no longer waits
	return last
}

// stopWaiting cancels the workflows that wait for the channels of a fleet's images, and
// reports whether there were any. It repeats the listing until it finds no new ones,
// because workflows that have just begun are listed late.
func stopWaiting(ctx context.Context, c client.Client, f *fleet.Fleet) (stopped bool, err error) {
	told, listedOnce := map[string]bool{}, false
	for {
		found, err := listed(ctx, c, fmt.Sprintf("WorkflowType = '%s' AND BakeFleet = '%s' AND ExecutionStatus = 'Running'", approvalWorkflow, f.Name))
		errs, before := []error{err}, len(told)
		for _, w := range found {
			run := w.GetExecution().GetRunId()
			if told[run] {
				continue
			}
			told[run] = true
			err := c.CancelWorkflow(ctx, w.GetExecution().GetWorkflowId(), run)
			if stopped = stopped || err == nil; !isNotFound(err) {
				errs = append(errs, err)
			}
		}
		if err := errors.Join(errs...); err != nil || listedOnce && len(told) == before {
			return stopped, err
		}
		listedOnce = true
		if err := delay.For(ctx, listedLate); err != nil {
			return stopped, err
		}
	}
}

// listedLate is the maximum delay until the service lists a new workflow, when it is not
// overloaded.
const listedLate = 2 * time.Second

// approvable returns an error if no worker can approve the image of a cell: the request
// would wait for one.
func approvable(ctx context.Context, c client.Client, f *fleet.Fleet, cell fleet.Cell) error {
	p := &pollers{c: c}
	for queue, kind := range map[string]enums.TaskQueueType{workflowQueue(f.Name): enums.TASK_QUEUE_TYPE_WORKFLOW, promptQueue(cell): enums.TASK_QUEUE_TYPE_ACTIVITY} {
		if !p.there(ctx, queue, kind) {
			return fmt.Errorf("nothing is approved: no worker polls %s, where that is done; start a bake worker, or approve the image by bake images approve", queue)
		}
	}
	return nil
}

// Approve implements [fleet.Engine].
func (e *Engine) Approve(ctx context.Context, f *fleet.Fleet, a fleet.Approval) (err error) {
	defer func() { err = explained(f, err) }()
	s, err := e.Status(ctx, f)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.Cells, func(c fleet.CellStatus) bool { return c.Cell.ID() == a.Cell.ID() })
	if i < 0 || s.Cells[i].Outcome == nil || len(s.Cells[i].Outcome.Awaiting) == 0 {
		return fmt.Errorf("%w: in the last run of the fleet, %s has no image that waits for an approval; that of an older run is approved by bake images approve", fleet.ErrNoRun, a.Cell.Short())
	}
	return e.onRun(ctx, f, func(c client.Client) error {
		if err := approvable(ctx, c, f, a.Cell); err != nil {
			return err
		}
		h, err := c.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
			WorkflowID: approvalID(*s.Cells[i].Outcome), UpdateName: approveUpdate, Args: []any{a}, WaitForStage: client.WorkflowUpdateStageCompleted,
		})
		if err != nil {
			return err
		}
		return h.Get(ctx, nil)
	})
}

package temporal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/status"

	"bake/fleet"
	"bake/internal/delay"
	"bake/internal/envvar"
	"bake/internal/tlsfiles"
	"bake/run"
)

// Engine is a [fleet.Engine] on a Temporal service.
type Engine struct {
	Host fleet.Host

	Metrics string // the address at which a worker serves its metrics; empty: nowhere
	Ready   func() // called once a worker has started; may be nil
}

var _ fleet.Engine = (*Engine)(nil)

// key encrypts data that leaves workers.
func (e *Engine) key() (run.Key, error) { return run.KeyOf(e.Host.Env) }

// dialTime is how long the service may take to answer the first request.
const dialTime = 10 * time.Second

// dial connects to the service of a fleet. The caller closes the client.
func (e *Engine) dial(ctx context.Context, f *fleet.Fleet) (client.Client, error) {
	return e.dialLogging(ctx, f, slog.DiscardHandler, nil)
}

// dialLogging is dial with a handler for the log of the SDK and one for the metrics of
// workflows; each may be nil.
func (e *Engine) dialLogging(ctx context.Context, f *fleet.Fleet, h slog.Handler, m client.MetricsHandler) (client.Client, error) {
	if f.Engine == nil {
		return nil, fmt.Errorf("the fleet %s has no engine block: %w", f.Name, fleet.ErrNotHere)
	}
	o := client.Options{HostPort: f.Engine.Address, Namespace: f.Engine.Namespace, DataConverter: packing(), Logger: log.NewStructuredLogger(slog.New(h)), MetricsHandler: m}
	key, err := e.key()
	encrypt := envvar.Get(e.Host.Env, codecVar) != ""
	switch {
	case err == nil:
		o.DataConverter = sealed(key, encrypt)
		o.FailureConverter = failures(o.DataConverter, encrypt)
	case encrypt || !errors.Is(err, run.ErrNoKey):
		return nil, err
	}
	if t := f.Engine.TLS; t != nil {
		config, err := tlsfiles.Client(t.CAFile, t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("engine %q: tls: %w", "temporal", err)
		}
		config.ServerName = t.ServerName
		o.ConnectionOptions.TLS = config
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	c, err := client.DialContext(ctx, o)
	if err != nil {
		return nil, unreachable(f, err)
	}
	return c, nil
}

// serviceError is an error of the service, with advice.
type serviceError struct {
	text string
	err  error
}

func (e *serviceError) Error() string { return e.text }
func (e *serviceError) Unwrap() error { return e.err }

// unreachable returns an error for a service that does not answer, with advice.
func unreachable(f *fleet.Fleet, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return &serviceError{fmt.Sprintf("the Temporal service at %s cannot be reached: %s; check address and tls of the engine block", f.Engine.Address, err), err}
}

// explained adds advice to the error of a call, if there is any.
func explained(f *fleet.Fleet, err error) error {
	if _, again := errors.AsType[*serviceError](err); err == nil || again {
		return err
	}
	bare := serviceerror.FromStatus(status.Convert(err)) // as returned by some services
	for _, e := range []error{err, bare} {
		if _, missing := errors.AsType[*serviceerror.NamespaceNotFound](e); missing {
			return &serviceError{fmt.Sprintf("the Temporal service at %s has no namespace %q; create it with: temporal operator namespace create --address %s --namespace %s", f.Engine.Address, f.Engine.Namespace, f.Engine.Address, f.Engine.Namespace), err}
		}
		if _, gone := errors.AsType[*serviceerror.Unavailable](e); gone {
			return err
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return unreachable(f, err)
	}
	return err
}

// attributes creates the search attributes that the namespace lacks.
func attributes(ctx context.Context, c client.Client, f *fleet.Fleet) (made []string, err error) {
	namespace := f.Engine.Namespace
	there, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		return nil, fmt.Errorf("the search attributes of namespace %s: %w", namespace, err)
	}
	missing := map[string]enums.IndexedValueType{}
	for _, name := range attributeNames {
		if kind, ok := there.GetCustomAttributes()[name]; !ok {
			missing[name] = enums.INDEXED_VALUE_TYPE_KEYWORD
			made = append(made, name)
		} else if kind != enums.INDEXED_VALUE_TYPE_KEYWORD {
			return nil, fmt.Errorf("the search attribute %s of namespace %s is of the type %s, and must be Keyword; remove it first", name, namespace, kind)
		}
	}
	if len(missing) == 0 {
		return nil, nil
	}
	if _, err := c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: missing}); err != nil {
		return nil, fmt.Errorf("the search attributes of namespace %s cannot be made: %w", namespace, err)
	}
	return made, nil
}

// endBytes is the approximate compressed size that the end of a cell adds to the status of its
// fleet: ids and digests, or a short error.
const endBytes = 150

// tooLarge is the error of a fleet that exceeds the service's message size.
func tooLarge(in fleetIn) error {
	p, err := packing().ToPayload(in)
	if err == nil && len(p.GetData())+endBytes*len(in.Cells)+min(longErrors, len(in.Cells))*(longestError-shortError) > payloadLimit {
		err = fmt.Errorf("the fleet %s has %d cells, more than the Temporal service supports; split it into several fleets", in.Fleet, len(in.Cells))
	}
	return err
}

// input returns the input of a run of the fleet.
func input(f *fleet.Fleet, cells []fleet.Cell) fleetIn {
	return fleetIn{Fleet: f.Name, Cells: cells, Limits: f.Limits, Notify: len(f.Notify) > 0}
}

// Run implements [fleet.Engine]. When ctx ends, the run is cancelled, and its cells are torn
// down before Run returns.
func (e *Engine) Run(ctx context.Context, f *fleet.Fleet, o fleet.RunOptions) (s fleet.Status, err error) {
	defer func() { err = explained(f, err) }()
	c, err := e.dial(ctx, f)
	if err != nil {
		return fleet.Status{}, err
	}
	defer c.Close()
	if _, err := attributes(ctx, c, f); err != nil {
		return fleet.Status{}, err
	}
	if o.Resume != "" {
		return e.resume(ctx, c, f, o)
	}
	if _, _, running, err := last(ctx, c, f); running {
		return fleet.Status{}, isBeingRun(f)
	} else if err != nil && !errors.Is(err, fleet.ErrNoRun) {
		return fleet.Status{}, err
	}
	in := input(f, o.Cells)
	in.FailFast, in.Force = o.FailFast, o.Force
	return e.begin(ctx, c, f, in, o.OnStatus)
}

// begin starts a run of the fleet, and follows it.
func (e *Engine) begin(ctx context.Context, c client.Client, f *fleet.Fleet, in fleetIn, tell func(fleet.Status)) (fleet.Status, error) {
	if err := tooLarge(in); err != nil {
		return fleet.Status{}, err
	}
	started, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: fleetID(f.Name), TaskQueue: workflowQueue(f.Name), WorkflowExecutionErrorWhenAlreadyStarted: true,
		TypedSearchAttributes: temporal.NewSearchAttributes(byFleet.ValueSet(f.Name)),
	}, fleetWorkflow, in)
	var running *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &running) {
		return fleet.Status{}, isBeingRun(f)
	} else if err != nil {
		return fleet.Status{}, fmt.Errorf("the fleet %s cannot be run: %w", f.Name, err)
	}
	return e.follow(ctx, c, f, started, tell)
}

// resume follows a run in progress, or otherwise starts a new run that reuses the images
// of one that has ended.
func (e *Engine) resume(ctx context.Context, c client.Client, f *fleet.Fleet, o fleet.RunOptions) (fleet.Status, error) {
	id, run, running, err := find(ctx, c, f, strings.TrimPrefix(o.Resume, "last"))
	if err != nil {
		return fleet.Status{}, err
	}
	if running {
		return e.follow(ctx, c, f, c.GetWorkflow(ctx, id, run), o.OnStatus)
	}
	was, err := e.began(ctx, c, id, run)
	if err != nil {
		return fleet.Status{}, err
	}
	before, err := e.ended(ctx, c, f, id, run)
	if err != nil {
		return fleet.Status{}, err
	}
	cells, err := f.Today(run, was.Cells)
	if err != nil {
		return fleet.Status{}, err
	}
	in := input(f, cells)
	in.FailFast, in.Force = was.FailFast, was.Force
	for _, one := range before.Cells {
		if one.Outcome != nil && one.Outcome.Result.OK() {
			in.Done = append(in.Done, *one.Outcome)
		}
	}
	if len(in.Done) == len(before.Cells) {
		return fleet.Status{}, fmt.Errorf("there is nothing to resume: all cells of the run %s have their images", run)
	}
	return e.begin(ctx, c, f, in, o.OnStatus)
}

// began returns the input with which a run of the fleet began.
func (e *Engine) began(ctx context.Context, c client.Client, id, run string) (in fleetIn, err error) {
	first, err := c.GetWorkflowHistory(ctx, id, run, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT).Next()
	if err != nil {
		return in, fmt.Errorf("the history of the run %s: %w", run, err)
	}
	return in, e.converter().FromPayloads(first.GetWorkflowExecutionStartedEventAttributes().GetInput(), &in)
}

// converter returns a data converter for histories, with decryption if this process has
// the key.
func (e *Engine) converter() converter.DataConverter {
	if key, err := e.key(); err == nil {
		return sealed(key, false)
	}
	return packing()
}

// ended describes how a run of the fleet ended.
func (e *Engine) ended(ctx context.Context, c client.Client, f *fleet.Fleet, id, run string) (s fleet.Status, err error) {
	if err := c.GetWorkflow(ctx, id, run).Get(ctx, &s); err == nil || told(err, &s) {
		return s, nil
	}
	return e.query(ctx, c, f, id, run, &pollers{c: c}) // it was terminated
}

// told reports whether the error of a run of the fleet contains its final status, as for
// a scheduled run.
func told(err error, s *fleet.Status) bool {
	app, ok := errors.AsType[*temporal.ApplicationError](err)
	return ok && app.HasDetails() && app.Details(s) == nil
}

func isBeingRun(f *fleet.Fleet) error {
	return fmt.Errorf("the fleet %s is being run; bake fleet status %s shows its progress, bake fleet cancel %s ends it", f.Name, f.Name, f.Name)
}

// follow reports the status of a run until it ends. A service that answers slowly delays neither
// the end nor a cancellation.
func (e *Engine) follow(ctx context.Context, c client.Client, f *fleet.Fleet, w client.WorkflowRun, tell func(fleet.Status)) (fleet.Status, error) {
	type answer struct {
		status fleet.Status
		err    error
	}
	ended, answers := make(chan answer, 1), make(chan answer, 1)
	apart := context.WithoutCancel(ctx)
	go func() {
		var s fleet.Status
		err := w.Get(apart, &s)
		for silent(err) { // the run continues meanwhile
			_ = delay.For(apart, time.Second)
			err = w.Get(apart, &s)
		}
		if told(err, &s) {
			err = nil
		}
		ended <- answer{s, err}
	}()
	looking, stop := context.WithCancel(apart)
	defer stop()
	cancelled := ctx.Done()
	p := &pollers{c: c}
	var last fleet.Status // the last status that was reported
	var asked time.Time
	for next := time.After(followPause); ; {
		select {
		case a := <-ended:
			if a.err == nil && tell != nil {
				tell(a.status)
			}
			return a.status, a.err
		case <-cancelled:
			cancelled = nil
			if err := c.CancelWorkflow(apart, w.GetID(), ""); err != nil {
				return fleet.Status{}, fmt.Errorf("the run could not be cancelled and continues: %w", err)
			}
		case <-next:
			if tell == nil {
				continue
			}
			next, asked = nil, time.Now() // one query at a time
			go func() {
				s, err := e.query(looking, c, f, w.GetID(), w.GetRunID(), p)
				answers <- answer{s, err}
			}()
		case a := <-answers:
			next = time.After(max(followPause, 4*time.Since(asked))) // queries cost the workers time
			if a.err == nil {
				last = a.status
			} else {
				last.Unanswered = a.err.Error()
			}
			tell(last)
		}
	}
}

// followPause is the minimum interval between queries of a followed run.
const followPause = 2 * time.Second

// silent reports whether an error means that the service has not answered, because it is
// overloaded or restarting.
func silent(err error) bool {
	_, gone := errors.AsType[*serviceerror.Unavailable](err)
	_, late := errors.AsType[*serviceerror.DeadlineExceeded](err)
	return gone || late || errors.Is(err, context.DeadlineExceeded)
}

// query returns the status of a run of the fleet, with the progress of the cells that
// answer within cellsAnswer.
func (e *Engine) query(ctx context.Context, c client.Client, f *fleet.Fleet, id, run string, p *pollers) (fleet.Status, error) {
	s, err := e.overall(ctx, c, f, id, run, p)
	if err != nil || slices.Contains(s.Unpolled, workflowQueue(f.Name)) {
		return s, err
	}
	running := func(one fleet.CellStatus) bool { return one.State == fleet.StateRunning }
	eachCell(ctx, s.Cells, running, func(ctx context.Context, one *fleet.CellStatus) {
		if v, err := c.QueryWorkflow(ctx, one.Cell.ID(), "", statusQuery); err == nil {
			_ = v.Get(one) // it is for show
		}
	})
	return s, nil
}

// eachCell calls ask for the wanted cells of a status, several at a time, until
// cellsAnswer has passed, and for at most mostAsked cells.
func eachCell(ctx context.Context, cells []fleet.CellStatus, wanted func(fleet.CellStatus) bool, ask func(context.Context, *fleet.CellStatus)) {
	ctx, cancel := context.WithTimeout(ctx, cellsAnswer)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(10)
	asked := 0
	for i := range cells {
		if !wanted(cells[i]) || asked == mostAsked {
			continue
		}
		asked++
		g.Go(func() error {
			ask(ctx, &cells[i])
			return nil
		})
	}
	_ = g.Wait() // nothing fails
}

// overall queries a run of the fleet for its status. A worker answers the query: without
// one, the status is what the service itself knows.
func (e *Engine) overall(ctx context.Context, c client.Client, f *fleet.Fleet, id, run string, p *pollers) (s fleet.Status, err error) {
	if !p.there(ctx, workflowQueue(f.Name), enums.TASK_QUEUE_TYPE_WORKFLOW) {
		s, err = e.unanswered(ctx, c, id, run)
		s.Unpolled = []string{workflowQueue(f.Name)}
		return s, err
	}
	v, err := c.QueryWorkflow(ctx, id, run, statusQuery)
	if err != nil {
		return s, err
	}
	if err := v.Get(&s); err != nil {
		return s, err
	}
	if len(s.Cells) > mostCells {
		if err := ofParts(ctx, c, id, run, &s); err != nil {
			return s, err
		}
	}
	s.Unpolled = p.unpolled(ctx, s)
	return s, nil
}

// mostAsked is the maximum number of cells that are queried for their current step.
const mostAsked = 100

// cellsAnswer is the time limit for the queries of cells, which are answered by workers
// that may be busy.
const cellsAnswer = 10 * time.Second

// ofParts adds the status of the workflows that bake a large fleet's images to the
// fleet's status.
func ofParts(ctx context.Context, c client.Client, id, run string, s *fleet.Status) error {
	v, err := c.QueryWorkflow(ctx, id, run, partsQuery)
	if err != nil {
		return err
	}
	var ids []string
	if err := v.Get(&ids); err != nil {
		return err
	}
	at := map[string]int{}
	for i, one := range s.Cells {
		at[one.Cell.ID()] = i
	}
	for _, id := range ids {
		var part fleet.Status
		v, err := c.QueryWorkflow(ctx, id, "", statusQuery)
		if err == nil {
			err = v.Get(&part)
		}
		if isNotFound(err) { // it has just ended, or is about to start
			continue
		} else if err != nil {
			return err
		}
		for _, one := range part.Cells {
			if i, ok := at[one.Cell.ID()]; ok && s.Cells[i].Outcome == nil {
				one.Cell = s.Cells[i].Cell
				s.Cells[i] = one
			}
		}
	}
	return nil
}

// unanswered returns the status of a run if no worker can answer a query.
func (e *Engine) unanswered(ctx context.Context, c client.Client, id, run string) (fleet.Status, error) {
	in, err := e.began(ctx, c, id, run)
	if err != nil {
		return fleet.Status{}, err
	}
	d, err := c.DescribeWorkflowExecution(ctx, id, run)
	if err != nil {
		return fleet.Status{}, err
	}
	r := &fleetRun{fleetIn: in, begun: map[string]time.Time{}}
	if err := r.goOn(); err != nil {
		return fleet.Status{}, err
	}
	if r.Run == "" {
		r.Run, r.Started = run, d.GetWorkflowExecutionInfo().GetStartTime().AsTime()
	}
	for _, child := range d.GetPendingChildren() {
		if child.GetWorkflowTypeName() != imageWorkflow {
			r.begun[child.GetWorkflowId()] = time.Time{}
			continue
		}
		of, err := c.DescribeWorkflowExecution(ctx, child.GetWorkflowId(), child.GetRunId())
		if isNotFound(err) { // it has just ended
			continue
		} else if err != nil {
			return fleet.Status{}, err
		}
		for _, cell := range of.GetPendingChildren() {
			r.begun[cell.GetWorkflowId()] = time.Time{}
		}
	}
	return r.status(), nil
}

// pollers caches which queues workers poll. It queries the service again after
// pollersKept.
type pollers struct {
	c     client.Client
	known map[string]bool
	until time.Time
}

// pollersKept is how long the result of such a query is cached; the service itself
// remembers pollers for minutes.
const pollersKept = 15 * time.Second

// there reports whether workers have polled a queue within the last minutes, according to
// the service.
func (p *pollers) there(ctx context.Context, queue string, kind enums.TaskQueueType) bool {
	if now := time.Now(); now.After(p.until) {
		p.known, p.until = map[string]bool{}, now.Add(pollersKept)
	}
	there, ok := p.known[queue]
	if !ok {
		d, err := p.c.DescribeTaskQueue(ctx, queue, kind)
		there = err != nil || len(d.GetPollers()) > 0
		p.known[queue] = there
	}
	return there
}

// unpolled returns the queues of running cells that no worker polls.
func (p *pollers) unpolled(ctx context.Context, s fleet.Status) (queues []string) {
	asked := map[string]bool{}
	for _, one := range s.Cells {
		queue := apiQueue(one.Cell) // a worker that polls one queue of a place polls all of them
		if one.State != fleet.StateRunning || asked[queue] {
			continue
		}
		asked[queue] = true
		if !p.there(ctx, queue, enums.TASK_QUEUE_TYPE_ACTIVITY) {
			queues = append(queues, queue)
		}
	}
	return queues
}

// last returns the current run of the fleet, or the one that ended last. The schedule
// appends the time to the ids of the runs that it starts.
func last(ctx context.Context, c client.Client, f *fleet.Fleet) (id, run string, running bool, err error) {
	return find(ctx, c, f, "")
}

// find is last, or the run with an id.
func find(ctx context.Context, c client.Client, f *fleet.Fleet, wanted string) (id, run string, running bool, err error) {
	query := fmt.Sprintf("WorkflowType = '%s' AND BakeFleet = '%s'", fleetWorkflow, f.Name)
	if wanted != "" {
		if err := uuid.Validate(wanted); err != nil {
			return "", "", false, fmt.Errorf("the fleet %s has no run %q", f.Name, wanted)
		}
		query += fmt.Sprintf(" AND RunId = '%s'", wanted)
	}
	for _, only := range []string{query + " AND ExecutionStatus = 'Running'", query} {
		found, err := newest(ctx, c, f, only)
		if err != nil {
			return "", "", false, err
		}
		for _, w := range found.GetExecutions() {
			return w.GetExecution().GetWorkflowId(), w.GetExecution().GetRunId(), w.GetStatus() == enums.WORKFLOW_EXECUTION_STATUS_RUNNING, nil
		}
	}
	return "", "", false, fmt.Errorf("the fleet %s: %w", f.Name, fleet.ErrNoRun)
}

// attributesKnown is the maximum delay until queries can use new search attributes.
const attributesKnown = 15 * time.Second

// newest returns the newest execution that a query finds, if any. The query may name search
// attributes that were just created.
func newest(ctx context.Context, c client.Client, f *fleet.Fleet, query string) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	for end := time.Now().Add(attributesKnown); ; {
		found, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query, PageSize: 1})
		if _, invalid := errors.AsType[*serviceerror.InvalidArgument](err); !invalid {
			return found, err
		}
		there, lerr := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: f.Engine.Namespace})
		switch {
		case lerr == nil && there.GetCustomAttributes()[byFleet.GetName()] == 0:
			return nil, fmt.Errorf("the fleet %s: %w: the namespace %s has no search attributes, which bake fleet apply makes", f.Name, fleet.ErrNoRun, f.Engine.Namespace)
		case lerr != nil || time.Now().After(end):
			return nil, err
		}
		if err := delay.For(ctx, time.Second); err != nil {
			return nil, err
		}
	}
}

// Status implements [fleet.Engine].
func (e *Engine) Status(ctx context.Context, f *fleet.Fleet) (s fleet.Status, err error) {
	defer func() { err = explained(f, err) }()
	c, err := e.dial(ctx, f)
	if err != nil {
		return fleet.Status{}, err
	}
	defer c.Close()
	id, run, running, err := last(ctx, c, f)
	if err != nil {
		return fleet.Status{}, err
	}
	p := &pollers{c: c}
	if running {
		s, err = e.query(ctx, c, f, id, run, p)
	} else {
		s, err = e.ended(ctx, c, f, id, run)
	}
	if err == nil {
		waiting(ctx, c, &s, p)
		s.Next, s.SchedulePaused = next(ctx, c.ScheduleClient(), f)
	}
	return s, err
}

// next returns when the schedule of the fleet starts the next run, or why it does not;
// neither if there is no schedule.
func next(ctx context.Context, c client.ScheduleClient, f *fleet.Fleet) (at time.Time, paused string) {
	d, err := c.GetHandle(ctx, fleetID(f.Name)).Describe(ctx)
	switch {
	case err != nil:
	case d.Schedule.State != nil && d.Schedule.State.Paused:
		return at, cmp.Or(d.Schedule.State.Note, "paused")
	case len(d.Info.NextActionTimes) > 0:
		return d.Info.NextActionTimes[0], ""
	}
	return at, ""
}

func isNotFound(err error) bool {
	var missing *serviceerror.NotFound
	return errors.As(err, &missing)
}

// Cancel implements [fleet.Engine].
func (e *Engine) Cancel(ctx context.Context, f *fleet.Fleet) (err error) {
	defer func() { err = explained(f, err) }()
	return e.onRun(ctx, f, func(c client.Client) error { return e.cancel(ctx, c, f) })
}

// cancel returns when everything that the cells have made is deleted, unless there is no worker
// to delete it.
func (e *Engine) cancel(ctx context.Context, c client.Client, f *fleet.Fleet) error {
	id, run, running, err := last(ctx, c, f)
	switch {
	case running:
		err = e.end(ctx, c, f, id, run)
	case err == nil:
		err = fmt.Errorf("the fleet %s is not being run, and no image of it waits for a channel", f.Name)
	case !errors.Is(err, fleet.ErrNoRun):
		return err
	}
	stopped, werr := stopWaiting(ctx, c, f)
	if stopped && !running {
		err = nil
	}
	return errors.Join(err, werr)
}

// end cancels a run, and waits until it has ended.
func (e *Engine) end(ctx context.Context, c client.Client, f *fleet.Fleet, id, run string) error {
	if err := c.CancelWorkflow(ctx, id, run); err != nil {
		return err
	}
	s, err := e.overall(ctx, c, f, id, run, &pollers{c: c})
	if err == nil && len(s.Unpolled) > 0 {
		return fmt.Errorf("the run of the fleet %s has been asked to end but has not ended yet: no worker polls %s; it ends once a bake worker does", f.Name, strings.Join(s.Unpolled, ", "))
	}
	if err := c.GetWorkflow(ctx, id, run).Get(ctx, nil); err != nil && !temporal.IsCanceledError(err) && !temporal.IsApplicationError(err) {
		return err
	}
	return nil
}

// onRun calls do for the current run of the fleet.
func (e *Engine) onRun(ctx context.Context, f *fleet.Fleet, do func(client.Client) error) error {
	c, err := e.dial(ctx, f)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := do(c); isNotFound(err) {
		return fmt.Errorf("the fleet %s: %w", f.Name, fleet.ErrNoRun)
	} else if err != nil {
		return err
	}
	return nil
}

package temporal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bake/fleet"
	"bake/step"
)

// registry registers workflows and activities; workers and test environments implement
// it.
type registry interface {
	RegisterWorkflowWithOptions(w any, o workflow.RegisterOptions)
}

// registerWorkflows registers the workflows. The histories of running workflows record
// the order of their actions: a change of that order needs workflow.GetVersion. The test
// that replays saved histories detects such changes.
func registerWorkflows(r registry) {
	r.RegisterWorkflowWithOptions(runFleet, workflow.RegisterOptions{Name: fleetWorkflow})
	r.RegisterWorkflowWithOptions(runImage, workflow.RegisterOptions{Name: imageWorkflow})
	r.RegisterWorkflowWithOptions(bake, workflow.RegisterOptions{Name: bakeWorkflow})
	r.RegisterWorkflowWithOptions(approval, workflow.RegisterOptions{Name: approvalWorkflow})
	r.RegisterWorkflowWithOptions(janitor, workflow.RegisterOptions{Name: janitorWorkflow})
	r.RegisterWorkflowWithOptions(left, workflow.RegisterOptions{Name: leftWorkflow})
}

// drain is how long a worker that is being stopped continues the activities that it has
// started.
const drain = 30 * time.Minute

// stageCalls is the approximate number of calls in a short stage. It converts a rate of
// calls into a rate of stages. The calls themselves are limited in each worker.
const stageCalls = 10

// stagesAtOnce is the maximum number of stages of one account and region that a worker
// runs at a time.
const stagesAtOnce = 50

// busyHost is how long workflow code may run before it yields, generous because the host
// may be busy with other work. Workflow code does not block.
const busyHost = 10 * time.Second

// fatalDrain is how long a worker that has failed waits for the activities that it has
// started.
const fatalDrain = time.Minute

// Work implements [fleet.Engine]. It passes warnings of Temporal to stderr.
func (e *Engine) Work(ctx context.Context, o fleet.WorkerOptions) error {
	if len(o.Fleets) == 0 {
		return errors.New("the template has no fleet to work for")
	}
	if !slices.ContainsFunc(o.Fleets, func(f *fleet.Fleet) bool { return len(places(f, o)) > 0 }) {
		return errors.New("none of the fleets has a cell in an account and region of -account and -region")
	}
	key, err := e.key()
	if err != nil {
		return err
	}
	m := newMetrics(regionsOf(o)...)
	c, err := e.dialLogging(ctx, o.Fleets[0], slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}), tally{Metrics: m})
	if err != nil {
		return err
	}
	defer c.Close()
	host := e.Host
	host.Emit = oneByOne(host.Emit)
	a := &activities{host: host, key: key, client: c, metrics: m, fleets: map[string]*fleet.Fleet{}, rates: map[string]*fleet.Rates{}}
	for _, f := range o.Fleets {
		a.fleets[f.Name], a.rates[f.Name] = f, fleet.NewRates(f.Limits.APIRate)
	}
	health := newHealth(func(ctx context.Context) error {
		_, err := c.CheckHealth(ctx, &client.CheckHealthRequest{})
		return err
	})
	if e.Metrics != "" {
		_, stop, err := serve(e.Metrics, a.metrics, health)
		if err != nil {
			return err
		}
		defer stop()
	}
	fatal := make(chan error, 1)
	failed := func(err error) {
		select {
		case fatal <- err:
		default: // one is enough
		}
	}
	workers := e.workers(c, a, o, failed)
	if err := startAll(workers); err != nil {
		return fmt.Errorf("the worker cannot start: %w", explained(o.Fleets[0], err))
	}
	health.takesWork()
	if e.Ready != nil {
		e.Ready()
	}
	tidied, stopTidying := context.WithCancel(ctx)
	defer stopTidying()
	go tidy(tidied, host)
	if err := health.atEnd(ctx, fatal); err != nil {
		stopAll(workers, fatalDrain)
		return fmt.Errorf("the worker cannot continue: %w", explained(o.Fleets[0], err))
	}
	stopAll(workers, drain+time.Minute)
	return nil
}

// regionsOf returns the regions of all places that the worker serves.
func regionsOf(o fleet.WorkerOptions) (regions []string) {
	for _, f := range o.Fleets {
		for _, p := range places(f, o) {
			regions = append(regions, p.Region)
		}
	}
	return regions
}

// workers returns the workers for the workflows of all fleets, and for the activities in their
// places.
func (e *Engine) workers(c client.Client, a *activities, o fleet.WorkerOptions, failed func(error)) (all []worker.Worker) {
	for _, f := range o.Fleets {
		all = append(all, e.workflowWorker(c, a, f, failed))
		for _, place := range places(f, o) {
			all = append(all, e.placeWorkers(c, a, place, f.Limits.APIRate["ec2"], failed)...)
		}
	}
	return all
}

// startAll starts all workers or, if one cannot, none.
func startAll(workers []worker.Worker) error {
	for i, w := range workers {
		if err := w.Start(); err != nil {
			for _, started := range workers[:i] {
				started.Stop()
			}
			return err
		}
	}
	return nil
}

// stagesKept is how long a worker keeps its copy of a run after a stage: longer than an
// abandoned attempt can take to come back.
const stagesKept = 2 * longestStage

// tidy deletes old copies of runs, with the keys of their machines, until ctx ends.
func tidy(ctx context.Context, h fleet.Host) {
	for tick := time.NewTicker(time.Hour); ; {
		if err := h.State.ForgetStages(h.Now().Add(-stagesKept)); err != nil && h.Emit != nil {
			h.Emit(step.Event{Kind: step.Warning, Time: h.Now(), Text: "old states of runs could not be deleted: " + err.Error()})
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
	}
}

// stopAll drains workers concurrently, for at most limit.
func stopAll(workers []worker.Worker, limit time.Duration) {
	stopped := make(chan struct{}, len(workers))
	over := time.After(limit)
	for _, w := range workers {
		go func() {
			w.Stop()
			stopped <- struct{}{}
		}()
	}
	for range workers {
		select {
		case <-stopped:
		case <-over:
			return
		}
	}
}

// places returns a cell for each account and region of a fleet that the worker works for.
func places(f *fleet.Fleet, o fleet.WorkerOptions) (all []fleet.Cell) {
	there := map[string]bool{}
	for _, c := range f.Cells {
		if there[machineQueue(c)] || len(o.Accounts) > 0 && !slices.Contains(o.Accounts, c.Account) || len(o.Regions) > 0 && !slices.Contains(o.Regions, c.Region) {
			continue
		}
		there[machineQueue(c)] = true
		all = append(all, c)
	}
	return all
}

func (e *Engine) workflowWorker(c client.Client, a *activities, f *fleet.Fleet, failed func(error)) worker.Worker {
	w := worker.New(c, workflowQueue(f.Name), worker.Options{WorkerStopTimeout: drain, DeadlockDetectionTimeout: busyHost, OnFatalError: failed})
	registerWorkflows(w)
	w.RegisterActivityWithOptions(a.notify, activity.RegisterOptions{Name: notifyActivity})
	w.RegisterActivityWithOptions(a.orphans, activity.RegisterOptions{Name: orphansActivity})
	w.RegisterActivityWithOptions(a.pauseSchedule, activity.RegisterOptions{Name: pauseActivity})
	return w
}

func (e *Engine) placeWorkers(c client.Client, a *activities, place fleet.Cell, calls float64, failed func(error)) []worker.Worker {
	o := worker.Options{
		DisableWorkflowWorker: true, WorkerStopTimeout: drain,
		MaxConcurrentActivityExecutionSize: stagesAtOnce, OnFatalError: failed,
	}
	machines, prompt := worker.New(c, machineQueue(place), o), worker.New(c, promptQueue(place), o)
	if calls > 0 {
		o.TaskQueueActivitiesPerSecond = calls / stageCalls
	}
	api := worker.New(c, apiQueue(place), o)
	for _, w := range []worker.Worker{machines, api} {
		w.RegisterActivityWithOptions(a.stage, activity.RegisterOptions{Name: stageActivity})
	}
	prompt.RegisterActivityWithOptions(a.available, activity.RegisterOptions{Name: availableActivity})
	prompt.RegisterActivityWithOptions(a.approve, activity.RegisterOptions{Name: approveActivity})
	prompt.RegisterActivityWithOptions(a.promote, activity.RegisterOptions{Name: promoteActivity})
	prompt.RegisterActivityWithOptions(a.teardown, activity.RegisterOptions{Name: teardownActivity})
	return []worker.Worker{machines, api, prompt}
}

// serve serves metrics and health probes until the caller calls stop.
func serve(at string, m *Metrics, h *health) (address string, stop func(), err error) {
	l, err := net.Listen("tcp", at)
	if err != nil {
		return "", nil, fmt.Errorf("the metrics cannot be served: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", m)
	mux.HandleFunc("/live", h.live)
	mux.HandleFunc("/ready", h.ready)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.Serve(l) }()
	return l.Addr().String(), func() { _ = s.Close() }, nil
}

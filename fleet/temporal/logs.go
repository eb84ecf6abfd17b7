package temporal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"bake/fleet"
	"bake/internal/prose"
	"bake/run"
	"bake/step"
)

// endedStage is a stage of a cell, or an attempt to tear down its run, that has ended
// according to the history of its workflow or to a heartbeat of the following attempt.
type endedStage struct {
	run  string       // of the cell
	host string       // of the worker
	log  *run.LogPart // in the reports; nil: that host has it

	teardown bool
}

// Logs implements [fleet.Engine]. It covers the completed stages of the cell's newest
// workflow, as far as their logs are in the reports or on this host, and describes what
// is in progress.
func (e *Engine) Logs(ctx context.Context, f *fleet.Fleet, c fleet.Cell, emit func(step.Event)) (err error) {
	defer func() { err = explained(f, err) }()
	service, err := e.dial(ctx, f)
	if err != nil {
		return err
	}
	defer service.Close()
	return e.logs(ctx, service, c, emit)
}

func (e *Engine) logs(ctx context.Context, service client.Client, c fleet.Cell, emit func(step.Event)) error {
	read := e.converter()
	h, err := historyOfCell(ctx, service, read, c)
	if err != nil {
		return err
	}
	j := &joiner{Engine: e, emit: emit, logs: map[string]*run.JoinedLog{}, alone: map[string][]string{}, local: map[string][]string{}}
	j.self, _ = os.Hostname()
	for _, id := range h.runs {
		j.logs[id] = &run.JoinedLog{Emit: func(e step.Event) {
			j.shown = true
			emit(e)
		}}
	}
	for _, s := range h.stages {
		j.stage(ctx, s)
	}
	for _, id := range h.runs {
		j.rest(id)
	}
	for _, p := range h.pending {
		if text := underWay(read, p); text != "" {
			emit(step.Event{Time: e.Host.Now(), Kind: step.Say, Text: text})
		}
	}
	return errors.Join(j.errs...)
}

// cellHistory is what the service knows about the newest workflow of a cell, and about the
// workflows that clean up after its runs.
type cellHistory struct {
	runs    []string
	stages  []endedStage
	pending []*workflow.PendingActivityInfo
}

func historyOfCell(ctx context.Context, service client.Client, read converter.DataConverter, c fleet.Cell) (h cellHistory, err error) {
	d, err := service.DescribeWorkflowExecution(ctx, c.ID(), "")
	if isNotFound(err) {
		return h, fmt.Errorf("the cell %s: %w", c.Short(), fleet.ErrNoRun)
	} else if err != nil {
		return h, err
	}
	stagesOf := func(id string, d *workflowservice.DescribeWorkflowExecutionResponse) ([]endedStage, []string, error) {
		newest := d.GetWorkflowExecutionInfo().GetExecution().GetRunId()
		return readStages(read, service.GetWorkflowHistory(ctx, id, newest, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT))
	}
	if h.stages, h.runs, err = stagesOf(c.ID(), d); err != nil {
		return h, fmt.Errorf("the history of the cell %s: %w", c.Short(), err)
	}
	h.pending = d.GetPendingActivities()
	if slices.Contains(orphaned, d.GetWorkflowExecutionInfo().GetStatus()) { // the janitor deletes what it left
		for _, id := range h.runs {
			left, err := service.DescribeWorkflowExecution(ctx, leftID(id), "")
			if isNotFound(err) {
				continue
			}
			var more []endedStage
			if err == nil {
				more, _, err = stagesOf(leftID(id), left)
			}
			if err != nil {
				return h, fmt.Errorf("the history of what deletes what the run %s left: %w", id, err)
			}
			h.stages, h.pending = append(h.stages, more...), append(h.pending, left.GetPendingActivities()...)
		}
	}
	for _, p := range h.pending {
		var at progress
		if p.GetActivityType().GetName() == teardownActivity && read.FromPayloads(p.GetHeartbeatDetails(), &at) == nil {
			h.stages = append(h.stages, attempts(at.Failed, h.runs)...)
		}
	}
	return h, nil
}

// joiner shows the log of a cell, assembled from its parts in different places.
type joiner struct {
	*Engine
	emit  func(step.Event)
	self  string                    // this host
	logs  map[string]*run.JoinedLog // by run
	shown bool                      // something was shown
	alone map[string][]string       // hosts with parts of a run's log that are stored nowhere else
	local map[string][]string       // hosts with resources of a run in their local cloud
	errs  []error
}

// stage shows the log of a stage, or records which host has it.
func (j *joiner) stage(ctx context.Context, s endedStage) {
	switch {
	case s.log != nil && s.log.Local && s.host != j.self:
		j.local[s.run] = append(j.local[s.run], s.host)
	case s.log == nil:
		j.alone[s.run] = append(j.alone[s.run], s.host)
	case j.Host.Log == nil:
		j.errs = append(j.errs, fmt.Errorf("a part of the log is %s among the reports, and the template here names no place for those", s.log.Name))
	default:
		err := j.Host.Log(ctx, s.run, *s.log, j.logs[s.run].Part)
		switch {
		case !errors.Is(err, fs.ErrNotExist):
			j.errs = append(j.errs, err)
		case s.log.Local: // the worker has another directory of state, or it was removed
			j.local[s.run] = append(j.local[s.run], s.host)
		default: // the reports are in a directory of that host, or were removed
			j.alone[s.run] = append(j.alone[s.run], s.host)
		}
	}
}

// rest shows the part of a run's log that this host has, and reports where the rest is.
func (j *joiner) rest(id string) {
	hosts := j.alone[id]
	switch err := j.Host.State.Events(id, j.logs[id].Here); {
	case err == nil: // this host has the log of its own work
		hosts = slices.DeleteFunc(hosts, func(h string) bool { return h == j.self })
	case !errors.Is(err, fs.ErrNotExist):
		j.errs = append(j.errs, err)
	}
	for _, lacks := range []error{
		elsewhere(hosts, id, "the directories of state of ", " alone. With reports = \"s3://BUCKET/PREFIX\" in a bake block, workers put the log of each stage there, from where it is read everywhere"),
		elsewhere(j.local[id], id, "the local cloud of ", ", as workers with -local bake there. Call bake fleet logs on that host, with the state directory of its worker; the one here is "+string(j.Host.State)),
	} {
		switch {
		case lacks == nil:
		case !j.shown:
			j.errs = append(j.errs, lacks)
		default:
			j.emit(step.Event{Time: j.Host.Now(), Kind: step.Warning, Text: prose.Sentence(lacks.Error())})
		}
	}
}

// attempts returns the ended stages among the attempts, for the given runs.
func attempts(all []attempt, runs []string) (ended []endedStage) {
	for _, one := range all {
		if slices.Contains(runs, one.Run) {
			ended = append(ended, endedStage{run: one.Run, host: one.Host, log: one.Log, teardown: true})
		}
	}
	return ended
}

// elsewhere returns an error that names the hosts with parts of the log of a run. place
// says where the parts are on these hosts, and follows ends the message. It returns nil if
// there are no hosts.
func elsewhere(hosts []string, id, place, follows string) error {
	if len(hosts) == 0 {
		return nil
	}
	slices.Sort(hosts)
	return fmt.Errorf("parts of the log of run %s are in %s%s%s", id, place, strings.Join(slices.Compact(hosts), ", "), follows)
}

// underWay describes a stage or teardown in progress. It is empty for any other activity.
func underWay(read converter.DataConverter, p *workflow.PendingActivityInfo) string {
	name := p.GetActivityType().GetName()
	if name != stageActivity && name != teardownActivity {
		return ""
	}
	text := "A " + strings.ToLower(name)
	if p.GetState() == enums.PENDING_ACTIVITY_STATE_SCHEDULED {
		text += " waits for a worker"
		if p.GetLastFailure() != nil {
			text += "; the last attempt: " + words(failures(read, false).FailureToError(p.GetLastFailure()))
		}
		return text
	}
	text += " is under way on " + hostOf(p.GetLastWorkerIdentity())
	var at progress
	if read.FromPayloads(p.GetHeartbeatDetails(), &at) == nil && at.Events > 0 { // otherwise it has just begun
		text += fmt.Sprintf(": %d events", at.Events)
		if at.Step != "" {
			text += ", at the step " + at.Step
		}
	}
	return text
}

// hostOf returns the host of a worker, whose identity is PID@HOST@QUEUE.
func hostOf(identity string) string {
	if parts := strings.Split(identity, "@"); len(parts) > 1 {
		return parts[1]
	}
	return identity
}

// readStages returns the stages and teardowns that have ended, in order, and the ids of all runs
// for which any were started.
func readStages(read converter.DataConverter, h client.HistoryEventIterator) (all []endedStage, runs []string, err error) {
	of := map[int64]*endedStage{} // by the event that schedules it
	for e, err := range eventsOf(h) {
		if err != nil {
			return nil, nil, err
		}
		s := e.GetActivityTaskScheduledEventAttributes()
		if kind := s.GetActivityType().GetName(); kind == stageActivity || kind == teardownActivity {
			var in stageIn // the input of a teardown is a subset of it
			if err := read.FromPayloads(s.GetInput(), &in); err != nil {
				return nil, nil, err
			}
			if err := named(in.Run); err != nil {
				return nil, nil, err
			}
			of[e.GetEventId()] = &endedStage{run: in.Run, teardown: kind == teardownActivity}
			if !slices.Contains(runs, in.Run) {
				runs = append(runs, in.Run)
			}
		}
		if s := e.GetActivityTaskStartedEventAttributes(); of[s.GetScheduledEventId()] != nil {
			of[s.GetScheduledEventId()].host = hostOf(s.GetIdentity())
		}
		c := e.GetActivityTaskCompletedEventAttributes()
		for _, id := range []int64{c.GetScheduledEventId(), e.GetActivityTaskFailedEventAttributes().GetScheduledEventId(),
			e.GetActivityTaskTimedOutEventAttributes().GetScheduledEventId(), e.GetActivityTaskCanceledEventAttributes().GetScheduledEventId()} {
			s := of[id]
			if s == nil {
				continue
			}
			var out teardownOut // the result of a stage also applies to it
			if c != nil {
				if err := read.FromPayloads(c.GetResult(), &out); err != nil {
					return nil, nil, err
				}
			}
			all = append(all, attempts(out.Failed, runs)...)
			if s.log = out.Log; !s.teardown || out.Logged {
				all = append(all, *s)
			}
		}
	}
	return all, runs, nil
}

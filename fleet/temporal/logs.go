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
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"bake/fleet"
	"bake/internal/prose"
	"bake/run"
	"bake/step"
)

// endedStage is a stage of a cell, or an attempt to tear down what there was, that has ended, as the
// history of its workflow tells, or a heartbeat of the attempt after it.
type endedStage struct {
	run  string       // of the cell
	host string       // of the worker
	log  *run.LogPart // among the reports; nil: that host has it

	teardown bool
}

// Logs implements [fleet.Engine]: those of the stages that the newest workflow of the cell has
// done, from the reports or as far as they are on this host, and what goes on.
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
	d, err := service.DescribeWorkflowExecution(ctx, c.ID(), "")
	if isNotFound(err) {
		return fmt.Errorf("the cell %s: %w", c.Short(), fleet.ErrNoRun)
	} else if err != nil {
		return err
	}
	h := service.GetWorkflowHistory(ctx, c.ID(), d.GetWorkflowExecutionInfo().GetExecution().GetRunId(), false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	read := e.converter()
	stages, ids, err := readStages(read, h)
	if err != nil {
		return fmt.Errorf("the history of the cell %s: %w", c.Short(), err)
	}
	pending := d.GetPendingActivities()
	if slices.Contains(orphaned, d.GetWorkflowExecutionInfo().GetStatus()) { // what it left, the janitor deletes
		for _, id := range ids {
			left, err := service.DescribeWorkflowExecution(ctx, leftID(id), "")
			if isNotFound(err) {
				continue
			}
			var more []endedStage
			if err == nil {
				more, _, err = readStages(read, service.GetWorkflowHistory(ctx, leftID(id), left.GetWorkflowExecutionInfo().GetExecution().GetRunId(), false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT))
			}
			if err != nil {
				return fmt.Errorf("the history of what deletes what the run %s left: %w", id, err)
			}
			stages, pending = append(stages, more...), append(pending, left.GetPendingActivities()...)
		}
	}
	for _, p := range pending {
		var at progress
		if p.GetActivityType().GetName() == teardownActivity && read.FromPayloads(p.GetHeartbeatDetails(), &at) == nil {
			stages = append(stages, attempts(at.Failed, ids)...)
		}
	}
	var errs []error
	shown := 0
	logs := map[string]*run.JoinedLog{}
	for _, id := range ids {
		logs[id] = &run.JoinedLog{Emit: func(e step.Event) {
			shown++
			emit(e)
		}}
	}
	self, _ := os.Hostname()
	alone := map[string][]string{} // hosts that alone have parts of the log of a run
	local := map[string][]string{} // and those that have some in their local cloud
	for _, s := range stages {
		switch {
		case s.log != nil && s.log.Local && s.host != self:
			local[s.run] = append(local[s.run], s.host)
		case s.log == nil:
			alone[s.run] = append(alone[s.run], s.host)
		case e.Host.Log == nil:
			errs = append(errs, fmt.Errorf("a part of the log is %s among the reports, and the template here names no place for those", s.log.Name))
		default:
			err := e.Host.Log(ctx, s.run, *s.log, logs[s.run].Part)
			switch {
			case !errors.Is(err, fs.ErrNotExist):
				errs = append(errs, err)
			case s.log.Local: // the worker has another directory of state, or it was removed
				local[s.run] = append(local[s.run], s.host)
			default: // the reports are in a directory of that host, or were removed
				alone[s.run] = append(alone[s.run], s.host)
			}
		}
	}
	for _, id := range ids {
		hosts := alone[id]
		switch err := e.Host.State.Events(id, logs[id].Here); {
		case err == nil: // this one has what it has done itself
			hosts = slices.DeleteFunc(hosts, func(h string) bool { return h == self })
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, err)
		}
		for _, lacks := range []error{
			elsewhere(hosts, id, "the directories of state of ", " alone. With reports = \"s3://BUCKET/PREFIX\" in a bake block, workers put the log of each stage there, from where it is read everywhere"),
			elsewhere(local[id], id, "the local cloud of ", ", as workers with -local bake there. Call bake fleet logs on that host, with the state directory of its worker; the one here is "+string(e.Host.State)),
		} {
			switch {
			case lacks == nil:
			case shown == 0:
				errs = append(errs, lacks)
			default:
				emit(step.Event{Time: e.Host.Now(), Kind: step.Warning, Text: prose.Sentence(lacks.Error())})
			}
		}
	}
	for _, p := range pending {
		if text := underWay(read, p); text != "" {
			emit(step.Event{Time: e.Host.Now(), Kind: step.Say, Text: text})
		}
	}
	return errors.Join(errs...)
}

// attempts are stages that have ended, each of one of the runs.
func attempts(all []attempt, runs []string) (ended []endedStage) {
	for _, one := range all {
		if slices.Contains(runs, one.Run) {
			ended = append(ended, endedStage{run: one.Run, host: one.Host, log: one.Log, teardown: true})
		}
	}
	return ended
}

// elsewhere says on which hosts parts of the log of a run are, in a place of theirs, and what follows;
// nil if there are none.
func elsewhere(hosts []string, id, place, follows string) error {
	if len(hosts) == 0 {
		return nil
	}
	slices.Sort(hosts)
	return fmt.Errorf("parts of the log of run %s are in %s%s%s", id, place, strings.Join(slices.Compact(hosts), ", "), follows)
}

// underWay says what is known of a stage or teardown that has not ended; empty: it is neither.
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
	if read.FromPayloads(p.GetHeartbeatDetails(), &at) == nil && at.Events > 0 { // else it has just begun
		text += fmt.Sprintf(": %d events", at.Events)
		if at.Step != "" {
			text += ", at the step " + at.Step
		}
	}
	return text
}

// hostOf is the host of a worker, whose identity is PID@HOST@QUEUE.
func hostOf(identity string) string {
	if parts := strings.Split(identity, "@"); len(parts) > 1 {
		return parts[1]
	}
	return identity
}

// readStages returns the stages and teardowns that have ended, in their order, and the ids of all
// runs that some were begun of.
func readStages(read converter.DataConverter, h client.HistoryEventIterator) (all []endedStage, runs []string, err error) {
	of := map[int64]*endedStage{} // by the event that schedules it
	for e, err := range eventsOf(h) {
		if err != nil {
			return nil, nil, err
		}
		s := e.GetActivityTaskScheduledEventAttributes()
		if kind := s.GetActivityType().GetName(); kind == stageActivity || kind == teardownActivity {
			var in stageIn // what a teardown begins with is part of it
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
			var out teardownOut // what a stage has told is about it, too
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

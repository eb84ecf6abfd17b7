package temporal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	common "go.temporal.io/api/common/v1"
	enums "go.temporal.io/api/enums/v1"
	failure "go.temporal.io/api/failure/v1"
	api "go.temporal.io/api/workflow/v1"

	"bake/fleet"
	"bake/run"
	"bake/step"
)

// TestLogs: the log of a cell consists of the parts that its workers have stored with the
// reports, the log on this host, and a description of the current stage; the hosts with the
// rest are listed.
func TestLogs(t *testing.T) {
	const r1, r2 = "0b5d6b5e-7e0a-4a57-9d53-6a1f0b3c7a11", "0b5d6b5e-7e0a-4a57-9d53-6a1f0b3c7a12"
	self, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	stage := func(id, host, log string) did {
		out := stageOut{State: []byte("sealed")}
		if log != "" {
			out.Log = &run.LogPart{Name: log, SHA256: strings.Repeat("0", 64)}
		}
		return did{stageActivity, stageIn{Cell: web, Run: id}, out, host}
	}
	teardown := func(id, host, log string) did {
		out := teardownOut{Logged: log != "nothing"}
		if log != "" && out.Logged {
			out.Log = &run.LogPart{Name: log, SHA256: strings.Repeat("0", 64)}
		}
		return did{teardownActivity, teardownIn{Cell: web, Run: id}, out, host}
	}
	part := func(name string) *run.LogPart { return &run.LogPart{Name: name} }
	under := func(state enums.PendingActivityState, name string, p progress) *api.PendingActivityInfo {
		return &api.PendingActivityInfo{ActivityType: &common.ActivityType{Name: name}, State: state, LastWorkerIdentity: "42@far@queue", HeartbeatDetails: payloads(t, p),
			LastFailure: &failure.Failure{Message: "the disk is full", FailureInfo: &failure.Failure_ApplicationFailureInfo{ApplicationFailureInfo: &failure.ApplicationFailureInfo{}}}}
	}
	const started, scheduled = enums.PENDING_ACTIVITY_STATE_STARTED, enums.PENDING_ACTIVITY_STATE_SCHEDULED
	for name, c := range map[string]struct {
		history []did
		pending *api.PendingActivityInfo
		left    []did    // by the janitor; nil: the workflow was not terminated
		nowhere bool     // the template has no place for reports
		here    []string // events of r2 in the directory of state
		want    []string
		err     string
	}{
		"of all": {history: []did{stage(r1, "a", "one"), stage(r2, "b", "two"), stage(r2, "c", "three")}, want: []string{"one of " + r1, "two of " + r2, "three of " + r2}},
		"going on": {
			history: []did{stage(r2, "a", "one"), {name: stageActivity, in: stageIn{Cell: web, Run: r2}}}, pending: under(started, stageActivity, progress{Events: 7, Step: "provision > install"}),
			want: []string{"one of " + r2, "A stage is under way on far: 7 events, at the step provision > install"},
		},
		"going on here": {
			history: []did{stage(r2, "a", "one"), {name: stageActivity, in: stageIn{Cell: web, Run: r2}}}, pending: under(started, stageActivity, progress{}), here: []string{"old", "new"},
			want: []string{"one of " + r2, "new", "A stage is under way on far"},
		},
		"waiting": {
			history: []did{stage(r2, "a", "one")}, pending: under(scheduled, teardownActivity, progress{}),
			want: []string{"one of " + r2, "A teardown waits for a worker; the last attempt: the disk is full"},
		},
		"torn down": {
			history: []did{stage(r1, "a", "one"), teardown(r1, "b", "two"), stage(r2, "c", "three"), teardown(r2, "c", "nothing")},
			want:    []string{"one of " + r1, "two of " + r1, "three of " + r2},
		},
		"torn down elsewhere": {
			history: []did{stage(r2, "a", "one"), teardown(r2, "b", "")},
			want:    []string{"one of " + r2, "Parts of the log of run " + r2 + " are in the directories of state of b alone."},
		},
		"torn down at last": {
			history: []did{stage(r2, "a", "one"), {teardownActivity, teardownIn{Cell: web, Run: r2}, teardownOut{Logged: true, Log: part("four"), Failed: []attempt{{r2, "b", part("two")}, {r2, "c", nil}, {r1, "d", part("no run of the cell")}}}, "b"}},
			want:    []string{"one of " + r2, "two of " + r2, "four of " + r2, "Parts of the log of run " + r2 + " are in the directories of state of c alone."},
		},
		"not torn down": {
			history: []did{stage(r2, "a", "one"), {name: teardownActivity, in: teardownIn{Cell: web, Run: r2}}}, pending: under(scheduled, teardownActivity, progress{Failed: []attempt{{r2, "b", part("two")}}}),
			want: []string{"one of " + r2, "two of " + r2, "A teardown waits for a worker; the last attempt: the disk is full"},
		},
		"local elsewhere": {
			history: []did{stage(r2, "a", "one"), {stageActivity, stageIn{Cell: web, Run: r2}, stageOut{Log: &run.LogPart{Name: "two", Local: true}}, "b"}},
			want:    []string{"one of " + r2, "Parts of the log of run " + r2 + " are in the local cloud of b, as workers with -local bake there. Call bake fleet logs on that host"},
		},
		"local here":                 {history: []did{{stageActivity, stageIn{Cell: web, Run: r2}, stageOut{Log: &run.LogPart{Name: "two", Local: true}}, self}}, want: []string{"two of " + r2}},
		"local in another directory": {history: []did{{stageActivity, stageIn{Cell: web, Run: r2}, stageOut{Log: &run.LogPart{Name: "nowhere", Local: true}}, self}}, err: "Call bake fleet logs on that host, with the state directory of its worker; the one here is /"},
		"terminated":                 {history: []did{stage(r2, "a", "one")}, left: []did{teardown(r2, "b", "two")}, want: []string{"one of " + r2, "two of " + r2}},
		"terminated just now":        {history: []did{stage(r2, "a", "one")}, left: []did{}, want: []string{"one of " + r2}},
		"a look":                     {history: []did{stage(r2, "a", "one")}, pending: under(started, availableActivity, progress{}), want: []string{"one of " + r2}},
		"elsewhere":                  {history: []did{stage(r2, "b", ""), stage(r2, "a", ""), stage(r2, "b", "")}, err: "in the directories of state of a, b alone. With reports = "},
		"no share":                   {history: []did{stage(r2, "a", "nowhere"), stage(r2, "b", "two")}, want: []string{"two of " + r2, "Parts of the log of run " + r2 + " are in the directories of state of a alone."}},
		"not shared":                 {history: []did{stage(r2, "a", "nowhere")}, err: "in the directories of state of a alone"},
		"not kept": { // here, and what came later elsewhere was
			history: []did{stage(r2, self, ""), stage(r2, "b", "two")}, here: []string{"old", "new"},
			want: []string{"two of " + r2, "old", "new"},
		},
		"here":      {history: []did{stage(r2, self, "")}, here: []string{"old", "new"}, want: []string{"old", "new"}},
		"half here": {history: []did{stage(r2, self, ""), stage(r2, "b", "")}, here: []string{"old"}, want: []string{"old", "Parts of the log of run " + r2 + " are in the directories of state of b alone."}},
		"died":      {history: []did{stage(r1, "a", ""), stage(r2, "b", "two")}, want: []string{"two of " + r2, "Parts of the log of run " + r1 + " are in the directories of state of a alone. With"}},
		"deleted":   {history: []did{stage(r2, "a", "gone"), stage(r2, "b", "two")}, want: []string{"two of " + r2}, err: "gone is gone"},
		"no place":  {history: []did{stage(r2, "a", "one")}, nowhere: true, err: "a part of the log is one among the reports, and the template here names no place for those"},
		"no run":    {history: []did{stage("../r", "a", "one")}, err: `"../r" is not the id of a run`},
		"not begun": {err: "the fleet has no such run"},
	} {
		e := &Engine{Host: fleet.Host{State: run.State(t.TempDir()), Now: time.Now}}
		if !c.nowhere {
			e.Host.Log = func(_ context.Context, id string, part run.LogPart, emit func(step.Event)) error {
				if part.Name == "gone" {
					return errors.New("gone is gone")
				}
				if part.Name == "nowhere" {
					return fmt.Errorf("it is nowhere: %w", fs.ErrNotExist)
				}
				at := time.Unix(95, 0)
				if part.Name == "one" {
					at = time.Unix(10, 0) // which is "old", if that is here
				}
				emit(step.Event{Time: at, Kind: step.Say, Text: part.Name + " of " + id})
				return nil
			}
		}
		if c.here != nil {
			var text strings.Builder
			for i, said := range c.here {
				fmt.Fprintf(&text, "{\"time\":%q,\"kind\":\"say\",\"text\":%q}\n", time.Unix(int64(10+80*i), 0).Format(time.RFC3339), said)
			}
			if err := errors.Join(os.MkdirAll(filepath.Dir(e.Host.State.Log(r2)), 0o700), os.WriteFile(e.Host.State.Log(r2), []byte(text.String()), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		s := &service{}
		if c.history != nil {
			s.executions = []execution{{id: web.ID(), run: "w1"}, {id: web.ID(), run: "w2", history: historyOf(t, c.history...)}}
			if c.left != nil {
				s.executions[1].status = enums.WORKFLOW_EXECUTION_STATUS_TERMINATED
				s.executions = append(s.executions, execution{id: leftID(r2), history: historyOf(t, c.left...)})
			}
			if c.pending != nil {
				s.executions[1].pending = []*api.PendingActivityInfo{c.pending}
			}
		}
		var got []string
		err := e.logs(t.Context(), s, web, func(e step.Event) { got = append(got, e.Text) })
		if !slices.EqualFunc(got, c.want, strings.HasPrefix) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v, want %q, %s", name, got, err, c.want, c.err)
		}
	}
}

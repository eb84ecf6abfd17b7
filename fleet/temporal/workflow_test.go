package temporal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	sdk "go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bake/fleet"
	"bake/step"
)

// fake replaces the workers: it executes stages according to script, and tracks the
// existing resources.
type fake struct {
	mu    sync.Mutex
	stage func(ctx context.Context, in stageIn) (stageOut, error)
	log   []string
	looks int
	gone  []string // runs that were torn down

	teardowns int // that fail before one succeeds

	promote    func(after time.Duration) []step.Channel // what channels report so long after the start; may be nil
	promotions int                                      // that fail before one succeeds
	began      time.Time
	now        func() time.Time   // by the clock of the workflow
	offered    fleet.PendingImage // the last one
	approved   []string           // channels
	orphans    []teardownIn

	metrics *Metrics // may be nil
}

func (f *fake) note(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, text)
}

func (f *fake) Stage(ctx context.Context, in stageIn) (stageOut, error) { return f.stage(ctx, in) }

func (f *fake) Available(context.Context, availableIn) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	return f.looks > 100, nil
}

func (f *fake) Teardown(_ context.Context, in teardownIn) (teardownOut, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.teardowns > 0 {
		f.teardowns--
		return teardownOut{}, errors.New("the cloud is down")
	}
	f.gone = append(f.gone, in.Run)
	return teardownOut{}, nil
}

func (f *fake) Notify(_ context.Context, in notifyIn) error {
	f.note(strings.TrimSpace("notify " + string(in.Outcome.Result) + " " + in.Outcome.Error))
	return nil
}

func (f *fake) Approve(_ context.Context, in approveIn) error {
	f.note("approve " + in.Approval.Channel + " by " + in.Approval.By)
	f.approved = append(f.approved, in.Approval.Channel)
	return nil
}

func (f *fake) Promote(_ context.Context, in fleet.PendingImage) ([]step.Channel, error) {
	f.offered = in
	if f.promotions > 0 {
		f.promotions--
		return nil, errors.New("the channel is locked")
	}
	if f.promotions < 0 {
		return nil, sdk.NewNonRetryableApplicationError("there is no such image", goneType, fleet.ErrGone)
	}
	after := f.now().Sub(f.began)
	f.note("promote after " + after.String())
	if f.promote == nil {
		var said []step.Channel
		for _, c := range in.Outcome.Awaiting {
			said = append(said, step.Channel{Name: c, Approval: !slices.Contains(f.approved, c)})
		}
		return said, nil
	}
	return f.promote(after), nil
}

func (f *fake) Pause(_ context.Context, in pauseIn) error {
	f.note(fmt.Sprintf("pause %s after %d", in.Fleet, in.Failures))
	return nil
}

func (f *fake) Orphans(context.Context, orphansIn) ([]teardownIn, error) { return f.orphans, nil }

// patient allows for a busy host.
func patient(t *testing.T, env *testsuite.TestWorkflowEnvironment) {
	env.SetTestTimeout(5 * time.Minute)
	env.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: time.Minute, Interceptors: []interceptor.WorkerInterceptor{&missed{t: t}}})
}

// missed shortens timeouts so that a dead worker is detected soon, whatever activity it was
// executing.
type missed struct {
	interceptor.WorkerInterceptorBase
	interceptor.WorkflowInboundInterceptorBase
	interceptor.WorkflowOutboundInterceptorBase
	t *testing.T
}

func (m *missed) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	one := &missed{t: m.t}
	one.WorkflowInboundInterceptorBase.Next = next
	return one
}

func (m *missed) Init(next interceptor.WorkflowOutboundInterceptor) error {
	m.WorkflowOutboundInterceptorBase.Next = next
	return m.WorkflowInboundInterceptorBase.Next.Init(m)
}

func (m *missed) ExecuteActivity(ctx workflow.Context, name string, args ...any) workflow.Future {
	o := workflow.GetActivityOptions(ctx)
	if after := cmp.Or(o.HeartbeatTimeout, o.StartToCloseTimeout); after == 0 || after > time.Minute {
		m.t.Errorf("nobody misses for %s a worker that has died in an activity %s", after, name)
	}
	return m.WorkflowOutboundInterceptorBase.Next.ExecuteActivity(ctx, name, args...)
}

func (f *fake) env(t *testing.T) *testsuite.TestWorkflowEnvironment {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{})
	if f.metrics != nil {
		suite.SetMetricsHandler(tally{Metrics: f.metrics})
	}
	env := suite.NewTestWorkflowEnvironment()
	f.now, f.began = env.Now, env.Now()
	patient(t, env)
	registerWorkflows(env)
	for name, fn := range map[string]any{stageActivity: f.Stage, availableActivity: f.Available, teardownActivity: f.Teardown, notifyActivity: f.Notify, approveActivity: f.Approve, promoteActivity: f.Promote, pauseActivity: f.Pause, orphansActivity: f.Orphans} {
		env.RegisterActivityWithOptions(fn, activity.RegisterOptions{Name: name})
	}
	return env
}

var web = fleet.Cell{Fleet: "nightly", Image: "web", Account: "111111111111", Region: "eu-west-1"}

// script carries out the stages of a build with two provisioners, and an image that takes long.
func (f *fake) script(ctx context.Context, in stageIn) (stageOut, error) {
	next := []step.Boundary{
		{Next: step.StageProvision, Of: 2}, {Next: step.StageProvision, Done: 1, Of: 2}, {Next: step.StageImage},
		{Next: step.StageWait, Region: "eu-west-1", Image: "ami-1"},
	}
	n := len(in.State)
	f.note(fmt.Sprintf("stage %d on %s", n, activity.GetInfo(ctx).TaskQueue))
	if n < len(next) {
		return stageOut{State: make([]byte, n+1), Next: next[n : n+1]}, nil
	}
	return stageOut{Outcome: &fleet.Outcome{Cell: in.Cell, Run: in.Run, Result: fleet.Built, Image: fleet.Image{ID: "ami-" + in.Cell.Image}}}, nil
}

// TestBakeStages: stages follow each other on their queues, no worker is needed while an image is
// made, and a run that has torn itself down is not torn down again.
func TestBakeStages(t *testing.T) {
	f := &fake{}
	f.stage = f.script
	env := f.env(t)
	begun := env.Now()
	env.ExecuteWorkflow(bakeWorkflow, bakeIn{Cell: web, Notify: true})
	var out fleet.Outcome
	if err := env.GetWorkflowResult(&out); err != nil || out.Result != fleet.Built || out.Image.ID != "ami-web" || out.Run == "" {
		t.Fatalf("%+v, %v", out, err)
	}
	want := []string{
		"stage 0 on bake/nightly/111111111111/eu-west-1/api", "stage 1 on bake/nightly/111111111111/eu-west-1", "stage 2 on bake/nightly/111111111111/eu-west-1",
		"stage 3 on bake/nightly/111111111111/eu-west-1/api", "stage 4 on bake/nightly/111111111111/eu-west-1/api", "notify built",
	}
	if !slices.Equal(f.log, want) {
		t.Errorf("it did %q", f.log)
	}
	if f.looks != 101 || len(f.gone) > 0 {
		t.Errorf("%d looks; torn down: %q", f.looks, f.gone)
	}
	if took := env.Now().Sub(begun); took < 40*time.Minute || took > 2*time.Hour {
		t.Errorf("it took %s of the workflow's time", took)
	}
}

// TestBakeBeginsAgain: a run whose worker has died during the launch, or that was
// interrupted, is torn down, and another one starts; after several of them, the cell fails.
func TestBakeBeginsAgain(t *testing.T) {
	for name, c := range map[string]struct {
		deaths int
		want   fleet.Result
	}{"once": {1, fleet.Built}, "twice": {2, fleet.Built}, "always": {99, fleet.Failed}} {
		f := &fake{teardowns: 2, metrics: newMetrics()}
		died := 0
		runs := map[string]bool{}
		f.stage = func(ctx context.Context, in stageIn) (stageOut, error) {
			runs[in.Run] = true
			if len(in.State) == died%2 && died < c.deaths {
				died++
				if died%2 == 0 {
					return stageOut{State: in.State, Interrupted: true, Left: true, Outcome: &fleet.Outcome{Run: in.Run, Result: fleet.Failed}}, nil
				}
				return stageOut{}, sdk.NewHeartbeatTimeoutError()
			}
			return f.script(ctx, in)
		}
		env := f.env(t)
		env.ExecuteWorkflow(bakeWorkflow, bakeIn{Cell: web})
		var out fleet.Outcome
		if err := env.GetWorkflowResult(&out); err != nil || out.Result != c.want {
			t.Errorf("%s: %+v, %v", name, out, err)
		}
		for _, r := range []fleet.Result{fleet.Built, fleet.Failed, fleet.Cancelled} { // not once for each run
			if n := f.metrics.counters[cells(r)]; n != 0 && r != c.want || n != 1 && r == c.want {
				t.Errorf("%s: %g cells were %s", name, n, r)
			}
		}
		if want := min(c.deaths, lives); len(f.gone) != want || len(runs) != min(c.deaths+1, lives) {
			t.Errorf("%s: %d runs, torn down: %q", name, len(runs), f.gone)
		}
	}
}

// TestServiceEndsActivities: a cell whose activity was ended by the service is torn down, and
// starts again unless the activity had used up its time. An activity that reports a failure has
// failed, whatever its error.
func TestServiceEndsActivities(t *testing.T) {
	ends := map[string]error{
		"deadline":  sdk.NewTimeoutError(enums.TIMEOUT_TYPE_START_TO_CLOSE, nil),
		"heartbeat": sdk.NewHeartbeatTimeoutError(),
		"no worker": sdk.NewTimeoutError(enums.TIMEOUT_TYPE_SCHEDULE_TO_START, nil),
		"own error": sdk.NewNonRetryableApplicationError("context deadline exceeded", "State", nil),
		"outcome":   nil,
	}
	for name, end := range ends {
		for _, at := range []int{0, 1, 3} { // the launch, a provisioner, and what comes after the image
			f := &fake{looks: 99}
			first, runs := "", map[string]bool{}
			f.stage = func(ctx context.Context, in stageIn) (stageOut, error) {
				runs[in.Run] = true
				if first == "" {
					first = in.Run
				}
				switch {
				case in.Run != first || len(in.State) != at:
					return f.script(ctx, in)
				case end != nil: // each attempt
					return stageOut{}, end
				}
				return stageOut{Left: true, Outcome: &fleet.Outcome{Run: in.Run, Result: fleet.Failed, Code: 3, Error: "context deadline exceeded"}}, nil
			}
			env := f.env(t)
			env.ExecuteWorkflow(bakeWorkflow, bakeIn{Cell: web})
			var out fleet.Outcome
			if err := env.GetWorkflowResult(&out); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			want, lived := fleet.Failed, 1
			if strings.Contains("heartbeat no worker", name) {
				want, lived = fleet.Built, 2
			}
			if out.Result != want || len(runs) != lived || len(f.gone) != 1 {
				t.Errorf("%s at %d: %s (%s) in %d runs, torn down: %q", name, at, out.Result, out.Error, len(runs), f.gone)
			}
		}
	}
}

// TestBakeRests: there is a pause before a cell begins again, and it can be cancelled during the
// pause.
func TestBakeRests(t *testing.T) {
	f := &fake{}
	f.stage = func(context.Context, stageIn) (stageOut, error) { return stageOut{}, sdk.NewHeartbeatTimeoutError() }
	env := f.env(t)
	env.RegisterDelayedCallback(env.CancelWorkflow, firstRest+firstRest/2) // while it rests for the second time
	env.ExecuteWorkflow(bakeWorkflow, bakeIn{Cell: web})
	var out fleet.Outcome
	if err := env.GetWorkflowResult(&out); err != nil || out.Result != fleet.Cancelled || len(f.gone) != 2 {
		t.Errorf("%+v, %v; torn down: %q", out, err, f.gone)
	}
}

// TestBakeCancelled: a cancelled cell is torn down, even if it only waits.
func TestBakeCancelled(t *testing.T) {
	f := &fake{teardowns: 3}
	f.stage = f.script
	env := f.env(t)
	env.RegisterDelayedCallback(env.CancelWorkflow, 10*time.Minute)
	env.ExecuteWorkflow(bakeWorkflow, bakeIn{Cell: web})
	var out fleet.Outcome
	if err := env.GetWorkflowResult(&out); err != nil || out.Result != fleet.Cancelled || len(f.gone) != 1 || f.gone[0] != out.Run {
		t.Errorf("%+v, %v; torn down: %q", out, err, f.gone)
	}
	if f.looks == 0 || f.looks > 100 {
		t.Errorf("%d looks: it was not cancelled while it waited", f.looks)
	}
}

// TestBakeCutOff: a stage that ended although the cell was not cancelled starts again if it
// reports an interruption, but not if it reports a cancellation. In runs started by older
// versions, both start again.
func TestBakeCutOff(t *testing.T) {
	for _, v := range []workflow.Version{workflow.DefaultVersion, 1} {
		for _, interrupted := range []bool{false, true} {
			f := &fake{}
			first := true
			f.stage = func(ctx context.Context, in stageIn) (stageOut, error) {
				if first {
					first = false
					return stageOut{Interrupted: interrupted, Outcome: &fleet.Outcome{Run: in.Run, Result: fleet.Cancelled, Code: 130}}, nil
				}
				return f.script(ctx, in)
			}
			env := f.env(t)
			env.OnGetVersion("rest", workflow.DefaultVersion, workflow.Version(1)).Return(v)
			env.ExecuteWorkflow(bakeWorkflow, bakeIn{Cell: web})
			want := fleet.Built
			if v == 1 && !interrupted {
				want = fleet.Failed
			}
			var out fleet.Outcome
			if err := env.GetWorkflowResult(&out); err != nil || out.Result != want {
				t.Errorf("version %d, interrupted: %t: %+v, %v", v, interrupted, out, err)
			}
		}
	}
}

// nightly are cells of three images in two accounts; web and db need base.
func nightly() (cells []fleet.Cell) {
	for _, image := range []string{"base", "web", "db"} {
		for _, account := range []string{"111111111111", "222222222222"} {
			c := fleet.Cell{Fleet: "nightly", Image: image, Account: account, Region: "eu-west-1"}
			if image != "base" {
				base := c
				base.Image = "base"
				c.Needs = []string{base.ID()}
			}
			cells = append(cells, c)
		}
	}
	return cells
}

// TestFleet: children begin when the images of their parents exist, and receive them; cells
// whose parent failed are skipped.
func TestFleet(t *testing.T) {
	f := &fake{}
	f.stage = func(_ context.Context, in stageIn) (stageOut, error) {
		f.note(in.Cell.Short())
		out := &fleet.Outcome{Cell: in.Cell, Run: in.Run, Result: fleet.Built, Image: fleet.Image{ID: "ami-" + in.Cell.Image + in.Cell.Account}}
		switch {
		case in.Cell.Image == "base" && in.Cell.Account == "222222222222":
			out.Result, out.Error, out.Code = fleet.Failed, "no capacity", 5
		case in.Cell.Image != "base" && (len(in.Parents) != 1 || in.Parents[0].Image.ID != "ami-base111111111111"):
			t.Errorf("%s has the parents %v", in.Cell.Short(), in.Parents)
		}
		return stageOut{Outcome: out}, nil
	}
	env := f.env(t)
	env.ExecuteWorkflow(fleetWorkflow, fleetIn{Fleet: "nightly", Cells: nightly(), Limits: fleet.Limits{Parallel: 3}})
	var s fleet.Status
	if err := env.GetWorkflowResult(&s); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range s.Cells {
		got = append(got, c.Cell.Short()+" "+string(c.State))
	}
	want := "base/111111111111/eu-west-1 built, base/222222222222/eu-west-1 failed, web/111111111111/eu-west-1 built, web/222222222222/eu-west-1 skipped, db/111111111111/eu-west-1 built, db/222222222222/eu-west-1 skipped"
	if strings.Join(got, ", ") != want || s.State != fleet.StateFailed {
		t.Errorf("%s: %s", s.State, strings.Join(got, ", "))
	}
}

// TestFleetStrict: the run of a schedule fails with its cells, so that failures can be counted.
func TestFleetStrict(t *testing.T) {
	f := &fake{}
	f.stage = func(_ context.Context, in stageIn) (stageOut, error) {
		return stageOut{Outcome: &fleet.Outcome{Run: in.Run, Result: fleet.Failed}}, nil
	}
	env := f.env(t)
	env.ExecuteWorkflow(fleetWorkflow, fleetIn{Fleet: "nightly", Cells: nightly(), Strict: true, PauseAfter: 3})
	if err := env.GetWorkflowError(); err == nil || !strings.Contains(err.Error(), "cells of the fleet nightly have failed") {
		t.Error(err)
	}
	if !slices.Equal(f.log, []string{"pause nightly after 3"}) {
		t.Errorf("it did %q", f.log)
	}
}

// TestFleetPausedAndCancelled: a paused fleet starts nothing, and cancelling it tears down
// the running cells.
func TestFleetPausedAndCancelled(t *testing.T) {
	f := &fake{}
	f.stage = f.script
	env := f.env(t)
	env.RegisterDelayedCallback(func() { env.SignalWorkflow(pauseSignal, true) }, time.Second)
	env.RegisterDelayedCallback(func() {
		var s fleet.Status
		v, err := env.QueryWorkflow(statusQuery)
		if err == nil {
			err = v.Get(&s)
		}
		if err != nil || s.State != fleet.StatePaused || s.Cells[0].State != fleet.StateRunning || s.Cells[1].State != fleet.StateWaiting {
			t.Errorf("%+v, %v", s, err)
		}
		env.CancelWorkflow()
	}, 10*time.Minute)
	env.ExecuteWorkflow(fleetWorkflow, fleetIn{Fleet: "nightly", Cells: nightly(), Limits: fleet.Limits{Parallel: 1}})
	var s fleet.Status
	if err := env.GetWorkflowResult(&s); err != nil {
		t.Fatal(err)
	}
	for _, c := range s.Cells {
		if c.State != fleet.State(fleet.Cancelled) {
			t.Errorf("%s is %s", c.Cell.Short(), c.State)
		}
	}
	if len(f.gone) != 1 || s.State != fleet.StateCancelled {
		t.Errorf("%s; torn down: %q", s.State, f.gone)
	}
}

// TestFleetOfThousands: a fleet with a long history continues in a new workflow, with the
// cells that have ended. It neither bakes a cell twice nor forgets one.
func TestFleetOfThousands(t *testing.T) {
	const many = 120 // the history is reported as long
	var cells []fleet.Cell
	for i := range many {
		cells = append(cells, fleet.Cell{Fleet: "big", Image: fmt.Sprintf("i%04d", i), Account: "111111111111", Region: "eu-west-1"})
	}
	in := fleetIn{Fleet: "big", Cells: cells, Limits: fleet.Limits{Parallel: 50}}
	baked := map[string]int{}
	workflows := 0
	for ; workflows < 20; workflows++ {
		f := &fake{}
		f.stage = func(_ context.Context, in stageIn) (stageOut, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			baked[in.Cell.Image]++
			out := &fleet.Outcome{Cell: in.Cell, Result: fleet.Built}
			if in.Cell.Image == "i0003" {
				out.Result = fleet.Failed
			}
			return stageOut{Outcome: out}, nil
		}
		env := f.env(t)
		env.SetCurrentHistoryLength(100)
		env.RegisterDelayedCallback(func() { env.SetCurrentHistoryLength(longHistory + 1) }, 0)
		if workflows > 2 { // it would never end
			env = f.env(t)
		}
		env.ExecuteWorkflow(fleetWorkflow, in)
		err := env.GetWorkflowError()
		var again *workflow.ContinueAsNewError
		if !errors.As(err, &again) {
			var s fleet.Status
			if err := env.GetWorkflowResult(&s); err != nil || len(s.Cells) != len(cells) || s.State != fleet.StateFailed {
				t.Errorf("%s, %d cells, %v", s.State, len(s.Cells), err)
			}
			break
		}
		in = fleetIn{}
		if err := decode(again.Input, &in); err != nil {
			t.Fatal(err)
		}
	}
	for name, n := range baked {
		if n != 1 {
			t.Errorf("%s was baked %d times", name, n)
		}
	}
	if len(baked) != len(cells) || workflows == 0 {
		t.Errorf("%d cells were baked by %d workflows", len(baked), workflows+1)
	}
}

// pending returns a waiting image.
func pending(o fleet.Outcome) fleet.PendingImage {
	return fleet.PendingImage{Outcome: o, Places: []step.Placement{{Account: o.Cell.Account, Region: o.Cell.Region, ID: o.Image.ID}}}
}

// update approves an image in a workflow under test, and checks whether that succeeds.
func update(t *testing.T, env *testsuite.TestWorkflowEnvironment, id, channel, by string, want bool) func() {
	return func() {
		env.UpdateWorkflow(approveUpdate, id, &testsuite.TestUpdateCallback{
			OnAccept: func() {}, OnReject: func(err error) {
				if want {
					t.Errorf("%s: %v", channel, err)
				}
			},
			OnComplete: func(_ any, err error) {
				if (err == nil) != want {
					t.Errorf("%s: %v", channel, err)
				}
			},
		}, fleet.Approval{Cell: web, Channel: channel, By: by})
	}
}

// TestApproval: an image waits, even for days, only for channels that require an
// approval. After each approval, it is offered to its channels.
func TestApproval(t *testing.T) {
	f := &fake{}
	env := f.env(t)
	env.RegisterDelayedCallback(update(t, env, "1", "beta", "ann", false), time.Hour)
	env.RegisterDelayedCallback(update(t, env, "2", "stable", "", false), 24*time.Hour)
	env.RegisterDelayedCallback(update(t, env, "3", "stable", "ann", true), 72*time.Hour)
	env.RegisterDelayedCallback(update(t, env, "4", "stable", "bob", false), 80*time.Hour)
	env.RegisterDelayedCallback(update(t, env, "5", "latest", "bob", true), 81*time.Hour)
	env.ExecuteWorkflow(approvalWorkflow, pending(fleet.Outcome{Cell: web, Run: "r1", Result: fleet.Built, Waits: fleet.Waits{Awaiting: []string{"stable", "latest"}}}))
	if err := env.GetWorkflowError(); err != nil {
		t.Error(err)
	}
	want := []string{"approve stable by ann", "promote after 72h0m0s", "approve latest by bob", "promote after 81h0m0s"}
	if log, more := unasked(f.log, want); !slices.Equal(log, want) || more < 40 || more > 80 { // it checks what bake images approve has done
		t.Errorf("it did %q", f.log)
	}
}

// TestReusedImageWaitsAnew: an image that a later run reuses waits from that time on, since the
// template requests it again: images that entered its channels before do not keep it out.
func TestReusedImageWaitsAnew(t *testing.T) {
	f := &fake{}
	var runs []string
	f.stage = func(_ context.Context, in stageIn) (stageOut, error) {
		runs = append(runs, in.Run)
		return stageOut{Outcome: &fleet.Outcome{Cell: in.Cell, Run: in.Run, Result: fleet.Reused, Image: fleet.Image{ID: "ami-1"}, Waits: fleet.Waits{Awaiting: []string{"stable"}}}}, nil
	}
	env := f.env(t)
	const day = 24 * time.Hour
	env.RegisterWorkflowWithOptions(func(ctx workflow.Context) error {
		for _, then := range []time.Duration{patience - day, 2 * day} {
			if err := workflow.ExecuteChildWorkflow(ctx, bakeWorkflow, bakeIn{Cell: web}).Get(ctx, nil); err != nil {
				return err
			}
			if err := workflow.Sleep(ctx, then); err != nil {
				return err
			}
		}
		return nil
	}, workflow.RegisterOptions{Name: "twice"})
	env.ExecuteWorkflow("twice")
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	if o := f.offered; len(runs) != 2 || o.Outcome.Run != runs[1] || o.Since.Sub(f.began).Round(time.Hour) != patience-day {
		t.Errorf("of the runs %q, the image waits for that of %q, since %s after the first one", runs, o.Outcome.Run, o.Since.Sub(f.began))
	}
	if last, want := f.log[len(f.log)-1], "promote after "+(patience-day+patience).String(); last != want {
		t.Errorf("it waited until %s, want %s", last, want)
	}
}

// TestSoak: an image enters its channels one after the other, each when it has been in the
// previous one for long enough and was approved; no worker is occupied meanwhile.
func TestSoak(t *testing.T) {
	for name, c := range map[string]struct {
		cancel time.Duration // 0: not
		want   []string
		end    time.Duration
	}{
		"to the end":      {0, []string{"promote after 24h0m0s", "approve stable by ann", "promote after 30h0m0s", "promote after 72h0m0s", "promote after 72h0m1s"}, 72*time.Hour + time.Second},
		"cancelled":       {20 * time.Hour, nil, 20 * time.Hour},
		"cancelled later": {40 * time.Hour, []string{"promote after 24h0m0s", "approve stable by ann", "promote after 30h0m0s"}, 40 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			env := f.env(t)
			began := env.Now()
			soaked := func(after time.Duration) []fleet.Soak {
				return []fleet.Soak{{Channel: "beta", Until: began.Add(after)}}
			}
			f.promote = func(after time.Duration) []step.Channel {
				beta, stable := step.Channel{Name: "beta", Names: true}, step.Channel{Name: "stable", Until: began.Add(72 * time.Hour)}
				switch {
				case after < 24*time.Hour:
					t.Errorf("it is offered after %s", after)
				case after < 30*time.Hour:
					stable.Approval = true
				case after == 72*time.Hour: // by the clock of AWS it is a little less
					stable.Until = began.Add(72*time.Hour + time.Millisecond)
				case after > 72*time.Hour:
					stable = step.Channel{Name: "stable", Names: true}
				}
				return []step.Channel{beta, stable}
			}
			status := func(after time.Duration, want string) {
				env.RegisterDelayedCallback(func() {
					var w fleet.Waits
					v, err := env.QueryWorkflow(statusQuery)
					if err == nil {
						err = v.Get(&w)
					}
					if err != nil || w.Text() != want {
						t.Errorf("after %s: %q, %v, want %q", after, w.Text(), err, want)
					}
				}, after)
			}
			at := func(after time.Duration) string { return began.Add(after).UTC().Format(time.RFC3339) }
			status(time.Hour, "soaking until "+at(24*time.Hour)+" for beta")
			env.RegisterDelayedCallback(update(t, env, "1", "stable", "ann", false), 2*time.Hour) // it is not next
			if c.cancel == 0 || c.cancel > 24*time.Hour {
				status(25*time.Hour, "soaking until "+at(72*time.Hour)+" for stable, waits for approval for stable")
				env.RegisterDelayedCallback(update(t, env, "2", "stable", "ann", true), 30*time.Hour)
				status(31*time.Hour, "soaking until "+at(72*time.Hour)+" for stable")
			}
			if c.cancel > 0 {
				env.RegisterDelayedCallback(env.CancelWorkflow, c.cancel)
			}
			env.ExecuteWorkflow(approvalWorkflow, pending(fleet.Outcome{Cell: web, Run: "r1", Result: fleet.Built, Waits: fleet.Waits{Soaking: soaked(24 * time.Hour)}}))
			if err := env.GetWorkflowError(); (err != nil) != (c.cancel > 0) || c.cancel > 0 && !sdk.IsCanceledError(err) {
				t.Error(err)
			}
			if log, more := unasked(f.log, c.want); !slices.Equal(log, c.want) || more > 6 || len(c.want) > 0 && more < 4 {
				t.Errorf("it did %q", f.log)
			}
			if took := env.Now().Sub(began); took != c.end {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// unasked returns the log entries about promotions that were not requested, and the number of the
// others.
func unasked(log, want []string) (few []string, more int) {
	for _, one := range log {
		if strings.HasPrefix(one, "promote ") && !slices.Contains(want, one) {
			more++
			continue
		}
		few = append(few, one)
	}
	return few, more
}

// TestPromotionFails: an image that cannot enter its channels for days keeps waiting,
// reports why, and webhooks are notified once. An image that is gone stops waiting, and
// webhooks are notified of that.
func TestPromotionFails(t *testing.T) {
	for name, c := range map[string]struct {
		failures int
		until    time.Duration
		want     []string
	}{
		"a weekend": {200, time.Hour, []string{"notify failed its image cannot enter its channels, which is tried again: the channel is locked"}},
		"gone":      {-1, time.Hour, []string{"notify failed its image waits for its channels no more: there is no such image"}},
		"long soak": {0, 45 * 24 * time.Hour, nil},
	} {
		f := &fake{promotions: c.failures}
		env := f.env(t)
		began := env.Now()
		if c.failures > 0 {
			env.RegisterDelayedCallback(func() {
				var w fleet.Waits
				v, err := env.QueryWorkflow(statusQuery)
				if err == nil {
					err = v.Get(&w)
				}
				if err != nil || !strings.HasSuffix(w.Text(), "could not enter its channels: the channel is locked") {
					t.Errorf("%s: %q, %v", name, w.Text(), err)
				}
			}, 24*time.Hour)
		}
		env.ExecuteWorkflow(approvalWorkflow, pending(fleet.Outcome{Cell: web, Run: "r1", Result: fleet.Built, Waits: fleet.Waits{Soaking: []fleet.Soak{{Channel: "stable", Until: began.Add(c.until)}}}}))
		log, more := unasked(f.log, nil)
		if err := env.GetWorkflowError(); err != nil || !slices.Equal(log, c.want) || f.promotions > 0 || (more == 1) != (c.failures >= 0) {
			t.Errorf("%s: it did %q, %v; %d promotions would have failed", name, f.log, err, f.promotions)
		}
	}
}

// TestReusedImageWaitsOnce: runs that reuse a waiting image succeed, and the image waits only
// once, for the last of them.
func TestReusedImageWaitsOnce(t *testing.T) {
	f := &fake{}
	env := f.env(t)
	waits := fleet.Waits{Soaking: []fleet.Soak{{Channel: "stable", Until: env.Now().Add(100 * time.Hour)}}}
	places := []step.Placement{{Account: web.Account, Region: web.Region, ID: "ami-1"}}
	f.stage = func(_ context.Context, in stageIn) (stageOut, error) {
		return stageOut{Outcome: &fleet.Outcome{Cell: in.Cell, Run: in.Run, Result: fleet.Reused, Image: fleet.Image{ID: "ami-1"}, Waits: waits}, Places: places}, nil
	}
	env.RegisterWorkflowWithOptions(func(ctx workflow.Context) error {
		for i := range 3 {
			var out fleet.Outcome
			of := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{WorkflowID: fmt.Sprint("night ", i)})
			if err := workflow.ExecuteChildWorkflow(of, bakeWorkflow, bakeIn{Cell: web}).Get(ctx, &out); err != nil || out.Result != fleet.Reused {
				return fmt.Errorf("night %d: %s, %w", i, out.Result, err)
			}
			if err := workflow.Sleep(ctx, 24*time.Hour); err != nil {
				return err
			}
		}
		return workflow.Sleep(ctx, 100*time.Hour)
	}, workflow.RegisterOptions{Name: "nights"})
	env.ExecuteWorkflow("nights")
	if err := env.GetWorkflowError(); err != nil || len(f.log) != 1 {
		t.Errorf("it did %q, %v", f.log, err)
	}
	if since := f.offered.Since.Sub(f.began); !slices.Equal(f.offered.Places, places) || f.offered.Outcome.Image.ID != "ami-1" || since < 48*time.Hour || since > 49*time.Hour {
		t.Errorf("it was offered as %+v", f.offered)
	}
}

// TestClockIsBehind: an image that still soaks by the clock of the worker is offered once a
// minute, and the workflow returns the last reason for not promoting it.
func TestClockIsBehind(t *testing.T) {
	f := &fake{}
	env := f.env(t)
	until := env.Now().Add(time.Hour)
	f.promote = func(after time.Duration) []step.Channel {
		if after < 70*time.Minute {
			return []step.Channel{{Name: "stable", Until: until}}
		}
		return []step.Channel{{Name: "stable", Reasons: []string{"it was taken back"}}}
	}
	env.ExecuteWorkflow(approvalWorkflow, pending(fleet.Outcome{Cell: web, Run: "r1", Result: fleet.Built, Waits: fleet.Waits{Soaking: []fleet.Soak{{Channel: "stable", Until: until}}}}))
	var w fleet.Waits
	if err := env.GetWorkflowResult(&w); err != nil || w.Text() != "kept out of stable: it was taken back" {
		t.Errorf("%q, %v", w.Text(), err)
	}
	if len(f.log) < 10 || len(f.log) > 12 {
		t.Errorf("it did %q", f.log)
	}
}

// TestPromotionIsTriedAgain: a temporary failure does not keep an image out of its channel.
func TestPromotionIsTriedAgain(t *testing.T) {
	f := &fake{promotions: 5}
	env := f.env(t)
	began := env.Now()
	env.ExecuteWorkflow(approvalWorkflow, pending(fleet.Outcome{Cell: web, Run: "r1", Result: fleet.Built, Waits: fleet.Waits{Soaking: []fleet.Soak{{Channel: "stable", Until: began.Add(time.Hour)}}}}))
	if err := env.GetWorkflowError(); err != nil || len(f.log) != 1 || f.promotions != 0 {
		t.Errorf("it did %q, %v; %d promotions would have failed", f.log, err, f.promotions)
	}
}

// TestBakeWaits: the workflow of a cell ends when its image is made, and another one waits for its
// channels.
func TestBakeWaits(t *testing.T) {
	f := &fake{}
	env := f.env(t)
	began := env.Now()
	waits := fleet.Waits{Soaking: []fleet.Soak{{Channel: "stable", Until: began.Add(24 * time.Hour)}}}
	f.stage = func(_ context.Context, in stageIn) (stageOut, error) {
		return stageOut{Outcome: &fleet.Outcome{Cell: in.Cell, Run: in.Run, Result: fleet.Built, Waits: waits}}, nil
	}
	var child string
	env.SetOnChildWorkflowStartedListener(func(i *workflow.Info, _ workflow.Context, _ converter.EncodedValues) { child = i.WorkflowExecution.ID })
	env.ExecuteWorkflow(bakeWorkflow, bakeIn{Cell: web})
	var out fleet.Outcome
	if err := env.GetWorkflowResult(&out); err != nil || out.Result != fleet.Built || len(out.Soaking) != 1 || child != approvalID(out) {
		t.Errorf("%+v, %v; it has begun %q", out, err, child)
	}
	if took := out.Ended.Sub(began); took > time.Hour {
		t.Errorf("the cell took %s", took)
	}
}

// TestLargeFleet: a fleet with more cells than a workflow may have children is baked by a workflow
// for each image. Together they keep to the limits, and bake each cell once and after its parent.
func TestLargeFleet(t *testing.T) {
	const images, places, parallel, perAccount = 12, 100, 37, 9
	var cells []fleet.Cell
	for i := range images {
		for p := range places {
			c := fleet.Cell{Fleet: "big", Image: fmt.Sprintf("i%02d", i), Account: fmt.Sprintf("1111111111%02d", p%10), Region: fmt.Sprintf("eu-west-%d", p/10)}
			if i > 0 {
				parent := c
				parent.Image = "i00"
				if i == images-1 {
					parent.Image = "i01"
				}
				c.Needs = []string{parent.ID()}
			}
			cells = append(cells, c)
		}
	}
	lost := cells[3]
	for name, in := range map[string]fleetIn{
		"all": {}, "cancelled": {}, "fail fast": {FailFast: true}, "resumed": {Done: []fleet.Outcome{{Cell: cells[0], Result: fleet.Built}, {Cell: cells[places], Result: fleet.Built}}},
	} {
		t.Run(name, func(t *testing.T) {
			in.Fleet, in.Cells, in.Limits = "big", cells, fleet.Limits{Parallel: parallel, PerAccount: perAccount}
			baked, ended := map[string]int{}, map[string]bool{}
			for _, o := range in.Done {
				ended[o.Cell.ID()] = true
			}
			var suite testsuite.WorkflowTestSuite
			suite.SetLogger(quiet{})
			env := suite.NewTestWorkflowEnvironment()
			patient(t, env)
			env.RegisterWorkflowWithOptions(runFleet, workflow.RegisterOptions{Name: fleetWorkflow})
			env.RegisterWorkflowWithOptions(runImage, workflow.RegisterOptions{Name: imageWorkflow})
			var ran, peak int
			accounts := map[string]int{}
			env.RegisterWorkflowWithOptions(func(ctx workflow.Context, in bakeIn) (fleet.Outcome, error) {
				baked[in.Cell.ID()]++
				ran++
				accounts[in.Cell.Account]++
				peak = max(peak, ran)
				if accounts[in.Cell.Account] > perAccount {
					t.Errorf("%d cells at a time in %s", accounts[in.Cell.Account], in.Cell.Account)
				}
				for i, need := range in.Cell.Needs {
					if !ended[need] || in.Parents[i].Cell.ID() != need {
						t.Errorf("%s begins without %s", in.Cell.Short(), need)
					}
				}
				err := workflow.Sleep(ctx, time.Duration(10+len(baked)%7)*time.Minute)
				ran--
				accounts[in.Cell.Account]--
				out := fleet.Outcome{Cell: in.Cell, Result: fleet.Built, Ended: workflow.Now(ctx)}
				switch {
				case err != nil:
					out.Result, out.Code = fleet.Cancelled, 130
				case in.Cell.ID() == lost.ID():
					out.Result = fleet.Failed
				default:
					ended[in.Cell.ID()] = true
				}
				return out, nil
			}, workflow.RegisterOptions{Name: bakeWorkflow})
			began := env.Now()
			if name == "cancelled" {
				env.RegisterDelayedCallback(env.CancelWorkflow, 4*time.Hour)
			}
			env.ExecuteWorkflow(fleetWorkflow, in)
			var s fleet.Status
			if err := env.GetWorkflowResult(&s); err != nil {
				t.Fatal(err)
			}
			count := map[fleet.State]int{}
			for _, c := range s.Cells {
				count[c.State]++
			}
			for id, n := range baked {
				if n != 1 {
					t.Errorf("%s was baked %d times", id, n)
				}
			}
			t.Logf("%s in %s: %v; %d at a time at most", s.State, env.Now().Sub(began), count, peak)
			if peak > parallel || peak < parallel-4 || ran != 0 {
				t.Errorf("%d at a time at most, %d go on", peak, ran)
			}
			total := images * places
			switch name {
			case "all", "resumed":
				if count["failed"] != 1 || count["skipped"] != images-1 || count["built"] != total-images || s.State != fleet.StateFailed || len(baked) != total-images+1-len(in.Done) {
					t.Errorf("%d were baked", len(baked))
				}
			default:
				if count["cancelled"] == 0 || count["built"] != len(ended) || count["built"]+count["cancelled"]+count["failed"]+count["skipped"] != total {
					t.Errorf("%d were baked", len(baked))
				}
			}
		})
	}
}

// TestReadyImagesDoNotWait: if the images of a fleet have separate workflows, those whose parents
// are done get a share of the limits from the others.
func TestReadyImagesDoNotWait(t *testing.T) {
	const parallel, children = 20, 3
	var cells []fleet.Cell
	add := func(image string, n int, parent string) {
		for i := range n {
			c := fleet.Cell{Fleet: "big", Image: image, Account: fmt.Sprintf("1111111111%02d", i%10), Region: fmt.Sprintf("eu-west-%d", i/10)}
			if parent != "" {
				p := c
				p.Image = parent
				c.Needs = []string{p.ID()}
			}
			cells = append(cells, c)
		}
	}
	add("base", 10, "")
	for i := range 10 {
		add(fmt.Sprint("other", i), 100, "")
	}
	for i := range children {
		add(fmt.Sprint("child", i), 10, "base")
	}
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{})
	env := suite.NewTestWorkflowEnvironment()
	patient(t, env)
	env.RegisterWorkflowWithOptions(runFleet, workflow.RegisterOptions{Name: fleetWorkflow})
	env.RegisterWorkflowWithOptions(runImage, workflow.RegisterOptions{Name: imageWorkflow})
	began := env.Now()
	first, last := map[string]time.Duration{}, map[string]time.Duration{}
	ran, peak := 0, 0
	env.RegisterWorkflowWithOptions(func(ctx workflow.Context, in bakeIn) (fleet.Outcome, error) {
		if _, ok := first[in.Cell.Image]; !ok {
			first[in.Cell.Image] = workflow.Now(ctx).Sub(began)
		}
		ran++
		peak = max(peak, ran)
		err := workflow.Sleep(ctx, 10*time.Minute)
		ran--
		last[in.Cell.Image] = workflow.Now(ctx).Sub(began)
		return fleet.Outcome{Cell: in.Cell, Result: fleet.Built, Ended: workflow.Now(ctx)}, err
	}, workflow.RegisterOptions{Name: bakeWorkflow})
	env.ExecuteWorkflow(fleetWorkflow, fleetIn{Fleet: "big", Cells: cells, Limits: fleet.Limits{Parallel: parallel}})
	var s fleet.Status
	if err := env.GetWorkflowResult(&s); err != nil || s.State != fleet.StateDone {
		t.Fatalf("%s, %v", s.State, err)
	}
	took := env.Now().Sub(began)
	t.Logf("base ended after %s, the others began at %v, all took %s; %d at a time", last["base"], first, took, peak)
	for i := range children {
		if wait := first[fmt.Sprint("child", i)] - last["base"]; wait < 0 || wait > 11*time.Minute {
			t.Errorf("child%d began %s after its parent had ended", i, wait)
		}
	}
	if ideal := time.Duration(len(cells)/parallel) * 10 * time.Minute; peak > parallel || took > ideal+ideal/8 {
		t.Errorf("%d at a time; it took %s, and %s is the least", peak, took, ideal)
	}
}

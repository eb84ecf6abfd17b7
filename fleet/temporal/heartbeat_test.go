package temporal

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	sdk "go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"bake/config"
	"bake/fleet"
	"bake/run"
	"bake/run/localcloud"
)

// TestPulse: a service that is slow, or does not answer for a while, does not end an activity. One
// that does not answer for too long does, and so does one that ends it.
func TestPulse(t *testing.T) {
	busy := serviceerror.NewDeadlineExceeded("context deadline exceeded")
	for name, c := range map[string]struct {
		answer func(since time.Duration) (takes time.Duration, err error)
		ends   time.Duration // at about this time; 0: never
		cause  error
	}{
		"quick": {func(time.Duration) (time.Duration, error) { return 0, nil }, 0, nil},
		"slow":  {func(time.Duration) (time.Duration, error) { return 8 * time.Second, nil }, 0, nil},
		"lost once": {func(s time.Duration) (time.Duration, error) {
			if err := errIn(s < 43*time.Second && s > 40*time.Second, busy); err != nil {
				return time.Hour, err
			}
			return time.Second, nil
		}, 0, nil},
		"gone": {func(s time.Duration) (time.Duration, error) {
			return 9 * time.Second, errIn(s > 30*time.Second, busy)
		}, 70 * time.Second, errCutOff},
		"gone and silent": {func(s time.Duration) (time.Duration, error) {
			if s > 30*time.Second {
				return time.Hour, busy
			}
			return 9 * time.Second, nil
		}, 70 * time.Second, errCutOff},
		"cancelled": {func(s time.Duration) (time.Duration, error) {
			return 0, errIn(s > 30*time.Second, sdk.NewCanceledError())
		}, 34 * time.Second, sdk.NewCanceledError()},
		"terminated": {func(s time.Duration) (time.Duration, error) {
			return 0, errIn(s > 30*time.Second, serviceerror.NewNotFound("workflow execution already completed"))
		}, 34 * time.Second, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				apart, stop := context.WithCancel(t.Context())
				ctx, cancel := context.WithCancelCause(t.Context())
				began := time.Now()
				var ended, heard time.Duration // heard: when the last answered heartbeat was sent
				context.AfterFunc(ctx, func() { ended = time.Since(began) })
				beats, over := 0, make(chan struct{})
				go func() {
					defer close(over)
					pulse(apart, cancel, func(ctx context.Context) error {
						beats++
						sent := time.Since(began)
						takes, err := c.answer(sent)
						select {
						case <-time.After(takes):
							if err == nil && ctx.Err() == nil && (ended == 0 || sent < ended) {
								heard = sent
							}
							return err
						case <-ctx.Done():
							return errors.Join(err, ctx.Err())
						}
					})
				}()
				time.Sleep(5 * time.Minute)
				stop()
				<-over
				synctest.Wait()
				switch cause := context.Cause(ctx); {
				case c.ends == 0 && cause != nil:
					t.Errorf("it was ended after %s: %v", ended, cause)
				case c.ends > 0 && (cause == nil || ended > c.ends || ended < c.ends/2):
					t.Errorf("it was ended after %s: %v", ended, cause)
				case c.ends > 0 && sdk.IsCanceledError(cause) != sdk.IsCanceledError(c.cause), errors.Is(c.cause, errCutOff) && !errors.Is(cause, errCutOff):
					t.Errorf("the cause is %v", cause)
				case errors.Is(c.cause, errCutOff) && ended-heard > heartbeatTimeout-10*time.Second:
					t.Errorf("it was ended %s after the last that the service has heard, which gives it up after %s", ended-heard, heartbeatTimeout)
				}
				if beats < 10 {
					t.Errorf("%d heartbeats in five minutes", beats)
				}
			})
		})
	}
}

func errIn(there bool, err error) error {
	if there {
		return err
	}
	return nil
}

// heart is a client whose service answers heartbeats.
type heart struct {
	client.Client
	answer func() error
}

func (h heart) RecordActivityHeartbeat(context.Context, []byte, ...any) error { return h.answer() }

// TestStageEnds: a stage that the worker ended because the service no longer waits for it
// counts as interrupted, and the cell begins again. A cancelled stage does not, and a stage
// that exceeded a timeout of its template has failed.
func TestStageEnds(t *testing.T) {
	for name, c := range map[string]struct {
		answer      error // to heartbeats, once the provisioner has started
		provisioner string
		want        fleet.Result
		interrupted bool
	}{
		"cut off":          {serviceerror.NewNotFound("activity not found"), "", fleet.Cancelled, true},
		"cancelled":        {sdk.NewCanceledError(), "", fleet.Cancelled, false},
		"its own time":     {nil, `timeout = "1s"`, fleet.Failed, false},
		"its own deadline": {nil, `inline = ["echo context deadline exceeded >&2; exit 3"]`, fleet.Failed, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			begun := filepath.Join(dir, "begun")
			provisioner := c.provisioner
			if !strings.Contains(provisioner, "inline") {
				provisioner += "\ninline = [\"touch " + begun + "; sleep 60\"]"
			}
			text := "source \"null\" \"x\" { communicator = \"none\" }\nbuild {\n sources = [\"null.x\"]\n provisioner \"shell-local\" {\n" + provisioner + "\n}\n}\n"
			if err := os.WriteFile(filepath.Join(dir, "x.pkr.hcl"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			key, err := run.NewKey("a key for the tests")
			if err != nil {
				t.Fatal(err)
			}
			a := &activities{key: key, metrics: newMetrics(), fleets: map[string]*fleet.Fleet{"nightly": {Name: "nightly", Cells: []fleet.Cell{web}}}}
			a.host = fleet.Host{State: run.State(filepath.Join(dir, "state")), Env: os.Environ(), Now: time.Now, Clouds: &localcloud.Clouds{}}
			a.host.Options = func(context.Context, fleet.Cell, []fleet.Outcome) (run.Options, error) {
				return run.Options{Template: run.Template{Options: config.Options{Path: ".", Cwd: dir, Env: os.Environ()}}, Version: "test"}, nil
			}
			a.client = heart{answer: func() error {
				if _, err := os.Stat(begun); err != nil {
					return nil
				}
				return c.answer
			}}
			var suite testsuite.WorkflowTestSuite
			suite.SetLogger(quiet{})
			env := suite.NewTestActivityEnvironment()
			env.SetTestTimeout(time.Minute)
			env.RegisterActivity(a.stage)
			v, err := env.ExecuteActivity(a.stage, stageIn{Cell: web, Run: uuid.NewString()})
			var out stageOut
			if err == nil {
				err = v.Get(&out)
			}
			if err != nil || out.Outcome == nil || out.Outcome.Result != c.want || out.Interrupted != c.interrupted {
				t.Errorf("interrupted: %t, %+v, %v", out.Interrupted, out.Outcome, err)
			}
			// A stage that cannot continue with its state has not ended successfully: another
			// worker may be able to.
			other := uuid.NewString()
			if err := os.WriteFile(a.host.State.Journal(other), []byte("of another version"), 0o600); err != nil {
				t.Fatal(err)
			}
			state, err := a.export(other)
			if err != nil {
				t.Fatal(err)
			}
			var again stageOut
			if v, err = env.ExecuteActivity(a.stage, stageIn{Cell: web, Run: other, State: state}); err == nil {
				err = v.Get(&again)
			}
			if err != nil || again.Outcome == nil || again.Outcome.Result != fleet.Failed || !again.Left || !bytes.Equal(again.State, state) {
				t.Errorf("resumed: left: %t, %+v, %v", again.Left, again.Outcome, err)
			}
		})
	}
}

// TestToldOnce: if one of two webhooks could not be notified, the next attempt notifies
// only that one.
func TestToldOnce(t *testing.T) {
	heard := map[string]int{}
	var mu sync.Mutex
	hooks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if heard[r.URL.Path]++; r.URL.Path == "/second" && heard["/second"] <= 3 { // number of attempts
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	t.Cleanup(hooks.Close)
	failed := []string{"failed"}
	a := &activities{client: heart{Client: &service{}, answer: func() error { return nil }}, fleets: map[string]*fleet.Fleet{"nightly": {Name: "nightly", Notify: []fleet.Webhook{
		{On: failed, URL: hooks.URL + "/first", Timeout: 10 * time.Second}, {On: failed, URL: hooks.URL + "/second", Timeout: 10 * time.Second},
	}}}}
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{})
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(a.notify)
	told := map[string]bool{}
	env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) {
		if err := details.Get(&told); err != nil {
			t.Error(err)
		}
	})
	in := notifyIn{FleetRun: "w", Outcome: fleet.Outcome{Cell: web, Result: fleet.Failed}}
	if _, err := env.ExecuteActivity(a.notify, in); err == nil || len(told) != 1 {
		t.Fatalf("the first attempt: %v; told: %v", err, told)
	}
	env.SetHeartbeatDetails(told)
	if _, err := env.ExecuteActivity(a.notify, in); err != nil || heard["/first"] != 1 || heard["/second"] != 4 {
		t.Errorf("the second attempt: %v; heard: %v", err, heard)
	}
}

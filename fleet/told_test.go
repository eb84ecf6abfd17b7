package fleet

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bake/run"
	"bake/step"
)

// Calls wait so that the rate per second is not exceeded, for each service, account and
// region separately.
func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRates(map[string]float64{"ec2": 5})
		start := time.Now()
		var all sync.WaitGroup
		for _, account := range []string{"1", "2"} {
			wait := r.Of(account)
			for range 51 {
				all.Go(func() {
					if err := wait(t.Context(), "ec2", "eu-west-1"); err != nil {
						t.Error(err)
					}
				})
			}
			if err := wait(t.Context(), "sts", "eu-west-1"); err != nil || time.Since(start) > 0 {
				t.Errorf("a service without a limit waits: %v", err)
			}
		}
		all.Wait()
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("51 calls at 5 a second took %s", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Of("1")(ctx, "ec2", "eu-west-1"); err == nil {
			t.Error("a call is made that was cancelled")
		}
		if NewRates(nil).Of("1") != nil {
			t.Error("without limits, something waits")
		}
	})
}

// TestResumeOptions: cells that begin again when a run is resumed get the original options of the
// run or, if an older version started it, those of the resuming process.
func TestResumeOptions(t *testing.T) {
	l := NewLocal(Host{State: run.State(t.TempDir()), Options: func(context.Context, Cell, []Outcome) (run.Options, error) {
		return run.Options{CloudInit: time.Hour}, nil
	}}).(*local)
	c := Cell{Fleet: "nightly", Image: "web", Account: "1", Region: "r"}
	f := &Fleet{Name: "nightly", Cells: []Cell{c}}
	dir := folderOf(l.host.State, f)
	lock, err := dir.lock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	for told, want := range map[*time.Duration]time.Duration{new(time.Minute): time.Minute, new(time.Duration(0)): 0, nil: time.Hour} {
		began, err := l.attempt(dir, f, RunOptions{Cells: f.Cells, Force: true, CloudInit: told})
		if err != nil {
			t.Fatal(err)
		}
		_ = began.journal.file.Close()
		again, err := l.attempt(dir, f, RunOptions{Cells: f.Cells, Resume: began.Run})
		if err != nil {
			t.Fatal(err)
		}
		_ = again.journal.file.Close()
		if o, err := again.options(t.Context(), c, nil); err != nil || !o.Force || o.CloudInit != want {
			t.Errorf("force: %t; cloud-init is waited for up to %s, want %s: %v", o.Force, o.CloudInit, want, err)
		}
	}
}

func TestNotices(t *testing.T) {
	cell := Cell{Fleet: "nightly", Image: "web", Account: "1", Region: "r"}
	kinds := func(o Outcome, before Result) string {
		o.Cell = cell
		var all []string
		for _, n := range Notices("run", o, before) {
			all = append(all, n.Kind+n.Channel)
		}
		return strings.Join(all, " ")
	}
	expect(t, "failed", kinds(Outcome{Result: Failed}, Failed), "failed")
	expect(t, "recovered", kinds(Outcome{Result: Reused}, Failed), "recovered")
	expect(t, "as before", kinds(Outcome{Result: Built}, Built), "")
	expect(t, "skipped", kinds(Outcome{Result: Skipped}, Failed), "")
	expect(t, "approval", kinds(Outcome{Result: Built, Waits: Waits{Awaiting: []string{"stable"}}}, ""), "approvalstable")
}

// A webhook receives its message, with its headers, which no error shows.
func TestTell(t *testing.T) {
	got := make(chan string, 1)
	fails := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fails {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		got <- r.Header.Get("Authorization")
	}))
	defer server.Close()
	hook := Webhook{On: []string{"failed"}, URL: server.URL + "/hidden", Headers: map[string]string{"Authorization": "Bearer hush"}, Timeout: 10 * time.Second}
	if err := hook.Send(t.Context(), Notice{Kind: "recovered"}); err != nil || len(got) > 0 {
		t.Errorf("it is told what it is not for: %v", err)
	}
	if err := hook.Send(t.Context(), Notice{Kind: "failed"}); err != nil || <-got != "Bearer hush" {
		t.Errorf("it was told without its headers: %v", err)
	}
	fails = true
	if err := hook.Send(t.Context(), Notice{Kind: "failed", Cell: "web/1/r"}); err == nil || !strings.Contains(err.Error(), "418") || strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "hidden") {
		t.Errorf("the error is %v", err)
	}
}

// TestWaits: an image waits exactly for the conditions of its channels.
func TestWaits(t *testing.T) {
	var w Waits
	until := time.Date(2026, 11, 30, 2, 30, 0, 0, time.UTC)
	for _, c := range []step.Channel{
		{Name: "candidate", Names: true}, {Name: "beta", Reasons: []string{"not yet"}, Until: until},
		{Name: "stable", Reasons: []string{"not yet", "nobody"}, Until: until, Approval: true}, {Name: "old", Reasons: []string{"it was taken back"}},
	} {
		w.Add(&c)
	}
	if want := "soaking until 2026-11-30T02:30:00Z for beta, soaking until 2026-11-30T02:30:00Z for stable, waits for approval for stable"; w.Text() != want || w.Over() {
		t.Errorf("Text = %q, want %q; Over = %t, want false", w.Text(), want, w.Over())
	}
	if none := (Waits{}); none.Text() != "" || !none.Over() {
		t.Errorf("no waits: Text = %q, Over = %t, want nothing, and over", none.Text(), none.Over())
	}
}

func TestWorst(t *testing.T) {
	of := func(codes ...run.Outcome) (all []Outcome) {
		for _, c := range codes {
			all = append(all, Outcome{Result: Failed, Code: int(c)})
		}
		return append(all, Outcome{Result: Skipped}, Outcome{Result: Built})
	}
	for _, test := range []struct {
		all  []Outcome
		want run.Outcome
	}{
		{[]Outcome{{Result: Built}, {Result: Reused}}, run.OutcomeDone},
		{of(run.OutcomeRefused), run.OutcomeRefused},
		{of(run.OutcomeRefused, run.OutcomeFailed, run.OutcomeProvisioning), run.OutcomeProvisioning},
		{of(run.OutcomeProvisioning, 143), 143},
		{of(run.OutcomeCancelled, run.OutcomeLeft), run.OutcomeLeft},
		{of(), run.OutcomeFailed},
	} {
		if got := Worst(test.all); got != test.want {
			t.Errorf("%v is %s, not %s", test.all, got, test.want)
		}
	}
}

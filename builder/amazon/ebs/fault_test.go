package ebs_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"bake/builder/amazon"
)

var errInterrupted = errors.New("interrupted")

// small is a source block that makes one image and one copy of it.
const small = `
ami_name       = "web"
ami_regions    = ["eu-west-1"]
ami_users      = ["123456789013"]
tags           = { Name = "web" }
run_tags       = { Base = "{{ .SourceAMI }}" }
`

// fault is what happens to one call.
type fault struct {
	name    string
	refuse  bool // it is answered with an error and not carried out
	perform bool // it is carried out
	lose    bool // its answer does not arrive
	cancel  bool // the build is cancelled while it goes on
	kill    bool // and nothing is torn down by the build itself
}

var faults = []fault{
	{name: "refused", refuse: true},
	{name: "answer lost", perform: true, lose: true},
	{name: "cancelled before", lose: true, cancel: true},
	{name: "cancelled after", perform: true, cancel: true},
	{name: "killed before", lose: true, cancel: true, kill: true},
	{name: "killed after", perform: true, lose: true, cancel: true, kill: true},
}

// TestFaults lets each call of a build go wrong in each way, and looks for what
// is left in the cloud: all of a good image and its copy, or nothing at all.
func TestFaults(t *testing.T) {
	var lanes sync.WaitGroup
	for _, f := range faults {
		for first := 1; first <= 2; first++ { // odd and even calls
			w := newWorld(t)
			lanes.Go(func() {
				for n := first; f.strike(t, w, n); n += 2 {
				}
			})
		}
	}
	lanes.Wait()
}

// strike runs a build whose call n is struck, and reports whether it had that many.
func (f fault) strike(t *testing.T, w *world, n int) (struck bool) {
	b := w.bake(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var (
		mu     sync.Mutex
		ledger []byte // as it was when the call arrived
		action string
		dead   bool
	)
	w.mu.Lock()
	w.calls = nil
	w.intercept = func(i int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		mu.Lock()
		if i == n {
			action, dead = c.Action, f.kill
			ledger, _ = os.ReadFile(b.ledger)
		} else if dead {
			mu.Unlock()
			writeError(t, rw, "UnauthorizedOperation") // nobody is there to make it
			return
		}
		mu.Unlock()
		if i != n {
			serve(rw)
			return
		}
		if f.refuse {
			writeError(t, rw, "UnauthorizedOperation")
			return
		}
		answer := httptest.NewRecorder()
		if f.perform {
			serve(answer)
		}
		if f.cancel {
			cancel(errInterrupted)
		}
		if f.lose {
			panic(http.ErrAbortHandler) // hangs up
		}
		for k, v := range answer.Header() {
			rw.Header()[k] = v
		}
		rw.WriteHeader(answer.Code)
		_, _ = rw.Write(answer.Body.Bytes())
	}
	w.mu.Unlock()

	a, err := b.build(ctx, plain(small))
	if f.cancel && !f.kill && err != nil && !errors.Is(err, errInterrupted) {
		t.Errorf("%s call %d (%s): the error is not the cause of the cancellation: %v", f.name, n, action, err)
	}
	stop := context.Background()
	if f.kill {
		stop = ctx
	}
	terr := b.scope.Close(ctx, stop)
	w.mu.Lock()
	w.intercept = nil
	w.mu.Unlock()
	switch {
	case f.kill && action != "":
		w.underWay.Wait()
		terr = b.sweep(t, ledger)
	case terr != nil:
		terr = b.scope.Close(ctx, stop) // only one call fails: trying again must do
	}
	if terr != nil {
		t.Errorf("%s call %d (%s): teardown: %v", f.name, n, action, terr)
	}
	f.inspect(t, w, b, n, action, err == nil)
	if a != nil {
		for _, r := range a.Resources {
			if err := b.scope.Destroyers().Destroy(t.Context(), r); err != nil {
				t.Error(err)
			}
		}
	}
	return action != ""
}

// inspect looks at what a build has left.
func (f fault) inspect(t *testing.T, w *world, b *bake, n int, action string, built bool) {
	left := w.holdings()
	owned, err := b.open.Owned()
	if err != nil {
		t.Error(err)
	}
	if len(owned) > 0 && !f.kill {
		t.Errorf("%s call %d (%s): the ledger still owns %v", f.name, n, action, owned)
	}
	want := 0
	if built {
		want = 4 // an image and a snapshot in each of two regions
	}
	if len(left) != want {
		t.Errorf("%s call %d (%s): built %t, left:\n%s", f.name, n, action, built, strings.Join(left, "\n"))
	}
	w.quietly(func() {
		for _, in := range []string{region, "eu-west-1"} {
			tagged, err := amazon.FindTagged(t.Context(), amazon.Place{Region: in, Cloud: w.cloud}, "")
			if err != nil || len(tagged) > 0 {
				t.Errorf("%s call %d (%s): tagged in %s: %v, %v", f.name, n, action, in, tagged, err)
			}
		}
	})
}

// writeError refuses a call as EC2 does.
func writeError(t testing.TB, rw http.ResponseWriter, code string) {
	rw.WriteHeader(http.StatusForbidden)
	_, err := fmt.Fprintf(rw, "<Response><Errors><Error><Code>%s</Code><Message>You are not authorized to perform this operation.</Message></Error></Errors><RequestID>id</RequestID></Response>", code)
	if err != nil {
		t.Error(err)
	}
}

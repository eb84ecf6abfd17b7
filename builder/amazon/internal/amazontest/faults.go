package amazontest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"bake/builder/amazon"
	"bake/internal/turns"
)

var errInterrupted = errors.New("interrupted")

// fault is a fault that is injected into one call.
type fault struct {
	name    string
	refuse  bool // it is answered with an error and not carried out
	perform bool // it is carried out
	lose    bool // its answer does not arrive
	spoil   bool // half of it arrives or, for every other call, something else, such as a proxy's error page
	cancel  bool // the build is cancelled during the call
	kill    bool // and the build does not tear anything down
}

var faults = []fault{
	{name: "refused", refuse: true},
	{name: "answer lost", perform: true, lose: true},
	{name: "answer spoilt", perform: true, spoil: true},
	{name: "cancelled before", lose: true, cancel: true},
	{name: "cancelled after", perform: true, cancel: true},
	{name: "killed before", lose: true, cancel: true, kill: true},
	{name: "killed after", perform: true, lose: true, cancel: true, kill: true},
}

// Faults makes each call of a build of body fail in each way, and checks the resources
// that are left in the cloud: the want resources of a successful build, the images of
// some regions, or nothing. ready prepares the worlds. When tests are distributed over
// days, each run tests one way only.
func Faults(t *testing.T, maker Maker, body string, want int, ready ...func(*World)) {
	var lanes sync.WaitGroup
	for _, f := range turns.One(t, faults) {
		for first := 1; first <= 2; first++ { // odd and even calls
			w := NewWorld(t, maker)
			for _, r := range ready {
				r(w)
			}
			lanes.Go(func() {
				for n := first; f.inject(t, w, body, want, n); n += 2 {
				}
			})
		}
	}
	lanes.Wait()
}

// inject runs a build whose call n fails, and reports whether the build made that many
// calls.
func (f fault) inject(t *testing.T, w *World, body string, want, n int) (struck bool) {
	b := w.Bake(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	hit := &strike{fault: f, n: n, from: w.FaultsFrom, ledgerFile: b.Ledger, interrupt: cancel}
	w.Mu.Lock()
	w.Calls = nil
	w.Intercept = func(_ int, c Call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		hit.intercept(t, c, rw, serve)
	}
	w.Mu.Unlock()

	a, err := b.Build(ctx, Plain(body))
	if f.cancel && !f.kill && err != nil && !errors.Is(err, errInterrupted) {
		t.Errorf("%s call %d (%s): the error is not the cause of the cancellation: %v", f.name, n, hit.action, err)
	}
	stop := context.Background()
	if f.kill {
		stop = ctx
	}
	terr := b.Scope.Close(ctx, stop)
	action := hit.action
	w.Mu.Lock()
	w.Intercept = nil
	w.Mu.Unlock()
	switch {
	case f.kill && action != "":
		w.UnderWay.Lock() // calls of the killed process
		w.UnderWay.Unlock()
		terr = b.Sweep(t, hit.ledger)
	case terr != nil:
		terr = b.Scope.Close(ctx, stop) // only one call fails, so a retry must succeed
	}
	if terr != nil {
		t.Errorf("%s call %d (%s): teardown: %v", f.name, n, action, terr)
	}
	switch {
	case err != nil && a != nil:
		want = 2 * len(a.Images) // the images of some regions, with their snapshots
	case err != nil:
		want = 0
	}
	f.inspect(t, w, b, n, action, want)
	if a != nil {
		for _, r := range a.Resources {
			if err := b.Scope.Destroyers().Destroy(t.Context(), r); err != nil {
				t.Error(err)
			}
		}
	}
	return action != ""
}

// strike lets one call of a build fail.
type strike struct {
	fault
	n          int    // the call, counted from the first of action from, or of all
	from       string // may be ""
	ledgerFile string
	interrupt  context.CancelCauseFunc

	mu     sync.Mutex
	begun  bool
	calls  int    // that count
	action string // of the call that failed
	ledger []byte // as it was when that call arrived
	dead   bool
}

// intercept serves a call, unless it is the one that fails or the process is dead.
func (s *strike) intercept(t *testing.T, c Call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
	s.mu.Lock()
	if s.begun = s.begun || s.from == "" || c.Action == s.from; s.begun {
		s.calls++
	}
	hit, dead := s.calls == s.n, s.dead
	if hit {
		s.action, s.dead = c.Action, s.kill
		s.ledger, _ = os.ReadFile(s.ledgerFile)
	}
	s.mu.Unlock()
	switch {
	case hit && !s.refuse:
		s.spoiled(rw, serve)
	case hit || dead: // a dead process makes no calls
		refuse(t, rw)
	default:
		serve(rw)
	}
}

// spoiled answers the call that fails, unless it is refused.
func (s *strike) spoiled(rw http.ResponseWriter, serve func(http.ResponseWriter)) {
	answer := httptest.NewRecorder()
	if s.perform {
		serve(answer)
	}
	if s.cancel {
		s.interrupt(errInterrupted)
	}
	if s.lose {
		panic(http.ErrAbortHandler) // hangs up
	}
	for k, v := range answer.Header() {
		rw.Header()[k] = v
	}
	body := answer.Body.Bytes()
	switch {
	case s.spoil && s.n%2 == 1:
		rw.Header().Set("Content-Length", strconv.Itoa(len(body)))
		body = body[:len(body)/2]
	case s.spoil:
		rw.Header().Del("Content-Length")
		body = []byte("<html>The gateway has lost its way.</html>")
	}
	rw.WriteHeader(answer.Code)
	_, _ = rw.Write(body)
}

// inspect checks what a build has left.
func (f fault) inspect(t *testing.T, w *World, b *Bake, n int, action string, want int) {
	left := w.Holdings()
	owned, err := b.Open.Owned()
	if err != nil {
		t.Error(err)
	}
	if len(owned) > 0 && !f.kill {
		t.Errorf("%s call %d (%s): the ledger still owns %v", f.name, n, action, owned)
	}
	if len(left) != want {
		t.Errorf("%s call %d (%s): %d wanted, left:\n%s", f.name, n, action, want, strings.Join(left, "\n"))
	}
	w.Quietly(func() {
		for _, in := range []string{Region, "eu-west-1"} {
			tagged, err := amazon.FindTagged(t.Context(), amazon.Place{Region: in, Cloud: w.Cloud}, "")
			if err != nil || len(tagged) > 0 {
				t.Errorf("%s call %d (%s): tagged in %s: %v, %v", f.name, n, action, in, tagged, err)
			}
		}
	})
}

// refuse responds that a call is not allowed, as EC2 does.
func refuse(t testing.TB, rw http.ResponseWriter) {
	rw.WriteHeader(http.StatusForbidden)
	_, err := fmt.Fprint(rw, "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You are not authorized to perform this operation.</Message></Error></Errors><RequestID>id</RequestID></Response>")
	if err != nil {
		t.Error(err)
	}
}

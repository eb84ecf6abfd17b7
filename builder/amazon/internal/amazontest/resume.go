package amazontest

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/builder"
	"bake/step"
)

// Resume kills a build of body before and after each of its calls that follow provisioning,
// and resumes it in another process. The result must be that of an undisturbed build, and
// the provisioners must run once. ready prepares the worlds.
func Resume(t *testing.T, maker Maker, body string, ready ...func(*World)) {
	start := func() *World {
		w := NewWorld(t, maker)
		for _, r := range ready {
			r(w)
		}
		return w
	}
	w := start()
	b := w.Bake(t)
	_, err := b.Build(t.Context(), Plain(body))
	w.Fatal(errors.Join(err, b.Scope.Close(t.Context(), context.Background())))
	want := shapes(w.Holdings())
	var lanes sync.WaitGroup
	for _, perform := range []bool{false, true} {
		lanes.Go(func() {
			n := 1
			for ; resumeAfter(t, start(), body, n, perform, want); n++ {
			}
			if n < 4 {
				t.Errorf("there were only %d calls after provisioning", n-1)
			}
		})
	}
	lanes.Wait()
}

var idPattern = regexp.MustCompile(`\b(ami|snap|vol|i|key|sg)-[0-9a-f]+`)

// shapes returns holdings without their IDs.
func shapes(holdings []string) (out []string) {
	for _, h := range holdings {
		out = append(out, idPattern.ReplaceAllString(h, "$1"))
	}
	slices.Sort(out)
	return out
}

// resumeAfter kills a build at call n after provisioning, and resumes it. It reports
// whether there was such a call.
func resumeAfter(t *testing.T, w *World, body string, n int, perform bool, want []string) (struck bool) {
	b := w.Bake(t)
	journal := filepath.Join(t.TempDir(), "journal")
	j, err := step.CreateJournal(journal, "head", nil)
	w.Fatal(err)
	b.Scope.Journal = j
	ctx, kill := context.WithCancelCause(t.Context())
	defer kill(nil)
	var mu sync.Mutex
	var ledger, results []byte // as they were when the call arrived
	var action string
	provisioned, seen, runs := false, 0, 0
	b.Provision = func(context.Context, builder.Machine) error {
		mu.Lock()
		defer mu.Unlock()
		provisioned = true
		runs++
		return nil
	}
	w.Mu.Lock()
	w.Intercept = func(_ int, c Call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		mu.Lock()
		_, done := j.Result(b.Scope.Build, step.Provisioned)
		if !provisioned || !done || action != "" {
			dead := action != ""
			mu.Unlock()
			if dead {
				refuse(t, rw) // the process is dead and makes no calls
				return
			}
			serve(rw)
			return
		}
		if seen++; seen < n {
			mu.Unlock()
			serve(rw)
			return
		}
		action = c.Action
		ledger, _ = os.ReadFile(b.Ledger)
		results, _ = os.ReadFile(journal)
		mu.Unlock()
		if perform {
			serve(httptest.NewRecorder())
		}
		kill(errInterrupted)
		panic(http.ErrAbortHandler)
	}
	w.Mu.Unlock()
	_, err = b.Build(ctx, Plain(body))
	w.UnderWay.Lock() // waits for the calls of the killed process
	w.Mu.Lock()
	w.Intercept = nil
	w.Mu.Unlock()
	w.UnderWay.Unlock()
	if action == "" {
		w.Fatal(err)
		return false
	}
	if err := w.goOn(t, b, body, ledger, results); err != nil {
		t.Errorf("killed at call %d, %s (carried out: %t): resuming: %v", n, action, perform, err)
		return true
	}
	if got := shapes(w.Holdings()); !slices.Equal(got, want) {
		t.Errorf("killed at call %d, %s (carried out: %t):\n%s\nwant\n%s", n, action, perform, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if runs != 1 {
		t.Errorf("killed at call %d, %s: the provisioners were run %d times", n, action, runs)
	}
	return true
}

// Deregistered deregisters an image that a build of body has made in a region, and resumes
// the build, which had not returned its artifact, in another process. It returns the error
// of the resumed build.
func Deregistered(t *testing.T, maker Maker, body, region string) error {
	w := NewWorld(t, maker)
	b := w.Bake(t)
	journal := filepath.Join(t.TempDir(), "journal")
	j, err := step.CreateJournal(journal, "head", nil)
	w.Fatal(err)
	b.Scope.Journal = j
	artifact, err := b.Build(t.Context(), Plain(body))
	w.Fatal(err)
	results, err := os.ReadFile(journal)
	w.Fatal(err)
	ledger, err := os.ReadFile(b.Ledger)
	w.Fatal(err)
	id := artifact.Images[region]
	_, err = w.Client(region).DeregisterImage(t.Context(), &ec2.DeregisterImageInput{ImageId: &id})
	w.Fatal(err)
	lines := slices.DeleteFunc(strings.SplitAfter(string(results), "\n"), func(line string) bool { return strings.Contains(line, `"key":"artifact"`) })
	return w.goOn(t, b, body, ledger, []byte(strings.Join(lines, "")))
}

// goOn resumes a build from copies of its ledger and journal, and then tears it down.
func (w *World) goOn(t *testing.T, b *Bake, body string, ledger, results []byte) error {
	dir := t.TempDir()
	path, journal := filepath.Join(dir, "ledger.jsonl"), filepath.Join(dir, "journal")
	w.Fatal(errors.Join(os.WriteFile(path, ledger, 0o600), os.WriteFile(journal, results, 0o600)))
	l, err := step.OpenLedger(path)
	w.Fatal(err)
	var head string
	j, err := step.OpenJournal(journal, &head)
	w.Fatal(err)
	again := &Bake{World: w, Ledger: path, Open: l, Provision: func(context.Context, builder.Machine) error {
		return errors.New("the machine is provisioned again")
	}}
	again.Scope = step.NewScope(step.Scope{
		Run: b.Scope.Run, Build: b.Scope.Build, SourceType: b.Scope.SourceType, SourceName: b.Scope.SourceName,
		Ledger: l, Journal: j, Grace: time.Minute, Emit: func(step.Event) {},
	})
	_, err = again.Build(t.Context(), Plain(body))
	return errors.Join(err, again.Scope.Close(t.Context(), context.Background()), l.Close(), j.Close(true))
}

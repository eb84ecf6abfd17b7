package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bake/engine"
	"bake/step"
)

var errInjected = errors.New("injected failure")

const whole = `
source "machine" "web" {}
build {
  sources = ["source.machine.web"]
  provisioner "run" { script = "first" }
  provisioner "run" { script = "second" }
  error-cleanup-provisioner "run" { script = "rescue" }
  post-processors {
    post-processor "turn" { into = "archive" }
    post-processor "turn" { into = "upload" }
  }
}
`

// actions returns the number of component actions in the template whole.
func actions(t *testing.T) int {
	f := newFixture(t, whole)
	if r := f.one(t.Context()); r.Err != nil {
		t.Fatal(r.Err)
	}
	if got := f.world.existing(); !slices.Equal(got, []string{"machine.web/upload"}) {
		t.Fatalf("after a good run %v is left, want the last artifact alone", got)
	}
	return len(f.world.log)
}

// TestFaults makes every action fail in every way and checks the remaining resources.
func TestFaults(t *testing.T) {
	faults := map[string]func(ctx context.Context, cancel context.CancelCauseFunc) error{
		"fail":  func(context.Context, context.CancelCauseFunc) error { return errInjected },
		"panic": func(context.Context, context.CancelCauseFunc) error { panic("injected panic") },
		"cancel": func(ctx context.Context, cancel context.CancelCauseFunc) error {
			cancel(errInjected)
			return context.Cause(ctx)
		},
		"cancel unnoticed": func(_ context.Context, cancel context.CancelCauseFunc) error {
			cancel(errInjected)
			return nil
		},
	}
	total := actions(t)
	for name, fault := range faults {
		for n := range total {
			t.Run(fmt.Sprintf("%s at %d", name, n), func(t *testing.T) {
				f := newFixture(t, whole)
				ctx, cancel := context.WithCancelCause(t.Context())
				count := -1
				f.world.act = func(ctx context.Context, what string) error {
					if count++; count == n {
						return fault(ctx, cancel)
					}
					return nil
				}
				r := f.one(ctx)
				if done := name == "cancel unnoticed" && n == total-1; done {
					if r.Err != nil {
						t.Errorf("a build that was done when the cancellation came: %v", r.Err)
					}
				} else if r.Err == nil || !strings.Contains(r.Err.Error(), "injected") {
					t.Errorf("error: %v, want what was injected", r.Err)
				}
				if len(r.Left) > 0 {
					t.Errorf("left: %v", r.Left)
				}
				// Exactly the resources in the result must exist.
				var handed []string
				for _, a := range r.Artifacts {
					for _, res := range a.Resources {
						handed = append(handed, res.Key)
					}
				}
				if got := f.world.existing(); !sameSet(got, handed) {
					t.Errorf("%v exists, while the user is told of %v", got, handed)
				}
				if owned, err := f.options.Ledger.Owned(); err != nil || len(owned) > 0 {
					t.Errorf("the ledger still has %v (%v)", owned, err)
				}
			})
		}
	}
}

// TestErrorCleanup checks that the error-cleanup-provisioner runs after a failed provisioner, but
// not if the run was cancelled or keeps everything.
func TestErrorCleanup(t *testing.T) {
	tests := []struct {
		name    string
		onError string
		fail    string
		cancel  bool
		want    bool
	}{
		{name: "provisioner", fail: "run second", want: true},
		{name: "before provisioning", fail: "create instance"},
		{name: "after provisioning", fail: "create image"},
		{name: "cancelled", fail: "run second", cancel: true},
		{name: "abort", onError: "abort", fail: "run second"},
		{name: "run-cleanup-provisioner", onError: "run-cleanup-provisioner", fail: "run second", want: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, whole)
			f.options.OnError = onError(test.onError)
			ctx, cancel := context.WithCancelCause(t.Context())
			f.world.act = func(ctx context.Context, what string) error {
				if what != test.fail {
					return nil
				}
				if test.cancel {
					cancel(context.Canceled)
				}
				return errInjected
			}
			f.one(ctx)
			if got := slices.Contains(f.world.log, "run rescue"); got != test.want {
				t.Errorf("ran: %t, want %t; %v", got, test.want, f.world.log)
			}
		})
	}
}

// TestOnErrorLeaves checks that the resources of a failed build stay and are listed.
func TestOnErrorLeaves(t *testing.T) {
	for _, mode := range []string{"abort", "run-cleanup-provisioner"} {
		f := newFixture(t, whole)
		f.options.OnError = onError(mode)
		f.world.act = func(_ context.Context, what string) error {
			if what == "run second" {
				return errInjected
			}
			return nil
		}
		r := f.one(t.Context())
		var left []string
		for _, res := range r.Left {
			left = append(left, res.Key+" "+res.ID)
		}
		if want := []string{"machine.web/key id-key", "machine.web/instance id-instance"}; !slices.Equal(left, want) {
			t.Errorf("%s: left %q, want %q", mode, left, want)
		}
		if got := f.world.existing(); len(got) != 2 {
			t.Errorf("%s: exists: %v", mode, got)
		}
	}
}

// TestTeardownFails checks that a resource that cannot be destroyed is listed, stays in the ledger,
// and makes the build fail.
func TestTeardownFails(t *testing.T) {
	f := newFixture(t, whole)
	f.world.destroy = func(_ context.Context, key string) error {
		if strings.HasSuffix(key, "/instance") {
			return errInjected
		}
		return nil
	}
	r := f.one(t.Context())
	if !errors.Is(r.Err, errInjected) {
		t.Errorf("error: %v", r.Err)
	}
	if len(r.Left) != 1 || r.Left[0].ID != "id-instance" {
		t.Errorf("left: %v", r.Left)
	}
	if len(r.Artifacts) != 1 || r.Artifacts[0].ID != "img-1" {
		t.Errorf("the image that was made is not reported: %v", r.Artifacts)
	}
	if slices.Contains(f.world.existing(), "machine.web/key") {
		t.Error("one failure has kept the rest from being destroyed")
	}
}

// TestPart checks that an artifact made before an error is kept, and that the other resources are
// treated as -on-error says.
func TestPart(t *testing.T) {
	template := strings.Replace(whole, `"web" {}`, `"web" { copy = "mars" }`, 1)
	for mode, left := range map[engine.OnError]int{engine.Cleanup: 0, engine.Abort: 3} {
		f := newFixture(t, template)
		f.options.OnError = mode
		r := f.one(t.Context())
		if !errors.Is(r.Err, errNoRoom) || len(r.Artifacts) != 1 || r.Artifacts[0].ID != "img-1" || len(r.Left) != left {
			t.Errorf("%s: error %v, artifacts %v, left %v", mode, r.Err, r.Artifacts, r.Left)
		}
		if got := f.world.existing(); len(got) != 1+left || !slices.Contains(got, "machine.web/image") {
			t.Errorf("%s: exists: %v", mode, got)
		}
		if slices.ContainsFunc(f.world.log, func(what string) bool { return strings.HasPrefix(what, "turn") }) {
			t.Errorf("%s: it was post-processed: %v", mode, f.world.log)
		}
	}
}

// TestStop checks that a second interruption ends teardown, and that the remaining resources are
// listed.
func TestStop(t *testing.T) {
	f := newFixture(t, whole)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop, stopNow := context.WithCancelCause(t.Context())
	f.world.act = func(ctx context.Context, what string) error {
		if what == "run first" {
			cancel(errors.New("interrupted"))
			return context.Cause(ctx)
		}
		return nil
	}
	f.world.destroy = func(ctx context.Context, _ string) error {
		stopNow(errors.New("interrupted again"))
		<-ctx.Done()
		return context.Cause(ctx)
	}
	result, _ := runWithStop(ctx, stop, f)
	r := result.Builds[0]
	if len(r.Left) != 2 {
		t.Errorf("left: %v", r.Left)
	}
	for _, want := range []string{"interrupted", "interrupted again"} {
		if !strings.Contains(r.Err.Error(), want) {
			t.Errorf("%q does not say %q", r.Err, want)
		}
	}
}

// TestLedgerCut truncates the ledger of a run at each byte: a resource must not exist unless its
// intent is recorded, so that a sweep finds all of them.
func TestLedgerCut(t *testing.T) {
	f := newFixture(t, whole)
	f.options.OnError = onError("abort")
	f.world.act = func(_ context.Context, what string) error {
		if what == "wait" {
			return errInjected
		}
		return nil
	}
	f.one(t.Context())
	paths, err := step.Ledgers(f.ledger)
	if err != nil || len(paths) != 1 {
		t.Fatalf("ledgers = %q, %v, want one", paths, err)
	}
	text, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for cut := bytes.IndexByte(text, '\n') + 1; cut <= len(text); cut++ {
		path := filepath.Join(dir, "cut.jsonl")
		if err := os.WriteFile(path, text[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		w := newWorld()
		for line := range bytes.Lines(text[:cut]) {
			for _, what := range []string{"key", "instance", "image"} {
				if bytes.HasSuffix(line, []byte("\n")) && bytes.Contains(line, []byte(`"intend"`)) && bytes.Contains(line, []byte("/"+what)) {
					w.set("machine.web/"+what, true)
				}
			}
		}
		ledger, err := step.OpenLedger(path)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		s := step.NewScope(step.Scope{Build: "machine.web", Ledger: ledger, Emit: func(step.Event) {}, Grace: time.Minute})
		s.Handle("fake", w)
		if err := s.Close(t.Context(), context.Background()); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if left := w.existing(); len(left) > 0 {
			t.Fatalf("cut at %d: %v is left", cut, left)
		}
		if err := ledger.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// brokenLedger fails from its n-th write on.
type brokenLedger struct {
	step.Ledger
	n int
}

func (l *brokenLedger) ok() error {
	if l.n--; l.n < 0 {
		return errInjected
	}
	return nil
}

func (l *brokenLedger) Intend(r step.Resource) error {
	return errors.Join(l.ok(), l.Ledger.Intend(r))
}

func (l *brokenLedger) Created(key, id string) error {
	if err := l.ok(); err != nil {
		return err
	}
	return l.Ledger.Created(key, id)
}

func (l *brokenLedger) Gone(keys ...string) error {
	if err := l.ok(); err != nil {
		return err
	}
	return l.Ledger.Gone(keys...)
}

// TestLedgerFails checks that no unrecorded resource exists when the disk is full.
func TestLedgerFails(t *testing.T) {
	for n := range 12 {
		f := newFixture(t, simple)
		f.options.Ledger = &brokenLedger{f.options.Ledger, n}
		r := f.one(t.Context())
		owned, err := f.options.Ledger.Owned()
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range f.world.existing() {
			known := slices.ContainsFunc(owned, func(r step.Resource) bool { return r.Key == key })
			kept := r.Err == nil && key == "machine.web/image"
			if !known && !kept && !handedOver(r.Artifacts, key) {
				t.Errorf("ledger fails at write %d: %s exists and nobody knows", n, key)
			}
		}
	}
}

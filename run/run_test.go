package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builtin"
	"bake/communicator/commtest"
	"bake/config"
	"bake/engine"
	"bake/internal/login"
	"bake/run"
	"bake/step"
	"bake/ui"
)

// start is when all runs of these tests start.
var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// bench is a directory with a template whose build creates a file.
type bench struct {
	dir    string
	image  string // the file that the build creates
	events []step.Event
	on     func(step.Event) // sees each event
}

// options are those of a build of a template, in which IMAGE and DIR stand for paths.
func (b *bench) options(t *testing.T, template string) run.Options {
	t.Helper()
	b.dir = t.TempDir()
	b.image = filepath.Join(b.dir, "image")
	path := filepath.Join(b.dir, "t.pkr.hcl")
	text := strings.NewReplacer("IMAGE", filepath.ToSlash(b.image), "DIR", filepath.ToSlash(b.dir)).Replace(template)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return run.Options{
		Template: run.Template{Options: config.Options{Path: path, Cwd: b.dir, Env: os.Environ(), Now: start}},
		State:    run.State(filepath.Join(b.dir, "state")), ID: "r1", Command: "test",
		Emit: func(e step.Event) {
			b.events = append(b.events, e)
			if b.on != nil {
				b.on(e)
			}
		},
	}
}

func (b *bench) exists(name string) bool {
	_, err := os.Stat(filepath.Join(b.dir, name))
	return err == nil
}

// said returns the texts of all events of a kind.
func (b *bench) said(kind step.Kind) (texts []string) {
	for _, e := range b.events {
		if e.Kind == kind {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

const fileSource = `
source "file" "f" {
  target  = "IMAGE"
  content = "x"
}
build {
  sources = ["file.f"]
  `

// TestComponentsEnd: queries to components during the check of the template end when the
// run is cancelled or times out.
func TestComponentsEnd(t *testing.T) {
	for name, limit := range map[string]time.Duration{"cancelled": 0, "too long": time.Millisecond} {
		var b bench
		o := b.options(t, fileSource+"}")
		o.Timeout = limit
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		o.Components = func(ctx context.Context, p builtin.Parts) engine.Components {
			if limit == 0 {
				cancel()
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Minute):
				t.Errorf("%s: it goes on", name)
			}
			return p.Catalog().Components()
		}
		if _, err := run.Build(ctx, o); err == nil || b.exists("image") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBuild(t *testing.T) {
	var b bench
	o := b.options(t, fileSource+`provisioner "shell-local" { inline = ["echo $PACKER_RUN_UUID"] }
}`)
	result, err := run.Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if !b.exists("image") {
		t.Error("there is no image")
	}
	if result.Run != "r1" || len(result.Builds) != 1 || result.Builds[0].Name != "file.f" || len(result.Builds[0].Artifacts) != 1 || len(result.Left) != 0 {
		t.Errorf("the result is %+v", result)
	}
	if got := b.said(step.Output); !slices.Equal(got, []string{"r1"}) {
		t.Errorf("the provisioner said %q", got)
	}
	if b.exists("state/ledgers/r1.jsonl") {
		t.Error("the ledger of a run that owns nothing is still there")
	}
	// The log is the events, as they were emitted.
	f, err := os.Open(o.State.Log("r1"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var logged []step.Kind
	if err := ui.ReadEvents(f, func(e step.Event) { logged = append(logged, e.Kind) }); err != nil {
		t.Fatal(err)
	}
	var emitted []step.Kind
	for _, e := range b.events {
		emitted = append(emitted, e.Kind)
	}
	if !slices.Equal(logged, emitted) || logged[len(logged)-1] != step.RunFinished {
		t.Errorf("the log has %v, emitted were %v", logged, emitted)
	}
}

func TestBuildOfAWrongTemplate(t *testing.T) {
	for _, template := range []string{
		"source \"file\" \"f\" {\n  target = local.none\n}\nbuild { sources = [\"file.f\"] }\n",
		"build {",
	} {
		var b bench
		o := b.options(t, template)
		_, err := run.Build(t.Context(), o)
		wrong, ok := errors.AsType[*run.TemplateError](err)
		if !ok || len(wrong.Diags) == 0 || wrong.Diags[0].Subject == nil || wrong.Files[wrong.Diags[0].Subject.Filename] == nil {
			t.Errorf("%q: the error is %v, with sources %v", template, err, wrong)
		}
		if b.exists("state/ledgers/r1.jsonl") || b.exists("image") {
			t.Errorf("%q: something was run", template)
		}
	}
	var b bench
	o := b.options(t, "")
	o.Template.Path = ""
	if _, err := run.Build(t.Context(), o); err == nil || err.Error() != "No template; The path of the template is empty; it must name a file or a directory." {
		t.Errorf("without a template: %v", err)
	}
}

func TestBuildTellsDoubts(t *testing.T) {
	var b bench
	o := b.options(t, fileSource+"}")
	vars := filepath.Join(b.dir, "v.pkrvars.hcl")
	if err := os.WriteFile(vars, []byte("nobody = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Template.VarFiles, o.Template.WarnUndeclared = []string{vars}, true
	var doubts run.Diagnosis
	o.OnWarnings = func(d run.Diagnosis) {
		doubts = d
		if b.exists("image") {
			t.Error("the template had been run by then")
		}
	}
	if _, err := run.Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if len(doubts.Diags) != 1 || !strings.Contains(doubts.Diags.Error(), "nobody") {
		t.Errorf("the doubts are %v", doubts.Diags)
	}
}

func TestBuildThatFails(t *testing.T) {
	var b bench
	o := b.options(t, fileSource+"\n  provisioner \"shell-local\" { inline = [\"exit 3\"] }\n}")
	result, err := run.Build(t.Context(), o)
	failed, ok := errors.AsType[*run.FailedError](err)
	if !ok || len(failed.Errs) != 1 || !strings.Contains(err.Error(), "file.f: ") || !strings.Contains(err.Error(), "3") {
		t.Fatalf("the error is %v", err)
	}
	if len(failed.Left) != 0 || b.exists("image") || b.exists("state/ledgers/r1.jsonl") {
		t.Errorf("%v are left", failed.Left)
	}
	if len(result.Builds) != 1 || result.Builds[0].Err == nil || !strings.HasSuffix(result.Builds[0].Place, "t.pkr.hcl:9") {
		t.Errorf("the result is %+v", result)
	}
}

// TestLeftMachine: the user can log in to the machine that a build was told to leave, even if the
// machine was the user's before, but not to that of a build that cleans up.
func TestLeftMachine(t *testing.T) {
	key, err := commtest.NewKeyPair("ed25519", 0, "")
	if err != nil {
		t.Fatal(err)
	}
	srv := commtest.Serve(t, t.TempDir(), commtest.Login{User: "me", Key: key.Signer.PublicKey(), HostKey: key.Signer})
	for onError, want := range map[engine.OnError]int{engine.Abort: 1, engine.Cleanup: 0} {
		var b bench
		o := b.options(t, fmt.Sprintf(`
source "null" "n" {
  ssh_host             = %q
  ssh_port             = %d
  ssh_username         = "me"
  ssh_private_key_file = "DIR/key"
}
build {
  sources = ["null.n"]
  provisioner "shell" { inline = ["exit 3"] }
}`, srv.Host, srv.Port))
		if err := os.WriteFile(filepath.Join(b.dir, "key"), []byte(key.PrivateKey), 0o600); err != nil {
			t.Fatal(err)
		}
		o.OnError = onError
		if _, err := run.Build(t.Context(), o); err == nil {
			t.Error("no error")
		}
		found, err := login.Find(o.State.Runs(), "", "")
		if err != nil || len(found) != want || want > 0 && found[0].KeyFile != filepath.Join(b.dir, "key") {
			t.Errorf("%s: found %+v, %v", onError, found, err)
		}
		// After a week, the logins are deleted.
		o.ID, o.Now = "r2", func() time.Time { return time.Now().Add(8 * 24 * time.Hour) }
		o.OnError = engine.Cleanup
		_, _ = run.Build(t.Context(), o)
		if found, err := login.Find(o.State.Runs(), "", ""); err != nil || len(found) != 0 {
			t.Errorf("later: found %+v, %v", found, err)
		}
	}
}

// failing is a template whose provisioner makes the build fail.
const failing = fileSource + `provisioner "shell-local" { inline = ["exit 3"] }
}`

// TestSweepOfWhatABuildLeft: resources that a run was told to leave are in its result and its
// ledger, and a sweep deletes them.
func TestSweepOfWhatABuildLeft(t *testing.T) {
	var b bench
	o := b.options(t, failing)
	o.OnError = engine.Abort
	result, err := run.Build(t.Context(), o)
	failed, ok := errors.AsType[*run.FailedError](err)
	if !ok || len(failed.Left) != 1 || len(result.Left) != 1 || result.Left[0].Kind != builder.FilePrefix+":file" || !b.exists("image") {
		t.Fatalf("the error is %v, the result %+v", err, result)
	}
	var found []run.SweptRun
	sweep := run.SweepOptions{State: o.State, DryRun: true, Found: func(s run.SweptRun) { found = append(found, s) }}
	swept, err := run.Sweep(t.Context(), sweep)
	if err != nil || len(swept) != 1 || len(found) != 1 || swept[0].Run != "r1" || swept[0].Command != "test" || !swept[0].Started.Equal(start) || len(swept[0].Left) != 1 || !b.exists("image") {
		t.Fatalf("a dry run: %v, %+v", err, swept)
	}
	sweep.DryRun = false
	swept, err = run.Sweep(t.Context(), sweep)
	if err != nil || len(swept) != 1 || len(swept[0].Owned) != 1 || len(swept[0].Left) != 0 || b.exists("image") {
		t.Fatalf("%v, %+v", err, swept)
	}
	if swept, err = run.Sweep(t.Context(), sweep); err != nil || len(swept) != 0 {
		t.Errorf("the second time: %v, %+v", err, swept)
	}
}

type asked struct{}

func (asked) Error() string      { return "somebody wants that" }
func (asked) Cancelling() string { return "Cancelling: somebody wants that" }

// TestBuildIsCancelled: when the context ends, builds stop, and their resources are
// deleted.
func TestBuildIsCancelled(t *testing.T) {
	var b bench
	o := b.options(t, fileSource+`provisioner "shell-local" { inline = ["echo up", "sleep 60"] }
}`)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	b.on = func(e step.Event) {
		if e.Text == "up" {
			cancel(asked{})
		}
	}
	result, err := run.Build(ctx, o)
	if _, ok := errors.AsType[*run.FailedError](err); !ok || !errors.Is(err, asked{}) {
		t.Fatalf("the error is %v", err)
	}
	if len(result.Left) != 0 || b.exists("image") || b.exists("state/ledgers/r1.jsonl") {
		t.Errorf("%v are left", result.Left)
	}
	if got := b.said(step.Say); !slices.Contains(got, "Cancelling: somebody wants that") {
		t.Errorf("what was said: %q", got)
	}
}

// TestTimeout: a run that takes too long is cancelled, and its resources are deleted.
func TestTimeout(t *testing.T) {
	var b bench
	o := b.options(t, fileSource+`provisioner "shell-local" { inline = ["sleep 60"] }
}`)
	o.Timeout = 100 * time.Millisecond
	_, err := run.Build(t.Context(), o)
	late, ok := errors.AsType[*run.TimeoutError](err)
	if !ok || late.Limit != o.Timeout {
		t.Fatalf("the error is %v", err)
	}
	if b.exists("image") || b.exists("state/ledgers/r1.jsonl") {
		t.Error("something is left")
	}
	if got := b.said(step.Say); !slices.Contains(got, "Cancelling build: the time limit of the run, 100 milliseconds, has passed") {
		t.Errorf("what was said: %q", got)
	}
}

// TestBuildOfAContextThatHasEnded: Build runs nothing.
func TestBuildOfAContextThatHasEnded(t *testing.T) {
	var b bench
	o := b.options(t, fileSource+"}")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("too late"))
	_, err := run.Build(ctx, o)
	if err == nil || !strings.Contains(err.Error(), "too late") || b.exists("image") {
		t.Errorf("the error is %v", err)
	}
	if got := b.said(step.Say); len(got) == 0 || got[0] != "Cancelling build: too late" {
		t.Errorf("what was said: %q", got)
	}
}

// TestBuildStopsAtOnce: Stop alone ends a run, including teardown; the remaining
// resources are in the result, and are swept later.
func TestBuildStopsAtOnce(t *testing.T) {
	var b bench
	o := b.options(t, fileSource+`provisioner "shell-local" { inline = ["echo up", "sleep 60"] }
}`)
	stop, end := context.WithCancelCause(context.Background())
	defer end(nil)
	o.Stop = stop
	b.on = func(e step.Event) {
		if e.Text == "up" {
			end(errors.New("at once"))
		}
	}
	result, err := run.Build(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "at once") || len(result.Left) != 1 || !b.exists("image") {
		t.Fatalf("the error is %v, the result %+v", err, result)
	}
	if got := b.said(step.Say); !slices.Contains(got, "Stopping immediately") {
		t.Errorf("what was said: %q", got)
	}
	if _, err := run.Sweep(t.Context(), run.SweepOptions{State: o.State}); err != nil || b.exists("image") {
		t.Errorf("the sweep: %v", err)
	}
}

// TestBuildWithNobodyToAsk: without a terminal, a failed step does not prompt, and a message
// says why.
func TestBuildWithNobodyToAsk(t *testing.T) {
	var b bench
	o := b.options(t, failing)
	o.OnError, o.Unattended = engine.Ask, errors.New("it is night")
	if _, err := run.Build(t.Context(), o); err == nil || b.exists("image") {
		t.Errorf("the error is %v", err)
	}
	if got := b.said(step.Warning); len(got) != 1 || !strings.HasSuffix(got[0], "It is night.") {
		t.Errorf("the warnings are %q", got)
	}
	o.ID = "r2"
	asks := 0
	o.Ask = func(context.Context, string, string, error) engine.Answer {
		asks++
		return engine.AnswerAbort
	}
	if result, err := run.Build(t.Context(), o); err == nil || len(result.Left) != 1 || asks != 1 {
		t.Errorf("%d questions; the error is %v, left are %v", asks, err, result.Left)
	}
}

// deleter is a destroyer for tests.
type deleter struct {
	mu   sync.Mutex
	gone []string
	fail error
}

func (d *deleter) Destroy(_ context.Context, r step.Resource) error {
	if d.fail != nil {
		return d.fail
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gone = append(d.gone, r.Key)
	return nil
}

// left writes the ledger of a run that has ended and still owns resources with these keys.
func left(t *testing.T, state run.State, id string, keys ...string) {
	t.Helper()
	l, err := step.CreateLedger(state.Ledgers(), step.Header{Run: id, Started: start})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if err := l.Intend(step.Resource{Kind: "fake:thing", Key: k, Build: "b"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// partGoesOn checks that a run is not swept or resumed while a part of it is in progress.
func partGoesOn(t *testing.T, state run.State, o run.SweepOptions) {
	t.Helper()
	l, err := step.CreateLedger(state.Ledgers(), step.Header{Run: "p3", Started: start, Parent: "whole"})
	if err != nil {
		t.Fatal(err)
	}
	j, err := step.CreateJournal(state.Journal("p3"), run.Memory{Run: "p3", Parent: "whole"}, func(s string) string { return s })
	if err != nil {
		t.Fatal(err)
	}
	if swept, err := run.Sweep(t.Context(), o); err == nil || !strings.Contains(err.Error(), "run whole is still in progress, because run p3") || len(swept) > 0 {
		t.Errorf("sweeping while a part goes on: %v, %v", swept, err)
	}
	if _, err := state.Resumable("whole", false); err == nil || !strings.Contains(err.Error(), "run p3 is still in progress") {
		t.Errorf("resuming while a part goes on: %v", err)
	}
	if err := errors.Join(j.Close(false), l.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestParts: the id of a run that consists of parts also finds what its parts have left.
func TestParts(t *testing.T) {
	state := run.State(t.TempDir())
	left(t, state, "r1", "a")
	for id, key := range map[string]string{"p1": "b", "p2": "c"} {
		l, err := step.CreateLedger(state.Ledgers(), step.Header{Run: id, Started: start, Parent: "whole"})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(l.Intend(step.Resource{Kind: "fake:thing", Key: key}), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
	j, err := step.CreateJournal(state.Journal("p1"), run.Memory{Run: "p1", Parent: "whole"}, func(s string) string { return s })
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(true); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"who": "run p1 cannot be resumed", "p1": "run p1 cannot be resumed", "r": "there is nothing to resume"} {
		if _, err := state.Resumable(id, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("resuming %s: %v, want %q", id, err, want)
		}
	}
	fake := &deleter{}
	o := run.SweepOptions{State: state, Destroyers: step.Destroyers{"fake": fake}, Run: "whole", Command: "sweep"}
	partGoesOn(t, state, o)
	var asked []string
	o.Tags = &run.Tags{Find: func(_ context.Context, _ amazon.Place, run string) ([]step.Resource, error) {
		asked = append(asked, run)
		return nil, nil
	}}
	if _, err := run.Sweep(t.Context(), o); err != nil || !slices.Equal(asked, []string{"whole", "p1", "p2"}) {
		t.Errorf("the tags of %v are looked for, %v", asked, err)
	}
	o.Tags = nil
	swept, err := run.Sweep(t.Context(), o)
	slices.Sort(fake.gone)
	if err != nil || len(swept) != 2 || !slices.Equal(fake.gone, []string{"b", "c"}) {
		t.Errorf("%v, %+v, gone are %v", err, swept, fake.gone)
	}
}

func TestSweep(t *testing.T) {
	state := run.State(t.TempDir())
	left(t, state, "r1", "a", "b")
	left(t, state, "r2", "c")
	live, err := step.CreateLedger(state.Ledgers(), step.Header{Run: "r3"})
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	if err := live.Intend(step.Resource{Kind: "fake:thing", Key: "d"}); err != nil {
		t.Fatal(err)
	}
	fake := &deleter{}
	o := run.SweepOptions{State: state, Destroyers: step.Destroyers{"fake": fake}}
	o.Run = "r3"
	if _, err := run.Sweep(t.Context(), o); err == nil || !strings.Contains(err.Error(), "still in progress") {
		t.Errorf("a run that goes on: %v", err)
	}
	o.Run, fake.fail = "r1", errors.New("denied")
	told := 0
	o.Swept = func(s run.SweptRun, err error) {
		if told++; len(s.Left) != 2 || err == nil {
			t.Errorf("told of %+v, %v", s, err)
		}
	}
	swept, err := run.Sweep(t.Context(), o)
	incomplete, ok := errors.AsType[*run.SweepError](err)
	if !ok || len(incomplete.Left) != 1 || !strings.Contains(err.Error(), "denied") || len(swept) != 1 || len(swept[0].Left) != 2 || told != 1 {
		t.Fatalf("%v, %+v", err, swept)
	}
	o.Swept, fake.fail = nil, nil
	o.Local = true
	if swept, err := run.Sweep(t.Context(), o); err != nil || len(swept) != 0 {
		t.Errorf("nothing is on the local cloud: %v, %+v", err, swept)
	}
	o.Local, o.Run = false, ""
	swept, err = run.Sweep(t.Context(), o)
	if err != nil || len(swept) != 2 || !slices.Equal(fake.gone, []string{"b", "a", "c"}) { // newest first
		t.Errorf("%v, %+v, gone are %v", err, swept, fake.gone)
	}
	if paths, err := step.Ledgers(state.Ledgers()); err != nil || len(paths) != 1 {
		t.Errorf("ledgers that are left: %v (%v)", paths, err)
	}
}

// TestSweepByTags: a sweep by tags leaves the resources of runs in progress alone, and
// records the others in a ledger while it deletes them. A dry run leaves no ledger: a later
// sweep would treat everything in it as left by a run.
func TestSweepByTags(t *testing.T) {
	state := run.State(t.TempDir())
	live, err := step.CreateLedger(state.Ledgers(), step.Header{Run: "live"})
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	fake := &deleter{}
	tags := &run.Tags{Regions: []string{"r"}, Find: func(_ context.Context, place amazon.Place, id string) ([]step.Resource, error) {
		if place.Region != "r" || id != "" {
			t.Errorf("looked for %q in %+v", id, place)
		}
		return []step.Resource{
			{Kind: "fake:thing", Key: "first", ID: "1", With: map[string]string{"run": "old"}},
			{Kind: "fake:thing", Key: "mine", ID: "2", With: map[string]string{"run": "live"}},
			{Kind: "fake:thing", Key: "last", ID: "3", With: map[string]string{"run": "old"}},
		}, nil
	}}
	o := run.SweepOptions{State: state, Tags: tags, Destroyers: step.Destroyers{"fake": fake}, Command: "tags"}
	if _, err := run.Sweep(t.Context(), o); !errors.Is(err, run.ErrEveryRun) {
		t.Errorf("a sweep of every run there is: %v", err)
	}
	o.DryRun = true
	swept, err := run.Sweep(t.Context(), o)
	if err != nil || len(swept) != 1 || len(swept[0].Owned) != 2 || swept[0].Command != "tags" {
		t.Errorf("a dry run: %v, %+v", err, swept)
	}
	if paths, _ := step.Ledgers(state.Ledgers()); len(paths) != 1 || len(fake.gone) != 0 {
		t.Fatalf("after a dry run there are ledgers %v, gone are %v", paths, fake.gone)
	}
	o.DryRun, tags.Every, fake.fail = false, true, errors.New("denied")
	if swept, err := run.Sweep(t.Context(), o); err == nil || len(swept) != 1 || len(swept[0].Left) != 2 {
		t.Errorf("%v, %+v", err, swept)
	}
	fake.fail, o.Tags = nil, nil // the rest is in a separate ledger
	if swept, err := run.Sweep(t.Context(), o); err != nil || len(swept) != 1 || !slices.Equal(fake.gone, []string{"first", "last"}) {
		t.Errorf("%v, %+v, gone are %v", err, swept, fake.gone)
	}
}

// TestSweepByAge: resources that are too young or of unknown age are left alone in every
// region, and so are those of kept runs and of runs with unreadable ledgers. A region
// that refuses access does not affect the others. Global resources are found in each
// region.
func TestSweepByAge(t *testing.T) {
	state := run.State(t.TempDir())
	left(t, state, "kept", "k")
	j, err := step.CreateJournal(state.Journal("kept"), run.Memory{Run: "kept", OnError: engine.Keep}, func(s string) string { return s })
	if err != nil || j.Close(true) != nil {
		t.Fatal(err)
	}
	newer := `{"op":"run","version":9,"run":"newer"}` + "\n"
	if err := os.WriteFile(filepath.Join(state.Ledgers(), "newer.jsonl"), []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	thing := func(region, key, owner, created string) step.Resource {
		return step.Resource{Kind: "fake:thing", Key: key, ID: key, Where: region, With: map[string]string{"run": owner, "created": created}}
	}
	everywhere := func(region string) []step.Resource {
		return []step.Resource{
			thing(region, "role", "r1", "2026-01-01T00:00:00Z"),
			thing(region, region+"-old", "r1", "2026-01-02T03:04:05Z"),
			thing(region, region+"-young", "r2", "2026-01-02T03:04:06Z"),
			thing(region, region+"-odd", "r3", ""),
			thing(region, region+"-kept", "kept", "2026-01-01T00:00:00Z"),
			thing(region, region+"-newer", "newer", "2026-01-01T00:00:00Z"),
		}
	}
	fake := &deleter{}
	tags := &run.Tags{
		All:     true,
		Enabled: func(context.Context, amazon.Place) ([]string, error) { return []string{"a", "b", "c"}, nil },
		Find: func(_ context.Context, place amazon.Place, _ string) ([]step.Resource, error) {
			if place.Region == "b" {
				return nil, errors.New("denied")
			}
			return everywhere(place.Region), nil
		},
	}
	var got []string
	o := run.SweepOptions{
		State: state, Tags: tags, Destroyers: step.Destroyers{"fake": fake}, OlderThan: 24 * time.Hour, DryRun: true,
		Now: func() time.Time { return start.Add(24 * time.Hour) },
		Resource: func(r run.SweptResource) {
			got = append(got, fmt.Sprintf("%s %s of %s: %s %s%s", r.Region, r.Resource.Key, r.Run, r.Action, r.Why, r.Error))
		},
	}
	want := []string{
		"a a-kept of kept: spared kept", "c c-kept of kept: spared kept",
		"a a-newer of newer: spared unreadable-ledger", "c c-newer of newer: spared unreadable-ledger",
		"a a-young of r2: spared too-young", "c c-young of r2: spared too-young",
		"a a-odd of r3: spared unknown-age", "c c-odd of r3: spared unknown-age",
		"a role of r1: ACTION", "a a-old of r1: ACTION", "c c-old of r1: ACTION",
	}
	slices.Sort(want)
	for _, action := range []string{"would-delete ", "failed forbidden", "deleted "} {
		got, o.DryRun, fake.fail = nil, action == "would-delete ", nil
		if strings.HasPrefix(action, "failed") {
			fake.fail = errors.New("forbidden")
		}
		_, err := run.Sweep(t.Context(), o)
		incomplete, ok := errors.AsType[*run.SweepError](err)
		if !ok || !errors.Is(incomplete.Unreadable, step.ErrNewer) || !strings.Contains(fmt.Sprint(incomplete.Other), "region b was not swept: denied") {
			t.Fatalf("%s: %v", action, err)
		}
		slices.Sort(got)
		now := strings.Split(strings.ReplaceAll(strings.Join(want, "\n"), "ACTION", action), "\n")
		if slices.Sort(now); !slices.Equal(got, now) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(now, "\n"))
		}
	}
	if slices.Sort(fake.gone); !slices.Equal(fake.gone, []string{"a-old", "c-old", "role"}) {
		t.Errorf("gone are %v", fake.gone)
	}

	// The user knows that the run is over.
	o.Run, o.Resource, fake.gone = "newer", nil, nil
	tags.All, tags.Regions = false, []string{"a"}
	tags.Find = func(context.Context, amazon.Place, string) ([]step.Resource, error) {
		return []step.Resource{thing("a", "n", "newer", "2026-01-01T00:00:00Z")}, nil
	}
	if _, err := run.Sweep(t.Context(), o); err != nil || !slices.Equal(fake.gone, []string{"n"}) {
		t.Errorf("%v, gone are %v", err, fake.gone)
	}
}

// TestSweepByLedgersAndAge: without tags, resources are as old as their run, and kept
// runs are listed.
func TestSweepByLedgersAndAge(t *testing.T) {
	state := run.State(t.TempDir())
	left(t, state, "kept", "k")
	left(t, state, "r1", "a")
	j, err := step.CreateJournal(state.Journal("kept"), run.Memory{Run: "kept", OnError: engine.Keep}, func(s string) string { return s })
	if err != nil || j.Close(true) != nil {
		t.Fatal(err)
	}
	fake, said, now := &deleter{}, "", start.Add(time.Hour)
	o := run.SweepOptions{
		State: state, Destroyers: step.Destroyers{"fake": fake}, OlderThan: 2 * time.Hour, Now: func() time.Time { return now },
		Spared: func(s run.Spared) { said += s.String() + "\n" },
	}
	if swept, err := run.Sweep(t.Context(), o); err != nil || len(swept) != 0 || len(fake.gone) != 0 ||
		!strings.Contains(said, "Run kept was kept (-on-error=keep) and is not swept. To delete it: bake sweep -run kept\n  thing k\n") ||
		!strings.Contains(said, "Not old enough (run r1):\n  thing a\n") {
		t.Errorf("%v, %+v, gone are %v, said %s", err, swept, fake.gone, said)
	}
	now, said = start.Add(2*time.Hour), ""
	if swept, err := run.Sweep(t.Context(), o); err != nil || len(swept) != 1 || !slices.Equal(fake.gone, []string{"a"}) || strings.Contains(said, "r1") {
		t.Errorf("%v, %+v, gone are %v, said %s", err, swept, fake.gone, said)
	}
	o.Run = "kept"
	if _, err := run.Sweep(t.Context(), o); err != nil || !slices.Equal(fake.gone, []string{"a", "k"}) {
		t.Errorf("%v, gone are %v", err, fake.gone)
	}
}

func TestSweepOfADamagedLedger(t *testing.T) {
	state := run.State(t.TempDir())
	left(t, state, "r1", "a")
	left(t, state, "r2", "b")
	path := filepath.Join(state.Ledgers(), "r1.jsonl")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("garbage\n"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	fake := &deleter{}
	swept, err := run.Sweep(t.Context(), run.SweepOptions{State: state, Destroyers: step.Destroyers{"fake": fake}})
	incomplete, ok := errors.AsType[*run.SweepError](err)
	if !ok || incomplete.Unreadable == nil || !strings.Contains(err.Error(), "r1.jsonl is damaged: line 3") {
		t.Errorf("the error is %v", err)
	}
	// A resource that a lost line may have handed over is not deleted. Other runs are swept.
	if len(swept) != 1 || swept[0].Run != "r2" || !slices.Equal(fake.gone, []string{"b"}) {
		t.Errorf("%+v, gone are %v", swept, fake.gone)
	}
}

func TestPolicy(t *testing.T) {
	var b bench
	o := b.options(t, `
source "amazon-ebs" "a" {
  region        = "eu-west-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  source_ami    = "ami-0123456789abcdef0"
  ami_name      = "one"
}
source "file" "f" {
  target  = "IMAGE"
  content = "x"
}
build { sources = ["amazon-ebs.a", "file.f"] }
`)
	policy, _, err := run.Policy(t.Context(), o.Template, builtin.Parts{}.Catalog().Components(), run.PolicyFor{})
	text, merr := json.Marshal(policy)
	if err != nil || merr != nil || !strings.Contains(string(text), "ec2:RunInstances") || strings.Contains(string(text), "ssm:") {
		t.Errorf("%v, %v: %s", err, merr, text)
	}
	if strings.Contains(string(text), "kms:") {
		t.Errorf("no key is used: %s", text)
	}
	o.Template.Only = []string{"file.f"}
	if _, _, err := run.Policy(t.Context(), o.Template, builtin.Parts{}.Catalog().Components(), run.PolicyFor{}); err == nil || !strings.Contains(err.Error(), "no build that uses AWS") {
		t.Errorf("a file needs nothing in AWS: %v", err)
	}
	for key, want := range map[string]string{
		`"awskms:///alias/sign"`:                                 `"Action":["kms:GetPublicKey","kms:Sign"],"Resource":["arn:aws:kms:*:*:key/*"],"Condition":{"ForAnyValue:StringEquals":{"kms:ResourceAliases":["alias/sign"]}}`,
		`"awskms:///arn:aws:kms:eu-west-1:123456789012:key/k-1"`: `"Resource":["arn:aws:kms:eu-west-1:123456789012:key/k-1"]`,
		`build.ID`: `"Resource":["arn:aws:kms:*:*:key/*"]}`,
	} {
		o := b.options(t, `
source "null" "n" { communicator = "none" }
build {
  sources = ["null.n"]
  post-processor "provenance" {
    signing_mode = "kms"
    signer       = `+key+`
  }
}
`)
		policy, _, err := run.Policy(t.Context(), o.Template, builtin.Parts{}.Catalog().Components(), run.PolicyFor{})
		if text, merr := json.Marshal(policy); err != nil || merr != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v, %v: %s", key, err, merr, text)
		}
	}
	if b.exists("image") || b.exists("state") {
		t.Error("something was run")
	}
}

// TestSweepOfAllIsInNoLog: a sweep can write to the log of a run only if it names the run.
func TestSweepOfAllIsInNoLog(t *testing.T) {
	_, err := run.Sweep(t.Context(), run.SweepOptions{State: run.State(t.TempDir()), Logged: func(run.Position) { t.Error("it is logged") }})
	if err == nil {
		t.Error("it is swept")
	}
}

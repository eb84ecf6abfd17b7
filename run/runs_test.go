package run_test

import (
	"compress/gzip"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bake/engine"
	"bake/run"
	"bake/step"
)

// TestList: runs are listed from their logs and ledgers.
func TestList(t *testing.T) {
	var b bench
	o := b.options(t, fileSource+`provisioner "shell-local" { inline = ["echo up", "test ! -e DIR/fail", "test ! -e DIR/hang || sleep 60"] }
}`)
	o.State = run.State(b.dir + "/state[1]") // must not be read as a pattern
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var during []run.Past
	b.on = func(e step.Event) {
		if e.Text == "up" {
			var err error
			if during, err = o.State.List(); err != nil {
				t.Error(err)
			}
		}
	}
	o.ID, o.Command = "a-succeeds", "bake build one"
	_, err := run.Build(t.Context(), o)
	must(err)
	if len(during) != 1 || during[0].State != run.Running || during[0].Builds[0].State != run.Running {
		t.Errorf("while it ran: %+v", during)
	}
	must(os.Remove(b.image))
	must(os.WriteFile(b.dir+"/fail", nil, 0o600))
	o.ID, o.OnError = "b-fails", engine.Abort
	if _, err := run.Build(t.Context(), o); err == nil {
		t.Error("it has not failed")
	}
	must(os.Remove(b.dir + "/fail"))
	must(os.WriteFile(b.dir+"/hang", nil, 0o600))
	o.ID, o.OnError, o.Force = "c-cancelled", engine.Cleanup, true
	ctx, cancel := context.WithCancelCause(t.Context())
	b.on = func(e step.Event) {
		if e.Text == "up" {
			cancel(asked{})
		}
	}
	if _, err := run.Build(ctx, o); err == nil {
		t.Error("it was not cancelled")
	}
	// A run that was killed during a write, and whose log has two parts.
	whole, err := os.ReadFile(o.State.Log("a-succeeds"))
	must(err)
	lines := strings.SplitAfter(string(whole), "\n")
	z, err := os.Create(strings.TrimSuffix(o.State.Log("d-killed"), ".jsonl") + ".001.jsonl.gz")
	must(err)
	w := gzip.NewWriter(z)
	_, err = w.Write([]byte(strings.Join(lines[:3], "")))
	must(errors.Join(err, w.Close(), z.Close()))
	must(os.WriteFile(o.State.Log("d-killed"), []byte(lines[3]+lines[4][:len(lines[4])/2]), 0o600))
	must(os.WriteFile(o.State.Log("e-garbage"), []byte("{\"kind\":\"run-started\"\n"), 0o600))

	// A run that was cancelled before the turn of its second build, and whose log was truncated,
	// for example by a full disk.
	part := strings.TrimSuffix(o.State.Log("f-cut"), ".jsonl") + ".001.jsonl.gz"
	z, err = os.Create(part)
	must(err)
	w = gzip.NewWriter(z)
	_, err = w.Write([]byte(strings.Replace(lines[0], "file.f", `file.f\nfile.g`, 1)))
	must(errors.Join(err, w.Flush(), z.Close()))
	must(os.WriteFile(o.State.Log("f-cut"), []byte(`{"time":"2026-01-02T03:04:05Z","kind":"run-finished","elapsed":1,"error":"enough"}`+"\n"), 0o600))
	if all, err := o.State.List(); !slices.ContainsFunc(all, func(p run.Past) bool {
		return p.Run == "f-cut" && p.State == run.Cancelled && len(p.Builds) == 2 && p.Builds[1].State == run.Cancelled
	}) {
		t.Errorf("%+v, %v", all, err)
	}
	must(errors.Join(os.Remove(part), os.Remove(o.State.Log("f-cut"))))

	all, err := o.State.List()
	if err == nil || !strings.Contains(err.Error(), "e-garbage") || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("the error is %v", err)
	}
	got := map[string]run.Past{}
	for i, p := range all {
		got[p.Run] = p
		if i > 0 && p.Started.After(all[i-1].Started) {
			t.Errorf("%s is before %s", all[i-1].Run, p.Run)
		}
		if p.Command != "bake build one" || len(p.Builds) != 1 || p.Builds[0].Name != "file.f" || p.Elapsed <= 0 || p.Elapsed > time.Hour {
			t.Errorf("%+v", p)
		}
	}
	for id, want := range map[string]run.PastState{"a-succeeds": run.Succeeded, "b-fails": run.Failed, "c-cancelled": run.Cancelled, "d-killed": run.Crashed} {
		if got[id].State != want {
			t.Errorf("%s: %+v", id, got[id])
		}
	}
	if len(all) != 4 || len(got["b-fails"].Left) != 1 || len(got["a-succeeds"].Left) != 0 || !strings.Contains(got["b-fails"].Builds[0].Error, "exit status: 1") {
		t.Errorf("%+v", all)
	}

	var kinds []step.Kind
	must(o.State.Events("d-killed", func(e step.Event) { kinds = append(kinds, e.Kind) }))
	if len(kinds) != 4 || kinds[0] != step.RunStarted {
		t.Errorf("the events are %v", kinds)
	}
	// Runs whose ledgers cannot be read, in part or at all, are listed all the same.
	ledger := o.State.Ledgers() + "/b-fails.jsonl"
	text, err := os.ReadFile(ledger)
	must(err)
	must(os.WriteFile(ledger, append(text, "garbage\n"...), 0o600))
	must(os.WriteFile(o.State.Ledgers()+"/d-killed.jsonl", []byte(`{"op":"run","version":9,"run":"d-killed"}`+"\n"), 0o600))
	damaged, _ := o.State.List()
	if len(damaged) != 4 {
		t.Errorf("%+v", damaged)
	}
	for _, p := range damaged {
		want := map[string]string{"b-fails": "b-fails.jsonl: line ", "d-killed": step.ErrNewer.Error()}[p.Run]
		if (p.Damage == "") != (want == "") || !strings.Contains(p.Damage, want) || p.Run == "b-fails" && len(p.Left) != 1 {
			t.Errorf("%+v", p)
		}
	}
	for prefix, want := range map[string]string{"a": "a-succeeds", "b-fails": "b-fails", "": all[0].Run} {
		if id, err := o.State.Find(prefix); id != want {
			t.Errorf("%q is %q, %v", prefix, id, err)
		}
	}
	if _, err := o.State.Find("x"); !errors.Is(err, run.ErrNoRun) {
		t.Errorf("the error is %v", err)
	}
	must(os.WriteFile(o.State.Ledgers()+"/e-part.jsonl", []byte(`{"op":"run","run":"e-part","whole":"whole"}`+"\n"), 0o600))
	for prefix, want := range map[string]string{"a": "a-succeeds", "e-p": "e-part", "who": "whole", "b-fails": "b-fails"} {
		if id, err := o.State.FindOwner(prefix); id != want {
			t.Errorf("%q is the owner %q, %v", prefix, id, err)
		}
	}
	if _, err := o.State.FindOwner("x"); !errors.Is(err, run.ErrNoRun) {
		t.Errorf("the error is %v", err)
	}
}

// TestClockSetBack: setting the clock during a run does not affect its duration; a run
// whose log ends before its start has the duration 0.
func TestClockSetBack(t *testing.T) {
	for _, jump := range []time.Duration{-24 * time.Hour, 365 * 24 * time.Hour} {
		var b bench
		o := b.options(t, fileSource+"}")
		started := false
		o.Now = func() time.Time {
			now := time.Now().Round(0)
			if started {
				now = now.Add(jump)
			}
			started = true
			return now
		}
		result, err := run.Build(t.Context(), o)
		if err != nil || result.Elapsed <= 0 || result.Elapsed > time.Hour {
			t.Errorf("clock moved by %s: it took %s, %v", jump, result.Elapsed, err)
		}
		log := `{"time":"2026-01-02T03:04:05Z","kind":"run-started","text":"file.f"}
{"time":"2026-01-01T03:04:05Z","kind":"say","text":"x"}
`
		if err := os.WriteFile(o.State.Log("killed"), []byte(log), 0o600); err != nil {
			t.Fatal(err)
		}
		all, err := o.State.List()
		i := slices.IndexFunc(all, func(p run.Past) bool { return p.Run == "killed" })
		if err != nil || i < 0 || all[i].Elapsed != 0 {
			t.Errorf("%+v, %v", all, err)
		}
	}
}

// TestReportsStayBelowRuns: no id of a run leads out of the directory of runs. It may be a tag
// of a foreign image.
func TestReportsStayBelowRuns(t *testing.T) {
	state := run.State("/state")
	for _, name := range []string{"20260102-1", "../../etc", `..\..\etc`, "/etc", "a/b", "..", ""} {
		if dir := state.Reports(name); filepath.Dir(filepath.Clean(dir)) != state.Runs() {
			t.Errorf("the reports of run %q are in %s", name, dir)
		}
	}
}

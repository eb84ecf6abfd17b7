package run_test

import (
	"path/filepath"
	"strings"
	"testing"

	"bake/config"
	"bake/internal/envvar"
	"bake/internal/otlp/otlptest"
	"bake/run"
	"bake/run/trace"
	"bake/step"
)

// traced makes the runs of o send traces to a collector. It returns a function that closes
// the tracer and returns the received spans by id.
func traced(t *testing.T, o *run.Options, env ...string) func() map[string]otlptest.Span {
	t.Helper()
	c := otlptest.Start(t)
	get := func(name string) string { return envvar.Get(append(env, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL), name) }
	o.Trace = trace.Open(get, "bake", "test", "host", func(err error) { t.Error(err) })
	return func() map[string]otlptest.Span {
		o.Trace.Close()
		all := map[string]otlptest.Span{}
		for _, s := range c.Spans() {
			if _, again := all[s.ID]; again {
				t.Errorf("the span %s was sent twice", s.Name)
			}
			all[s.ID] = s
		}
		return all
	}
}

// TestTraceOfStages: the stages of a run on several hosts form one trace with one first
// span, which contains all steps. The trace says how the run failed, and holds no secrets.
func TestTraceOfStages(t *testing.T) {
	const secret = "correct horse battery staple"
	for _, to := range []string{"", "/none"} {
		s := newStages(t, `
variable "password" {
  default   = "`+secret+`"
  sensitive = true
}
`+strings.Replace(staged, `provisioner "shell" { inline = ["echo two >> DIR/log"] }`, `provisioner "file" {
  content     = "two"
  destination = "DIR`+to+`/${var.password}"
}`, 1))
		spans := traced(t, &s.opts)
		sealed, result, err := s.stage(t, nil)
		stages := 1
		for len(result.Next) > 0 && err == nil {
			sealed, result, err = s.stage(t, sealed)
			stages++
		}
		failed := to != ""
		if failed != (err != nil) {
			t.Fatal(err)
		}
		all := spans()
		names, hidden, why := map[string]int{}, false, ""
		for _, one := range all {
			names[one.Name]++
			outer, within := all[one.Parent]
			switch {
			case one.Trace != strings.ReplaceAll(s.opts.ID, "-", ""):
				t.Errorf("%s is in the trace %s; the run is %s", one.Name, one.Trace, s.opts.ID)
			case !within && one.Name != "bake", within && one.Parent == one.ID:
				t.Errorf("%s is within nothing", one.Name)
			case within && (one.Start.Before(outer.Start) || one.End.After(outer.End)) && one.Name != "stage":
				t.Errorf("%s is longer than %s, which it is within", one.Name, outer.Name)
			case one.Name == "bake" && (one.Failed != failed || !failed && !strings.HasPrefix(one.Attrs["bake.image.id"], "ami-")):
				t.Errorf("the first span: %+v", one)
			}
			for _, text := range append(one.Events, one.Error, one.Name) {
				if strings.Contains(text, secret) {
					t.Errorf("%s tells the secret: %s", one.Name, text)
				}
				hidden = hidden || strings.HasPrefix(text, "said ") && strings.Contains(text, "<sensitive>")
			}
			if one.Name == "bake" {
				why = one.Error
			}
		}
		if !hidden || failed && !strings.Contains(why, "<sensitive>") {
			t.Errorf("no text had a secret in it; the run failed with %q", why)
		}
		if names["bake"] != 1 || names["stage"] != stages || names["launch the instance"]+names["launch instance"] != 1 {
			t.Errorf("after %d stages: %v", stages, names)
		}
	}
}

// TestTraceOfTeardown: deletions after the stages of a run are part of its trace, and so are failed
// deletions.
func TestTraceOfTeardown(t *testing.T) {
	s := newStages(t, staged)
	spans := traced(t, &s.opts)
	if sealed, _, err := s.stage(t, nil); err != nil || sealed == nil {
		t.Fatal(err)
	}
	sweep := run.SweepOptions{State: run.State(filepath.Join(s.dir, "host1")), Run: s.opts.ID, Trace: s.opts.Trace}
	refused := sweep
	refused.Destroyers = step.Destroyers{}
	for range 3 {
		if _, err := run.Sweep(t.Context(), refused); err == nil {
			t.Error("what nobody can delete is gone")
		}
		refused.Again, sweep.Again = true, true // a repeated failure is recorded once
	}
	if _, err := run.Sweep(t.Context(), sweep); err != nil {
		t.Error(err)
	}
	var failed, deleted int
	var stage otlptest.Span
	all := spans()
	for _, one := range all {
		if one.Name == "stage" {
			stage = one
		}
	}
	for _, one := range all {
		if one.Name != "teardown" {
			continue
		}
		if one.Trace != stage.Trace || one.Parent != stage.Parent || one.Attrs["bake.run"] != s.opts.ID {
			t.Errorf("%+v is not beside %+v", one, stage)
		}
		if one.Failed {
			failed++
		}
		for _, inner := range all {
			if inner.Parent == one.ID && !one.Failed && strings.HasPrefix(strings.Join(inner.Events, "\n"), "deleted") {
				deleted++
			}
		}
	}
	if failed != 1 || deleted != 3 {
		t.Errorf("%d teardowns have failed, and the other one has deleted %d of 3 resources", failed, deleted)
	}
}

// one returns the span of that name; the test fails unless there is one.
func one(t *testing.T, all map[string]otlptest.Span, name string) (found otlptest.Span) {
	t.Helper()
	n := 0
	for _, s := range all {
		if s.Name == name {
			found, n = s, n+1
		}
	}
	if n != 1 {
		t.Errorf("%d spans %s", n, name)
	}
	return found
}

// TestTraceOfResume: the spans of each process that resumes a run are within the run's
// first span, which is sent once, wherever the process is started from.
func TestTraceOfResume(t *testing.T) {
	var b bench
	o := b.options(t, chains)
	o.Template.Only = []string{"file.f"}
	parent := "TRACEPARENT=00-" + strings.Repeat("ab", 16) + "-" + strings.Repeat("cd", 8) + "-01"
	spans := traced(t, &o, parent)
	if _, err := run.Build(t.Context(), o); err == nil {
		t.Fatal("nothing failed")
	}
	first := one(t, spans(), "bake")
	if first.Trace != strings.Repeat("ab", 16) || first.Parent != strings.Repeat("cd", 8) || !strings.Contains(first.Error, "exit status: 1") {
		t.Errorf("%+v", first)
	}
	b.ready(t)
	o.Template.Options = config.Options{Env: o.Template.Env}
	spans = traced(t, &o)
	if _, err := run.Resume(t.Context(), run.ResumeOptions{Options: o, Run: "r1"}); err != nil {
		t.Fatal(err)
	}
	all := spans()
	again := one(t, all, "resume")
	if again.Trace != first.Trace || again.Parent != first.ID || again.Failed {
		t.Errorf("it goes on with %+v: %+v", first, again)
	}
	for _, s := range all {
		if s.Name == "bake" || s.ID == first.ID {
			t.Errorf("the first span again: %+v", s)
		}
	}
}

// TestTraceOfNoBuild: the trace of a run that fails without a failed build says why.
func TestTraceOfNoBuild(t *testing.T) {
	var b bench
	o := b.options(t, chains)
	o.Template.Only = []string{"nothing.*"}
	spans := traced(t, &o)
	if _, err := run.Build(t.Context(), o); err == nil {
		t.Fatal("there is nothing to build, and nothing failed")
	}
	if s := one(t, spans(), "bake"); !s.Failed || s.Error != "the template is wrong" {
		t.Errorf("%+v", s)
	}
}

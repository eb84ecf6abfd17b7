package trace

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"bake/builder"
	"bake/internal/otlp/otlptest"
	"bake/step"
)

const (
	id   = "0af76519-16cd-43dd-8448-eb211c80319c"
	root = "8448eb211c80319c"
)

// start is when all runs of these tests begin.
var start = time.Now().Add(-time.Hour)

// open returns a tracer, and a function that closes it and returns its spans as a tree in text.
func open(t *testing.T, more ...string) (*Tracer, func() string) {
	t.Helper()
	c := otlptest.Start(t)
	get := func(name string) string {
		for _, one := range append(more, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL) {
			if n, value, _ := strings.Cut(one, "="); n == name {
				return value
			}
		}
		return ""
	}
	tracer := Open(get, "bake", "1.2", "host", func(err error) { t.Error(err) })
	return tracer, func() string {
		tracer.Close()
		return tree(c.Spans())
	}
}

// tree formats the spans that have no parent among all, and those within them, by start time.
func tree(all []otlptest.Span) string {
	slices.SortStableFunc(all, func(a, b otlptest.Span) int { return a.Start.Compare(b.Start) })
	names := map[string]bool{}
	for _, s := range all {
		names[s.ID] = true
	}
	var b strings.Builder
	var show func(parent, indent string)
	show = func(parent, indent string) {
		for _, s := range all {
			if s.Parent != parent && (indent != "" || names[s.Parent]) { // shown below another span
				continue
			}
			fmt.Fprintf(&b, "%s%s", indent, s.Name)
			if s.Failed {
				fmt.Fprintf(&b, ": error %s", s.Error)
			}
			for _, name := range []string{"cloud.region", "bake.image.id", "bake.reused"} {
				if v := s.Attrs[name]; v != "" {
					fmt.Fprintf(&b, " %s=%s", name, v)
				}
			}
			for _, e := range s.Events {
				fmt.Fprintf(&b, " [%s]", e)
			}
			b.WriteString("\n")
			show(s.ID, indent+"  ")
		}
	}
	show("", "")
	return b.String()
}

// events returns events that are one second apart.
func events(c *Recorder, all ...step.Event) {
	for i, e := range all {
		e.Time = start.Add(time.Duration(i+1) * time.Second)
		c.Handle(e)
	}
}

func TestSpans(t *testing.T) {
	tracer, end := open(t)
	c := tracer.Begin(Run{ID: id, Start: start})
	instance := &step.Resource{Kind: "ec2:instance", Key: "k", ID: "i-1", Where: "eu-west-1"}
	events(c,
		step.Event{Kind: step.RunStarted},
		step.Event{Kind: step.BuildStarted, Build: "a"},
		step.Event{Kind: step.BuildStarted, Build: "b"},
		step.Event{Kind: step.StepStarted, Build: "a", Step: "launch"},
		step.Event{Kind: step.StepStarted, Build: "b", Step: "launch"},
		step.Event{Kind: step.StepStarted, Build: "a", Step: "launch > instance"},
		step.Event{Kind: step.ResourceCreated, Build: "a", Step: "launch > instance", Resource: instance},
		step.Event{Kind: step.Say, Build: "a", Step: "launch > instance", Text: "Launching"},
		step.Event{Kind: step.Output, Build: "a", Step: "launch > instance", Text: "a line"},
		step.Event{Kind: step.StepFinished, Build: "a", Step: "launch > instance"},
		step.Event{Kind: step.StepFailed, Build: "b", Step: "launch", Error: errors.New("no capacity")},
		step.Event{Kind: step.StepStarted, Build: "b", Step: "launch"}, // again
		step.Event{Kind: step.StepFinished, Build: "b", Step: "launch"},
		step.Event{Kind: step.StepFinished, Build: "a", Step: "launch"},
		step.Event{Kind: step.StepStarted, Build: "a", Step: "unknown > within"},
		step.Event{Kind: step.Warning, Build: "a", Step: "unknown > within > deeper", Text: "careful"},
		step.Event{Kind: step.ImagePlaced, Build: "a", Step: "unknown > within", Placed: &step.Placement{Account: "1", Region: "r", ID: "ami-2"}},
		step.Event{Kind: step.StepFinished, Build: "a", Step: "unknown > within"},
		step.Event{Kind: step.ArtifactMade, Build: "a", Artifact: &builder.Artifact{Images: map[string]string{"r2": "ami-2", "r1": "ami-1"}}},
		step.Event{Kind: step.BuildFinished, Build: "a", Reused: true},
		step.Event{Kind: step.ResourceLeft, Build: "b", Resource: instance},
		step.Event{Kind: step.BuildFailed, Build: "b", Error: errors.New("it failed")},
		step.Event{Kind: step.RunFinished},
	)
	c.End()
	const want = `bake: error it failed bake.image.id=ami-1,ami-2
  build a bake.image.id=ami-1,ami-2 bake.reused=true [image ami-1 r1] [image ami-2 r2]
    launch
      instance [created ec2:instance i-1 eu-west-1] [said Launching]
    unknown > within [warning careful] [image placed ami-2 1 r]
  build b: error it failed [left behind ec2:instance i-1 eu-west-1]
    launch: error no capacity
    launch
`
	if got := end(); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

// TestParts: the parts of a run in several processes form one trace, whose first span is sent by
// the last of them.
func TestParts(t *testing.T) {
	tracer, end := open(t)
	tracer = tracer.Named("bake web", "bake.cell", "web/1/r")
	for _, last := range []bool{false, true} {
		c := tracer.Begin(Run{ID: id, Start: start, Part: "stage", Stages: true, Account: "1", Region: "r"})
		all := []step.Event{{Kind: step.BuildStarted, Build: "a"}, {Kind: step.StepStarted, Build: "a", Step: "x"}}
		if last {
			all = append(all, step.Event{Kind: step.StepFailed, Build: "a", Step: "x", Error: errors.New("oh")}, step.Event{Kind: step.BuildFailed, Build: "a", Error: errors.New("oh")}, step.Event{Kind: step.RunFinished})
		}
		events(c, all...)
		c.End()
	}
	const want = `bake web: error oh cloud.region=r
  stage cloud.region=r
    build a cloud.region=r
      x cloud.region=r
  stage: error oh cloud.region=r
    build a: error oh cloud.region=r
      x: error oh cloud.region=r
`
	if got := end(); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

// TestResume: a process that resumes a run does not send the first span again, and uses the
// existing one as its parent, in whatever trace; without one, its own span is the first.
func TestResume(t *testing.T) {
	tracer, end := open(t, "TRACEPARENT=00-"+strings.Repeat("ab", 16)+"-"+strings.Repeat("cd", 8)+"-01")
	c := tracer.Begin(Run{ID: id, Start: start})
	first := c.First()
	c.Fail(errors.New("oh"))
	c.End()
	end()
	if want := "00-" + strings.Repeat("ab", 16) + "-" + root + "-01"; first != want {
		t.Errorf("the first span is %s, want %s", first, want)
	}
	for _, tt := range []struct{ first, trace, parent string }{
		{first, strings.Repeat("ab", 16), root},
		{"", strings.ReplaceAll(id, "-", ""), ""},
		{"rubbish", strings.ReplaceAll(id, "-", ""), ""},
	} {
		collector := otlptest.Start(t)
		get := func(name string) string {
			return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL}[name]
		}
		tracer := Open(get, "bake", "1.2", "host", func(err error) { t.Error(err) })
		c := tracer.Begin(Run{ID: id, Start: start, Part: "resume", First: tt.first})
		events(c, step.Event{Kind: step.BuildStarted, Build: "a"}, step.Event{Kind: step.BuildFinished, Build: "a"}, step.Event{Kind: step.RunFinished})
		c.End()
		tracer.Close()
		got := collector.Spans()
		if len(got) != 2 || got[1].Name != "resume" || got[1].ID == root || got[1].Trace != tt.trace || got[1].Parent != tt.parent || got[0].Parent != got[1].ID {
			t.Errorf("%q: %+v", tt.first, got)
		}
	}
}

// TestManyImages: the first span has the images of all builds, and the first failure.
func TestManyImages(t *testing.T) {
	tracer, end := open(t, "OTEL_RESOURCE_ATTRIBUTES=x=y")
	c := tracer.Begin(Run{ID: id, Start: start, Region: "here"})
	c.Within() // the builds are recorded elsewhere
	made := func(build, image string) step.Event {
		return step.Event{Kind: step.ArtifactMade, Build: build, Artifact: &builder.Artifact{Images: map[string]string{"r": image}}}
	}
	events(c,
		step.Event{Kind: step.BuildStarted, Build: "a"},
		step.Event{Kind: step.StepStarted, Build: "a", Step: "x"},
		step.Event{Kind: step.Say, Build: "a", Step: "x", Text: "of the build"},
		step.Event{Kind: step.Say, Text: "of all"},
		step.Event{Kind: step.ResourceCreated, Resource: &step.Resource{Kind: "k", ID: "i", Where: "there"}},
		made("a", "ami-1"), made("a", "ami-1"), made("b", "ami-2"),
		step.Event{Kind: step.BuildFailed, Build: "c", Error: errors.New("first")},
		step.Event{Kind: step.BuildFailed, Build: "d", Error: errors.New("second")},
	)
	c.Fail(errors.New("third"))
	c.End()
	const want = "bake: error first cloud.region=here bake.image.id=ami-1,ami-2 [said of all] [created k i there] [image ami-1 r] [image ami-1 r] [image ami-2 r]\n"
	if got := end(); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

// TestParent: a parent span from the environment contains everything.
func TestParent(t *testing.T) {
	c := otlptest.Start(t)
	vars := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL, "TRACEPARENT": "00-" + strings.Repeat("ab", 16) + "-" + strings.Repeat("cd", 8) + "-01"}
	tracer := Open(func(name string) string { return vars[name] }, "bake", "1.2", "host", func(err error) { t.Error(err) })
	whole := tracer.Begin(Run{ID: id, Start: start})
	part := whole.Within().Begin(Run{ID: "11111111-1111-4111-8111-111111111111", Start: start})
	part.End()
	whole.Fail(errors.New("because"))
	whole.End()
	tracer.Close()
	got := c.Spans()
	if len(got) != 2 || got[0].Trace != vars["TRACEPARENT"][3:35] || got[1].Trace != got[0].Trace || got[1].ID != root || got[0].Parent != root || got[1].Parent != strings.Repeat("cd", 8) || got[1].Error != "because" {
		t.Errorf("%+v", got)
	}
	if r := got[0].Resource; r["service.name"] != "bake" || r["service.version"] != "1.2" || r["host.name"] != "host" || got[0].Attrs["bake.run"] == "" {
		t.Errorf("%+v", got[0])
	}
}

// TestNothing: without a collector, all methods are no-ops that need no check.
func TestNothing(t *testing.T) {
	tracer := Open(func(string) string { return "" }, "bake", "", "", func(err error) { t.Error(err) })
	c := tracer.Named("x").Begin(Run{ID: id})
	events(c, step.Event{Kind: step.RunStarted})
	c.Fail(errors.New("x"))
	if c.Within() != nil {
		t.Error("it has a tracer")
	}
	c.End()
	tracer.Close()
	warned := ""
	if tracer := Open(func(string) string { return "rubbish" }, "bake", "", "", func(err error) { warned = err.Error() }); tracer != nil || warned == "" {
		t.Errorf("%v, %q", tracer, warned)
	}
}

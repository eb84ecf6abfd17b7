// Package trace turns the events of runs into OpenTelemetry spans: one for each step, build
// and run. Each run is a trace with the id of the run. The id of its first span is derived
// from that of the run, so the spans that other processes send belong to the same trace.
package trace

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"bake/builder"
	"bake/internal/otlp"
	"bake/internal/prose"
	"bake/step"
)

// Tracer sends the traces of runs. Nil sends none.
type Tracer struct {
	exporter *otlp.Exporter
	parent   otlp.Parent // zero: each run is a separate trace
	name     string
	attrs    []otlp.Attr
}

// scope is the name of the instrumentation scope of the spans.
const scope = "bake"

// Open returns a Tracer that sends traces to the destination set in the environment
// variables of OpenTelemetry's specification, read with get. It returns nil if they set
// none. service is the service name. warn is called when tracing does not work or spans
// are lost, possibly from another goroutine.
func Open(get func(name string) string, service, version, host string, warn func(error)) *Tracer {
	c, err := otlp.FromEnv(get, service)
	switch {
	case err != nil:
		warn(fmt.Errorf("there are no traces: %w", err))
		return nil
	case c == nil:
		return nil
	}
	own := []otlp.Attr{{Key: "service.version", Value: version}, {Key: "host.name", Value: host}, {Key: "telemetry.sdk.name", Value: scope}, {Key: "telemetry.sdk.language", Value: "go"}}
	for _, a := range own {
		if !slices.ContainsFunc(c.Resource, func(b otlp.Attr) bool { return b.Key == a.Key }) {
			c.Resource = append(c.Resource, a)
		}
	}
	return &Tracer{exporter: otlp.NewExporter(*c, scope, version, warn), parent: c.Parent, name: scope}
}

// closeTime limits how long unsent spans may delay the end of the program.
const closeTime = 3 * time.Second

// Close sends the remaining spans, for at most [closeTime].
func (t *Tracer) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	t.exporter.Close(ctx)
}

// Named returns a tracer whose runs have this name, and whose spans have these attributes.
// attrs alternates names and values.
func (t *Tracer) Named(name string, attrs ...string) *Tracer {
	if t == nil {
		return nil
	}
	c := *t
	c.name, c.attrs = name, slices.Clone(t.attrs)
	for pair := range slices.Chunk(attrs, 2) {
		c.attrs = append(c.attrs, otlp.Attr{Key: pair[0], Value: pair[1]})
	}
	return &c
}

// Run is a run, or a part of one.
type Run struct {
	ID      string    // a UUID
	Start   time.Time // start of the run; for a part, start of its first part
	Account string    // the only account that it may use; empty if any
	Region  string

	// Part is the name of the part of the run that this process does, such as "stage" or
	// "resume". It is empty for a whole run.
	Part string

	// Stages means that the run consists of parts: the part in which it ends sends its
	// first span.
	Stages bool

	// Again reports that the same part was tried before. It is then recorded only if it
	// deletes something, so that the trace does not grow without limit when a resource
	// cannot be deleted.
	Again bool

	// First is the result of [Recorder.First] in the process that sends the first span of
	// the run, or "" if there is none. It is for a part of a run that does not run by
	// stages.
	First string
}

// Recorder makes the spans of a run. Nil makes none. It is used by one goroutine at a time.
type Recorder struct {
	tracer *Tracer
	run    Run
	trace  otlp.TraceID
	root   otlp.SpanID // of the run
	attrs  []otlp.Attr // of all spans

	top    *otlp.Span             // of the run or the part
	open   map[place][]*otlp.Span // open spans
	within bool                   // other recorders record its builds
	ended  bool                   // the run is over

	held []otlp.Span // spans to send once something has been deleted
	did  bool        // something has been deleted
}

// place is a build, or a step of a build.
type place struct{ build, step string }

// Begin starts recording a run. The caller ends it.
func (t *Tracer) Begin(r Run) *Recorder {
	if t == nil {
		return nil
	}
	id, err := uuid.Parse(r.ID)
	if err != nil {
		sum := sha256.Sum256([]byte(r.ID))
		copy(id[:], sum[:])
	}
	c := &Recorder{tracer: t, run: r, trace: otlp.TraceID(id), open: map[place][]*otlp.Span{}}
	copy(c.root[:], id[8:])
	if t.parent.Trace != (otlp.TraceID{}) {
		c.trace = t.parent.Trace
	}
	alone := r.Part != "" && !r.Stages // there may be no first span
	if first, ok := otlp.ParseParent(r.First); ok && alone {
		c.trace, c.root, alone = first.Trace, first.Span, false
	}
	c.attrs = append(slices.Clone(t.attrs), otlp.Attr{Key: "bake.run", Value: r.ID})
	if r.Account != "" {
		c.attrs = append(c.attrs, otlp.Attr{Key: "cloud.account.id", Value: r.Account})
	}
	if r.Region != "" {
		c.attrs = append(c.attrs, otlp.Attr{Key: "cloud.region", Value: r.Region})
	}
	switch {
	case r.Part == "":
		c.top = c.first()
	case alone:
		c.top = c.span(r.Part, t.parent.Span, time.Now())
	default:
		c.top = c.span(r.Part, c.root, time.Now())
	}
	return c
}

// First returns the first span of the run as a traceparent of W3C's Trace Context, for
// processes that continue the run later. It is empty for a nil Recorder.
func (c *Recorder) First() string {
	if c == nil {
		return ""
	}
	return otlp.Parent{Trace: c.trace, Span: c.root}.String()
}

// first returns the first span of the run.
func (c *Recorder) first() *otlp.Span {
	s := c.span(c.tracer.name, c.tracer.parent.Span, c.run.Start)
	s.ID = c.root
	return s
}

func (c *Recorder) span(name string, parent otlp.SpanID, start time.Time) *otlp.Span {
	s := &otlp.Span{Trace: c.trace, Parent: parent, State: c.tracer.parent.State, Name: name, Start: start, Attrs: slices.Clone(c.attrs)}
	_, _ = rand.Read(s.ID[:]) // never fails
	return s
}

// Within returns a tracer for runs that are parts of this one. Their recorders record the
// builds; this one then notes only artifacts and failures.
func (c *Recorder) Within() *Tracer {
	if c == nil {
		return nil
	}
	c.within = true
	t := *c.tracer
	t.parent = otlp.Parent{Trace: c.trace, Span: c.root, State: t.parent.State}
	return &t
}

// Handle records an event of the run. The event must be free of secrets.
func (c *Recorder) Handle(e step.Event) {
	if c == nil {
		return
	}
	if c.within && e.Build != "" && e.Kind != step.BuildFailed && e.Kind != step.ArtifactMade {
		return
	}
	at := place{e.Build, e.Step}
	switch e.Kind {
	case step.RunFinished:
		c.ended = true
		if e.Error != nil {
			c.Fail(e.Error)
		}
	case step.BuildStarted:
		s := c.begin(place{e.Build, ""}, "build "+e.Build, c.top.ID, e.Time)
		set(s, "bake.build", e.Build)
	case step.StepStarted:
		outer, name := c.outer(at)
		s := c.begin(at, name, outer.ID, e.Time)
		set(s, "bake.build", e.Build)
		set(s, "bake.step", e.Step)
	case step.StepFinished, step.StepFailed:
		c.end(at, e)
	case step.BuildFinished, step.BuildFailed:
		c.end(place{e.Build, ""}, e)
		if e.Error != nil {
			c.Fail(e.Error)
		}
	case step.ArtifactMade:
		c.made(e)
	case step.ImagePlaced:
		note(c.at(at), e, "image placed", otlp.Attr{Key: "bake.image.id", Value: e.Placed.ID}, otlp.Attr{Key: "cloud.account.id", Value: e.Placed.Account}, otlp.Attr{Key: "cloud.region", Value: e.Placed.Region})
	case step.ResourceCreated:
		c.resource(e, "created")
	case step.ResourceDestroyed:
		c.did = true
		c.resource(e, "deleted")
	case step.ResourceLeft:
		c.resource(e, "left behind")
	case step.Say:
		note(c.at(at), e, "said", otlp.Attr{Key: "message", Value: prose.Beginning(e.Text, longestText)})
	case step.Warning:
		note(c.at(at), e, "warning", otlp.Attr{Key: "message", Value: prose.Beginning(e.Text, longestText)})
	}
}

// separator joins the names of nested steps.
const separator = " > "

// outer returns the span that contains a step, and the name of the step.
func (c *Recorder) outer(at place) (outer *otlp.Span, name string) {
	for i := strings.LastIndex(at.step, separator); i >= 0; i = strings.LastIndex(at.step[:i], separator) {
		if s := c.newest(place{at.build, at.step[:i]}); s != nil {
			return s, at.step[i+len(separator):]
		}
	}
	return c.at(place{at.build, ""}), at.step
}

// at returns the innermost open span for a place.
func (c *Recorder) at(at place) *otlp.Span {
	if s := c.newest(at); s != nil {
		return s
	}
	if at.step != "" {
		s, _ := c.outer(at)
		return s
	}
	return c.top
}

func (c *Recorder) newest(at place) *otlp.Span {
	if all := c.open[at]; len(all) > 0 {
		return all[len(all)-1]
	}
	return nil
}

func (c *Recorder) begin(at place, name string, parent otlp.SpanID, start time.Time) *otlp.Span {
	s := c.span(name, parent, start)
	c.open[at] = append(c.open[at], s)
	return s
}

// end ends and exports the newest span of a place.
func (c *Recorder) end(at place, e step.Event) {
	s := c.newest(at)
	if s == nil {
		return
	}
	if c.open[at] = c.open[at][:len(c.open[at])-1]; len(c.open[at]) == 0 {
		delete(c.open, at)
	}
	if e.Error != nil {
		fail(s, e.Error)
	}
	if e.Reused {
		set(s, "bake.reused", "true")
	}
	set(s, "bake.place", e.Place)
	s.End = e.Time
	c.export(s)
}

// export sends a span. A part that is tried again holds its spans until it has deleted
// something.
func (c *Recorder) export(s *otlp.Span) {
	if c.run.Again && !c.did {
		c.held = append(c.held, *s)
		return
	}
	for _, one := range c.held {
		c.tracer.exporter.Export(one)
	}
	c.held = nil
	c.tracer.exporter.Export(*s)
}

// resource records what happened to a resource.
func (c *Recorder) resource(e step.Event, name string) {
	note(c.at(place{e.Build, e.Step}), e, name, otlp.Attr{Key: "bake.resource.kind", Value: e.Resource.Kind}, otlp.Attr{Key: "bake.resource.id", Value: e.Resource.ID}, otlp.Attr{Key: "cloud.region", Value: e.Resource.Where})
}

// made records the results of a build.
func (c *Recorder) made(e step.Event) {
	a, ok := e.Artifact.(*builder.Artifact)
	if !ok {
		return
	}
	s := c.at(place{e.Build, ""})
	for _, region := range slices.Sorted(maps.Keys(a.Images)) {
		note(s, e, "image", otlp.Attr{Key: "bake.image.id", Value: a.Images[region]}, otlp.Attr{Key: "cloud.region", Value: region})
		add(s, "bake.image.id", a.Images[region])
		if s != c.top {
			add(c.top, "bake.image.id", a.Images[region])
		}
	}
}

// Fail records why the run has failed. The first reason counts.
func (c *Recorder) Fail(why error) {
	if c != nil && !c.top.Failed {
		fail(c.top, why)
	}
}

// End ends the recording. Spans without an end end now.
func (c *Recorder) End() {
	if c == nil {
		return
	}
	now := time.Now()
	for _, all := range c.open {
		for _, s := range all {
			s.End = now
			c.export(s)
		}
	}
	c.open = nil
	c.top.End = now
	c.export(c.top)
	if c.run.Stages && c.ended {
		s := c.first()
		s.Attrs, s.Failed, s.Error, s.End = c.top.Attrs, c.top.Failed, c.top.Error, now
		c.tracer.exporter.Export(*s)
	}
}

const (
	mostEvents  = 128     // maximum number of events of a span
	longestText = 4 << 10 // maximum bytes of a message or error
)

// note adds an event to a span.
func note(s *otlp.Span, e step.Event, name string, attrs ...otlp.Attr) {
	if len(s.Events) < mostEvents {
		s.Events = append(s.Events, otlp.Event{Time: e.Time, Name: name, Attrs: attrs})
	}
}

// set sets an attribute of a span that has a value.
func set(s *otlp.Span, key, value string) {
	if value == "" {
		return
	}
	i := slices.IndexFunc(s.Attrs, func(a otlp.Attr) bool { return a.Key == key })
	if i < 0 {
		s.Attrs = append(s.Attrs, otlp.Attr{Key: key, Value: value})
		return
	}
	s.Attrs[i].Value = value
}

// add adds a value to an attribute of a span, a comma-separated list without duplicates.
func add(s *otlp.Span, key, value string) {
	i := slices.IndexFunc(s.Attrs, func(a otlp.Attr) bool { return a.Key == key })
	if i < 0 {
		set(s, key, value)
	} else if all := strings.Split(s.Attrs[i].Value, ","); !slices.Contains(all, value) {
		s.Attrs[i].Value = strings.Join(append(all, value), ",")
	}
}

func fail(s *otlp.Span, why error) {
	s.Failed, s.Error = true, prose.Beginning(why.Error(), longestText)
}

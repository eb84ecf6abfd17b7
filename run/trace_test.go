package run_test

import (
	"strings"
	"testing"

	"bake/internal/otlp/otlptest"
	"bake/run"
	"bake/run/trace"
)

// traced gives the runs of o a collector, and returns what closes the tracer, and its spans by
// their ids.
func traced(t *testing.T, o *run.Options) func() map[string]otlptest.Span {
	t.Helper()
	c := otlptest.Start(t)
	get := func(name string) string { return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL}[name] }
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

// TestTraceOfStages: what several hosts do of a run is one trace with one first span, in which
// each step is within another; how it fails is told, and no secret.
func TestTraceOfStages(t *testing.T) {
	const secret = "correct horse battery staple"
	for _, last := range []string{"echo two", "echo " + secret + " failed >&2; exit 3"} {
		s := newStages(t, `
variable "password" {
  default   = "`+secret+`"
  sensitive = true
}
`+strings.Replace(staged, `["echo two >> DIR/log"]`, `["`+last+`"]`, 1))
		spans := traced(t, &s.opts)
		sealed, result, err := s.stage(t, nil)
		stages := 1
		for len(result.Next) > 0 && err == nil {
			sealed, result, err = s.stage(t, sealed)
			stages++
		}
		failed := strings.Contains(last, "exit")
		if failed != (err != nil) {
			t.Fatal(err)
		}
		all := spans()
		names := map[string]int{}
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
			}
		}
		if names["bake"] != 1 || names["stage"] != stages || names["launch the instance"]+names["launch instance"] != 1 {
			t.Errorf("after %d stages: %v", stages, names)
		}
	}
}

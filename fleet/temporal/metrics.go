package temporal

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"

	"go.temporal.io/sdk/client"

	"bake/fleet"
	"bake/step"
)

// Metrics holds the metrics of a worker.
type Metrics struct {
	mu       sync.Mutex
	counters map[string]float64
}

// newMetrics returns the metrics of a worker for these regions. Counters whose labels are known
// in advance start at 0, since an increase of a counter that does not exist yet is invisible.
func newMetrics(regions ...string) *Metrics {
	m := &Metrics{counters: map[string]float64{"bake_step_seconds_total": 0, "bake_teardown_failures_total": 0}}
	for _, r := range []fleet.Result{fleet.Built, fleet.Reused, fleet.Failed, fleet.Cancelled} {
		m.counters[cells(r)] = 0
	}
	for _, result := range []string{"finished", "failed"} {
		m.counters[fmt.Sprintf("bake_steps_total{result=%q}", result)] = 0
	}
	for _, change := range []string{"created", "destroyed", "kept"} {
		m.counters[fmt.Sprintf("bake_resources_total{change=%q}", change)] = 0
	}
	for _, region := range regions {
		m.counters[calls("ec2", region)] = 0
	}
	return m
}

// cells and calls are names of counters.
func cells(r fleet.Result) string { return fmt.Sprintf("%s{%s=%q}", cellsCounter, resultTag, r) }

func calls(service, region string) string {
	return fmt.Sprintf("bake_api_calls_total{service=%q,region=%q}", service, region)
}

func (m *Metrics) add(name string, n float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counters[name] += n
}

// event counts an event of a run.
func (m *Metrics) event(e step.Event) {
	switch e.Kind {
	case step.StepFinished:
		m.add(`bake_steps_total{result="finished"}`, 1)
		m.add(`bake_step_seconds_total`, e.Elapsed.Seconds())
	case step.StepFailed:
		m.add(`bake_steps_total{result="failed"}`, 1)
	case step.ResourceCreated:
		m.add(`bake_resources_total{change="created"}`, 1)
	case step.ResourceDestroyed:
		m.add(`bake_resources_total{change="destroyed"}`, 1)
	case step.ResourceKept:
		m.add(`bake_resources_total{change="kept"}`, 1)
	}
}

// tally counts the ends of cells in their workflows, each once: a replayed workflow does
// not count again. The SDK's own metrics are dropped.
type tally struct {
	*Metrics
	result string
}

// cellsCounter and resultTag are the counter of ended cells in workflows and its tag.
const (
	cellsCounter = "bake_cells_total"
	resultTag    = "result"
)

// WithTags implements [client.MetricsHandler].
func (t tally) WithTags(tags map[string]string) client.MetricsHandler {
	if r, ok := tags[resultTag]; ok {
		t.result = r
	}
	return t
}

// Counter implements [client.MetricsHandler].
func (t tally) Counter(name string) client.MetricsCounter {
	if name != cellsCounter {
		return client.MetricsNopHandler.Counter(name)
	}
	return ends(t)
}

// Gauge implements [client.MetricsHandler].
func (t tally) Gauge(name string) client.MetricsGauge { return client.MetricsNopHandler.Gauge(name) }

// Timer implements [client.MetricsHandler].
func (t tally) Timer(name string) client.MetricsTimer { return client.MetricsNopHandler.Timer(name) }

// ends counts the cells that have ended with a result.
type ends tally

// Inc implements [client.MetricsCounter].
func (e ends) Inc(n int64) { e.add(cells(fleet.Result(e.result)), float64(n)) }

// call counts a request to a service of AWS.
func (m *Metrics) call(service, region string) {
	m.add(calls(service, region), 1)
}

// leak counts teardown attempts that have left something.
func (m *Metrics) leak() { m.add("bake_teardown_failures_total", 1) }

// help describes the metrics, in the order of their names.
var help = []struct{ name, text string }{
	{"bake_api_calls_total", "Requests sent to AWS."},
	{cellsCounter, "Cells that have ended, each counted once by one of the workers."},
	{"bake_resources_total", "Resources created, destroyed, and kept for the user."},
	{"bake_step_seconds_total", "Time spent in steps, those inside others included."},
	{"bake_steps_total", "Steps that have ended."},
	{"bake_teardown_failures_total", "Attempts to tear down a run that left something; they are repeated."},
}

// write writes the metrics in the text format of Prometheus.
func (m *Metrics) write(w io.Writer) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name := range m.counters {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, h := range help {
		if _, err := fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s counter\n", h.name, h.text, h.name); err != nil {
			return err
		}
		for _, name := range names {
			if name == h.name || len(name) > len(h.name) && name[:len(h.name)+1] == h.name+"{" {
				if _, err := fmt.Fprintf(w, "%s %g\n", name, m.counters[name]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// ServeHTTP answers with the metrics.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_ = m.write(w)
}

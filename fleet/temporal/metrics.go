package temporal

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"

	"bake/fleet"
	"bake/step"
)

// Metrics counts what a worker does. Its zero value is ready.
type Metrics struct {
	mu       sync.Mutex
	counters map[string]float64
}

func (m *Metrics) add(name string, n float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.counters == nil {
		m.counters = map[string]float64{}
	}
	m.counters[name] += n
}

// event counts what a run says.
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

// ended counts cells.
func (m *Metrics) ended(o *fleet.Outcome) {
	m.add(fmt.Sprintf("bake_cells_total{result=%q}", o.Result), 1)
}

// call counts a request to a service of AWS.
func (m *Metrics) call(service, region string) {
	m.add(fmt.Sprintf("bake_api_calls_total{service=%q,region=%q}", service, region), 1)
}

// leak counts attempts to tear down that have left something.
func (m *Metrics) leak() { m.add("bake_teardown_failures_total", 1) }

// help is what the metrics are, in the order of their names.
var help = []struct{ name, text string }{
	{"bake_api_calls_total", "Requests sent to AWS."},
	{"bake_cells_total", "Cells that have ended."},
	{"bake_resources_total", "Resources created, destroyed, and kept for the user."},
	{"bake_step_seconds_total", "Time spent in steps, those inside others included."},
	{"bake_steps_total", "Steps that have ended."},
	{"bake_teardown_failures_total", "Attempts to tear down a run that left something; they are repeated."},
}

// Write writes the metrics in the text format of Prometheus.
func (m *Metrics) Write(w io.Writer) error {
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
	_ = m.Write(w)
}

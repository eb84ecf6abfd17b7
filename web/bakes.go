package web

import (
	"encoding/json"
	"errors"
	"net/http"

	"bake/internal/lazyregexp"
	"bake/run"
)

// The maximum size of the part of a log that is sent to a page at a time.
const (
	maxEvents = 20_000
	maxBytes  = 8 << 20
)

var runPattern = lazyregexp.New(`^[0-9A-Za-z][0-9A-Za-z.-]{0,99}$`)

// pastRuns caches the list of runs.
type pastRuns struct {
	stamp string
	all   []run.Past
	err   error
}

// bakes lists the runs of bake build, and reports those that cannot be read. Since logs are long
// and pages poll often, the logs are read again only after a change.
func (c *Console) bakes(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	if stamp := c.opts.Runs.Stamp(); c.past.stamp != stamp {
		all, err := c.opts.Runs.List()
		c.past = pastRuns{stamp, all, err}
	}
	all, err := c.past.all, c.past.err
	c.mu.Unlock()
	answer := struct {
		Runs  []run.Past `json:"runs"`
		Error string     `json:"error,omitempty"`
	}{Runs: all}
	if all == nil {
		answer.Runs = []run.Past{}
	}
	if err != nil {
		answer.Error = err.Error()
	}
	writeJSON(w, answer)
}

// bake sends the events of a run's log after the position "after", the position at which to
// continue, and the result of the run.
func (c *Console) bake(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("run")
	at, err := run.ParsePosition(r.URL.Query().Get("after"))
	if err != nil || !runPattern.Get().MatchString(id) {
		http.NotFound(w, r)
		return
	}
	answer := struct {
		Events []json.RawMessage `json:"events"`
		Next   string            `json:"next"`
		More   bool              `json:"more"` // there are some already
		Past   run.Past          `json:"past"`
	}{Events: []json.RawMessage{}}
	bytes := 0
	at, err = c.opts.Runs.Lines(id, at, func(line []byte) bool {
		if json.Valid(line) {
			answer.Events = append(answer.Events, line)
		}
		bytes += len(line)
		answer.More = len(answer.Events) == maxEvents || bytes > maxBytes
		return !answer.More
	})
	if noRun(w, r, err) {
		return
	}
	if answer.Past, err = c.opts.Runs.Past(id); noRun(w, r, err) {
		return
	}
	answer.Next = at.String()
	writeJSON(w, answer)
}

// report sends the report of a run, as a page that cannot access the console.
func (c *Console) report(w http.ResponseWriter, r *http.Request) {
	if !runPattern.Get().MatchString(r.PathValue("run")) {
		http.NotFound(w, r)
		return
	}
	page, err := c.opts.Runs.Report(r.PathValue("run"), c.opts.Version)
	if noRun(w, r, err) {
		return
	}
	w.Header().Set("Content-Security-Policy", "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = page.HTML(w) // the browser may have gone
}

// noRun answers if a log cannot be read.
func noRun(w http.ResponseWriter, r *http.Request, err error) bool {
	switch {
	case errors.Is(err, run.ErrNoRun):
		http.NotFound(w, r)
	case err != nil:
		http.Error(w, "The log of this run cannot be read: "+err.Error(), http.StatusInternalServerError)
	}
	return err != nil
}

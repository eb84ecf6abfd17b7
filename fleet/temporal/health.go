package temporal

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// health answers health probes about a worker. A worker is not ready at first.
type health struct {
	service func(context.Context) error // whether the service answers
	state   atomic.Pointer[string]      // why the worker accepts no work; nil: it does
}

// The reasons why a worker accepts no work.
const (
	isStarting = "starting"
	isEnding   = "ending: finishing the work in progress"
)

func newHealth(service func(context.Context) error) *health {
	h := &health{service: service}
	h.set(isStarting)
	return h
}

func (h *health) set(why string) { h.state.Store(&why) }

// atEnd waits until ctx ends or the worker fails, and returns that failure. Probes see
// either.
func (h *health) atEnd(ctx context.Context, fatal <-chan error) error {
	defer h.set(isEnding)
	select {
	case <-ctx.Done():
		return nil
	case err := <-fatal:
		return err
	}
}

// takesWork marks the worker as ready.
func (h *health) takesWork() { h.state.Store(nil) }

// probeTime is how long the service may take to answer.
const probeTime = 5 * time.Second

// live answers as long as the process runs: a process that does not answer should be
// restarted.
func (h *health) live(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "live") }

// ready answers whether the worker accepts work: it polls, and the service answers.
func (h *health) ready(w http.ResponseWriter, r *http.Request) {
	if why := h.state.Load(); why != nil {
		http.Error(w, *why, http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), probeTime)
	defer cancel()
	if err := h.service(ctx); err != nil {
		http.Error(w, "the Temporal service does not answer: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

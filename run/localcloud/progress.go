package localcloud

import (
	"sync"
	"time"

	"bake/internal/local"
	"bake/step"
)

// Progress turns reports on the preparation of a base into events: each phase is a step of
// the run itself.
func Progress(now func() time.Time, emit func(step.Event)) func(local.Progress) {
	var mu sync.Mutex
	bases := map[string]func(string, int64, int64){}
	return func(r local.Progress) {
		mu.Lock()
		defer mu.Unlock()
		phase := bases[r.Base]
		if phase == nil {
			phase = Phases(now, emit)
			bases[r.Base] = phase
		}
		if r.Note != "" {
			emit(step.Event{Time: now(), Kind: step.Say, Text: r.Note})
		}
		if r.Phase == "" {
			phase("", 0, 0)
		} else {
			phase("prepare "+r.Base+": "+r.Phase, r.Done, r.Total)
		}
	}
}

// Phases returns a function that reports the progress of the named phase. A phase begins
// with the first report that names it, and ends when it is complete or another one
// begins; an empty name only ends the current phase. Reports must not overlap.
func Phases(now func() time.Time, emit func(step.Event)) func(name string, done, total int64) {
	var current string
	var started time.Time
	return func(name string, done, total int64) {
		at := now()
		end := func() {
			if current != "" {
				emit(step.Event{Time: at, Kind: step.StepFinished, Step: current, Elapsed: at.Sub(started)})
				current = ""
			}
		}
		if name != current {
			end()
			if name == "" || total > 0 && done >= total {
				return
			}
			current, started = name, at
			emit(step.Event{Time: at, Kind: step.StepStarted, Step: name})
		}
		emit(step.Event{Time: at, Kind: step.Progressed, Step: name, Progress: &step.Progress{Done: done, Total: total, Unit: "B"}})
		if total > 0 && done >= total {
			end()
		}
	}
}

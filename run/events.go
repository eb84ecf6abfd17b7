package run

import (
	"fmt"
	"sync"

	"bake/run/trace"
	"bake/step"
	"bake/ui"
)

// events keeps the events of a run in its log and passes them on, one at a time.
type events struct {
	mu     sync.Mutex
	file   *log
	json   *ui.JSON
	emit   func(step.Event) // may be nil
	trace  *trace.Recorder  // receives the events before close; nil: none
	closed bool

	from Position // position of the new events in the log
}

// openEvents creates the log of a run, or opens that of a resumed run. The caller closes
// it.
func openEvents(state State, run string, again bool, emit func(step.Event)) (*events, error) {
	open := createLog
	if again {
		open = reopenLog
	}
	file, err := open(state, run)
	if err != nil {
		return nil, err
	}
	return &events{file: file, json: &ui.JSON{Out: file}, emit: emit, from: file.end()}, nil
}

// handle handles e, or drops it after close. It may be called by several goroutines.
func (v *events) handle(e step.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	v.json.Handle(e)
	v.trace.Handle(e)
	if v.emit != nil {
		v.emit(e)
	}
}

// close closes the log. The error says why it is not complete. Only the first call has an
// effect.
func (v *events) close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil
	}
	v.closed = true
	err := v.json.Err
	if cerr := v.file.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("the log of the run is incomplete: %w", err)
	}
	return nil
}

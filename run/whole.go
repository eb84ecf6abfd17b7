package run

import "bake/step"

// Record opens the log of a run that consists of other runs; with again, the log exists
// already. Events are passed to handle, which is safe for concurrent use. emit is then
// called with each event, one at a time; it may be nil. The error of end says why the log
// is not complete.
func (s State) Record(run string, again bool, emit func(step.Event)) (handle func(step.Event), end func() error, err error) {
	log, err := openEvents(s, run, again, emit)
	if err != nil {
		return nil, nil, err
	}
	return log.handle, log.close, nil
}

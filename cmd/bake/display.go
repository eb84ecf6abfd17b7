package main

import (
	"fmt"
	"sync"

	"bake/step"
	"bake/ui"
)

// displayOptions say how a run is shown.
type displayOptions struct {
	color, timestamps bool
	prompts           bool // the user will be asked questions between lines
}

// feed gives events to displays, one at a time.
type feed struct {
	mu       sync.Mutex
	displays []ui.Display
	screen   *ui.Screen // nil if the display is not live
	log      *runLog
	logged   *ui.JSON
}

// openFeed opens the display of a run and its log on disk. The caller closes it.
func (p *program) openFeed(o displayOptions, run, state string) (*feed, error) {
	log, err := createLog(runsDir(state), run)
	if err != nil {
		return nil, err
	}
	f := &feed{log: log, logged: &ui.JSON{Out: log}}
	f.displays = []ui.Display{f.logged}
	if p.log.on {
		f.displays = append(f.displays, p.log)
	}
	plain := ui.PlainOptions{Color: o.color && p.env.colors() && p.stdout.colors(), Timestamps: o.timestamps, Log: log.Name()}
	switch {
	case p.machineReadable:
		f.displays = append(f.displays, ui.NewMachine(p.stdout, plain))
	case p.json.on:
		f.displays = append(f.displays, &ui.JSON{Out: p.stdout, Prefix: fmt.Sprintf(`"schema":%d,"command":%q,`, jsonSchema, p.command)})
	case p.stdout.draws() && !o.prompts && !p.log.onStream && p.env.get("TERM") != "dumb":
		f.screen = ui.NewScreen(ui.NewLive(p.stdout, plain), p.stdout.size)
		f.displays = append(f.displays, f.screen)
	default:
		f.displays = append(f.displays, ui.NewPlain(p.stdout, plain))
	}
	return f, nil
}

// emit shows e. It may be called by several goroutines.
func (f *feed) emit(e step.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.displays {
		d.Handle(e)
	}
}

// suspend keeps a live display away from the terminal until resume is called.
func (f *feed) suspend() (resume func()) {
	if f.screen == nil {
		return func() {}
	}
	return f.screen.Suspend()
}

// closeOnce returns a function that closes f when it is called for the first time.
func (f *feed) closeOnce() func() error {
	var once sync.Once
	return func() (err error) {
		once.Do(func() { err = f.close() })
		return err
	}
}

// close shows the last events and ends the log.
func (f *feed) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.screen != nil {
		f.screen.Close()
	}
	err := f.logged.Err
	if cerr := f.log.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("the log of the run is incomplete: %w", err)
	}
	return nil
}

package main

import (
	"fmt"
	"sync"

	"bake/step"
	"bake/ui"
)

// displayOptions determine how a run is shown.
type displayOptions struct {
	color, timestamps bool
	prompts           bool   // the user is prompted between lines
	log               string // path of the log of the run
	onLocal           bool   // it is on the local cloud
}

// feed passes events to the displays of a run.
type feed struct {
	displays []ui.Display
	screen   *ui.Screen // nil if the display is not live
	end      sync.Once
}

// openFeed opens the display of a run. The caller closes it.
func (p *program) openFeed(o displayOptions) *feed {
	f := &feed{}
	if p.log.on {
		f.displays = append(f.displays, p.log)
	}
	plain := ui.PlainOptions{Color: o.color && p.env.colors() && p.stdout.colors(), Timestamps: o.timestamps, Log: o.log, Local: o.onLocal}
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
	return f
}

// emit shows e. It may be called by one goroutine at a time.
func (f *feed) emit(e step.Event) {
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

// close shows the last events, the first time that it is called.
func (f *feed) close() {
	f.end.Do(func() {
		if f.screen != nil {
			f.screen.Close()
		}
	})
}

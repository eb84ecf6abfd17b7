package ui

import (
	"fmt"
	"io"
	"strings"
	"time"

	"bake/internal/prose"
	"bake/step"
)

// Timeline writes a table of all steps when the run has ended, in the order of their start: when
// each started, how long it took, and a bar.
type Timeline struct {
	out   io.Writer
	width int // of the table; bars use the rest

	start, last time.Time
	builds      []*timedBuild
}

type timedBuild struct {
	name  string
	steps []*timedStep
}

type timedStep struct {
	path       string
	began, end time.Time // end is zero while the step is running
	failed     bool
}

// NewTimeline returns a display that writes to out, in lines of width columns.
func NewTimeline(out io.Writer, width int) *Timeline { return &Timeline{out: out, width: width} }

// Handle implements [Display].
func (d *Timeline) Handle(e step.Event) {
	if d.start.IsZero() {
		d.start = e.Time
	}
	d.last = e.Time
	switch e.Kind {
	case step.StepStarted:
		b := d.build(e.Build)
		b.steps = append(b.steps, &timedStep{path: e.Step, began: e.Time})
	case step.StepFinished, step.StepFailed:
		b := d.build(e.Build)
		for i := len(b.steps) - 1; i >= 0; i-- { // a step may run again
			if s := b.steps[i]; s.path == e.Step && s.end.IsZero() {
				s.end, s.failed = e.Time, e.Kind == step.StepFailed
				break
			}
		}
	}
}

func (d *Timeline) build(name string) *timedBuild {
	for _, b := range d.builds {
		if b.name == name {
			return b
		}
	}
	b := &timedBuild{name: name}
	d.builds = append(d.builds, b)
	return b
}

// Close writes the table. Steps that have not ended, because the run was killed, end with the last
// event.
func (d *Timeline) Close() error {
	const times = len("  1h02m  1h02m  ")
	names := 0
	for _, b := range d.builds {
		for _, s := range b.steps {
			names = max(names, len([]rune(s.label())))
		}
	}
	names = min(names, max(20, d.width/2))
	room := max(10, d.width-names-times)
	var text strings.Builder
	for i, b := range d.builds {
		if i > 0 {
			text.WriteString("\n")
		}
		fmt.Fprintf(&text, "%s\n", b.name)
		for _, s := range b.steps {
			end := s.end
			if end.IsZero() {
				end = d.last
			}
			label := []rune(s.label())
			if len(label) > names {
				label = append(label[:names-1], '…')
			}
			line := fmt.Sprintf("%s%s %6s %6s  %s", string(label), strings.Repeat(" ", names-len(label)),
				clock(s.began.Sub(d.start)), clock(end.Sub(s.began)), d.bar(s.began, end, room))
			switch {
			case s.failed:
				line += " failed"
			case s.end.IsZero():
				line += " did not end"
			}
			text.WriteString(line + "\n")
		}
	}
	_, err := io.WriteString(d.out, text.String())
	return err
}

// label returns the name of the step, indented by its nesting.
func (s *timedStep) label() string {
	return "  " + strings.Repeat("  ", strings.Count(s.path, within)) + prose.Capital(innermost(s.path))
}

// bar draws the interval from began to end in room columns, which represent the whole run.
func (d *Timeline) bar(began, end time.Time, room int) string {
	whole := max(1, d.last.Sub(d.start))
	from := int(int64(began.Sub(d.start)) * int64(room) / int64(whole))
	to := int(int64(end.Sub(d.start)) * int64(room) / int64(whole))
	from = max(0, min(from, room-1)) // the clock may have been set back
	return strings.Repeat(" ", from) + strings.Repeat("█", max(1, min(to, room)-from))
}

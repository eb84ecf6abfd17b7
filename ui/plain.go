package ui

import (
	"fmt"
	"io"
	"strings"
	"time"

	"bake/step"
)

// Plain writes lines of text, for logs and for terminals without cursor control.
type Plain struct {
	out    io.Writer
	color  bool
	script transcript
}

// PlainOptions configure [Plain].
type PlainOptions struct {
	Color      bool // a colour for each build, and red for errors
	Timestamps bool // prefix each line of a build with the time of its event, as RFC 3339

	Log   string // path of the run's log, for more details about a failure
	Local bool   // images are in the local cloud
}

// NewPlain returns a display that writes to out.
func NewPlain(out io.Writer, o PlainOptions) *Plain {
	return &Plain{out: out, color: o.Color, script: transcript{timestamps: o.Timestamps, steps: true, log: o.Log}}
}

// Handle implements [Display].
func (d *Plain) Handle(e step.Event) {
	for _, en := range d.script.entries(e) {
		if en.record == nil {
			io.WriteString(d.out, d.script.paint(en, d.color)+"\n")
		}
	}
	if e.Kind == step.RunStarted && d.color {
		io.WriteString(d.out, d.script.preamble())
	}
}

// preamble shows the colour of each build.
func (t *transcript) preamble() string {
	var b strings.Builder
	for _, o := range t.builds {
		en := entry{level: say, build: o.name, text: o.name + ": output will be in this color."}
		b.WriteString(t.paint(en, true) + "\n")
	}
	return b.String() + "\n"
}

// paint colours every line of en's text.
func (t *transcript) paint(en entry, color bool) string {
	code := t.color(en)
	if !color || code == 0 {
		return en.text
	}
	lines := strings.Split(en.text, "\n")
	for i, l := range lines {
		if l != "" {
			lines[i] = fmt.Sprintf("\x1b[1;%dm%s\x1b[0m", code, l)
		}
	}
	return strings.Join(lines, "\n")
}

// color returns the SGR code of en's colour; 0 means none.
func (t *transcript) color(en entry) int {
	if en.level == failure {
		return 31
	}
	palette := [...]int{32, 36, 35, 33, 34, 1} // the last one is bold, without a colour
	for i, o := range t.builds {
		if o.name == en.build {
			return palette[i%len(palette)]
		}
	}
	return 0
}

// Machine writes one comma-separated record per line: Unix time in seconds, target, type, data.
// Messages for users are records of type ui.
type Machine struct {
	out    io.Writer
	script transcript
}

// NewMachine returns a display that writes to out.
func NewMachine(out io.Writer, o PlainOptions) *Machine {
	return &Machine{out: out, script: transcript{timestamps: o.Timestamps, steps: true, log: o.Log}}
}

// Handle implements [Display].
func (d *Machine) Handle(e step.Event) {
	for _, en := range d.script.entries(e) {
		if en.record != nil {
			io.WriteString(d.out, Record(e.Time, en.record[0], en.record[1], en.record[2:]...))
		} else {
			io.WriteString(d.out, Record(e.Time, "", "ui", string(en.level), en.text))
		}
	}
}

// Record writes one machine-readable record.
func Record(at time.Time, target, kind string, data ...string) string {
	escape := strings.NewReplacer(",", "%!(PACKER_COMMA)", "\r", `\r`, "\n", `\n`)
	fields := []string{fmt.Sprint(at.Unix()), target, kind}
	for _, d := range data {
		fields = append(fields, escape.Replace(d))
	}
	return strings.Join(fields, ",") + "\n"
}

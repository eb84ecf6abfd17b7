// Package ui shows a run to people and programs. Every display is a function of the run's events:
// it gets them one after the other, from one goroutine at a time, and writes bytes.
package ui

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"bake/builder"
	"bake/step"
)

// Display shows events as they occur.
type Display interface {
	// Handle shows e. The first event of a run is RunStarted, whose text names the builds, one per
	// line; the last is RunFinished.
	Handle(e step.Event)
}

// JSON writes events as JSON lines, which are the run's log. It writes the progress of a step at
// most twice a second.
type JSON struct {
	Out    io.Writer
	Prefix string // fields at the start of each event, such as `"schema":1,`
	Err    error  // the first write error; nothing is written after it

	progress map[string]time.Time // build and step -> time of the last written progress
}

// Handle implements [Display].
func (d *JSON) Handle(e step.Event) {
	if d.Err != nil || e.Kind == step.Partial || e.Kind == step.Progressed && !d.worthwhile(e) {
		return
	}
	b, err := json.Marshal(e)
	if err == nil {
		_, err = io.WriteString(d.Out, "{"+d.Prefix+string(b[1:])+"\n")
	}
	d.Err = err
}

func (d *JSON) worthwhile(e step.Event) bool {
	if d.progress == nil {
		d.progress = map[string]time.Time{}
	}
	key := e.Build + within + e.Step
	if at, ok := d.progress[key]; ok && e.Time.Sub(at) < 500*time.Millisecond {
		return false
	}
	d.progress[key] = e.Time
	return true
}

// ReadEvents calls handle for every event that a [JSON] display has written to r.
func ReadEvents(r io.Reader, handle func(step.Event)) error {
	dec := json.NewDecoder(r)
	for n := 1; ; n++ {
		var e step.Event
		if err := dec.Decode(&e); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("event %d: %w", n, err)
		}
		handle(e)
	}
}

// Artifact returns the artifact of an ArtifactMade event, from this process or read from a log. The
// result is nil if the build made none.
func Artifact(e step.Event) *builder.Artifact {
	switch a := e.Artifact.(type) {
	case *builder.Artifact:
		return a
	case nil:
		return nil
	default:
		b, err := json.Marshal(a)
		out := new(builder.Artifact)
		if err != nil || json.Unmarshal(b, out) != nil {
			return &builder.Artifact{Text: fmt.Sprint(a)}
		}
		return out
	}
}

// Words formats d in its two largest units: "3 seconds 52 milliseconds".
func Words(d time.Duration) string {
	units := []struct {
		size time.Duration
		name string
	}{
		{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"},
		{time.Second, "second"}, {time.Millisecond, "millisecond"}, {time.Microsecond, "microsecond"},
	}
	var words []string
	for _, u := range units {
		n := d / u.size
		d -= n * u.size
		if n == 0 || len(words) == 2 {
			continue
		}
		w := fmt.Sprintf("%d %s", n, u.name)
		if n > 1 {
			w += "s"
		}
		words = append(words, w)
	}
	if words == nil {
		return "0 microseconds"
	}
	return strings.Join(words, " ")
}

// clock formats d for a column of times: "0.2s", "42s", "1m12s", "2h05m".
func clock(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	default:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
}

// amount formats p: "45%", "12.0 of 80.1 MB", "3 of 7 files".
func amount(p step.Progress) string {
	switch {
	case p.Unit == "%":
		return fmt.Sprintf("%d%%", p.Done)
	case p.Unit == "B" && p.Total > 0:
		size, unit := byteUnit(p.Total)
		return fmt.Sprintf("%.1f of %.1f %s", float64(p.Done)/size, float64(p.Total)/size, unit)
	case p.Unit == "B":
		return Bytes(p.Done)
	case p.Total > 0:
		return strings.TrimSpace(fmt.Sprintf("%d of %d %s", p.Done, p.Total, p.Unit))
	default:
		return strings.TrimSpace(fmt.Sprintf("%d %s", p.Done, p.Unit))
	}
}

// Bytes formats a number of bytes: "80.1 MB".
func Bytes(n int64) string {
	size, unit := byteUnit(n)
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", float64(n)/size, unit)
}

func byteUnit(n int64) (float64, string) {
	switch {
	case n >= 1e9:
		return 1e9, "GB"
	case n >= 1e6:
		return 1e6, "MB"
	case n >= 1e3:
		return 1e3, "kB"
	default:
		return 1, "B"
	}
}

// fraction returns the completed fraction of p, from 0 to 1, and whether it is known.
func fraction(p step.Progress) (float64, bool) {
	total := p.Total
	if p.Unit == "%" && total == 0 {
		total = 100
	}
	if total <= 0 {
		return 0, false
	}
	return min(1, max(0, float64(p.Done)/float64(total))), true
}

// within separates the names of nested steps in [step.Event].
const within = " > "

// innermost returns the name of the last step of a path.
func innermost(path string) string {
	if i := strings.LastIndex(path, within); i >= 0 {
		return path[i+len(within):]
	}
	return path
}

package ui

import (
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"time"

	"bake/internal/prose"
	"bake/step"
)

// Live shows a list of builds and their steps at the bottom of a terminal. The builds' messages
// scroll by above it.
//
// It neither changes the terminal's modes nor hides the cursor, so there is nothing to restore
// however the process ends. Each frame is a single write that draws over the previous one, as a
// synchronized update.
type Live struct {
	out    io.Writer
	color  bool
	local  bool // images are in the local cloud
	script transcript

	builds  []*buildView
	ended   bool     // the run has ended
	over    bool     // the last frame has been drawn
	scroll  []string // lines that will be written above the list
	summary []string // lines below the list when the run has ended
	drawn   []int    // widths in cells of the drawn lines of the list
}

// buildView is a build on the screen.
type buildView struct {
	name    string
	started time.Time // zero until it starts
	elapsed time.Duration
	ended   bool
	err     error
	steps   []*stepView // in the order of their start
}

// stepView is a step on the screen.
type stepView struct {
	path     string
	started  time.Time
	elapsed  time.Duration
	ended    bool
	err      error
	progress *step.Progress
	since    time.Time // time of the first progress report, for the rate
	first    int64     // amount done at that time
	output   string    // last line of output
}

// NewLive returns a display that draws on out.
func NewLive(out io.Writer, o PlainOptions) *Live {
	return &Live{out: out, color: o.Color, local: o.Local, script: transcript{timestamps: o.Timestamps, log: o.Log}}
}

// Handle implements [Display]. Nothing is written until the next draw.
func (d *Live) Handle(e step.Event) {
	for _, en := range d.script.entries(e) {
		if en.record == nil {
			en.text = strip(en.text) // output must not move the cursor
			lines := strings.Split(d.script.paint(en, d.color), "\n")
			if e.Kind == step.RunFinished {
				d.summary = append(d.summary, lines...)
			} else {
				d.scroll = append(d.scroll, lines...)
			}
		}
	}
	switch e.Kind {
	case step.RunStarted:
		for _, o := range d.script.builds {
			d.view(o.name)
		}
		return
	case step.RunFinished:
		d.ended = true
		return
	}
	b := d.view(e.Build)
	switch e.Kind {
	case step.BuildStarted:
		b.started = e.Time
	case step.BuildFinished, step.BuildFailed:
		b.ended, b.elapsed, b.err = true, e.Elapsed, e.Error
	case step.StepStarted:
		b.steps = append(b.steps, &stepView{path: e.Step, started: e.Time})
	}
	s := b.running(e.Step)
	if s == nil {
		return
	}
	switch e.Kind {
	case step.StepFinished, step.StepFailed:
		s.ended, s.elapsed, s.err = true, e.Elapsed, e.Error
	case step.Progressed:
		if s.progress == nil {
			s.since, s.first = e.Time, e.Progress.Done
		}
		s.progress = e.Progress
	case step.Output, step.ErrOutput, step.Partial:
		if text := strings.TrimSpace(strip(e.Text)); text != "" {
			s.output = strings.ReplaceAll(text[strings.LastIndexAny(text, "\r\n")+1:], "\t", " ")
		}
	}
}

// view returns the view of the named build. The empty name is the run itself, for messages before
// and between builds.
func (d *Live) view(name string) *buildView {
	for _, b := range d.builds {
		if b.name == name {
			return b
		}
	}
	b := &buildView{name: name}
	d.builds = append(d.builds, b)
	return b
}

// running returns the running step of b with that path, or nil.
func (b *buildView) running(path string) *stepView {
	for _, s := range slices.Backward(b.steps) {
		if s.path == path && !s.ended {
			return s
		}
	}
	return nil
}

// draw writes the lines added since the last frame and, below them, the current list, on a terminal
// of the given size. Once the run has ended, it draws the complete list and the summary, which stay
// on the screen.
func (d *Live) draw(now time.Time, width, height int) {
	width, height = max(width, 10), max(height, 4)
	room := 1 << 30
	if !d.ended {
		room = max(1, height/2-1) // the cursor is in the row below the list; at least half of the rows are for messages
	}
	var list []string
	if !d.over {
		list = d.list(now, width, room)
	}
	lines := slices.Concat(d.scroll, list, d.summary)
	if d.ended && !d.over {
		lines = append(lines, d.script.launches(d.local, width)...)
	}
	d.scroll, d.summary, d.over = nil, nil, d.ended

	var b strings.Builder
	b.WriteString("\x1b[?2026h")
	if up := d.rows(width); up > 0 {
		fmt.Fprintf(&b, "\r\x1b[%dA", up)
	} else {
		b.WriteString("\r")
	}
	// Erase rows before writing them: a row that is only overwritten keeps its old length and
	// wrapping, on which terminals act when they are resized. A line above the list may take
	// several rows.
	if len(lines) > len(list) {
		b.WriteString("\x1b[J")
	}
	for _, l := range lines {
		b.WriteString("\x1b[2K" + l + "\n")
	}
	b.WriteString("\x1b[J\x1b[?2026l")
	io.WriteString(d.out, b.String())

	d.drawn = nil
	if !d.ended {
		for _, l := range list {
			d.drawn = append(d.drawn, cells(l))
		}
	}
}

// leave leaves the list on the screen. The next frame is drawn below it.
func (d *Live) leave() { d.drawn = nil }

// rows returns how many rows the drawn list occupies on a terminal of the given width. The
// terminal may have been wider when the list was drawn.
func (d *Live) rows(width int) int {
	n := 0
	for _, w := range d.drawn {
		n += max(1, (w+width-1)/width)
	}
	return n
}

// list returns the lines at the bottom of the screen, at most room of them.
func (d *Live) list(now time.Time, width, room int) []string {
	var shown []*buildView
	for _, b := range d.builds {
		if b.name != "" || b.active() {
			shown = append(shown, b)
		}
	}
	spin := spinner(now)
	heads, hidden := d.heads(shown, room-min(2*countRunning(shown), room/2)) // leave room for the steps of running builds
	each := (room - len(heads) - min(1, hidden)) / max(1, countRunning(heads))
	var lines []string
	for _, b := range heads {
		lines = append(lines, d.row(width, b.mark(d, spin), 0, b.title(), "", b.time(now)))
		if b.ended && len(d.script.builds) > 1 {
			continue // its messages have scrolled by
		}
		lines = append(lines, d.steps(b, spin, now, width, each)...)
	}
	if hidden > 0 {
		lines = append(lines, d.style(2, truncate(fmt.Sprintf("  … and %d more builds", hidden), width-1, "")))
	}
	return lines[:min(len(lines), room)]
}

// heads selects the builds to show in room lines, running ones first.
func (d *Live) heads(builds []*buildView, room int) (shown []*buildView, hidden int) {
	if len(builds) <= room {
		return builds, 0
	}
	byNeed := slices.Clone(builds)
	sort.SliceStable(byNeed, func(i, j int) bool { return byNeed[i].rank() < byNeed[j].rank() })
	keep := byNeed[:max(1, room-1)]
	for _, b := range builds {
		if slices.Contains(keep, b) {
			shown = append(shown, b)
		}
	}
	return shown, len(builds) - len(shown)
}

func (b *buildView) rank() int {
	switch {
	case b.active():
		return 0
	case b.err != nil:
		return 1
	case b.ended:
		return 2
	default:
		return 3
	}
}

// active reports whether b has a running step.
func (b *buildView) active() bool {
	if b.name == "" {
		return slices.ContainsFunc(b.steps, func(s *stepView) bool { return !s.ended })
	}
	return !b.started.IsZero() && !b.ended
}

func countRunning(bs []*buildView) (n int) {
	for _, b := range bs {
		if b.active() {
			n++
		}
	}
	return n
}

// steps returns the lines below the head of b, at most room of them. If there are more, it first
// folds finished steps into one line, oldest first, then omits output lines, and finally all but
// the newest lines: the current step is the last to be omitted.
func (d *Live) steps(b *buildView, spin string, now time.Time, width, room int) []string {
	var lines []string
	need, outputs := 0, 0
	for _, s := range b.steps {
		need++
		if s.speaks() {
			outputs++
		}
	}
	need += outputs
	folded := b.fold(need - room)
	if n := len(folded); n > 0 {
		need += 1 - n
		if need-outputs > room {
			need-- // no room for the line with their number
		} else {
			lines = append(lines, d.foldedRow(folded, width))
		}
	}
	for _, s := range b.steps {
		if slices.Contains(folded, s) {
			continue
		}
		depth := 1 + strings.Count(s.path, within)
		lines = append(lines, d.row(width, s.mark(d, spin), depth, prose.Capital(innermost(s.path)), s.bar(now), s.time(now)))
		if !s.speaks() {
			continue
		}
		if need > room {
			need--
			continue
		}
		out := strings.Repeat("  ", depth+1) + "│ " + s.output
		lines = append(lines, d.style(2, truncate(out, width-1, "…")))
	}
	return lines[max(0, len(lines)-max(0, room)):]
}

// fold selects finished steps, oldest first, so that at least excess lines are saved, not counting
// the line that replaces them. It does not select failed steps unless they were retried.
func (b *buildView) fold(excess int) (folded []*stepView) {
	if excess <= 0 {
		return nil
	}
	for i, s := range b.steps {
		again := func(later *stepView) bool { return later.path == s.path }
		if !s.ended || s.err != nil && !slices.ContainsFunc(b.steps[i+1:], again) {
			continue
		}
		if folded = append(folded, s); len(folded) > excess {
			break
		}
	}
	return folded
}

// foldedRow summarizes finished steps: their number, and the time from the start of the first to
// the end of the last.
func (d *Live) foldedRow(steps []*stepView, width int) string {
	text, began, end := "1 step done", steps[0].started, steps[0].started
	if len(steps) > 1 {
		text = fmt.Sprintf("%d steps done", len(steps))
	}
	for _, s := range steps {
		if at := s.started.Add(s.elapsed); at.After(end) {
			end = at
		}
	}
	return d.row(width, d.style(32, "✓"), 1, text, "", clock(end.Sub(began)))
}

// speaks reports whether the last output line of s is shown below it.
func (s *stepView) speaks() bool { return !s.ended && s.output != "" }

func (s *stepView) mark(d *Live, spin string) string {
	switch {
	case s.err != nil:
		return d.style(31, "✗")
	case s.ended:
		return d.style(32, "✓")
	default:
		return d.style(36, spin)
	}
}

// row formats a line: mark and text on the left, the time on the right, and a bar before the time
// if there is room.
func (d *Live) row(width int, mark string, depth int, text, bar, at string) string {
	left := strings.Repeat("  ", depth) + mark + " "
	room := width - 1 - cells(left) - cells(at) - 1
	if room < 4 {
		return truncate(left+text, width-1, "…")
	}
	if bw := cells(bar); bar != "" && room >= bw+12 {
		text = truncate(text, room-bw-2, "…")
		pad := strings.Repeat(" ", max(1, room-bw-1-cells(text)))
		return left + text + pad + d.style(36, bar) + "  " + d.style(2, at)
	}
	text = truncate(text, room, "…")
	pad := strings.Repeat(" ", max(0, room-cells(text)))
	return strings.TrimRight(left+text+pad+" "+d.style(2, at), " ")
}

func (d *Live) style(code int, s string) string {
	if !d.color || s == "" {
		return s
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", code, s)
}

func spinner(now time.Time) string {
	frames := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
	return string(frames[now.UnixMilli()/100%int64(len(frames))])
}

func (b *buildView) title() string {
	if b.name == "" {
		return "bake"
	}
	return b.name
}

func (b *buildView) mark(d *Live, spin string) string {
	switch {
	case b.err != nil:
		return d.style(31, "✗")
	case b.ended:
		return d.style(32, "✓")
	case b.active():
		return d.style(36, spin)
	default:
		return d.style(2, "·")
	}
}

func (b *buildView) time(now time.Time) string {
	switch {
	case b.ended:
		return clock(b.elapsed)
	case b.started.IsZero():
		return ""
	default:
		return clock(now.Sub(b.started))
	}
}

func (s *stepView) time(now time.Time) string {
	if s.ended {
		return clock(s.elapsed)
	}
	return clock(now.Sub(s.started))
}

// bar shows the progress of a running step, with the rate if it is in bytes.
func (s *stepView) bar(now time.Time) string {
	if s.ended || s.progress == nil {
		return ""
	}
	text := amount(*s.progress)
	if took := now.Sub(s.since); s.progress.Unit == "B" && took >= time.Second {
		text += fmt.Sprintf("  %s/s", Bytes(int64(float64(s.progress.Done-s.first)/took.Seconds())))
	}
	f, ok := fraction(*s.progress)
	if !ok {
		return text
	}
	const cells = 20
	full := int(f * cells)
	return strings.Repeat("█", full) + strings.Repeat("░", cells-full) + "  " + text
}

package ui

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"

	"bake/builder"
	"bake/step"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func recorded(t *testing.T, name string) []step.Event {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var events []step.Event
	if err := ReadEvents(f, func(e step.Event) { events = append(events, e) }); err != nil {
		t.Fatal(err)
	}
	return events
}

func TestDisplays(t *testing.T) {
	displays := map[string]func(*bytes.Buffer) Display{
		"plain":   func(b *bytes.Buffer) Display { return NewPlain(b, PlainOptions{Log: "/state/runs/1.events.jsonl"}) },
		"color":   func(b *bytes.Buffer) Display { return NewPlain(b, PlainOptions{Color: true}) },
		"stamped": func(b *bytes.Buffer) Display { return NewPlain(b, PlainOptions{Timestamps: true}) },
		"machine": func(b *bytes.Buffer) Display { return NewMachine(b, PlainOptions{}) },
	}
	for _, stream := range []string{"webserver", "failure", "cancelled", "script-failed"} {
		events := recorded(t, stream)
		for name, open := range displays {
			t.Run(stream+"/"+name, func(t *testing.T) {
				var out bytes.Buffer
				d := open(&out)
				for _, e := range events {
					d.Handle(e)
				}
				golden(t, stream+"."+name, out.String())
			})
		}
	}
}

func TestJSONIsTheStream(t *testing.T) {
	for _, stream := range []string{"webserver", "failure", "cancelled"} {
		var log, again bytes.Buffer
		first, second := &JSON{Out: &log}, &JSON{Out: &again}
		for _, e := range recorded(t, stream) {
			first.Handle(e)
		}
		if err := ReadEvents(bytes.NewReader(log.Bytes()), second.Handle); err != nil {
			t.Fatal(err)
		}
		if first.Err != nil || !bytes.Equal(log.Bytes(), again.Bytes()) {
			t.Errorf("%s changes when it is read and written again (%v)", stream, first.Err)
		}
	}
}

func TestJSONThinsProgress(t *testing.T) {
	var out bytes.Buffer
	d := &JSON{Out: &out}
	start := time.Unix(0, 0)
	for ms := 0; ms < 2000; ms += 10 {
		for _, name := range []string{"a", "b"} {
			d.Handle(step.Event{Time: start.Add(time.Duration(ms) * time.Millisecond), Kind: step.Progressed, Step: name, Progress: &step.Progress{}})
		}
	}
	if n := strings.Count(out.String(), "\n"); n != 8 {
		t.Errorf("%d lines for two seconds of two steps, want 8", n)
	}
}

func TestReadEventsNamesTheBrokenOne(t *testing.T) {
	err := ReadEvents(strings.NewReader(`{"kind":"say"}`+"\n"+`{"kind":`), func(step.Event) {})
	if err == nil || !strings.Contains(err.Error(), "event 2") {
		t.Errorf("error is %v", err)
	}
}

// TestTranscriptTellsReasonsOnce checks that the reason of a failed step is shown with the build's
// error or a warning, and separately only if neither shows it.
func TestTranscriptTellsReasonsOnce(t *testing.T) {
	fail := func(path, why string) []step.Event {
		return []step.Event{{Kind: step.StepStarted, Build: "b", Step: path}, {Kind: step.StepFailed, Build: "b", Step: path, Error: errors.New(why)}}
	}
	cancelled := errors.New("cancelled")
	for name, events := range map[string][]step.Event{
		"a step that the one around it did without": slices.Concat(
			[]step.Event{{Kind: step.StepStarted, Build: "b", Step: "outer"}}, fail("outer > inner", "REASON"),
			[]step.Event{{Kind: step.StepFinished, Build: "b", Step: "outer"}, {Kind: step.BuildFinished, Build: "b"}}),
		"a step that the build did without": slices.Concat(fail("alone", "REASON"), []step.Event{{Kind: step.BuildFinished, Build: "b"}}),
		"a warning": slices.Concat(fail("alone", "REASON"), []step.Event{
			{Kind: step.Warning, Build: "b", Text: "alone: REASON; trying again"},
			{Kind: step.BuildFinished, Build: "b"}}),
		"the error of the build": slices.Concat(fail("alone", "REASON"), []step.Event{
			{Kind: step.BuildFailed, Build: "b", Error: errors.New("alone: REASON")}, {Kind: step.RunFinished}}),
		"another error of the build": slices.Concat(fail("alone", "REASON"), []step.Event{
			{Kind: step.BuildFailed, Build: "b", Error: errors.New("something else")}, {Kind: step.RunFinished}}),
		"a teardown of a cancelled build": slices.Concat(fail("destroy", "REASON"), []step.Event{
			{Kind: step.BuildFailed, Build: "b", Error: errors.New("cancelled\nteardown: destroy: REASON")},
			{Kind: step.RunFinished, Error: cancelled}}),
	} {
		var out bytes.Buffer
		d := NewPlain(&out, PlainOptions{})
		d.Handle(step.Event{Kind: step.RunStarted, Text: "b"})
		for _, e := range events {
			d.Handle(e)
		}
		if n := strings.Count(out.String(), "REASON"); n != 1 {
			t.Errorf("%s: told %d times in\n%s", name, n, out.String())
		}
	}
}

// screen is a terminal that supports only the sequences that Live may write, and wraps its rows
// when it becomes narrower.
type screen struct {
	width  int
	rows   []string // the scrollback and the screen
	used   []int    // occupied cells of each row; erasing the end of a row does not free them
	cursor int      // row
	column int
}

// resize wraps rows like tmux: all occupied cells, including blank ones.
func (s *screen) resize(width int) {
	var rows []string
	var used []int
	cursor := 0
	for i, r := range s.rows {
		if i == s.cursor {
			cursor = len(rows)
		}
		for n := s.used[i]; ; n -= width {
			rows, used = append(rows, ansi.Truncate(r, width, "")), append(used, min(n, width))
			if n <= width {
				break
			}
			r = ansi.TruncateLeft(r, width, "")
		}
	}
	s.width, s.rows, s.used, s.cursor = width, rows, used, cursor
}

func (s *screen) write(t *testing.T, b []byte) {
	t.Helper()
	in := string(b)
	for in != "" {
		switch {
		case strings.HasPrefix(in, "\x1b["):
			end := strings.IndexFunc(in[2:], func(r rune) bool { return r >= '@' && r <= '~' }) + 2
			arg, final := in[2:end], in[end]
			in = in[end+1:]
			switch final {
			case 'm', 'h', 'l':
				if final != 'm' && arg != "?2026" {
					t.Fatalf("terminal mode %s%c changed", arg, final)
				}
			case 'A':
				n, _ := strconv.Atoi(arg)
				if s.cursor -= n; s.cursor < 0 {
					t.Fatalf("cursor moved %d above the first row", -s.cursor)
				}
			case 'K':
				s.row()
				if arg == "2" {
					s.rows[s.cursor], s.used[s.cursor] = "", 0
				}
				s.rows[s.cursor] = ansi.Truncate(s.rows[s.cursor], s.column, "")
			case 'J':
				s.row()
				s.rows, s.used = s.rows[:s.cursor+1], s.used[:s.cursor+1]
				s.rows[s.cursor] = ansi.Truncate(s.rows[s.cursor], s.column, "")
				if s.column == 0 {
					s.used[s.cursor] = 0
				}
			default:
				t.Fatalf("unknown sequence ESC [ %s %c", arg, final)
			}
		case in[0] == '\r':
			s.column, in = 0, in[1:]
		case in[0] == '\n':
			s.cursor, s.column, in = s.cursor+1, 0, in[1:]
			s.row()
		default:
			r := []rune(in)[0]
			in = in[len(string(r)):]
			w := ansi.StringWidth(string(r))
			if s.column+w > s.width {
				s.cursor, s.column = s.cursor+1, 0
			}
			s.row()
			line := s.rows[s.cursor]
			s.rows[s.cursor] = ansi.Truncate(line, s.column, "") + string(r) + ansi.TruncateLeft(line, s.column+w, "")
			s.column += w
			s.used[s.cursor] = max(s.used[s.cursor], s.column)
		}
	}
}

func (s *screen) row() {
	for len(s.rows) <= s.cursor {
		s.rows, s.used = append(s.rows, ""), append(s.used, 0)
	}
}

func (s *screen) String() string {
	var b strings.Builder
	for _, r := range s.rows {
		b.WriteString(strings.TrimRight(r, " ") + "\n")
	}
	return b.String()
}

// TestLive draws a frame after every event, and compares some of the screens.
func TestLive(t *testing.T) {
	for _, tt := range []struct {
		stream        string
		width, height int
		at            []int // events after which the screen is compared
	}{
		{"webserver", 80, 24, []int{14, 29, 44, 1000}},
		{"webserver", 32, 8, []int{29, 44, 1000}},
		{"webserver", 80, 12, []int{29, 44, 1000}},
		{"failure", 100, 30, []int{14, 1000}},
		{"failure", 80, 10, []int{14, 1000}},
		{"cancelled", 80, 24, []int{1000}},
		{"script-failed", 80, 24, []int{73, 1000}},
		{"script-failed", 60, 15, []int{73, 1000}},
		{"many", 80, 24, []int{3, 60, 1000}},
		{"many", 40, 7, []int{60, 1000}},
		{"many", 1, 1, []int{1000}},
	} {
		t.Run(fmt.Sprintf("%s-%dx%d", tt.stream, tt.width, tt.height), func(t *testing.T) {
			var out, shots bytes.Buffer
			d := NewLive(&out, PlainOptions{Color: true})
			s := &screen{width: max(tt.width, 10)}
			events := recorded(t, tt.stream)
			for i, e := range events {
				d.Handle(e)
				d.draw(e.Time.Add(150*time.Millisecond), tt.width, tt.height)
				s.write(t, out.Bytes())
				out.Reset()
				if !d.ended && len(d.drawn)+1 > max(tt.height, 4)/2 { // the cursor needs a row too
					t.Fatalf("event %d: the list has %d lines on a screen of %d", i, len(d.drawn), tt.height)
				}
				for _, w := range d.drawn {
					if w >= s.width {
						t.Fatalf("event %d: a line of the list is %d cells wide on a screen of %d", i, w, s.width)
					}
				}
				for _, at := range tt.at {
					if i == min(at, len(events)-1) {
						fmt.Fprintf(&shots, "-- after event %d --\n%s", i, s)
					}
				}
			}
			golden(t, fmt.Sprintf("%s.live-%dx%d", tt.stream, tt.width, tt.height), shots.String())
		})
	}
}

// TestLiveFolds shows a build with many steps on screens of several heights: finished steps fold,
// failed ones and the current one stay.
func TestLiveFolds(t *testing.T) {
	start := time.Unix(1700000000, 0)
	for height, want := range map[int]string{
		40: "b 9.0s, Done-0 1.0s, Done-1 1.0s, Done-2 1.0s, Done-3 1.0s, Done-4 1.0s, Broken 1.0s, Retried 1.0s, Retried 1.0s, Going 1.0s, words",
		20: "b 9.0s, 3 steps done 3.0s, Done-3 1.0s, Done-4 1.0s, Broken 1.0s, Retried 1.0s, Retried 1.0s, Going 1.0s, words",
		14: "b 9.0s, 6 steps done 7.0s, Broken 1.0s, Retried 1.0s, Going 1.0s, words",
		12: "b 9.0s, 7 steps done 8.0s, Broken 1.0s, Going 1.0s, words",
		10: "b 9.0s, 7 steps done 8.0s, Broken 1.0s, Going 1.0s",
		8:  "b 9.0s, Broken 1.0s, Going 1.0s",
		6:  "b 9.0s, Going 1.0s",
		4:  "b 9.0s",
	} {
		var out bytes.Buffer
		d := NewLive(&out, PlainOptions{})
		at := start
		handle := func(k step.Kind, name string) {
			e := step.Event{Kind: k, Build: "b", Step: name, Time: at, Elapsed: time.Second, Text: "words"}
			if k == step.StepFailed {
				e.Error = errors.New("no")
			}
			d.Handle(e)
		}
		handle(step.BuildStarted, "")
		for _, name := range []string{"done-0", "done-1", "done-2", "done-3", "done-4", "broken!", "retried!", "retried", "going"} {
			bare := strings.TrimSuffix(name, "!")
			handle(step.StepStarted, bare)
			at = at.Add(time.Second)
			switch {
			case bare != name:
				handle(step.StepFailed, bare)
			case name == "going":
				handle(step.Output, bare)
			default:
				handle(step.StepFinished, bare)
			}
		}
		var got []string
		out.Reset()
		d.scroll = nil
		d.draw(at, 60, height)
		s := &screen{width: 60}
		s.write(t, out.Bytes())
		for _, row := range strings.Split(strings.TrimSpace(s.String()), "\n") {
			got = append(got, strings.Join(strings.Fields(strings.TrimLeft(row, " ⠋✓✗│")), " "))
		}
		if diff := cmp.Diff(want, strings.Join(got, ", ")); diff != "" {
			t.Errorf("at a height of %d (-want +got):\n%s", height, diff)
		}
	}
}

// TestLiveTellsHowToLaunch has two builds, one of which returns its image unchanged: the final
// screen shows each image in each region once, with the command that launches it, below the image
// if the terminal is too narrow for the table. Another frame adds nothing.
func TestLiveTellsHowToLaunch(t *testing.T) {
	const aws = `
Build     Region     Image  Launch it with
x.debian  eu-west-1  ami-2  aws ec2 run-instances --image-id ami-2 --region eu-west-1
x.debian  us-east-1  ami-1  aws ec2 run-instances --image-id ami-1 --region us-east-1
x.y       us-east-1  ami-3  aws ec2 run-instances --image-id ami-3 --region us-east-1
`
	const local = `
Build     Region     Image  Launch it with
x.debian  eu-west-1  ami-2  bake cloud run -region eu-west-1 ami-2
x.debian  us-east-1  ami-1  bake cloud run -region us-east-1 ami-1
x.y       us-east-1  ami-3  bake cloud run -region us-east-1 ami-3
`
	const narrow = `
Build     Region     Image
  Launch it with
x.debian  eu-west-1  ami-2
  aws ec2 run-instances --image-id ami-2 --region eu-west-1
x.debian  us-east-1  ami-1
  aws ec2 run-instances --image-id ami-1 --region us-east-1
x.y       us-east-1  ami-3
  aws ec2 run-instances --image-id ami-3 --region us-east-1
`
	for _, tt := range []struct {
		onLocal bool
		width   int
		want    string
	}{{false, 120, aws}, {true, 120, local}, {true, 80, local}, {false, 80, narrow}} {
		onLocal, width, want := tt.onLocal, tt.width, tt.want
		var out bytes.Buffer
		d := NewLive(&out, PlainOptions{Local: onLocal})
		d.Handle(step.Event{Kind: step.RunStarted, Text: "x.debian\nx.y\nz"})
		images := map[string]string{"us-east-1": "ami-1", "eu-west-1": "ami-2"}
		for _, e := range []step.Event{
			{Build: "x.debian", Artifact: &builder.Artifact{Images: images}},
			{Build: "x.debian", Artifact: &builder.Artifact{Images: images}},
			{Build: "x.y", Artifact: &builder.Artifact{Images: map[string]string{"us-east-1": "ami-3"}}},
			{Build: "z"},
		} {
			e.Kind = step.ArtifactMade
			d.Handle(e)
		}
		d.Handle(step.Event{Kind: step.RunFinished})
		d.draw(time.Unix(0, 0), width, 24)
		d.draw(time.Unix(0, 0), width, 24)
		s := &screen{width: width}
		s.write(t, out.Bytes())
		if n := strings.Count(s.String(), "\nBuild "); n != 1 || strings.Count(s.String(), " x.y ") > 1 {
			t.Errorf("the end of the run is drawn %d times:\n%s", n, s)
		}
		if !strings.HasSuffix(strings.TrimRight(s.String(), "\n")+"\n", want) {
			t.Errorf("the screen is\n%s", s)
		}
	}
}

// TestLiveSurvivesResizing makes the terminal narrower between two frames: the terminal wraps the
// existing lines, and the next frame must still draw over them.
func TestLiveSurvivesResizing(t *testing.T) {
	var out bytes.Buffer
	d := NewLive(&out, PlainOptions{})
	events := recorded(t, "webserver")
	for _, e := range events[:30] {
		d.Handle(e)
	}
	d.draw(events[29].Time, 80, 24)
	lines := len(d.drawn)
	out.Reset()
	d.draw(events[29].Time, 41, 24)
	if want := fmt.Sprintf("\x1b[%dA", 2*lines); !strings.Contains(out.String(), want) {
		t.Errorf("%d lines were redrawn with %q, want %q in it", lines, out.String()[:20], want)
	}
}

// TestLiveLeavesNothingBehind resizes the terminal repeatedly while lines scroll by: the screen
// must look as if it always had its last width.
func TestLiveLeavesNothingBehind(t *testing.T) {
	for _, widths := range [][]int{{60, 100}, {100, 60}, {100, 60, 110}, {60, 100, 41, 120}} {
		var out bytes.Buffer
		d, s := NewLive(&out, PlainOptions{}), &screen{width: widths[0]}
		last := widths[len(widths)-1]
		want := &screen{width: last}
		same := NewLive(&out, PlainOptions{})
		both := func(e step.Event) {
			e.Time, e.Build = time.Unix(1700000000, 0), "x"
			for _, l := range []*Live{d, same} {
				l.Handle(e)
			}
		}
		draw := func(l *Live, s *screen) {
			out.Reset()
			l.draw(time.Unix(1700000001, 0), s.width, 24)
			s.write(t, out.Bytes())
		}
		both(step.Event{Kind: step.BuildStarted})
		for _, name := range []string{"one", "two", "three"} {
			both(step.Event{Kind: step.StepStarted, Step: name})
			both(step.Event{Kind: step.StepFinished, Step: name})
		}
		both(step.Event{Kind: step.StepStarted, Step: "four"})
		for i, width := range widths {
			if i > 0 {
				s.resize(width)
			}
			for j := range 4 { // short enough for one row of any width
				both(step.Event{Kind: step.Output, Step: "four", Text: strings.Repeat(string(rune('a'+4*i+j)), 5+3*j)})
				draw(d, s)
				draw(d, s)
				draw(same, want)
			}
		}
		if got := s.String(); got != want.String() {
			t.Errorf("widths %v leave\n%swant\n%s", widths, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                       "0 microseconds",
		3052 * time.Millisecond: "3 seconds 52 milliseconds",
		time.Hour:               "1 hour",
		time.Hour + 5*time.Second + time.Millisecond: "1 hour 5 seconds",
		61 * time.Second:                  "1 minute 1 second",
		1500 * time.Microsecond:           "1 millisecond 500 microseconds",
		49*time.Hour + 59*time.Nanosecond: "2 days 1 hour",
	} {
		if got := Words(d); got != want {
			t.Errorf("Words(%d) = %q, want %q", d, got, want)
		}
	}
}

func TestRecordEscapes(t *testing.T) {
	got := Record(time.Unix(7, 9), "a.b", "artifact", "0", "id", "x,y\r\nz")
	if want := "7,a.b,artifact,0,id,x%!(PACKER_COMMA)y\\r\\nz\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDiagnosticsShowTheSource(t *testing.T) {
	p := hclparse.NewParser()
	_, diags := p.ParseHCL([]byte("a = 1\nsource \"x\" \"y\" {\n  b = \n}\n"), "t.pkr.hcl")
	onDisk := filepath.Join(t.TempDir(), "vars.hcl")
	if err := os.WriteFile(onDisk, []byte("colour = \"red\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := func(file string) *hcl.Diagnostic {
		return &hcl.Diagnostic{
			Severity: hcl.DiagError, Summary: "Bad", Detail: "Because.",
			Subject: &hcl.Range{Filename: file, Start: hcl.Pos{Line: 1, Column: 1}, End: hcl.Pos{Line: 1, Column: 7, Byte: 6}},
		}
	}
	diags = append(diags, at(onDisk), at("gone.hcl"))
	var b bytes.Buffer
	if err := Diagnostics(&b, p.Files(), diags, 80, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"on t.pkr.hcl line 3", "   3:   b = ", `   1: colour = "red"`, "In gone.hcl:1,1-7. Because."} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "not available") {
		t.Errorf("source code is missing in:\n%s", b.String())
	}
}

// TestTimelineOfClockSetBack shows a step that, according to the clock, started before the run.
func TestTimelineOfClockSetBack(t *testing.T) {
	var out strings.Builder
	d := NewTimeline(&out, 60)
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	d.Handle(step.Event{Time: start, Kind: step.RunStarted})
	d.Handle(step.Event{Time: start.Add(-time.Hour), Kind: step.StepStarted, Build: "a", Step: "launch"})
	d.Handle(step.Event{Time: start.Add(-time.Minute), Kind: step.StepFinished, Build: "a", Step: "launch"})
	if err := d.Close(); err != nil || !strings.Contains(out.String(), "Launch") {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

// TestTimeline shows the start and duration of steps, including those that are retried, fail or do
// not end.
func TestTimeline(t *testing.T) {
	var out strings.Builder
	d := NewTimeline(&out, 60)
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(second int, kind step.Kind, build, path string) {
		d.Handle(step.Event{Time: start.Add(time.Duration(second) * time.Second), Kind: kind, Build: build, Step: path})
	}
	at(0, step.RunStarted, "", "")
	at(0, step.StepStarted, "a.web", "launch")
	at(1, step.StepStarted, "a.web", "launch > wait for the instance")
	at(2, step.StepStarted, "b.web", "launch")
	at(10, step.StepFinished, "a.web", "launch > wait for the instance")
	at(10, step.StepFinished, "a.web", "launch")
	at(10, step.StepStarted, "a.web", "provision")
	at(11, step.StepFailed, "a.web", "provision")
	at(12, step.StepStarted, "a.web", "provision")
	at(20, step.StepFinished, "a.web", "provision")
	at(40, step.Say, "b.web", "launch")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	want := `a.web
  Launch                    0.0s    10s  ████
    Wait for the instance   1.0s   9.0s  ████
  Provision                  10s   1.0s      █ failed
  Provision                  12s   8.0s       ████

b.web
  Launch                    2.0s    38s  ███████████████████ did not end
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

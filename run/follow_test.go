package run

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"bake/step"
	"bake/ui"
)

// TestFollower: a follower gets each event of a run once, even while the log is split into
// parts, and does not read old data again.
func TestFollower(t *testing.T) {
	state := State(t.TempDir())
	l, err := createLog(state, "r")
	if err != nil {
		t.Fatal(err)
	}
	l.limit = 1000 // two or three lines
	f := &Follower{State: state}
	n := 0
	write := func(e step.Event) {
		t.Helper()
		n++
		e.Time = time.Unix(int64(n), 0)
		out := &ui.JSON{Out: l}
		if out.Handle(e); out.Err != nil {
			t.Fatal(out.Err)
		}
	}
	var at Position
	var got []int64
	follow := func(most int) {
		t.Helper()
		var err error
		at, err = state.Lines("r", at, func(line []byte) bool {
			var e step.Event
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatal(err)
			}
			got = append(got, e.Time.Unix())
			most--
			return most != 0
		})
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParsePosition(at.String())
		if err != nil || back != at {
			t.Errorf("%s is %v, %v", at, back, err)
		}
	}
	past := func(want PastState) {
		t.Helper()
		p, err := f.Past("r")
		alone, failed := state.Past("r")
		if err != nil || failed != nil || p.State != want || p.Elapsed != alone.Elapsed || len(p.Builds) != 2 || fmt.Sprint(p.Builds) != fmt.Sprint(alone.Builds) {
			t.Errorf("after %d: %+v, %v; read at once it is %+v, %v", n, p, err, alone, failed)
		}
	}
	write(step.Event{Kind: step.RunStarted, Text: "a\nb"})
	for i := range 40 {
		write(step.Event{Kind: step.Output, Build: "a", Text: strings.Repeat("x", 300)})
		switch i % 4 { // sometimes it is far behind
		case 0:
			follow(2)
		case 1:
			follow(0)
			past(Running)
		}
	}
	write(step.Event{Kind: step.BuildFinished, Build: "a"})
	follow(0)
	past(Running)
	write(step.Event{Kind: step.BuildFailed, Build: "b", Error: errors.New("no")})
	write(step.Event{Kind: step.RunFinished, Elapsed: time.Minute})
	follow(0)
	past(Failed)
	if len(got) != n || !slices.IsSorted(got) {
		t.Errorf("%d events: %v", n, got)
	}
	if _, err := state.Lines("other", Position{}, nil); !errors.Is(err, ErrNoRun) {
		t.Error(err)
	}

	// The part that was read is overwritten and new data is appended: only the new data is
	// read.
	write(step.Event{Kind: step.RunStarted})
	follow(0)
	past(Running)
	text, err := os.ReadFile(state.Log("r"))
	if err != nil {
		t.Fatal(err)
	}
	spoilt := append(bytes.Repeat([]byte(`"kind":"run-started"`+"\n"), len(text)/21), bytes.Repeat([]byte("\n"), len(text)%21)...)
	if err := os.WriteFile(state.Log("r"), spoilt, 0o600); err != nil {
		t.Fatal(err)
	}
	write(step.Event{Kind: step.RunFinished, Elapsed: time.Hour})
	follow(0)
	if p, err := f.Past("r"); err != nil || p.Elapsed != time.Hour || got[len(got)-1] != int64(n) || len(got) != n {
		t.Errorf("%+v, %v, %v", p, err, got)
	}
	if _, err := state.Past("r"); err == nil {
		t.Error("the log is not spoilt")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

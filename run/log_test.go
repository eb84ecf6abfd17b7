package run

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bake/golden/reports"
	"bake/step"
	"bake/ui"
)

// TestRunLogIsCompressed: a log with a lot of output takes little space, and is complete.
func TestRunLogIsCompressed(t *testing.T) {
	state := State(t.TempDir())
	dir := state.Runs()
	l, err := createLog(state, "r")
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	line := strings.Repeat("x", 1000)
	for i := range 3 * logPart / 1000 {
		text := fmt.Appendf(nil, "%s %d\n", line, i)
		want.Write(text)
		if _, err := l.Write(text); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	parts, _ := filepath.Glob(filepath.Join(dir, "r.events.*.gz"))
	slices.Sort(parts)
	size := int64(0)
	for _, path := range parts {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(&got, z); err != nil {
			t.Fatal(err)
		}
		info, _ := f.Stat()
		size += info.Size()
		f.Close()
	}
	rest, err := os.ReadFile(l.file.Name())
	got.Write(rest)
	if err != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes were read, want %d (%v)", got.Len(), want.Len(), err)
	}
	if len(parts) < 2 || size > logPart/4 || len(rest) > logPart {
		t.Errorf("%d parts of %d bytes and a rest of %d", len(parts), size, len(rest))
	}
}

// TestLongLog: a log that is too long loses the part after its start, says so, and still
// describes the course of the run, even if it was reopened, or has parts with names of
// old versions.
func TestLongLog(t *testing.T) {
	state := State(t.TempDir())
	l, err := createLog(state, "r")
	if err != nil {
		t.Fatal(err)
	}
	l.limit = 1000
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	write := func(e step.Event) {
		t.Helper()
		e.Time = at
		at = at.Add(time.Second)
		out := &ui.JSON{Out: l}
		if out.Handle(e); out.Err != nil {
			t.Fatal(out.Err)
		}
	}
	text := strings.Repeat("x", 400) // two lines are a part
	lines := func(n int) {
		for i := range n {
			write(step.Event{Kind: step.Output, Build: "b", Text: fmt.Sprint(text, i)})
		}
	}
	write(step.Event{Kind: step.RunStarted, Text: "a\nb", Command: "bake build"})
	lines(6)
	write(step.Event{Kind: step.BuildFinished, Build: "a"}) // in a part that is deleted
	lines(2 * logParts)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for i, p := range l.parts { // as old versions named them
		if err := os.Rename(p.path, filepath.Join(state.Runs(), fmt.Sprintf("r.events.%03d.jsonl.gz", 936+p.number))); err != nil {
			t.Fatalf("part %d: %v", i, err)
		}
	}
	if l, err = reopenLog(state, "r"); err != nil {
		t.Fatal(err)
	}
	l.limit = 1000
	lines(10)
	write(step.Event{Kind: step.BuildFinished, Build: "b"})
	write(step.Event{Kind: step.RunFinished, Elapsed: time.Minute})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	parts, err := logPartsOf(state.Runs(), "r")
	if err != nil || len(parts) != logParts || parts[0].number != 937 || parts[logParts-1].number < 1000 {
		t.Errorf("%d parts: %v, %v", len(parts), parts, err)
	}
	all, err := state.List()
	if err != nil || len(all) != 1 || all[0].State != Succeeded || all[0].Command != "bake build" || all[0].Elapsed != time.Minute {
		t.Errorf("%+v, %v", all, err)
	}
	var kinds []step.Kind
	var last step.Event
	err = state.Events("r", func(e step.Event) {
		if e.Kind == step.Output && last.Kind == step.Output && !e.Time.Equal(last.Time.Add(time.Second)) {
			t.Errorf("%s follows %s", e.Time, last.Time)
		}
		if last = e; e.Kind != step.Output {
			kinds = append(kinds, e.Kind)
		}
	})
	if want := []step.Kind{step.RunStarted, step.Warning, step.BuildFinished, step.BuildFinished, step.RunFinished}; err != nil || !slices.Equal(kinds, want) {
		t.Errorf("the events are %v, want %v (%v)", kinds, want, err)
	}
}

// TestPruneLogs: the newest runs are kept as long as there are not too many of them, nor
// too many bytes, whatever the times of their files.
func TestPruneLogs(t *testing.T) {
	state := State(t.TempDir())
	if err := os.MkdirAll(state.Runs(), 0o700); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for i := range 6 { // run 0 is the newest, and its files are the oldest
		writePart(t, filepath.Join(state.Runs(), fmt.Sprintf("%d.events.000001.jsonl.gz", i)), now.Add(-time.Duration(i)*time.Hour))
		for _, name := range []string{"events.jsonl", "events.000001.jsonl.gz"} {
			path := filepath.Join(state.Runs(), fmt.Sprintf("%d.%s", i, name))
			if name == "events.jsonl" {
				if err := os.WriteFile(path, make([]byte, 1000), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			at := now.Add(time.Duration(i) * time.Hour)
			if err := os.Chtimes(path, at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := func() int { all, _ := os.ReadDir(state.Runs()); return len(all) }
	if state.pruneLogs(4, 10000); count() != 8 {
		t.Errorf("%d files are left of 4 runs", count())
	}
	if state.pruneLogs(4, 2900); count() != 4 {
		t.Errorf("%d files are left of 2900 bytes", count())
	}
	for i := range 2 {
		if _, err := os.Stat(state.Log(fmt.Sprint(i))); err != nil {
			t.Error(err)
		}
	}
}

// writePart writes a compressed part of a log whose first event is at that time.
func writePart(t *testing.T, path string, at time.Time) {
	t.Helper()
	var text bytes.Buffer
	z := gzip.NewWriter(&text)
	(&ui.JSON{Out: z}).Handle(step.Event{Time: at, Kind: step.RunStarted})
	if err := errors.Join(z.Close(), os.WriteFile(path, text.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// TestPrunedLogsAreFinished: the log of a run that is in progress, owns resources or can be
// resumed is not deleted, however old it is.
func TestPrunedLogsAreFinished(t *testing.T) {
	state := State(t.TempDir())
	live, err := createLog(state, "live")
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	if err := os.MkdirAll(state.Ledgers(), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		state.Log("left"), filepath.Join(state.Ledgers(), "left.jsonl"),
		state.Log("resumable"), state.Journal("resumable"), state.Log("finished"),
	} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	runs := map[string]bool{"live": true, "left": true, "resumable": true, "finished": false}
	for run := range runs {
		if err := os.MkdirAll(filepath.Join(state.Reports(run), "sha256"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	state.pruneLogs(0, 0)
	for run, kept := range runs {
		for _, path := range []string{state.Log(run), state.Reports(run)} {
			if _, err := os.Stat(path); (err == nil) != kept {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

func TestLogsDoNotPileUp(t *testing.T) {
	state := State(t.TempDir())
	for i := range keptLogs + 5 { // more runs than are kept; an empty one follows
		f, err := createLog(state, fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("{}\n")); err != nil {
			t.Fatal(err)
		}
		f.Close()
		at := time.Unix(int64(i), 0)
		if err := os.Chtimes(f.file.Name(), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if f, err := createLog(state, "empty"); err != nil || f.Close() != nil { // Close deletes an empty log
		t.Fatal(err)
	}
	logs, err := os.ReadDir(state.Runs())
	if err != nil || len(logs) != keptLogs-1 {
		t.Errorf("%d logs are kept (%v)", len(logs), err)
	}
	if _, err := os.Stat(state.Log("4")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an old log is still there: %v", err)
	}
}

// TestReopenLog: the log of a resumed run contains all earlier events once, except an
// incomplete last line, wherever the run died.
func TestReopenLog(t *testing.T) {
	const one, two, three = "{\"n\":1}\n", "{\"n\":2}\n", "{\"n\":3}\n"
	part := func(text string) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := z.Write([]byte(text))
		if err := errors.Join(err, z.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	long := strings.Repeat("x", 200<<10)
	for name, tt := range map[string]struct {
		files map[string][]byte
		want  string // before what is written now
	}{
		"whole":                    {map[string][]byte{"": []byte(one + two)}, one + two},
		"torn":                     {map[string][]byte{"": []byte(one + two[:4])}, one},
		"torn far behind":          {map[string][]byte{"": []byte(one + long)}, one},
		"torn at once":             {map[string][]byte{"": []byte(one[:4])}, ""},
		"empty":                    {map[string][]byte{"": nil}, ""},
		"pruned":                   {nil, ""},
		"in parts":                 {map[string][]byte{".008": part(one), ".009": part(two), "": []byte(three)}, one + two + three},
		"killed before it emptied": {map[string][]byte{".001": part(one), ".002": part(two + three), "": []byte(two + three)}, one + two + three},
	} {
		t.Run(name, func(t *testing.T) {
			state := State(t.TempDir())
			dir := state.Runs()
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			for mid, text := range tt.files {
				file := "r.events" + mid + ".jsonl.gz"
				if mid == "" {
					file = "r.events.jsonl"
				}
				if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l, err := reopenLog(state, "r")
			if err != nil {
				t.Fatal(err)
			}
			_, err = l.Write([]byte("new\n"))
			if err = errors.Join(err, l.compress()); err != nil {
				t.Fatal(err)
			}
			_, err = l.Write([]byte("newer\n"))
			if err = errors.Join(err, l.Close()); err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			err = state.read("r", func(r io.Reader) error {
				_, err := io.Copy(&got, r)
				return err
			})
			if err != nil || got.String() != tt.want+"new\nnewer\n" {
				t.Errorf("%q (%v)", got.String(), err)
			}
		})
	}
}

// TestLogPartIsBounded: of the log of a long stage, the end is kept, and the events that describe
// the course of the run; what came before the stage is not.
func TestLogPartIsBounded(t *testing.T) {
	o := Options{State: State(t.TempDir()), Now: time.Now}
	if err := os.Mkdir(o.State.Ledgers(), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := createLog(o.State, "r1")
	if err != nil {
		t.Fatal(err)
	}
	write := (&ui.JSON{Out: l}).Handle
	write(step.Event{Time: time.Unix(1, 0), Kind: step.Say, Text: "an earlier stage"})
	from := l.end()
	write(step.Event{Time: time.Unix(2, 0), Kind: step.RunStarted, Text: "web"})
	long := strings.Repeat("x", 1<<16)
	for i := range 3 * logPartBytes / 2 >> 16 {
		write(step.Event{Time: time.Unix(3, int64(i)), Kind: step.Say, Text: long})
	}
	write(step.Event{Time: time.Unix(4, 0), Kind: step.Say, Text: "the last"})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	in := reports.Store{Dir: t.TempDir()}
	part, err := o.keepLog(t.Context(), "r1", from, in)
	if err != nil {
		t.Fatal(err)
	}
	var got []step.Event
	if err := ReadLog(t.Context(), in, *part, func(e step.Event) { got = append(got, e) }); err != nil {
		t.Fatal(err)
	}
	if n := len(got) - 3; n < logPartBytes>>16-100 || n > logPartBytes>>16 || got[0].Kind != step.Warning || got[1].Kind != step.RunStarted || got[len(got)-1].Text != "the last" {
		t.Errorf("%d events: %.200q, %.200q, …, %.200q", len(got), fmt.Sprint(got[0]), fmt.Sprint(got[1]), fmt.Sprint(got[len(got)-1]))
	}
}

// TestLogPartIsReadToItsLimit: the stored part of a log that is too long can be read, and the
// omitted rest is reported.
func TestLogPartIsReadToItsLimit(t *testing.T) {
	o := Options{State: State(t.TempDir()), Now: time.Now}
	l, err := createLog(o.State, "r1")
	if err != nil {
		t.Fatal(err)
	}
	from := l.end()
	long := strings.Repeat("x", 1<<20)
	for range 5 * logPartBytes / 2 >> 20 {
		(&ui.JSON{Out: l}).Handle(step.Event{Time: time.Unix(2, 0), Kind: step.BuildFailed, Text: long})
	}
	if err := errors.Join(l.Close(), os.MkdirAll(o.State.Ledgers(), 0o700)); err != nil {
		t.Fatal(err)
	}
	in := reports.Store{Dir: t.TempDir()}
	part, err := o.keepLog(t.Context(), "r1", from, in)
	if err != nil {
		t.Fatal(err)
	}
	if err := ReadLog(t.Context(), in, *part, func(step.Event) {}); err != nil {
		t.Error(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	for range 3 * logPartBytes >> 20 {
		(&ui.JSON{Out: z}).Handle(step.Event{Kind: step.Say, Text: long})
	}
	if err := errors.Join(z.Close(), in.Write(t.Context(), "logs/large", packed.Bytes())); err != nil {
		t.Fatal(err)
	}
	n := 0
	err = ReadLog(t.Context(), in, LogPart{Name: "logs/large", SHA256: reports.Digest(packed.Bytes())}, func(step.Event) { n++ })
	if n == 0 || err == nil || !strings.Contains(err.Error(), "it has more than 64 MB") {
		t.Errorf("%d events, %v", n, err)
	}
}

// fullOnce is a bucket whose first write fails.
type fullOnce struct {
	docs map[string][]byte
	full bool
	by   []time.Time // deadlines of calls
}

func (f *fullOnce) Put(ctx context.Context, name string, text []byte) error {
	if !f.full {
		f.full = true
		return errors.New("no room")
	}
	f.docs[name] = text
	return f.note(ctx)
}

func (f *fullOnce) Get(ctx context.Context, name string, _ int64) ([]byte, error) {
	text, ok := f.docs[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return text, f.note(ctx)
}

func (f *fullOnce) note(ctx context.Context) error {
	at, _ := ctx.Deadline()
	f.by = append(f.by, at)
	return ctx.Err()
}

func (*fullOnce) String() string { return "s3://reports" }

// TestLogPartIsLost: if the log of a stage could not be stored, a report that is made on the same
// host still contains it. Each document has its own time limit.
func TestLogPartIsLost(t *testing.T) {
	o := Options{State: State(t.TempDir()), Now: time.Now}
	if err := os.MkdirAll(o.State.Ledgers(), 0o700); err != nil {
		t.Fatal(err)
	}
	bucket := &fullOnce{docs: map[string][]byte{}}
	in := reports.Store{Dir: t.TempDir(), Bucket: bucket}
	ended, cancel := context.WithCancel(t.Context())
	cancel() // the run was cancelled
	for i, text := range []string{"lost", "kept", "kept, too"} {
		l, err := createLog(o.State, "r1")
		if i > 0 {
			l, err = reopenLog(o.State, "r1")
		}
		if err != nil {
			t.Fatal(err)
		}
		from := l.end()
		(&ui.JSON{Out: l}).Handle(step.Event{Time: time.Unix(1, int64(i)), Kind: step.Say, Text: text})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if part, err := o.keepLog(ended, "r1", from, in); (part == nil) != (i == 0) || (err != nil) != (i == 0) {
			t.Fatalf("stage %d: %v, %v", i+1, part, err)
		}
		time.Sleep(time.Millisecond)
	}
	in.Dir = t.TempDir() // of another host
	var got []string
	err := o.allEvents(ended, "r1", in, func(e step.Event) { got = append(got, e.Text) })
	if want := []string{"kept", "kept, too", "lost"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if len(slices.Compact(bucket.by)) != 4 || bucket.by[0].IsZero() {
		t.Errorf("two parts were written and read by: %v", bucket.by)
	}
	if err := os.WriteFile(o.State.parts("r1"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if part, err := o.keepLog(ended, "r1", Position{}, in); part == nil || err == nil {
		t.Errorf("with a damaged list: %v, %v", part, err)
	}
}

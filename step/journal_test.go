package step_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bake/step"
)

// head is the head of the journals in these tests.
type head struct{ Name string }

func journal(t *testing.T, redact func(string) string) (*step.FileJournal, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledgers", "r.journal")
	j, err := step.CreateJournal(path, head{"it"}, redact)
	must(t, err)
	return j, path
}

// hide removes the word hunter2 from a text.
func hide(text string) string { return strings.ReplaceAll(text, "hunter2", "<sensitive>") }

// read reads a journal in both ways, which must agree.
func read(t *testing.T, path string) (step.Results, head, error) {
	t.Helper()
	var h, opened head
	r, err := step.ReadJournal(path, &h)
	j, oerr := step.OpenJournal(path, &opened)
	if fmt.Sprint(err) != fmt.Sprint(oerr) || h != opened {
		t.Errorf("reading it: %v, %+v; opening it: %v, %+v", err, h, oerr, opened)
	}
	if oerr == nil {
		must(t, j.Close(true))
	}
	return r, h, err
}

func TestJournal(t *testing.T) {
	j, path := journal(t, nil)
	j.Record("a", "k", json.RawMessage(`{"n":1}`))
	j.Record("b", "k", json.RawMessage(`2`))
	j.Record("a", "k", json.RawMessage(`{"n":3}`))
	var h head
	for range 2 { // also this process is another one
		if _, err := step.OpenJournal(path, &h); !errors.Is(err, step.ErrLive) {
			t.Errorf("opening it twice: %v", err)
		}
		if _, err := step.ReadJournal(path, &h); !errors.Is(err, step.ErrLive) {
			t.Errorf("reading it while it is written: %v", err)
		}
	}
	for name, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if _, err := step.CreateJournal(path, head{}, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second one of the same run: %v", err)
	}
	must(t, j.Close(true))
	r, h, err := read(t, path)
	must(t, err)
	for build, want := range map[string]string{"a": `{"n":3}`, "b": "2"} {
		if got, ok := r.Result(build, "k"); !ok || string(got) != want || h.Name != "it" {
			t.Errorf("%s: %s, %t; %+v", build, got, ok, h)
		}
	}
	if _, ok := r.Result("c", "k"); ok {
		t.Error("what was not recorded is there")
	}
	j, err = step.OpenJournal(path, &h)
	must(t, err)
	must(t, j.Close(false))
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one of no use is still there: %v", err)
	}
}

// TestJournalReader: reading a journal does not prevent resuming the run.
func TestJournalReader(t *testing.T) {
	j, path := journal(t, nil)
	must(t, j.Close(true))
	done := make(chan struct{})
	read := make(chan struct{})
	go func() {
		defer close(read)
		for {
			select {
			case <-done:
				return
			default:
				var h head
				if _, err := step.ReadJournal(path, &h); err != nil && !errors.Is(err, step.ErrLive) {
					t.Error(err)
				}
				time.Sleep(time.Microsecond)
			}
		}
	}()
	for range 200 {
		var h head
		j, err := step.OpenJournal(path, &h)
		if err != nil {
			t.Error(err)
			break
		}
		must(t, j.Close(true))
	}
	close(done)
	<-read
}

// TestJournalTorn: an incomplete last line is ignored, and the journal continues after
// the line before it.
func TestJournalTorn(t *testing.T) {
	j, path := journal(t, nil)
	j.Record("a", "one", json.RawMessage("1"))
	j.Record("a", "two", json.RawMessage("2"))
	must(t, j.Close(true))
	whole, err := os.ReadFile(path)
	must(t, err)
	lines := strings.SplitAfter(string(whole), "\n")
	first, second := len(lines[0]), len(lines[0])+len(lines[1])
	for n := range whole {
		must(t, os.WriteFile(path, whole[:n], 0o600))
		r, _, err := read(t, path)
		if n < first {
			if err == nil || !strings.Contains(err.Error(), "it is empty") {
				t.Errorf("%d bytes: %v", n, err)
			}
			continue
		}
		must(t, err)
		_, one := r.Result("a", "one")
		_, two := r.Result("a", "two")
		if one != (n >= second) || two {
			t.Errorf("%d bytes: one: %t, two: %t", n, one, two)
		}
		var h head
		j, err := step.OpenJournal(path, &h)
		must(t, err)
		j.Record("a", "three", json.RawMessage("3"))
		must(t, j.Close(true))
		if r, _, err = read(t, path); err != nil {
			t.Fatalf("%d bytes and a line: %v", n, err)
		}
		if _, ok := r.Result("a", "three"); !ok {
			t.Errorf("%d bytes: what was recorded behind them is lost", n)
		}
	}
}

// TestDiscardUnbegun checks that a journal without a complete head is deleted, unless its run has
// started or is starting now.
func TestDiscardUnbegun(t *testing.T) {
	j, path := journal(t, nil)
	if err := step.DiscardUnbegun(path); !errors.Is(err, step.ErrLive) {
		t.Errorf("a run that goes on: %v", err)
	}
	must(t, j.Close(true))
	must(t, step.DiscardUnbegun(path))
	whole, err := os.ReadFile(path)
	must(t, err)
	for n := range len(whole) {
		must(t, os.WriteFile(path, whole[:n], 0o600))
		must(t, step.DiscardUnbegun(path))
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a head of %d bytes is left: %v", n, err)
		}
	}
}

// TestCreateAmongSweeps checks that a run that starts during sweeps ends up with its journal and
// its ledger in place.
func TestCreateAmongSweeps(t *testing.T) {
	dir := t.TempDir()
	const runs = 100
	var begins atomic.Int64
	var sweeps sync.WaitGroup
	for range 4 {
		sweeps.Go(func() {
			for i := begins.Load(); i < runs; i = begins.Load() {
				run := filepath.Join(dir, strconv.FormatInt(i, 10))
				_ = step.DiscardUnbegun(run + ".journal")
				if l, err := step.OpenLedger(run + ".jsonl"); err == nil {
					_ = l.Close()
				}
			}
		})
	}
	for i := range runs {
		begins.Store(int64(i))
		run := strconv.Itoa(i)
		j, err := step.CreateJournal(filepath.Join(dir, run+".journal"), head{Name: run}, nil)
		must(t, err)
		l, err := step.CreateLedger(dir, step.Header{Run: run})
		must(t, err)
		must(t, l.Intend(step.Resource{Key: "k", Kind: "test:thing"}))
		for _, name := range []string{run + ".journal", run + ".jsonl"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Errorf("run %s: %v", run, err)
			}
		}
		must(t, errors.Join(l.Close(), j.Close(true)))
	}
	begins.Store(runs)
	sweeps.Wait()
}

// TestJournalDamage checks that an unreadable line is an error that names it, and that the head is
// returned unless it is damaged.
func TestJournalDamage(t *testing.T) {
	const start = `{"head":{"Name":"it"}}` + "\n"
	for text, want := range map[string]string{
		start + "{\"build\"\n" + `{"build":"a","key":"k","result":1}` + "\n": "line 2",
		start + "\x00\x00\x00\n": "line 2",
		start + `{"build":"a","result":` + strings.Repeat("1", 5<<20) + "}\n": "line 2",
		"nothing\n": "line 1",
		`{"build":"a","key":"k","result":1}` + "\n": "line 1",
		`{"head":[]}` + "\n":                        "line 1",
	} {
		path := filepath.Join(t.TempDir(), "r.journal")
		must(t, os.WriteFile(path, []byte(text), 0o600))
		_, h, err := read(t, path)
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v", text, err)
		}
		if got := h.Name == "it"; got != (want == "line 2") {
			t.Errorf("%.60q: the head is %+v", text, h)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != text {
			t.Errorf("%.60q: it has been changed (%v)", text, err)
		}
	}
}

// TestJournalSecrets checks that no sensitive value is written, whether it is in the head or in a
// result, escaped or not, and that the journal says why it has no results. The rest of the head
// stays.
func TestJournalSecrets(t *testing.T) {
	secret := `p"<hunter2>` + "\n"
	redact := func(text string) string { return strings.ReplaceAll(text, secret, "<sensitive>") }
	encoded, err := json.Marshal(map[string]any{"tags": []string{"of " + secret}})
	must(t, err)
	key, err := json.Marshal(map[string]any{secret: 1})
	must(t, err)
	for name, record := range map[string]func(j *step.FileJournal){
		"in a value": func(j *step.FileJournal) { j.Record("a", "k", encoded) },
		"in a key":   func(j *step.FileJournal) { j.Record("a", "k", key) },
		"the build":  func(j *step.FileJournal) { j.Record(secret, "k", json.RawMessage("1")) },
	} {
		t.Run(name, func(t *testing.T) {
			j, path := journal(t, redact)
			j.Record("a", "before", json.RawMessage("1"))
			record(j)
			j.Record("a", "after", json.RawMessage("1"))
			if _, ok := j.Result("a", "before"); ok {
				t.Error("it still has results")
			}
			must(t, j.Close(true))
			refused(t, path, "it")
		})
	}
	t.Run("in the head", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "r.journal")
		j, err := step.CreateJournal(path, head{"of " + secret}, redact)
		must(t, err)
		j.Record("a", "k", json.RawMessage("1"))
		must(t, j.Close(true))
		refused(t, path, "of <sensitive>")
	})
	t.Run("learned later", func(t *testing.T) {
		j, path := journal(t, nil)
		must(t, j.Close(true))
		var h head
		j, err := step.OpenJournal(path, &h)
		must(t, err)
		j.Hide(redact)
		j.Record("a", "k", encoded)
		must(t, j.Close(true))
		refused(t, path, "it")
	})
}

func refused(t *testing.T, path, name string) {
	t.Helper()
	if text, err := os.ReadFile(path); err != nil || strings.Contains(string(text), "hunter2") {
		t.Errorf("it is written down: %s (%v)", text, err)
	}
	_, h, err := read(t, path)
	if err == nil || !strings.Contains(err.Error(), "would contain a sensitive value") || h.Name != name {
		t.Errorf("%+v: %v", h, err)
	}
}

// TestJournalBound: too much data is not recorded, and a file that is too large is not
// read.
func TestJournalBound(t *testing.T) {
	j, path := journal(t, hide)
	j.Record("a", "one", json.RawMessage(`"`+strings.Repeat("x", 5<<20)+`"`))
	must(t, j.Close(true))
	if _, _, err := read(t, path); err == nil || !strings.Contains(err.Error(), "its journal would be too large") {
		t.Error(err)
	}
	must(t, os.Truncate(path, 65<<20))
	if _, _, err := read(t, path); err == nil || !strings.Contains(err.Error(), "not a journal written by bake") {
		t.Error(err)
	}
}

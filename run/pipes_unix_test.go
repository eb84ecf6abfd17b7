//go:build unix

package run_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bake/run"
	"bake/step"
)

// TestPipesInTheStateDirectory: a named pipe in place of any file of a run is an error, and
// nothing blocks on it.
func TestPipesInTheStateDirectory(t *testing.T) {
	s := run.State(t.TempDir())
	key, err := run.NewKey("0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	journal := filepath.Join(s.Ledgers(), "a.journal")
	part := strings.TrimSuffix(s.Log("a"), ".jsonl") + ".000001.jsonl.gz"
	for name, test := range map[string]struct {
		pipe string
		do   func() error
	}{
		"list":               {s.Log("a"), func() error { _, err := s.List(); return err }},
		"list of parts":      {part, func() error { _, err := s.List(); return err }},
		"newest":             {s.Log("a"), func() error { _, err := s.Find(""); return err }},
		"events":             {s.Log("a"), func() error { return s.Events("a", func(step.Event) {}) }},
		"lines":              {s.Log("a"), func() error { _, err := s.Lines("a", run.Position{}, func([]byte) bool { return true }); return err }},
		"past":               {s.Log("a"), func() error { _, err := s.Past("a"); return err }},
		"resumable":          {journal, func() error { _, err := s.Resumable("a", false); return err }},
		"export":             {journal, func() error { _, err := s.Export("a", key); return err }},
		"export of a ledger": {s.Ledger("a"), func() error { return errors.Join(os.WriteFile(journal, nil, 0o600), second(s.Export("a", key))) }},
		"sweep":              {s.Ledger("a"), func() error { _, err := run.Sweep(t.Context(), run.SweepOptions{State: s}); return err }},
	} {
		must := func(err error) {
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		must(errors.Join(os.RemoveAll(string(s)), os.MkdirAll(s.Runs(), 0o700), os.MkdirAll(s.Ledgers(), 0o700)))
		if test.pipe == part {
			must(os.WriteFile(s.Log("a"), nil, 0o600))
		}
		must(syscall.Mkfifo(test.pipe, 0o600))
		done := make(chan error, 1)
		go func() { done <- test.do() }()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), filepath.Base(test.pipe)) {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s waits for the pipe", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

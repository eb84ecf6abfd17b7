package run_test

import (
	"testing"

	"bake/run"
)

// TestSentence: a text ends in one full stop, whether it has one or not.
func TestSentence(t *testing.T) {
	for text, want := range map[string]string{"the channel is locked": "The channel is locked.", "it was refused.": "It was refused.", "été": "Été."} {
		if got := run.Sentence(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// TestSweepOfAllIsInNoLog: only the sweep of one run can be told in the log of a run.
func TestSweepOfAllIsInNoLog(t *testing.T) {
	_, err := run.Sweep(t.Context(), run.SweepOptions{State: run.State(t.TempDir()), Logged: func(run.Position) { t.Error("it is logged") }})
	if err == nil {
		t.Error("it is swept")
	}
}

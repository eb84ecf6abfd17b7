package temporal

import (
	"path/filepath"
	"testing"

	"go.temporal.io/sdk/worker"
)

// TestReplay: what the workflows do is what they did when the histories in testdata were
// made, in the same order. If this fails, workflows that go on while workers are upgraded
// would fail, too: put the change behind workflow.GetVersion, and add a history of the new
// way. BAKE_SAVE_HISTORIES=$PWD/testdata has TestDeaths write them.
func TestReplay(t *testing.T) {
	histories, err := filepath.Glob("testdata/*.json")
	if err != nil || len(histories) == 0 {
		t.Fatal(histories, err)
	}
	for _, history := range histories {
		r, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{DataConverter: packing()})
		if err != nil {
			t.Fatal(err)
		}
		registerWorkflows(r)
		if err := r.ReplayWorkflowHistoryFromJSONFile(quiet{}, history); err != nil {
			t.Errorf("%s: %v", history, err)
		}
	}
}

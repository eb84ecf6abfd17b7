package temporal

import (
	"compress/gzip"
	"os"
	"path/filepath"
	"testing"

	"go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
)

// TestReplay: what the workflows do is what they did when the histories in testdata were
// made, in the same order. If this fails, workflows that go on while workers are upgraded
// would fail, too: put the change behind workflow.GetVersion, and add a history of the new
// way. BAKE_SAVE_HISTORIES=DIRECTORY has TestDeaths, TestApproveByCommand and
// TestThousandCellsOnTemporal write some. bake-again and bake-late are of a way that is not gone any
// more, before cells rested: they prove that such are replayed.
func TestReplay(t *testing.T) {
	histories, err := filepath.Glob("testdata/*.json.gz")
	if err != nil || len(histories) == 0 {
		t.Fatal(histories, err)
	}
	for _, path := range histories {
		r, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{DataConverter: packing()})
		if err != nil {
			t.Fatal(err)
		}
		registerWorkflows(r)
		h, err := readHistory(path)
		if err == nil {
			err = r.ReplayWorkflowHistory(quiet{}, h)
		}
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func readHistory(path string) (*history.History, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return client.HistoryFromJSON(z, client.HistoryJSONOptions{})
}

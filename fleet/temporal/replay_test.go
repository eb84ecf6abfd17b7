package temporal

import (
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// TestReplay: what the workflows do is what they did when the histories in testdata were
// made, in the same order. If this fails, workflows that go on while workers are upgraded
// would fail, too: put the change behind workflow.GetVersion, and add a history of the new
// way. BAKE_SAVE_HISTORIES=DIRECTORY has TestDeaths, TestApproveByCommand and TestPartsOnTemporal
// write some. bake-again and bake-late are of a way in which no cell begins any more, before cells
// rested: they prove that such are replayed. Of each kind of workflow there is one.
func TestReplay(t *testing.T) {
	histories, err := filepath.Glob("testdata/*.json.gz")
	if err != nil || len(histories) == 0 {
		t.Fatal(histories, err)
	}
	all := kinds{}
	registerWorkflows(all)
	for _, path := range histories {
		restore := func() {}
		if strings.HasSuffix(path, "-parts.json.gz") {
			restore = lower()
		}
		r, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{DataConverter: packing()})
		if err != nil {
			t.Fatal(err)
		}
		registerWorkflows(r)
		h, err := readHistory(path)
		if err == nil {
			delete(all, h.GetEvents()[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowType().GetName())
			err = r.ReplayWorkflowHistory(quiet{}, h)
		}
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		restore()
	}
	for kind := range all {
		t.Errorf("there is no history of a workflow %s", kind)
	}
}

// kinds are the names of workflows that are registered.
type kinds map[string]bool

func (k kinds) RegisterWorkflowWithOptions(_ any, o workflow.RegisterOptions) { k[o.Name] = true }

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

package temporal

import (
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	common "go.temporal.io/api/common/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// TestReplay: the workflows do what they did when the histories in testdata were recorded, in the
// same order. If this fails, workflows that continue while workers are upgraded would fail, too:
// put the change behind workflow.GetVersion, and add a new history. With
// BAKE_SAVE_HISTORIES=DIRECTORY, TestDeaths, TestApproveByCommand and TestPartsOnTemporal write
// histories. bake-again and bake-late are from versions in which cells did not rest before another
// attempt, and approval-done is from one in which an image waited again in the same run: they
// prove that old histories are still replayed. There is a history for each kind of workflow. On a
// busy host, the code of a workflow may get no processor for a second, which is not an error.
func TestReplay(t *testing.T) {
	histories, err := filepath.Glob("testdata/*.json.gz")
	if err != nil || len(histories) == 0 {
		t.Fatalf("histories = %q, %v, want some", histories, err)
	}
	all := kinds{}
	registerWorkflows(all)
	for _, path := range histories {
		restore := func() {}
		if strings.HasSuffix(path, "-parts.json.gz") {
			restore = lower()
		}
		data := packing()
		if strings.HasSuffix(path, "bake-done.json.gz") {
			data = &starved{DataConverter: data}
		}
		r, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{DataConverter: data, DisableDeadlockDetection: true})
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

// starved is a converter that simulates a busy host: it blocks for more than a second when the
// first result of an activity is read.
type starved struct {
	converter.DataConverter
	reads int
}

func (b *starved) FromPayloads(p *common.Payloads, to ...any) error {
	if b.reads++; b.reads == 4 { // after the input and two markers
		time.Sleep(1100 * time.Millisecond)
	}
	return b.DataConverter.FromPayloads(p, to...)
}

// kinds are the names of registered workflows.
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

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

// TestReplay: what the workflows do is what they did when the histories in testdata were
// made, in the same order. If this fails, workflows that go on while workers are upgraded
// would fail, too: put the change behind workflow.GetVersion, and add a history of the new
// way. BAKE_SAVE_HISTORIES=DIRECTORY has TestDeaths, TestApproveByCommand and TestPartsOnTemporal
// write some. bake-again and bake-late are of a way in which no cell begins any more, before cells
// rested, and approval-done is of one in which an image waited anew in the same run: they prove that such
// are replayed. Of each kind of workflow there is one. On a host that is
// busy with other things the code of a workflow may get no processor for a second, which is no fault of it.
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

// starved is a converter on a host that does nothing for more than a second when the first result of an
// activity is read.
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

package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"bake/fleet"
)

// TestUnpolled: fleet status reports task queues without a worker, and when workers poll them
// again, once each.
func TestUnpolled(t *testing.T) {
	waits := fleet.Status{Fleet: "nightly", State: fleet.StateRunning, Unpolled: []string{"bake/nightly", "bake/nightly/111111111111/eu-west-1/api"}}
	const text = "No worker polls bake/nightly, bake/nightly/111111111111/eu-west-1/api: its tasks wait for a bake worker"
	if tree := waits.Tree(time.Now()); !strings.Contains(tree, "\n"+text) {
		t.Errorf("the status: %s", tree)
	}
	goesOn := waits
	goesOn.Unpolled = nil
	if tree := goesOn.Tree(time.Now()); strings.Contains(tree, "No worker") {
		t.Errorf("the status with workers: %s", tree)
	}
	for _, json := range []bool{false, true} {
		var out bytes.Buffer
		p := &program{stdout: newOutput(&out), stderr: newOutput(&out), now: time.Now, command: "fleet status"}
		p.json.on = json
		told := p.cellChanges()
		for _, s := range []fleet.Status{waits, waits, goesOn, goesOn} {
			told(s)
		}
		want := []string{text + ".", "Workers poll all task queues again."}
		if json {
			want = []string{`"kind":"unpolled","unpolled":["bake/nightly","bake/nightly/111111111111/eu-west-1/api"]`, `"kind":"unpolled","unpolled":[]`}
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], want[0]) || !strings.Contains(lines[1], want[1]) {
			t.Errorf("json %t: %s", json, out.String())
		}
	}
}

// TestUnanswered: following a run reports that the engine does not answer, and that it answers
// again, once each.
func TestUnanswered(t *testing.T) {
	answers := fleet.Status{Fleet: "nightly", State: fleet.StateRunning}
	late := answers
	late.Unanswered = "context deadline exceeded\nx"
	for json, want := range map[bool][]string{
		false: {"The state of the run cannot be queried; the run continues: context deadline exceeded", "The run can be asked again how it goes."},
		true:  {`"kind":"unanswered","unanswered":"context deadline exceeded\nx"`, `"kind":"unanswered","unanswered":""`},
	} {
		var out bytes.Buffer
		p := &program{stdout: newOutput(&out), stderr: newOutput(&out), now: time.Now, command: "fleet run"}
		p.json.on = json
		told := p.cellChanges()
		for _, s := range []fleet.Status{answers, late, late, answers, answers} {
			told(s)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], want[0]) || !strings.Contains(lines[1], want[1]) {
			t.Errorf("json %t: %s", json, out.String())
		}
	}
}

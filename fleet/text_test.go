package fleet_test

import (
	"strings"
	"testing"
	"time"

	"bake/fleet"
	"bake/golden/plan"
	"bake/run"
)

// TestWordsOfOthers: errors, reasons and changes with text from a template, a machine or AWS
// cannot move the cursor, change the title of a terminal, or begin a line there.
func TestWordsOfOthers(t *testing.T) {
	const evil = "no\x1b]0;title\x07\x1b[2J\u202e\nhow"
	cell := fleet.Cell{Fleet: "nightly", Image: "web", Account: "111111111111", Region: "eu-west-1"}
	failed := fleet.Status{Fleet: "nightly", Run: "r", SchedulePaused: evil, Cells: []fleet.CellStatus{{Cell: cell, Outcome: &fleet.Outcome{Cell: cell, Error: evil}}}}
	waits := fleet.Status{Cells: []fleet.CellStatus{{Cell: cell, Outcome: &fleet.Outcome{Cell: cell, Image: fleet.Image{ID: "ami-1"}, Waits: fleet.Waits{Failed: evil}}}}}
	planned, _, _ := fleet.PlanText([]fleet.Planned{
		{Cell: "a", Action: string(run.Builds), Reason: "no\x1b[2J", Changes: []plan.Change{{Name: "x", To: "\x1b[2J\nhow"}}}, {Cell: "b", Reason: "no\x1b[2J"},
	})
	now := time.Now()
	for name, text := range map[string]string{
		"tree": failed.Tree(now), "waits": waits.Tree(now), "unanswered": fleet.Status{Unanswered: evil}.UnansweredText(), "plan": planned,
	} {
		if strings.ContainsAny(text, "\x1b\x07\u202e") || strings.Contains(text, "\nhow") || !strings.Contains(text, "no") {
			t.Errorf("%s: %q", name, text)
		}
	}
}

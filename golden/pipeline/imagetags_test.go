package pipeline

import (
	"testing"

	"bake/golden/bakefile"
	"bake/golden/reports"
	"bake/internal/imagetag"
	"bake/step"
)

// The tag for the run that has the reports of an image never changes.
func TestMarkOfReports(t *testing.T) {
	s := step.NewScope(step.Scope{Run: step.Invocation{ID: "run-1"}, Emit: func(step.Event) {}})
	p := &pipeline{image: bakefile.Pipeline{Name: "web"}}
	if all, err := p.imageTags(t.Context(), s); err != nil || all[reports.Run] != "run-1" || all[imagetag.Image] != "web" {
		t.Errorf("%v, %v", all, err)
	}
}

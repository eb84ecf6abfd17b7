package run

import (
	"fmt"
	"strings"
	"testing"

	"bake/engine"
	"bake/golden/pipeline"
	"bake/golden/plan"
)

// TestResultPlan: the decisions about builds with and without image blocks, and their texts.
func TestResultPlan(t *testing.T) {
	r := Result{
		Planned: []pipeline.Planned{
			{Image: "web", Build: "amazon-ebs.web", Digest: "d1", Answer: plan.Answer{Reuse: []plan.Image{{}, {}}}, Images: map[string]string{"us-east-1": "ami-1", "eu-west-1": "ami-2"}, Copied: []string{"eu-north-1"}},
			{Image: "db", Build: "amazon-ebs.db", Digest: "d2", Answer: plan.Answer{Reason: "an input has changed", Since: "ami-3", Changes: []plan.Change{{Name: "provisioner 1"}}}},
			{Image: "app", Build: "amazon-ebs.app", Unknown: "the image web is built first"},
		},
		Builds: []engine.BuildResult{{Name: "amazon-ebs.web"}, {Name: "null.x"}},
	}
	var texts []string
	for _, b := range r.Plan() {
		texts = append(texts, b.String())
		if b.Changes == nil {
			t.Errorf("%s: the changes are null", b.Build)
		}
	}
	want := []string{
		"web: reuse ami-2 in eu-west-1, ami-1 in us-east-1; copy it to eu-north-1",
		"db: build, because an input has changed\n  " + fmt.Sprint(plan.Change{Name: "provisioner 1"}),
		"app: build, because the image web is built first",
		"null.x: build, because no image block names it",
	}
	if got := strings.Join(texts, "|"); got != strings.Join(want, "|") {
		t.Errorf("got  %s\nwant %s", got, strings.Join(want, "|"))
	}
}

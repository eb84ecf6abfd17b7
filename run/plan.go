package run

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"bake/golden/plan"
)

// PlannedBuild is the decision of [Plan] about a build.
type PlannedBuild struct {
	Image   string            `json:"image"` // empty: no image block names the build
	Build   string            `json:"build"`
	Action  PlannedAction     `json:"action"`
	Reason  string            `json:"reason,omitempty"`
	Since   string            `json:"since,omitempty"`  // the image with which the inputs were compared
	Changes []plan.Change     `json:"changes"`          // not nil
	Images  map[string]string `json:"images,omitempty"` // images that would be reused, by region
	Copied  []string          `json:"copied,omitempty"` // regions to which those images would be copied
	Inputs  string            `json:"inputs,omitempty"` // the digest; empty if it is not known yet
}

// PlannedAction is the planned action for a build.
type PlannedAction string

// The possible actions for a build.
const (
	Builds PlannedAction = "build"
	Reuses PlannedAction = "reuse"
)

// Plan returns the decisions of [Plan]: first those about builds of image blocks, then
// those about the others.
func (r Result) Plan() (all []PlannedBuild) {
	named := map[string]bool{}
	for _, one := range r.Planned {
		named[one.Build] = true
		b := PlannedBuild{
			Image: one.Image, Build: one.Build, Action: Builds, Reason: cmp.Or(one.Unknown, one.Answer.Reason), Since: one.Answer.Since,
			Changes: append([]plan.Change{}, one.Answer.Changes...), Inputs: one.Digest,
		}
		if len(one.Answer.Reuse) > 0 {
			b.Action, b.Images, b.Copied = Reuses, one.Images, one.Copied
		}
		all = append(all, b)
	}
	for _, b := range r.Builds {
		if !named[b.Name] {
			all = append(all, PlannedBuild{Build: b.Name, Action: Builds, Reason: "no image block names it", Changes: []plan.Change{}})
		}
	}
	return all
}

// String describes the planned action and the reason, with a line for each changed input.
func (b PlannedBuild) String() string {
	name := cmp.Or(b.Image, b.Build)
	if b.Action == Builds {
		text := fmt.Sprintf("%s: build, because %s", name, b.Reason)
		for _, c := range b.Changes {
			text += fmt.Sprintf("\n  %s", c)
		}
		return text
	}
	var ids []string
	for _, region := range slices.Sorted(maps.Keys(b.Images)) {
		ids = append(ids, b.Images[region]+" in "+region)
	}
	text := fmt.Sprintf("%s: reuse %s", name, strings.Join(ids, ", "))
	if len(b.Copied) > 0 {
		text += "; copy it to " + strings.Join(b.Copied, ", ")
	}
	return text
}

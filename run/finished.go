package run

import (
	"slices"

	"bake/engine"
	"bake/step"
	"bake/ui"
)

// Finished is the result of a run all of whose builds have succeeded, as its log tells, which
// whoever had begun it may not have learned. ok reports whether there is such a run. What it
// would have said of the inputs of its images is not known.
func (s State) Finished(run string) (result Result, ok bool) {
	past, err := s.Past(run)
	if err != nil || len(past.Builds) == 0 {
		return Result{}, false
	}
	result.Run, result.Elapsed = run, past.Elapsed
	for _, b := range past.Builds {
		if b.State != Succeeded {
			return Result{}, false
		}
		result.Builds = append(result.Builds, engine.BuildResult{Name: b.Name})
	}
	err = s.Events(run, func(e step.Event) {
		i := slices.IndexFunc(result.Builds, func(b engine.BuildResult) bool { return b.Name == e.Build })
		switch {
		case i < 0:
		case e.Kind == step.ArtifactMade:
			if a := ui.Artifact(e); a != nil {
				result.Builds[i].Artifacts = append(result.Builds[i].Artifacts, a)
			}
		case e.Kind == step.BuildFinished:
			result.Builds[i].Reused = e.Reused
		}
	})
	return result, err == nil
}

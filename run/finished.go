package run

import (
	"slices"

	"bake/engine"
	"bake/step"
	"bake/ui"
)

// Finished returns the result of a run whose builds have all succeeded, as recorded in its
// log, for a caller that may have missed the result. ok reports whether there is such a
// run. The inputs of the images are not part of this result.
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

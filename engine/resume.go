package engine

import (
	"context"
	"errors"
	"fmt"

	"bake/builder"
	"bake/step"
)

// The keys under which the engine records how far a build has come.
const (
	finished   = "finished"    // its artifacts
	cleanedUp  = "cleaned up"  // it has failed, and what it made is being destroyed
	artifactIs = "artifact is" // what the builder has made, and the machine is not needed any more
)

// ErrFinished says that a build needs no resuming.
var ErrFinished = errors.New("the build has finished")

// Resumable returns why a build cannot be resumed, from what the journal of its run
// tells: nil if it can, and ErrFinished if it need not.
func Resumable(j step.Journal, build string) error {
	has := func(key string) bool {
		_, ok := j.Result(build, key)
		return ok
	}
	switch {
	case has(finished):
		return ErrFinished
	case has(artifactIs), has(step.Provisioned) && !has(cleanedUp):
		return nil
	case has(cleanedUp):
		return errors.New("the build failed, and what it had made was deleted; with -on-error=keep it stays")
	}
	return errors.New("the build had not finished provisioning, or its builder cannot go on with a machine")
}

// live executes the build, or what of it an earlier life of the run has left to do.
func (x *execution) live(ctx context.Context) ([]*builder.Artifact, error) {
	if x.options.Resume {
		switch err := Resumable(x.options.Journal, x.build.Name); {
		case errors.Is(err, ErrFinished):
			made, _ := step.Recall[[]*builder.Artifact](x.scope, finished)
			x.scope.Say(ctx, "This build had finished before")
			return made, nil
		case err != nil:
			return nil, fmt.Errorf("this build cannot be resumed: %w", err)
		}
	}
	made, err := x.execute(ctx)
	if err == nil {
		step.Record(ctx, x.scope, finished, made)
	}
	return made, err
}

// processed is what a chain of post-processors has made of the builder's artifact, which
// is left out of Made.
type processed struct {
	Made   []*builder.Artifact `json:"made"`
	Passed bool                `json:"passed"` // the builder's artifact is among what it has made
	Kept   bool                `json:"kept"`
}

// recallChain returns what an earlier life of the run has recorded of a chain.
func (x *execution) recallChain(i int, artifact *builder.Artifact) (made []*builder.Artifact, kept, ok bool) {
	p, ok := step.Recall[processed](x.scope, chainKey(i))
	if p.Passed {
		p.Made = append(p.Made, artifact)
	}
	return p.Made, p.Kept, ok
}

// recordChain remembers a chain that has gone well. One that has made an artifact which
// is more than data is run again.
func (x *execution) recordChain(ctx context.Context, i int, artifact *builder.Artifact, made []*builder.Artifact, kept bool) {
	p := processed{Kept: kept}
	for _, a := range made {
		switch {
		case a == artifact:
			p.Passed = true
		case a.Live != nil:
			return
		default:
			p.Made = append(p.Made, a)
		}
	}
	step.Record(ctx, x.scope, chainKey(i), p)
}

func chainKey(i int) string { return fmt.Sprintf("post-processors %d", i+1) }

// remembered reports whether the builder can go on with what it has recorded.
func (x *execution) remembered() bool {
	_, ok := step.Recall[any](x.scope, step.Provisioned)
	return ok
}

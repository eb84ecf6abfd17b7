package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"bake/builder"
	"bake/step"
)

// The journal keys that record the progress of a build.
const (
	finished   = "finished"         // the build's artifacts
	cleanedUp  = "cleaned up"       // the build has failed, and its resources are being destroyed
	artifactIs = "artifact ID"      // of the artifact that the builder has returned; it no longer needs the machine
	madeOnce   = "builder artifact" // of a builder that cannot resume
)

// ErrFinished means that a build need not be resumed.
var ErrFinished = errors.New("the build has finished")

// Resumable returns nil if a build can be resumed, according to the journal of its run, ErrFinished
// if there is nothing to resume, and otherwise an error that says why it cannot be. again means
// that the provisioners will run again on the existing machine.
func Resumable(j step.Results, build string, again bool) error {
	has := func(key string) bool {
		_, ok := j.Result(build, key)
		return ok
	}
	switch {
	case has(finished):
		return ErrFinished
	case has(artifactIs), has(madeOnce):
		return nil
	case has(cleanedUp):
		return errors.New("it failed, and its resources were deleted; -on-error=keep keeps them")
	case has(step.Provisioned):
		return nil
	case !has(step.Resumable):
		return errors.New("its builder had not started, or cannot resume; only its post-processors can be resumed")
	case !has(step.Reached):
		return errors.New("bake had not connected to its machine yet")
	case !again:
		return errors.New("its provisioners had not finished; use -from PROVISIONER to run them again, starting with that one")
	}
	return nil
}

// executeRest executes the build, or the rest of it if an earlier process of the run has executed a part.
func (x *execution) executeRest(ctx context.Context) ([]*builder.Artifact, error) {
	if x.options.Resume {
		switch err := Resumable(x.options.Journal, x.build.Name, x.options.From != "" || x.options.Boundary != nil); {
		case errors.Is(err, ErrFinished):
			made, _ := step.Recall[[]*builder.Artifact](x.scope, finished)
			x.scope.Say(ctx, "This build had already finished")
			return made, nil
		case err != nil && context.Cause(ctx) != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			return nil, fmt.Errorf("this build cannot be resumed: %w", err)
		}
		if _, err := x.first(); err != nil && !x.canResume() && !x.hasArtifact() {
			return nil, err
		}
	}
	made, err := x.execute(ctx)
	if err == nil {
		step.Record(x.scope, finished, made)
	}
	return made, err
}

// processed is the result of a chain of post-processors. Made does not include the builder's
// artifact.
type processed struct {
	Made   []*builder.Artifact `json:"made"`
	Passed bool                `json:"passed"` // the chain has also kept the builder's artifact
	Kept   bool                `json:"kept"`
}

// recallChain returns the result of a chain that an earlier process of the run has recorded.
func (x *execution) recallChain(i int, artifact *builder.Artifact) (made []*builder.Artifact, kept, ok bool) {
	p, ok := step.Recall[processed](x.scope, chainKey(i))
	if p.Passed {
		p.Made = append(p.Made, artifact)
	}
	return p.Made, p.Kept, ok
}

// recordChain records a chain that has succeeded. A chain whose artifacts are not plain data is not
// recorded and will run again.
func (x *execution) recordChain(i int, artifact *builder.Artifact, made []*builder.Artifact, kept bool) {
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
	step.Record(x.scope, chainKey(i), p)
}

func chainKey(i int) string { return fmt.Sprintf("post-processors %d", i+1) }

// canResume reports whether the builder can resume from the results that it has recorded.
func (x *execution) canResume() bool {
	_, ok := step.Recall[any](x.scope, step.Provisioned)
	return ok
}

// hasArtifact reports whether a builder that cannot resume has already returned its
// artifact.
func (x *execution) hasArtifact() bool {
	_, ok := step.Recall[*builder.Artifact](x.scope, madeOnce)
	return ok
}

// recordArtifact records the builder's artifact, before its machine is torn down. An artifact that
// is not plain data cannot be recorded.
func (x *execution) recordArtifact(artifact *builder.Artifact) {
	switch {
	case artifact == nil || artifact.Live != nil:
	case x.canResume():
		step.Record(x.scope, artifactIs, artifact.ID)
	default:
		step.Record(x.scope, madeOnce, artifact)
	}
}

// first returns the index of the first provisioner to run.
func (x *execution) first() (int, error) {
	from := x.options.From
	if from == "" {
		return 0, nil
	}
	if n, err := strconv.Atoi(from); err == nil && n >= 1 && n <= len(x.build.Provisioners) {
		return n - 1, nil
	}
	var found []int
	var all []string
	for i, p := range x.build.Provisioners {
		all = append(all, fmt.Sprintf("\n  %d  %s", i+1, title(p)))
		if p.Name == from || p.Type == from {
			found = append(found, i)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	what := "no provisioner of this build is"
	if len(found) > 1 {
		what = "several provisioners of this build are"
	}
	return 0, fmt.Errorf("%s called %q; name one by its number:%s", what, from, strings.Join(all, ""))
}

// Package postprocessor defines what happens to an artifact once it exists.
package postprocessor

import (
	"context"

	"bake/builder"
	"bake/step"
)

// PostProcessor makes an artifact of an artifact.
type PostProcessor interface {
	// Process returns the artifact that the next post-processor of the chain
	// gets, which may be in itself; nil ends the chain. Keep says what becomes
	// of in when the template does not say.
	Process(ctx context.Context, s *step.Scope, in *builder.Artifact) (*builder.Artifact, Keep, error)
}

// Keep says whether the input artifact is kept when keep_input_artifact is not set.
type Keep int

// What may become of the input artifact.
const (
	Discard     Keep = iota // deleted, unless the template says otherwise
	Kept                    // kept, unless the template says otherwise
	MustKeep                // kept, whatever the template says: the output depends on it
	MustDiscard             // deleted, whatever the template says
)

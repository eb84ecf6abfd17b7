// Package postprocessor defines post-processors, which process the artifacts of builds.
package postprocessor

import (
	"context"

	"bake/builder"
	"bake/step"
)

// PostProcessor turns an artifact into another one.
type PostProcessor interface {
	// Process returns the artifact for the next post-processor of the chain, which may be
	// in itself; nil ends the chain. Keep defines whether in is kept.
	Process(ctx context.Context, s *step.Scope, in *builder.Artifact) (*builder.Artifact, Keep, error)
}

// Keep defines whether an input artifact is kept, depending on keep_input_artifact.
type Keep int

// The values of Keep.
const (
	Discard     Keep = iota // deleted, unless keep_input_artifact is true
	Kept                    // kept, unless keep_input_artifact is false
	MustKeep                // always kept: the output depends on it
	MustDiscard             // always deleted
)

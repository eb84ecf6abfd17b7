package builder

import (
	"context"
	"time"

	"bake/step"
)

// Reusable is a builder that can find images of its earlier builds.
type Reusable interface {
	Builder

	// Incidental returns the arguments and blocks of the source block that do not affect the
	// contents of the image, such as its name and its tags.
	Incidental() []string

	// Lookup finds the source image of the build and the account's available images that
	// have the tag, in every region where the build's images are kept. also lists more
	// regions in which to look for copies. Lookup changes nothing.
	Lookup(ctx context.Context, s *step.Scope, tag, value string, also []string) (LookupResult, error)
}

// LookupResult describes what already exists before a build.
type LookupResult struct {
	Source     string // the source image of the build; empty if there is none
	SourceName string
	Region     string   // of the build
	Regions    []string // where the build's images are kept
	Images     []ExistingImage
	Copies     []ExistingImage // in the additional regions

	// Flaw returns how an available image differs from what the build would make, for
	// example in its sharing; empty if it does not differ. An error means that this could
	// not be determined.
	Flaw func(ctx context.Context, i ExistingImage) (string, error)

	// Artifact returns the artifact of a build that made these images.
	Artifact func(images []ExistingImage) *Artifact
}

// ExistingImage is an image that exists already.
type ExistingImage struct {
	ID, Region, Name string
	Created          time.Time
	Tags             map[string]string
	Snapshots        []string
}

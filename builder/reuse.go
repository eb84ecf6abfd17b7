package builder

import (
	"context"
	"time"

	"bake/step"
)

// Reusable is a builder that can find the images that it has made before.
type Reusable interface {
	Builder

	// Incidental are the arguments and blocks of the source block that say nothing about
	// what is in the image, such as its name and its tags.
	Incidental() []string

	// Lookup finds out what the build would start from, and which available images of the
	// account have the tag, in every region where the images of the build stay. It changes
	// nothing. also are regions to look in for copies besides.
	Lookup(ctx context.Context, s *step.Scope, tag, value string, also []string) (LookupResult, error)
}

// LookupResult is what there is before a build.
type LookupResult struct {
	Source     string // the image that the build starts from; empty if there is none
	SourceName string
	Region     string   // of the build
	Regions    []string // where the images of the build stay
	Images     []ExistingImage
	Copies     []ExistingImage // in the other regions that were asked for

	// Flaw says why one of the images, though it is available, is not what the build would
	// leave: it is not shared as the options say any more, or cannot be launched. It is empty
	// if it is. The error is one of finding out.
	Flaw func(ctx context.Context, i ExistingImage) (string, error)

	// Artifact is the artifact of a build that has made these images.
	Artifact func(images []ExistingImage) *Artifact
}

// ExistingImage is an image that there is.
type ExistingImage struct {
	ID, Region, Name string
	Created          time.Time
	Tags             map[string]string
	Snapshots        []string
}

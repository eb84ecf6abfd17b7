// Package builder defines what turns a source block into a machine image.
package builder

import (
	"context"

	"bake/communicator"
	"bake/step"
)

// Builder makes one image.
type Builder interface {
	// Build makes the image. It calls hooks.Provision once the machine can be reached,
	// and not at all if there is nothing to provision on. Everything it creates
	// it acquires through s; what the artifact consists of it keeps. It returns
	// nil without an error when the template asks for no image, and an artifact
	// with an error when not all that the template asks for could be made: what
	// the artifact consists of is whole, and kept.
	Build(ctx context.Context, s *step.Scope, hooks Hooks) (*Artifact, error)
}

// Hooks are what a builder calls on its way.
type Hooks struct {
	Provision Provision

	// Settle is called by a builder before it takes out of its machine what the first start
	// puts there, and waits until that has ended, though not for ever. Nil: it is not waited for.
	Settle func(ctx context.Context, m Machine) error

	// Start is called by a builder of images before it launches its machine, and returns
	// the ID of another image to launch that from; empty for the one that it was going to. If
	// that other image is gone by then, it is called again, and Unfit says so. Nil: there is no
	// other.
	Start func(ctx context.Context, from Start) (image string, err error)

	// Made is called once by a builder that is [Verifiable], when its image can be launched
	// and before anybody gets it: it is not copied, shared or tagged as the template says.
	// With an error of it the image is deleted like all that the build owns, or set aside
	// if that is a *[RejectedError] that says so. Nil: nothing is to be done.
	Made func(ctx context.Context, image Image) error

	// Marks is called by a builder that is [Verifiable], after Made, and returns tags that
	// the image and each copy of it get before anybody gets them. Nil: there are none.
	Marks func(ctx context.Context) (map[string]string, error)
}

// Provision runs the template's provisioners on m. A builder returns its error
// as it is.
type Provision func(ctx context.Context, m Machine) error

// Machine is what a provisioner may know of the machine it runs on.
type Machine struct {
	communicator.Communicator

	// Data are the values of build.* in the template, such as "ID", "Host", "Port",
	// "User" and what the builder exports.
	Data Data

	// Uploads are the rules for files that provisioners upload for good.
	Uploads []*Upload

	// Leftovers takes what provisioners could not remove from the machine.
	Leftovers *Leftovers
}

// Artifact is what a build or a post-processor leaves behind. It is plain data,
// except for Live.
type Artifact struct {
	BuilderID string            `json:"builder_id"` // such as "mitchellh.amazonebs"
	ID        string            `json:"id"`
	Text      string            `json:"text"` // for people; may have several lines
	Files     []string          `json:"files,omitempty"`
	Data      Data              `json:"data,omitempty"`      // build.* for post-processors
	Resources []step.Resource   `json:"resources,omitempty"` // what deleting the artifact deletes
	Images    map[string]string `json:"images,omitempty"`    // region -> image id

	// Live is the artifact where it is more than data; nil where it is not. Nobody asks
	// it anything once its build is over.
	Live LiveArtifact `json:"-"`
}

// LiveArtifact is an artifact that something can be asked which only its maker knows. It is
// comparable, and the artifact that a post-processor passes on has the one it came with.
type LiveArtifact interface {
	// State is the value that a later post-processor asks for by name; nil if there is none.
	State(ctx context.Context, name string) (any, error)

	// Destroy deletes what the artifact consists of, and succeeds if that is gone already.
	Destroy(ctx context.Context) error

	// Close is called once, when nothing can be asked any more: after the last
	// post-processor of the build, and after what is not kept was destroyed.
	Close() error
}

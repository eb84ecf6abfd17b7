// Package builder defines the interface of builders, which turn a source block into a
// machine image, and the types that they share with the engine.
package builder

import (
	"context"

	"bake/communicator"
	"bake/step"
)

// Builder makes one image.
type Builder interface {
	// Build makes the image. It calls hooks.Provision once the machine is reachable, or not
	// at all if there is no machine. It acquires every resource through s, and releases
	// those that the artifact consists of. It returns a nil artifact and no error if the
	// template asks for no image. It returns both an artifact and an error if only part of
	// what the template asks for could be made; what the artifact lists is then complete
	// and kept.
	Build(ctx context.Context, s *step.Scope, hooks Hooks) (*Artifact, error)
}

// Hooks are the callbacks of a build. Each except Provision may be nil.
type Hooks struct {
	Provision Provision

	// AwaitFirstBoot waits, for a limited time, until the first boot of m has finished
	// (cloud-init, for example). A builder calls it before it removes from the machine what
	// the first boot has written, such as the temporary key.
	AwaitFirstBoot func(ctx context.Context, m Machine) error

	// ResolveSource is called before the machine is launched. It returns the ID of an image
	// to launch from instead of from.Image, or "" to use from.Image. If the returned image no
	// longer exists at launch, ResolveSource is called again with from.Gone set to its ID.
	ResolveSource func(ctx context.Context, from LaunchSource) (image string, err error)

	// ImageCreated is called once by a [Verifiable] builder, when the image can be launched
	// but has not been copied, shared or tagged yet. If it returns an error, the image is
	// deleted with the other resources of the build, unless the error is a *[RejectedError]
	// with another action.
	ImageCreated func(ctx context.Context, image Image) error

	// ImageTags is called by a [Verifiable] builder after ImageCreated. It returns tags for
	// the image and its copies, in addition to the template's; they are set before the
	// images are shared.
	ImageTags func(ctx context.Context) (map[string]string, error)
}

// Provision runs the template's provisioners on m. A builder returns its error unchanged.
type Provision func(ctx context.Context, m Machine) error

// Machine is the machine that a provisioner runs on.
type Machine struct {
	communicator.Communicator

	// Data holds the values of build.* in the template: "ID", "Host", "Port", "User" and
	// those that the builder exports.
	Data Data

	// Uploads are the rules for owner and mode of files that provisioners leave on the machine.
	Uploads []*Upload

	// Leftovers collects the temporary files that provisioners could not remove.
	Leftovers *Leftovers
}

// Artifact is the result of a build or of a post-processor. Except for Live, it is plain
// data, which can be encoded as JSON.
type Artifact struct {
	BuilderID string            `json:"builder_id"` // such as "mitchellh.amazonebs"
	ID        string            `json:"id"`
	Text      string            `json:"text"` // for people; may have several lines
	Files     []string          `json:"files,omitempty"`
	Data      Data              `json:"data,omitempty"`      // build.* for post-processors
	Resources []step.Resource   `json:"resources,omitempty"` // what deleting the artifact deletes
	Images    map[string]string `json:"images,omitempty"`    // region -> image id

	// Live gives access to a component, such as a plugin, that still holds the artifact; nil if
	// none does. It is not used after the build has ended.
	Live LiveArtifact `json:"-"`
}

// LiveArtifact is an artifact that is still held by the component that made it. Values
// are comparable: a post-processor that returns its input returns the same Live.
type LiveArtifact interface {
	// State returns the named value for a later post-processor; nil if there is none.
	State(ctx context.Context, name string) (any, error)

	// Destroy deletes what the artifact consists of. It succeeds if that no longer exists.
	Destroy(ctx context.Context) error

	// Close releases the artifact. It is called once, after the last post-processor of the
	// build and after artifacts that are not kept were destroyed.
	Close() error
}

// Package provisioner defines provisioners, which change a machine before an image is
// made of it.
package provisioner

import (
	"context"

	"bake/builder"
	"bake/step"
)

// Provisioner changes a running machine.
type Provisioner interface {
	// Provision makes the changes on m and leaves no temporary files there. It may be called again
	// after a failure.
	Provision(ctx context.Context, s *step.Scope, m builder.Machine) error
}

// Keyed is a provisioner that affects nothing but the machine, and whose effect can be determined
// in advance. A machine on which it has run need not be built again.
type Keyed interface {
	// Key returns everything that determines the effect: the options, which can be encoded as
	// JSON, and the files and directories on this host that are read. An error says why that
	// cannot be determined.
	Key() (options any, files []string, err error)
}

// Package provisioner defines what changes a machine before it becomes an image.
package provisioner

import (
	"context"

	"bake/builder"
	"bake/step"
)

// Provisioner changes a running machine.
type Provisioner interface {
	// Provision does its work on m and leaves no temporary files there. It may be
	// called again after it failed.
	Provision(ctx context.Context, s *step.Scope, m builder.Machine) error
}

// Keyed is a provisioner all of whose effect is on the machine, and can be told in
// advance: a machine on which it has run need not be made again.
type Keyed interface {
	// Key returns everything that decides what the provisioner does: its options, which
	// encode as JSON, and the files and directories of this host that it reads. An error
	// says why that cannot be told.
	Key() (options any, files []string, err error)
}

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

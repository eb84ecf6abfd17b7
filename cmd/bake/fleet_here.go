//go:build !temporal

package main

import (
	"context"

	"bake/fleet"
)

// temporalEngine is the engine for Temporal; nil if this program has none.
func temporalEngine(context.Context, fleet.Host, *fleet.Temporal) (fleet.Engine, error) {
	return nil, nil //nolint:nilnil // as it says
}

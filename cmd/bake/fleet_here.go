//go:build !temporal

package main

import (
	"context"

	"bake/fleet"
	"bake/run"
	"bake/run/localcloud"
	"bake/step"
)

// temporalEngine returns the engine for Temporal; nil if this program has none.
func temporalEngine(context.Context, fleet.Host, *fleet.Temporal) (fleet.Engine, error) {
	return nil, nil // as it says
}

// promoteCell returns nil, since this program has no engine that would call it.
func (p *program) promoteCell(*fleetFlags, *localcloud.Clouds, run.State) func(context.Context, fleet.PendingImage, fleet.Wait, func(step.Event)) ([]step.Channel, error) {
	return nil
}

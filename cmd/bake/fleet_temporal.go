//go:build temporal

package main

import (
	"context"

	"bake/fleet"
	"bake/fleet/temporal"
	"bake/internal/envvar"
)

// metricsVar is the environment variable with the address at which a worker serves metrics.
const metricsVar = "BAKE_METRICS"

// temporalEngine is the engine for Temporal.
func temporalEngine(_ context.Context, h fleet.Host, _ *fleet.Temporal) (fleet.Engine, error) {
	return &temporal.Engine{Host: h, Metrics: envvar.Get(h.Env, metricsVar)}, nil
}

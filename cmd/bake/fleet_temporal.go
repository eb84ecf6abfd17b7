//go:build temporal

package main

import (
	"context"
	"errors"
	"fmt"

	"bake/builder"
	"bake/builder/amazon"
	"bake/fleet"
	"bake/fleet/temporal"
	"bake/internal/envvar"
	"bake/run"
	"bake/run/localcloud"
	"bake/run/releases"
	"bake/step"
)

// metricsVar is the environment variable with the address at which a worker serves metrics.
const metricsVar = "BAKE_METRICS"

// temporalEngine returns the engine for Temporal.
func temporalEngine(_ context.Context, h fleet.Host, _ *fleet.Temporal) (fleet.Engine, error) {
	return &temporal.Engine{Host: h, Metrics: envvar.Get(h.Env, metricsVar)}, nil
}

// promoteCell returns a function that moves the channels of a cell's image to the image, if their
// rules admit it. clouds contains the local cloud.
func (p *program) promoteCell(f *fleetFlags, clouds *localcloud.Clouds, state run.State) func(context.Context, fleet.PendingImage, fleet.Wait, func(step.Event)) ([]step.Channel, error) {
	return func(ctx context.Context, in fleet.PendingImage, wait fleet.Wait, emit func(step.Event)) (said []step.Channel, err error) {
		o := in.Outcome
		t, err := f.template(p, "bake worker", f.path)
		if err != nil {
			return nil, err
		}
		block, err := run.Image(ctx, t, p.components(t.Options, f.releases)(ctx, p.parts()), o.Cell.Image)
		if err == nil && block == nil {
			err = fmt.Errorf("%w: the template has none called %q", fleet.ErrGone, o.Cell.Image)
		}
		if err != nil {
			return nil, err
		}
		var cloud amazon.Cloud
		if f.local {
			if cloud, err = clouds.Named(ctx, localcloud.Name); err != nil {
				return nil, err
			}
		}
		cloud.Wait = wait
		account, err := p.accountOf(ctx, cloud, o.Cell, "promote")
		if err != nil {
			return nil, err
		}
		_, err = run.Task(ctx, run.TaskOptions{State: state, Command: p.commandLine(), Name: o.Cell.Short(), Emit: emit, Now: p.now}, func(ctx context.Context, s *step.Scope) (err error) {
			m := &releases.Mover{Image: o.Cell.Image, Block: block, Distributor: account.NewDistributor(block.To, s.Run.ID), Scope: s, Now: p.now}
			said, err = m.PromotePending(ctx, o.Image.ID, builderPlaces(in.Places), in.Since)
			return err
		})
		if errors.Is(err, releases.ErrGone) {
			err = fmt.Errorf("%w: %s", fleet.ErrGone, o.Image.ID)
		}
		return said, err
	}
}

// builderPlaces converts the places in events and histories for builders.
func builderPlaces(all []step.Placement) (out []builder.Placement) {
	for _, p := range all {
		out = append(out, builder.Placement{Account: p.Account, Region: p.Region, ID: p.ID, Shared: p.Shared})
	}
	return out
}

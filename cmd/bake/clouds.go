package main

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"bake/builder"
	"bake/builder/amazon"
	"bake/step"
)

// clouds brings up the clouds that resources are in, when they are needed.
type clouds struct {
	program *program
	emit    func(step.Event)

	mu    sync.Mutex
	local *localCloud
}

// named returns the cloud that a resource names. It is what [amazon.Destroyer] asks.
func (c *clouds) named(ctx context.Context, name string) (amazon.Cloud, error) {
	if name == "" {
		return amazon.Cloud{}, nil
	}
	if name != localName {
		return amazon.Cloud{}, fmt.Errorf("there is no cloud called %q here", name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.local == nil {
		local, err := c.program.openLocal(ctx, "", c.emit)
		if err != nil {
			return amazon.Cloud{}, err
		}
		c.local = local
	}
	return c.local.Cloud, nil
}

func (c *clouds) destroyers() step.Destroyers {
	return step.Destroyers{
		amazon.Prefix:      amazon.Destroyer(c.named),
		builder.FilePrefix: step.DestroyerFunc(builder.DestroyFile),
	}
}

// tagged finds what carries a run tag and belongs to no run that is going on here,
// newest last, as a ledger would hold it.
func (c *clouds) tagged(ctx context.Context, o sweepOptions, live []string) ([]step.Resource, error) {
	place := amazon.Place{Region: o.region, Profile: o.profile}
	if o.local {
		cloud, err := c.named(ctx, localName)
		if err != nil {
			return nil, err
		}
		place.Cloud = cloud
	} else if o.run == "" && !o.force && !o.dryRun {
		return nil, usageError{"name the run with -run, or allow with -force that whatever any run has made is deleted, even if that run is going on somewhere else", "bake sweep"}
	}
	found, err := amazon.FindTagged(ctx, place, o.run)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(r step.Resource) bool { return slices.Contains(live, r.With["run"]) })
	slices.Reverse(found) // ledgers are torn down from their end
	return found, nil
}

// close lets go of the clouds; machines that still run are killed when stop ends.
func (c *clouds) close(stop context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.local == nil {
		return nil
	}
	local := c.local
	c.local = nil
	return local.close(stop)
}

// onlyLocal says whether a run has made things on the local cloud alone.
func onlyLocal(owned []step.Resource) bool {
	return !slices.ContainsFunc(owned, func(r step.Resource) bool { return r.With["cloud"] != localName })
}

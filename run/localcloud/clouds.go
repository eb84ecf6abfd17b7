package localcloud

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"bake/builder"
	"bake/builder/amazon"
	"bake/step"
)

// Clouds opens the clouds that contain resources, when they are needed.
type Clouds struct {
	// Open opens the local cloud the first time it is needed. If it is nil, resources on the
	// local cloud cannot be reached.
	Open func(context.Context) (*Cloud, error)

	// Hold applies the limits of the run to each cloud before it is used. Nil: no limits.
	Hold func(amazon.Cloud) amazon.Cloud

	mu    sync.Mutex
	local *Cloud
}

// Named returns the cloud that a resource names, for [amazon.Destroyer].
func (c *Clouds) Named(ctx context.Context, name string) (amazon.Cloud, error) {
	cloud, err := c.named(ctx, name)
	if err == nil && c.Hold != nil {
		cloud = c.Hold(cloud)
	}
	return cloud, err
}

func (c *Clouds) named(ctx context.Context, name string) (amazon.Cloud, error) {
	if name == "" {
		return amazon.Cloud{}, nil
	}
	if name != Name || c.Open == nil {
		return amazon.Cloud{}, fmt.Errorf("there is no cloud called %q here", name)
	}
	local, err := c.opened(ctx)
	if err != nil {
		return amazon.Cloud{}, err
	}
	return local.Cloud, nil
}

// opened returns the local cloud, and opens it on the first call.
func (c *Clouds) opened(ctx context.Context) (*Cloud, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.local == nil {
		local, err := c.Open(ctx)
		if err != nil {
			return nil, err
		}
		c.local = local
	}
	return c.local, nil
}

// Waiting returns the same clouds with the same restrictions, and calls wait before each
// call of a service in a region. If wait is nil, nothing is called. c may be nil. The
// caller closes c, which closes what the returned clouds have opened.
func (c *Clouds) Waiting(wait func(ctx context.Context, service, region string) error) *Clouds {
	held := &Clouds{Hold: func(cloud amazon.Cloud) amazon.Cloud {
		if c != nil && c.Hold != nil {
			cloud = c.Hold(cloud)
		}
		if wait != nil {
			cloud.Wait = wait
		}
		return cloud
	}}
	if c != nil && c.Open != nil {
		held.Open = c.opened
	}
	return held
}

// Destroyers returns destroyers for everything that builds have made, according to the
// recorded resources.
func (c *Clouds) Destroyers() step.Destroyers {
	return step.Destroyers{
		amazon.Prefix:      amazon.Destroyer(c.Named),
		builder.FilePrefix: step.DestroyerFunc(builder.DestroyFile),
	}
}

// Close releases the clouds; machines that are still running are killed when stop ends.
func (c *Clouds) Close(stop context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.local == nil {
		return nil
	}
	local := c.local
	c.local = nil
	return local.Close(stop)
}

// Only reports whether all resources in owned are on the local cloud.
func Only(owned []step.Resource) bool {
	return !slices.ContainsFunc(owned, func(r step.Resource) bool { return r.With["cloud"] != Name })
}

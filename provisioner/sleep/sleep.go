// Package sleep is the provisioner that waits for a given time.
package sleep

import (
	"context"
	"time"

	"bake/builder"
	"bake/component"
	"bake/config/schema"
	"bake/internal/delay"
	"bake/provisioner"
	"bake/step"
)

// Options are the arguments of a sleep provisioner.
type Options struct {
	// How long to wait.
	Duration time.Duration `hcl:"duration"`
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	if o.Duration < 0 {
		c.Errorf(&o.Duration, "Negative duration", "duration cannot be negative.")
	}
}

// Factory returns the factory of the sleep provisioner.
func Factory() component.Factory[provisioner.Provisioner] {
	return component.Define("sleep", func() Options { return Options{} },
		func(o *Options, _ *schema.Source) provisioner.Provisioner { return sleeper(o.Duration) })
}

type sleeper time.Duration

// Provision implements [provisioner.Provisioner].
func (d sleeper) Provision(ctx context.Context, _ *step.Scope, _ builder.Machine) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return delay.For(ctx, time.Duration(d))
}

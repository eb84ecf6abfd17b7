package engine_test

import (
	"context"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/engine"
	"bake/step"
)

func onError(s string) engine.OnError { return engine.OnError(s) }

func runWithStop(ctx, stop context.Context, f *fixture) (engine.Result, hcl.Diagnostics) {
	return engine.Run(ctx, stop, f.template, f.world.components(), f.options)
}

// handedOver reports whether the thing with this key belongs to an artifact.
func handedOver(artifacts []*builder.Artifact, key string) bool {
	return slices.ContainsFunc(artifacts, func(a *builder.Artifact) bool {
		return slices.ContainsFunc(a.Resources, func(r step.Resource) bool { return r.Key == key })
	})
}

func sameSet(a, b []string) bool {
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

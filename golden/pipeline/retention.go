package pipeline

import (
	"context"

	"bake/builder"
	"bake/step"
)

// retain retires older images of the same name, even if this image was reused: the older
// ones may have reached an age limit since.
func (p *pipeline) retain(ctx context.Context, s *step.Scope, made *builder.Artifact) error {
	r := p.image.Image.Retained(p.image.Name)
	return step.Run(ctx, s.As("bake"), "retire older images", func(ctx context.Context) error { return p.Retire(ctx, s, made, r) })
}

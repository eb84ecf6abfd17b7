package pipeline

import (
	"context"
	"encoding/json"
	"fmt"

	"bake/builder"
	"bake/golden/changes"
	"bake/internal/imagetag"
	"bake/step"
)

// difference is how an image differs from the previous one.
type difference struct {
	Before  string      `json:"before"` // ID of the previous image
	After   string      `json:"after"`
	Changes changes.Set `json:"changes"`
}

// compare writes how the image differs from the newest image of the same name, as far as
// that is known. This is informative, so failures are warnings.
func (p *pipeline) compare(ctx context.Context, s *step.Scope, image builder.Image) error {
	if image.Previous == nil || !p.listsFiles() {
		return nil
	}
	return step.Run(ctx, s, "compare with the image before", func(ctx context.Context) error {
		previous, err := image.Previous(ctx, imagetag.Image, p.image.Name)
		if err != nil {
			s.Warn(ctx, "Nothing is known of the image before: %s", err)
			return nil
		}
		if previous == nil {
			s.Say(ctx, "This is the first image %q in %s", p.image.Name, image.Region)
			return nil
		}
		set, err := p.changes(ctx, s, previous)
		if err != nil {
			s.Warn(ctx, "The image cannot be compared with %s: %s", previous.ID, err)
			return nil
		}
		text, err := json.MarshalIndent(difference{previous.ID, image.ID, set}, "", "  ")
		if err != nil {
			return err
		}
		digest, err := p.keep(ctx, s, p.title(s), changes.Extension, append(text, '\n'))
		if err != nil {
			return fmt.Errorf("writing the changes: %w", err)
		}
		if err := p.announce(ctx, s, "changes", changes.Extension, digest); err != nil {
			return err
		}
		s.Say(ctx, "Compared with %s:\n%s", previous.ID, set.Text())
		return nil
	})
}

// changes compares the reports about the image with those about the previous one.
func (p *pipeline) changes(ctx context.Context, s *step.Scope, previous *builder.PreviousImage) (set changes.Set, err error) {
	tags, err := p.imageTags(ctx, s)
	if err != nil {
		return set, err
	}
	after, err := changes.FromReports(ctx, p.Reports, tags)
	if err != nil {
		return set, err
	}
	before, err := changes.FromReports(ctx, p.reportsOf(previous.Tags), previous.Tags)
	if err != nil {
		return set, err
	}
	return changes.Between(before, after), nil
}

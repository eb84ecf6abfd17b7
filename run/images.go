package run

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/config"
	"bake/engine"
	"bake/golden/bakefile"
	"bake/golden/channels"
)

// Channel is a channel of an image, as defined by its block.
type Channel struct {
	channels.Rule
	Parameter      string
	Webhook        string // called when the channel has moved; may be empty
	WebhookUnknown bool   // there is a webhook, but its URL is known only in a build
}

// ImageBlock is the part of an image block that defines the distribution of its images.
type ImageBlock struct {
	To       builder.Distribution
	Channels []Channel
}

// Approvable returns an error unless the image block has a channel of that name that takes
// approvals. A nil block has none.
func (b *ImageBlock) Approvable(image, channel string) error {
	names := []string{"none"}
	if b != nil && len(b.Channels) > 0 {
		names = nil
		for _, one := range b.Channels {
			switch {
			case one.Name == channel && one.Approval:
				return nil
			case one.Name == channel:
				return fmt.Errorf("the channel %s of image %s does not use approval: its block lacks approval = true", channel, image)
			}
			names = append(names, one.Name)
		}
	}
	return fmt.Errorf("the image %s has no channel %q; it has: %s", image, channel, strings.Join(names, ", "))
}

// Image reads the image block with that name from the bake files of a template. It returns
// nil if there is none. Errors in the files are returned as a *[TemplateError].
func Image(ctx context.Context, t Template, all engine.Components, name string) (*ImageBlock, error) {
	t.DataSources = all.DataSources
	of, diags := config.ReadImages(ctx, t.Options)
	if diags.HasErrors() {
		return nil, &TemplateError{diags, of.Files}
	}
	for _, i := range of.All {
		if of.Apart && i.Name() == name {
			t.Instance = &i.Instance
		}
	}
	if of.Apart && t.Instance == nil {
		return nil, nil
	}
	template, diags := config.Load(ctx, t.Options)
	if diags.HasErrors() {
		return nil, &TemplateError{diags, template.Files()}
	}
	settings, more := bakefile.Check(ctx, template)
	if more.HasErrors() {
		return nil, &TemplateError{more, template.Files()}
	}
	for _, i := range settings.Images() {
		if i.Name != name {
			continue
		}
		block := &ImageBlock{To: i.Image.Distribution()}
		for n := range i.Image.Channels {
			h := &i.Image.Channels[n]
			for _, option := range []any{&h.Requires, &h.From, &h.Soak, &h.Approval, &h.Parameter} {
				if !i.Src.Known(option) {
					return nil, &TemplateError{hcl.Diagnostics{{
						Severity: hcl.DiagError, Summary: "Unknown channel", Subject: i.Src.Range(option),
						Detail: "What a channel asks of an image must be known without data sources.",
					}}, template.Files()}
				}
			}
			c := Channel{Rule: h.Rule(), Parameter: h.ParameterOf(name), Webhook: h.Webhook}
			if !i.Src.Known(&h.Webhook) {
				c.Webhook, c.WebhookUnknown = "", true
			}
			block.Channels = append(block.Channels, c)
		}
		return block, nil
	}
	return nil, nil
}

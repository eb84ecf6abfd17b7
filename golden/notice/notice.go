// Package notice makes and sends the notices that the webhook of a channel receives
// whenever the channel has moved.
package notice

import (
	"context"
	"time"

	"bake/builder"
	"bake/internal/webhook"
	"bake/step"
)

// Notice lists the images that a channel now names.
type Notice struct {
	Image   string   `json:"image"`
	Channel string   `json:"channel"`
	Run     string   `json:"run"`
	At      string   `json:"at"`
	Images  []Image  `json:"images"`
	Passed  []string `json:"passed"`
}

// Image is an image in its place.
type Image struct {
	Account string `json:"account"`
	Region  string `json:"region"`
	ID      string `json:"id"`
}

// New returns the notice for a channel of an image that now names the images in placed,
// which have passed the checks in passed.
func New(image, channel, run string, at time.Time, placed []builder.Placement, passed []string) Notice {
	n := Notice{Image: image, Channel: channel, Run: run, At: at.UTC().Format(time.RFC3339), Images: []Image{}, Passed: append([]string{}, passed...)} // an empty list, not null, if there are none
	for _, p := range placed {
		n.Images = append(n.Images, Image{p.Account, p.Region, p.ID})
	}
	return n
}

// limit is the time limit of each attempt to call a webhook.
const limit = 10 * time.Second

// Send posts the notice to a URL, unless that is empty. A failure is only a warning, since
// the channel has already moved.
func (n Notice) Send(ctx context.Context, s *step.Scope, to string) {
	if to == "" {
		return
	}
	err := webhook.Hook{URL: to, Timeout: limit}.Send(ctx, n)
	if err != nil && context.Cause(ctx) == nil {
		s.Warn(ctx, "The webhook of channel %s was not told: %s", n.Channel, err)
	}
}

package pipeline

import (
	"context"
	"maps"
	"slices"
	"time"

	"bake/builder"
	"bake/golden/bakefile"
	"bake/golden/channels"
	"bake/internal/imagetag"
	"bake/internal/webhook"
	"bake/step"
)

// why is a line for the history of a channel.
func (p *pipeline) why(s *step.Scope, from string) string {
	what := "built"
	if from != "" {
		what = "promoted from " + from
	}
	return channels.Why(what, s.Run.ID)
}

// state is what is known of the image for a channel.
func (p *pipeline) state(ctx context.Context, s *step.Scope, out builder.Outlet, h *bakefile.Channel) (channels.State, error) {
	p.mu.Lock()
	p.recall(s)
	state := channels.State{Passed: slices.Sorted(maps.Keys(p.passes)), Now: p.Now()}
	p.mu.Unlock()
	if len(state.Passed) == 0 && len(p.placed) > 0 { // the image was there before the run
		tags, err := out.Tags(ctx, p.placed[0])
		if err != nil {
			return state, err
		}
		var told bool
		state.Passed, told = channels.Passed(tags[imagetag.Verified])
		state.Untold = !told
	}
	for i := range p.image.Image.Channels {
		from := &p.image.Image.Channels[i]
		if from.Name != h.From {
			continue
		}
		in, err := out.Channel(ctx, from.ParameterOf(p.image.Name), p.placed)
		if err != nil {
			return state, err
		}
		state.In, state.Since = in.Names, in.Since
	}
	if !h.Approval {
		return state, nil
	}
	state.Approved = true
	for _, at := range p.placed {
		if at.Shared {
			continue
		}
		tags, err := out.Tags(ctx, at)
		if err != nil {
			return state, err
		}
		state.Approved = state.Approved && tags[channels.ApprovalTag(h.Name)] != ""
		break
	}
	return state, nil
}

// notice is what a webhook is told.
type notice struct {
	Image   string   `json:"image"`
	Channel string   `json:"channel"`
	Run     string   `json:"run"`
	At      string   `json:"at"`
	Images  []spot   `json:"images"`
	Passed  []string `json:"passed"`
}

type spot struct {
	Account string `json:"account"`
	Region  string `json:"region"`
	ID      string `json:"id"`
}

// tellLimit is how long a webhook may take, each time.
const tellLimit = 10 * time.Second

// notify tells the webhook of a channel that it has moved. The channel has, whether the
// webhook hears of it or not: a failure is a warning. It is told what the image has passed, in
// this run or an earlier one.
func (p *pipeline) notify(ctx context.Context, s *step.Scope, h *bakefile.Channel, passed []string) {
	if h.Webhook == "" {
		return
	}
	n := notice{Image: p.image.Name, Channel: h.Name, Run: s.Run.ID, At: p.Now().UTC().Format(time.RFC3339)}
	n.Images, n.Passed = []spot{}, append([]string{}, passed...) // not null where there are none
	for _, at := range p.placed {
		n.Images = append(n.Images, spot{at.Account, at.Region, at.ID})
	}
	err := webhook.Hook{URL: h.Webhook, Timeout: tellLimit}.Tell(ctx, n)
	if err == nil || context.Cause(ctx) != nil {
		return
	}
	s.Warn(ctx, "The webhook of channel %s was not told: %s", h.Name, err)
}

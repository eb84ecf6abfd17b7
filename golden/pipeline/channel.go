package pipeline

import (
	"context"
	"maps"
	"slices"

	"bake/builder"
	"bake/golden/bakefile"
	"bake/golden/channels"
	"bake/golden/notice"
	"bake/internal/imagetag"
	"bake/step"
)

// state returns what is known about the image for a channel.
func (p *pipeline) state(ctx context.Context, s *step.Scope, out builder.Distributor, h *bakefile.Channel) (channels.State, error) {
	p.mu.Lock()
	p.recall(s)
	state := channels.State{Passed: slices.Sorted(maps.Keys(p.passes)), Now: p.Now()}
	p.mu.Unlock()
	if len(state.Passed) == 0 && len(p.placed) > 0 { // the image existed before the run
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

// notify calls the webhook of a channel when the channel has moved. The notice lists what
// the image has passed, in this run or an earlier one.
func (p *pipeline) notify(ctx context.Context, s *step.Scope, h *bakefile.Channel, passed []string) {
	notice.New(p.image.Name, h.Name, s.Run.ID, p.Now(), p.placed, passed).Send(ctx, s, h.Webhook)
}

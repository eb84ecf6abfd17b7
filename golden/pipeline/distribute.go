package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"bake/builder"
	"bake/golden/channels"
	"bake/step"
)

// OpenDistributor returns the distributor of the images of a builder.
type OpenDistributor func(ctx context.Context, s *step.Scope, b builder.Builder, d builder.Distribution) (builder.Distributor, error)

// distributes reports whether the image's block distributes it.
func (p *pipeline) distributes() bool {
	return p.image.Image.Distribute != nil || len(p.image.Image.Channels) > 0
}

// parameters returns the channels.
func (p *pipeline) parameters() (names []string) {
	for i := range p.image.Image.Channels {
		names = append(names, p.image.Image.Channels[i].ParameterOf(p.image.Name))
	}
	return names
}

// checkDistributable returns an error if images of the builder cannot be distributed.
func (p *pipeline) checkDistributable(b builder.Builder) error {
	if p.Distributes == nil || p.Distributes(b) {
		return nil
	}
	return errors.New("only images of the Amazon builders can be; remove the distribute and channel blocks of this source")
}

// distributor returns the distributor of the build. It opens it only once.
func (p *pipeline) distributor(ctx context.Context, s *step.Scope, b builder.Builder) (builder.Distributor, error) {
	if p.out != nil {
		return p.out, nil
	}
	var err error
	p.out, err = p.OpenDistributor(ctx, s, b, p.image.Image.Distribution())
	return p.out, err
}

// prepare checks that the image can be distributed, before it is made.
func (p *pipeline) prepare(ctx context.Context, s *step.Scope, b builder.Builder) error {
	return step.Run(ctx, s.As("bake"), "check the distribution", func(ctx context.Context) error {
		out, err := p.distributor(ctx, s, b)
		if err != nil {
			return err
		}
		return out.Check(ctx)
	})
}

// distribute copies and shares the image as its block requests.
func (p *pipeline) distribute(ctx context.Context, s *step.Scope, b builder.Builder, made *builder.Artifact) error {
	s = s.As("bake")
	out, err := p.distributor(ctx, s, b)
	if err != nil {
		return err
	}
	p.placed, err = out.Distribute(ctx, s, made.Images)
	for _, at := range p.placed {
		s.Placed(ctx, step.Placement{Account: at.Account, Region: at.Region, ID: at.ID, Shared: at.Shared})
		switch _, known := made.Images[at.Region]; {
		case at.Resource.ID != "" && !known:
			made.Images[at.Region] = at.ID
			made.Resources = append(made.Resources, at.Resource)
			made.ID += "," + at.Region + ":" + at.ID
			made.Text += at.Region + ": " + at.ID + "\n"
		case at.Shared:
			s.Say(ctx, "Image %s in %s is shared with account %s", at.ID, at.Region, at.Account)
		}
	}
	if err == nil || context.Cause(ctx) != nil {
		return err
	}
	if d := p.image.Image.Distribute; d != nil && d.AllOrNone || len(p.placed) == 0 || len(p.image.Image.Channels) == 0 {
		return fmt.Errorf("the image is not everywhere, and no channel is moved: %w", err)
	}
	return errors.Join(fmt.Errorf("the image is not everywhere: %w", err), p.release(ctx, s, b, made))
}

// release moves the channels that the image may enter to it, one after the other.
func (p *pipeline) release(ctx context.Context, s *step.Scope, b builder.Builder, _ *builder.Artifact) error {
	s = s.As("bake")
	if len(p.image.Image.Channels) == 0 {
		return nil
	}
	out, err := p.distributor(ctx, s, b)
	if err != nil {
		return err
	}
	for i := range p.image.Image.Channels {
		h := &p.image.Image.Channels[i]
		err := step.Run(ctx, s, "channel "+h.Name, func(ctx context.Context) (err error) {
			parameter := h.ParameterOf(p.image.Name)
			says := step.Channel{Name: h.Name, Parameter: parameter}
			defer func() {
				if err != nil {
					says.Names, says.Reasons = false, []string{err.Error()}
				}
				s.Channel(ctx, says)
			}()
			now, err := out.Channel(ctx, parameter, p.placed)
			says.Names = now.Names
			switch {
			case err != nil || now.Names:
				return err
			case now.TakenBack:
				says.Reasons = []string{"it was taken back"}
				s.Say(ctx, "The image was taken back from channel %s; 'bake images promote' puts it there again", h.Name)
				return nil
			}
			state, err := p.state(ctx, s, out, h)
			if err != nil {
				return err
			}
			var wait channels.Wait
			says.Reasons, wait = h.Rule().Closed(state)
			says.Until, says.Approval = wait.Until, wait.Approval
			if len(says.Reasons) > 0 {
				s.Say(ctx, "The image does not enter channel %s: %s", h.Name, strings.Join(says.Reasons, "; "))
				return nil
			}
			what := "built"
			if h.From != "" {
				what = "promoted from " + h.From
			}
			if err := out.MoveChannel(ctx, s, parameter, what, p.placed); err != nil {
				return err
			}
			says.Names = true
			s.Say(ctx, "Channel %s (%s) names the image", h.Name, parameter)
			p.notify(ctx, s, h, state.Passed)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

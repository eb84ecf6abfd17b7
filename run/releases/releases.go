// Package releases moves the channels of existing images: by promotion, by rollback,
// and away from revoked images. It notifies the webhooks of the channels.
package releases

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"bake/builder"
	"bake/builder/amazon/images"
	"bake/golden/channels"
	"bake/golden/notice"
	"bake/internal/imagetag"
	"bake/run"
	"bake/step"
)

// Mover moves the channels of one image.
type Mover struct {
	Image       string              // its name
	Block       *run.ImageBlock     // the rules of its channels; nil: the channels are parameters of the account, without rules
	Distributor *images.Distributor // for all places of the channels
	Scope       *step.Scope         // of the run that moves them
	Now         func() time.Time
}

// Moved holds the images that a moved channel now names.
type Moved struct {
	Parameter string
	Release   string
	Images    []builder.Placement // empty if they could not be read afterwards
}

// ClosedError is a channel's refusal of a release: nothing has changed.
type ClosedError struct {
	release, Channel string
	Reasons          []string
}

func (e *ClosedError) Error() string {
	return fmt.Sprintf("%s cannot enter channel %s: %s", e.release, e.Channel, strings.Join(e.Reasons, "; "))
}

// Channel returns the channel of the image with this name. If there is none, the error
// lists the existing channels.
func (m *Mover) Channel(name string) (run.Channel, error) {
	if m.Block == nil {
		return run.Channel{Rule: channels.Rule{Name: name}, Parameter: channels.Parameter(m.Image, name)}, nil
	}
	var names []string
	for _, c := range m.Block.Channels {
		if c.Name == name {
			return c, nil
		}
		names = append(names, c.Name)
	}
	return run.Channel{}, fmt.Errorf("the image %q has no channel %q; it has: %s", m.Image, name, strings.Join(names, ", "))
}

// channels returns the channels that have rules.
func (m *Mover) channels() []run.Channel {
	if m.Block == nil {
		return nil
	}
	return m.Block.Channels
}

// Promote makes the channel "to" name what the channel "from" names, in all places; on failure,
// the channel is unchanged. If the rules of "to" do not admit the image, the error is a
// *[ClosedError].
func (m *Mover) Promote(ctx context.Context, from, to string) (Moved, error) {
	source, err := m.Channel(from)
	if err != nil {
		return Moved{}, err
	}
	target, err := m.Channel(to)
	if err != nil {
		return Moved{}, err
	}
	at, release, err := m.Distributor.Named(ctx, source.Parameter)
	if err != nil {
		return Moved{}, err
	}
	state, err := m.state(ctx, target, at)
	if err != nil {
		return Moved{}, err
	}
	if reasons, _ := target.Closed(state); len(reasons) > 0 {
		return Moved{}, &ClosedError{release, to, reasons}
	}
	if err := m.moveChannel(ctx, "promoted from "+from, target, at, state.Passed); err != nil {
		return Moved{}, err
	}
	return Moved{target.Parameter, release, at}, nil
}

// moveChannel makes a channel name images that have passed these checks, and notifies its
// webhook. what describes the move for the channel's history.
func (m *Mover) moveChannel(ctx context.Context, what string, target run.Channel, at []builder.Placement, passed []string) error {
	if err := m.Distributor.MoveChannel(ctx, m.Scope, target.Parameter, what, at); err != nil {
		return fmt.Errorf("channel %s: %w", target.Name, err)
	}
	m.tellOf(ctx, target, at, passed)
	return nil
}

// ErrGone is the error of an image that no longer exists.
var ErrGone = errors.New("the image is not there any more")

// PromotePending moves the channels to an image that may have to wait for them, as a build
// does: one channel after the other, each if its rules admit the image and the image was
// not revoked there. It skips channels that need neither an approval nor another channel,
// because a build moves those. It returns the state of the others.
//
// ami is the image in a region of the own account. at lists all places of the image to
// which a channel without a From is set; a channel with a From is set to the places that
// From names. since is when the image began to wait: a channel that was moved after that
// and now names a newer image, by creation time, stays as it is. If at has places of the
// own account and the image is in none of them, the error is an [ErrGone].
func (m *Mover) PromotePending(ctx context.Context, ami string, at []builder.Placement, since time.Time) (all []step.Channel, err error) {
	if err := m.there(ctx, at); err != nil {
		return nil, err
	}
	for _, c := range m.channels() {
		if c.From == "" && !c.Approval {
			continue
		}
		says, err := m.offer(ctx, c, ami, at, since)
		if err != nil {
			return all, fmt.Errorf("channel %s: %w", c.Name, err)
		}
		m.Scope.Channel(ctx, says)
		all = append(all, says)
	}
	return all, nil
}

// there returns an [ErrGone] if the image no longer exists in any of its places in the own
// account.
func (m *Mover) there(ctx context.Context, at []builder.Placement) error {
	var gone []string
	for _, p := range at {
		if !m.Distributor.Own(p) {
			continue
		}
		tags, err := m.Distributor.Tags(ctx, p)
		if err != nil || tags != nil {
			return err
		}
		gone = append(gone, p.ID+" in "+p.Region)
	}
	if len(gone) > 0 {
		return fmt.Errorf("%w: %s", ErrGone, strings.Join(gone, ", "))
	}
	return nil
}

// overtaken returns a message if the channel was moved to a newer image since another
// image began to wait for it, or "" if it was not.
func (m *Mover) overtaken(ctx context.Context, c run.Channel, ami string, at []builder.Placement, moved, since time.Time) (string, error) {
	i := slices.IndexFunc(at, func(p builder.Placement) bool { return p.ID == ami })
	if c.From != "" || i < 0 || !moved.After(since) {
		return "", nil
	}
	newer, tied, err := m.Distributor.Newer(ctx, c.Parameter, at[i])
	switch {
	case err != nil || newer == "":
		return "", err
	case tied:
		return "an image of the same second, " + newer + ", has entered it meanwhile, and counts as the newer one by its ID", nil
	}
	return "a newer image, " + newer + ", has entered it meanwhile", nil
}

func (m *Mover) offer(ctx context.Context, target run.Channel, ami string, at []builder.Placement, since time.Time) (step.Channel, error) {
	says := step.Channel{Name: target.Name, Parameter: target.Parameter}
	what := "approved"
	if target.From != "" {
		from, err := m.Channel(target.From)
		if err != nil {
			return says, err
		}
		at, _, err = m.Distributor.Named(ctx, from.Parameter)
		switch {
		case errors.Is(err, images.ErrNoChannel), err == nil && !slices.ContainsFunc(at, func(p builder.Placement) bool { return p.ID == ami }):
			says.Reasons = []string{"channel " + from.Name + " does not name it"}
			return says, nil
		case err != nil:
			return says, err
		}
		what = "promoted from " + from.Name
	}
	now, err := m.Distributor.Channel(ctx, target.Parameter, at)
	switch {
	case err != nil:
		return says, err
	case now.Names:
		says.Names = true
		return says, nil
	case now.TakenBack:
		says.Reasons = []string{"it was taken back"}
		return says, nil
	}
	if why, err := m.overtaken(ctx, target, ami, at, now.Moved, since); err != nil || why != "" {
		says.Reasons = []string{why}
		return says, err
	}
	state, err := m.state(ctx, target, at)
	if err != nil {
		return says, err
	}
	reasons, wait := target.Closed(state)
	says.Until, says.Approval = wait.Until, wait.Approval
	if says.Reasons = reasons; len(reasons) > 0 {
		return says, nil
	}
	says.Names = true
	return says, m.moveChannel(ctx, what, target, at, state.Passed)
}

// Rollback makes a channel name the release before the current one or, if "to" is not
// empty, that release; see [images.Distributor.Rollback].
func (m *Mover) Rollback(ctx context.Context, channel, to string) (Moved, error) {
	c, err := m.Channel(channel)
	if err != nil {
		return Moved{}, err
	}
	release, err := m.Distributor.Rollback(ctx, m.Scope, c.Parameter, to, "rolled back")
	if err != nil {
		return Moved{}, err
	}
	at, _, err := m.Distributor.Named(ctx, c.Parameter)
	if err != nil { // the channel has moved nevertheless
		m.Scope.Warn(ctx, "The current image of channel %s cannot be read, so no notification was sent: %s", channel, err)
	} else {
		m.tell(ctx, c, at)
	}
	return Moved{c.Parameter, release, at}, nil
}

// Revoke revokes an image; see [images.Distributor.Revoke]. It notifies the webhooks of
// the channels that have moved, even if it fails.
func (m *Mover) Revoke(ctx context.Context, ref, why string, descendants bool) ([]images.Revocation, error) {
	tell := m.moves(ctx)
	defer tell()
	return m.Distributor.Revoke(ctx, m.Scope, ref, why, descendants, m.Now)
}

// tell notifies the webhook of a channel, if there is one, of what the channel names now.
// An error does not undo the move of the channel.
func (m *Mover) tell(ctx context.Context, c run.Channel, at []builder.Placement) {
	if c.Webhook == "" && !c.WebhookUnknown {
		return
	}
	state, err := m.state(ctx, run.Channel{Rule: channels.Rule{Name: c.Name}}, at)
	if err != nil {
		m.untold(ctx, c, err)
		return
	}
	m.tellOf(ctx, c, at, state.Passed)
}

func (m *Mover) untold(ctx context.Context, c run.Channel, err error) {
	m.Scope.Warn(ctx, "The webhook of channel %s was not told: %s", c.Name, err)
}

func (m *Mover) tellOf(ctx context.Context, c run.Channel, at []builder.Placement, passed []string) {
	if c.WebhookUnknown {
		m.Scope.Warn(ctx, "The webhook of channel %s was not told: its URL depends on a data source, which only a build reads", c.Name)
		return
	}
	notice.New(m.Image, c.Name, m.Scope.Run.ID, m.Now(), at, passed).Send(ctx, m.Scope, c.Webhook)
}

// moves returns a function that notifies the webhooks of those of an image's channels that
// have moved in the meantime.
func (m *Mover) moves(ctx context.Context) func() {
	before := map[string][]builder.Placement{}
	heard := slices.DeleteFunc(slices.Clone(m.channels()), func(c run.Channel) bool { return c.Webhook == "" && !c.WebhookUnknown })
	for _, c := range heard {
		at, _, err := m.Distributor.Named(ctx, c.Parameter)
		switch {
		case err == nil:
			before[c.Name] = at
		case !errors.Is(err, images.ErrNoChannel):
			m.untold(ctx, c, err)
		}
	}
	same := func(a, b builder.Placement) bool {
		return a.Account == b.Account && a.Region == b.Region && a.ID == b.ID
	}
	return func() {
		for _, c := range heard {
			was, ok := before[c.Name]
			if !ok {
				continue
			}
			at, _, err := m.Distributor.Named(ctx, c.Parameter)
			switch {
			case err != nil:
				m.untold(ctx, c, err)
			case !slices.EqualFunc(was, at, same):
				m.tell(ctx, c, at)
			}
		}
	}
}

// state returns the state according to the tags of images and the preceding channels.
func (m *Mover) state(ctx context.Context, target run.Channel, at []builder.Placement) (channels.State, error) {
	state := channels.State{Now: m.Now(), Approved: true}
	first := true
	for _, one := range at {
		if one.Shared {
			continue
		}
		tags, err := m.Distributor.Tags(ctx, one)
		if err != nil {
			return state, err
		}
		if tags == nil {
			continue // in another account; this account's images are enough
		}
		passed, told := channels.Passed(tags[imagetag.Verified])
		state.Untold = state.Untold || !told
		state.Approved = state.Approved && tags[channels.ApprovalTag(target.Name)] != ""
		if first {
			state.Passed, first = passed, false
		}
		state.Passed = slices.DeleteFunc(slices.Clone(state.Passed), func(name string) bool { return !slices.Contains(passed, name) })
	}
	state.Approved = state.Approved && !first
	for _, c := range m.channels() {
		if c.Name != target.From {
			continue
		}
		in, err := m.Distributor.Channel(ctx, c.Parameter, at)
		if err != nil {
			return state, err
		}
		state.In, state.Since = in.Names, in.Since
	}
	return state, nil
}

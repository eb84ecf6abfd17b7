package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bake/builder"
	"bake/builder/amazon/images"
	"bake/golden/channels"
	"bake/golden/notice"
	"bake/internal/imagetag"
	"bake/run"
	"bake/step"
)

// imagesChannelExitCodes are those of the commands that move channels.
const imagesChannelExitCodes = `0    done
1    failed: there is no such image or channel, the command line is wrong, or any other reason
2    refused by the rules of the channel
4    something was left behind
5    the cloud refused, or could not be reached
7    done in part: an image is still named by a channel, or not disabled
130  cancelled by Ctrl-C (SIGINT); 143: by SIGTERM
With -exit-codes=packer: 0 and 1 alone.`

// channelFlags say which channels there are and where.
type channelFlags struct {
	placeFlags
	templateFlags
	path    string
	noRules bool
}

func (f *channelFlags) register(p *program, flags *pflag.FlagSet) {
	f.placeFlags.register(p, flags)
	flags.StringVar(&f.path, "template", ".", "read the image block beside this `template`")
	flags.StringArrayVar(&f.vars, "var", nil, "set a variable of the template: `name=value`; repeatable")
	flags.StringArrayVar(&f.varFiles, "var-file", nil, "set variables from a `file`, *.hcl or *.json; repeatable")
	flags.BoolVar(&f.noRules, "no-rules", false, "do without an image block: the channels are the parameters /bake/IMAGE/CHANNEL of this account, and ask for nothing")
}

// image is the block of an image.
func (f *channelFlags) image(ctx context.Context, p *program, command, name string) (*run.ImageBlock, error) {
	if f.noRules {
		return &run.ImageBlock{}, nil
	}
	template, err := f.template(p, command, f.path)
	if err != nil {
		return nil, err
	}
	block, err := run.Image(ctx, template, p.components(template.Options, false)(ctx, p.parts()), name)
	if err == nil && block == nil {
		err = fmt.Errorf("the bake files beside %s have no image %q, whose channel blocks say what its channels ask for; name the template with -template, or do without rules: -no-rules", f.path, name)
	}
	return block, err
}

// channel is a channel of the image.
func (f *channelFlags) channel(block *run.ImageBlock, image, name string) (run.Channel, error) {
	if f.noRules {
		return run.Channel{Rule: channels.Rule{Name: name}, Parameter: channels.Parameter(image, name)}, nil
	}
	var names []string
	for _, c := range block.Channels {
		if c.Name == name {
			return c, nil
		}
		names = append(names, c.Name)
	}
	return run.Channel{}, fmt.Errorf("the image %q has no channel %q; it has: %s", image, name, strings.Join(names, ", "))
}

// unread is an error if there are flags that say where the image block is, or how to read it,
// and none is read.
func (f *channelFlags) unread(cmd *cobra.Command, image string) error {
	if f.noRules && cmd.Flags().Changed("image") {
		return usageError{"-image names an image block, and -no-rules does without one: leave one out", cmd.CommandPath()}
	}
	for _, name := range []string{"template", "var", "var-file"} {
		switch {
		case !cmd.Flags().Changed(name):
		case f.noRules:
			return usageError{"-" + name + " is for the template beside the image block, and -no-rules does without one: leave one out", cmd.CommandPath()}
		case image == "":
			return usageError{"-" + name + " has no effect without -image, the name of the image block", cmd.CommandPath()}
		}
	}
	return nil
}

// on runs do in a task with the way to all places of an image's channels.
func (f *channelFlags) on(p *program, cmd *cobra.Command, image string, do func(context.Context, *step.Scope, *images.Account, *images.Outlet, *run.ImageBlock) error) error {
	if err := f.unread(cmd, image); err != nil {
		return err
	}
	return p.withImages(cmd, &f.placeFlags, func(ctx, stop context.Context, a *images.Account) error {
		block := &run.ImageBlock{}
		if image != "" {
			var err error
			if block, err = f.image(ctx, p, cmd.CommandPath(), image); err != nil {
				return err
			}
		}
		return p.imagesTask(ctx, stop, func(ctx context.Context, s *step.Scope) error {
			return do(ctx, s, a, a.NewOutlet(block.To, s.Run.ID), block)
		})
	})
}

// movedResult is what commands end with in JSON that move a channel.
type movedResult struct {
	Channel   string        `json:"channel"`
	Parameter string        `json:"parameter"`
	Release   string        `json:"release"`
	Images    []step.Placed `json:"images"`
}

// placed are images as JSON has them.
func placed(at []builder.Placed) []step.Placed {
	all := []step.Placed{}
	for _, i := range at {
		all = append(all, step.Placed{Account: i.Account, Region: i.Region, ID: i.ID, Shared: i.Shared})
	}
	return all
}

func (p *program) imagesPromoteCommand() *cobra.Command {
	var f channelFlags
	cmd := &cobra.Command{
		Use:   "promote IMAGE FROM TO",
		Short: "Have a channel name what another channel names",
		Long: `Have the channel TO of an image name the image that its channel FROM names, in all
regions and accounts of the image block: everywhere, or as before nowhere. IMAGE is the
name of the image block beside the template in -template, whose channel blocks say what
TO asks for: what the image must have passed, how long it must have been in a channel,
and whether somebody must approve it. Without a block, -no-rules asks for nothing.

Each image must be available with its snapshots in its region, for its account, and not
be revoked. Others who move the same channel at the same time are refused. Between the
first region and the last, readers in different regions see different images.`,
		Example: `  bake images promote web candidate stable
  bake images promote web candidate stable -template images/web -var-file prod.pkrvars.hcl
  bake images promote web candidate stable -no-rules -regions us-east-1,eu-west-1`,
		Args: exactly("the name of the image", "the channel that names it", "the channel that is to name it"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.on(p, cmd, args[0], func(ctx context.Context, s *step.Scope, _ *images.Account, o *images.Outlet, block *run.ImageBlock) error {
				return p.promote(ctx, s, o, block, &f, args[0], args[1], args[2])
			})
		},
		Annotations: map[string]string{exitCodes: imagesChannelExitCodes},
	}
	f.register(p, cmd.Flags())
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) promote(ctx context.Context, s *step.Scope, o *images.Outlet, block *run.ImageBlock, f *channelFlags, image, from, to string) error {
	source, err := f.channel(block, image, from)
	if err != nil {
		return err
	}
	target, err := f.channel(block, image, to)
	if err != nil {
		return err
	}
	at, release, err := o.Named(ctx, source.Parameter)
	if err != nil {
		return err
	}
	state, err := p.channelState(ctx, o, block, target, at)
	if err != nil {
		return err
	}
	if reasons := target.Closed(state); len(reasons) > 0 {
		return guarded{fmt.Errorf("%s cannot enter channel %s: %s", release, to, strings.Join(reasons, "; "))}
	}
	if err := o.Enter(ctx, s, target.Parameter, channels.Why("promoted from "+from, s.Run.ID), at); err != nil {
		return fmt.Errorf("channel %s: %w", to, err)
	}
	p.tellOf(ctx, s, target, notice.New(image, to, s.Run.ID, p.now(), at, state.Passed))
	p.json.result = movedResult{to, target.Parameter, release, placed(at)}
	p.say(fmt.Sprintf("Channel %s (%s) names %s in:", to, target.Parameter, printable(release)))
	for _, one := range at {
		p.say(fmt.Sprintf("  %s  %s  %s", one.Account, one.Region, one.ID))
	}
	return nil
}

// tell tells the webhook of a channel, if there is one, what the channel names now. The channel
// has moved, whatever becomes of this.
func (p *program) tell(ctx context.Context, s *step.Scope, o *images.Outlet, image string, c run.Channel, at []builder.Placed) {
	if c.Webhook == "" && !c.Unheard {
		return
	}
	state, err := p.channelState(ctx, o, &run.ImageBlock{}, c, at)
	if err != nil {
		untold(ctx, s, c, err)
		return
	}
	p.tellOf(ctx, s, c, notice.New(image, c.Name, s.Run.ID, p.now(), at, state.Passed))
}

func untold(ctx context.Context, s *step.Scope, c run.Channel, err error) {
	s.Warn(ctx, "The webhook of channel %s was not told: %s", c.Name, err)
}

func (p *program) tellOf(ctx context.Context, s *step.Scope, c run.Channel, n notice.Notice) {
	if c.Unheard {
		s.Warn(ctx, "The webhook of channel %s was not told: its URL depends on a data source, which only a build reads", c.Name)
	}
	n.Tell(ctx, s, c.Webhook)
}

// moves returns what tells the webhooks of an image's channels which of them have moved since.
func (p *program) moves(ctx context.Context, s *step.Scope, o *images.Outlet, image string, block *run.ImageBlock) func() {
	before := map[string][]builder.Placed{}
	heard := slices.DeleteFunc(slices.Clone(block.Channels), func(c run.Channel) bool { return c.Webhook == "" && !c.Unheard })
	for _, c := range heard {
		at, _, err := o.Named(ctx, c.Parameter)
		switch {
		case err == nil:
			before[c.Name] = at
		case !errors.Is(err, images.ErrNoChannel):
			untold(ctx, s, c, err)
		}
	}
	same := func(a, b builder.Placed) bool { return a.Account == b.Account && a.Region == b.Region && a.ID == b.ID }
	return func() {
		for _, c := range heard {
			was, ok := before[c.Name]
			if !ok {
				continue
			}
			at, _, err := o.Named(ctx, c.Parameter)
			switch {
			case err != nil:
				untold(ctx, s, c, err)
			case !slices.EqualFunc(was, at, same):
				p.tell(ctx, s, o, image, c, at)
			}
		}
	}
}

// channelState is what the tags of images and the channels before say.
func (p *program) channelState(ctx context.Context, o *images.Outlet, block *run.ImageBlock, target run.Channel, at []builder.Placed) (channels.State, error) {
	state := channels.State{Now: p.now(), Approved: true}
	first := true
	for _, one := range at {
		if one.Shared {
			continue
		}
		tags, err := o.Tags(ctx, one)
		if err != nil {
			return state, err
		}
		if tags == nil {
			continue // of another account: the own ones tell
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
	for _, c := range block.Channels {
		if c.Name != target.From {
			continue
		}
		in, err := o.Channel(ctx, c.Parameter, at)
		if err != nil {
			return state, err
		}
		state.In, state.Since = in.Names, in.Since
	}
	return state, nil
}

func (p *program) imagesRollbackCommand() *cobra.Command {
	var f channelFlags
	var to string
	cmd := &cobra.Command{
		Use:   "rollback IMAGE CHANNEL",
		Short: "Have a channel name again what it named before",
		Long: `Have a channel of an image name the release that it named before the one that it names
now, in all its regions and accounts: the newest that is still available everywhere, and
not revoked. With -to it is the release that is named, which the channel must have named
at some time. The history of the parameter tells; it is added to, and never rewritten.`,
		Example: `  bake images rollback web stable
  bake images rollback web stable -to ami-0123456789abcdef0
  bake images rollback web stable -no-rules -regions all`,
		Args: exactly("the name of the image", "the channel"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.on(p, cmd, args[0], func(ctx context.Context, s *step.Scope, _ *images.Account, o *images.Outlet, block *run.ImageBlock) error {
				c, err := f.channel(block, args[0], args[1])
				if err != nil {
					return err
				}
				release, err := o.Rollback(ctx, s, c.Parameter, to, channels.Why("rolled back", s.Run.ID))
				if err != nil {
					return err
				}
				at, _, err := o.Named(ctx, c.Parameter)
				if err != nil { // it names the release all the same
					s.Warn(ctx, "What channel %s names now cannot be read, so nobody was told: %s", args[1], err)
				} else {
					p.tell(ctx, s, o, args[0], c, at)
				}
				p.json.result = movedResult{args[1], c.Parameter, release, placed(at)}
				p.say(fmt.Sprintf("Channel %s (%s) names %s again", args[1], c.Parameter, printable(release)))
				return nil
			})
		},
		Annotations: map[string]string{exitCodes: imagesChannelExitCodes},
	}
	f.register(p, cmd.Flags())
	cmd.Flags().StringVar(&to, "to", "", "go back to this `release`: the ID or name of an image, or the value of its tag bake:release")
	p.jsonFlag(cmd)
	return cmd
}

// approvedResult is what bake images approve -json ends with.
type approvedResult struct {
	By     string         `json:"by"`
	Images []images.Image `json:"images"`
}

func (p *program) imagesApproveCommand() *cobra.Command {
	var f placeFlags
	cmd := &cobra.Command{
		Use:   "approve AMI CHANNEL",
		Short: "Approve an image for a channel that asks for it",
		Long: `Record in the tag bake:approved:CHANNEL of an image and of its copies who has approved it
for a channel, and when. 'bake images promote' and the next build look at it. Whoever may
tag images can write the tag: restrict ec2:CreateTags for that key to those who approve.`,
		Example: `  bake images approve ami-0123456789abcdef0 stable`,
		Args:    exactly("the ID or name of an image", "the channel"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.withImages(cmd, &f, func(ctx, _ context.Context, a *images.Account) error {
				all, who, err := a.Approve(ctx, args[0], channels.ApprovalTag(args[1]), p.now())
				if len(all) == 0 {
					return err
				}
				p.json.result = approvedResult{who, list(all)}
				for _, i := range all {
					p.say(fmt.Sprintf("%s (%s) in %s is approved for channel %s by %s", i.ID, printable(i.Name), i.Region, args[1], who))
				}
				return done(true, err)
			})
		},
		Annotations: map[string]string{exitCodes: imagesChangeExitCodes},
	}
	f.register(p, cmd.Flags())
	p.jsonFlag(cmd)
	return cmd
}

// revokedResult is what bake images revoke -json ends with.
type revokedResult struct {
	Images []images.Revocation `json:"images"`
}

func (p *program) imagesRevokeCommand() *cobra.Command {
	var f channelFlags
	var image, why string
	var descendants bool
	cmd := &cobra.Command{
		Use:   "revoke AMI",
		Short: "Take an image back everywhere",
		Long: `Take an image back, with its copies in all regions and, with -image, in the accounts of
that image block: channels that name it go back to what they named before, it gets the tag
bake:revoked, which keeps it from every channel, and it is disabled, so that nobody can
launch it. Machines that run are not affected. With -descendants, the images that were made
from it are taken back too: those with its ID in the tag bake:parent, or as their source.

An image is not disabled while a channel names it that has named no other before: have
the channel name another one, and revoke the image again. Whom an image was shared with
is recorded in its tags: 'bake images enable' shares it again.`,
		Example: `  bake images revoke ami-0123456789abcdef0 -reason "CVE-2026-1234"
  bake images revoke ami-0123456789abcdef0 -descendants -image web -template images/web`,
		Args: exactly("the ID or name of an image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.on(p, cmd, image, func(ctx context.Context, s *step.Scope, _ *images.Account, o *images.Outlet, block *run.ImageBlock) error {
				tell := p.moves(ctx, s, o, image, block)
				all, err := o.Revoke(ctx, s, args[0], why, descendants, p.now)
				tell()
				p.json.result = revokedResult{list(all)}
				for _, r := range all {
					what := "revoked and disabled"
					switch {
					case len(r.Channels) > 0:
						what = "revoked, but still named by " + strings.Join(r.Channels, ", ")
					case !r.Disabled:
						what = "revoked, but not disabled"
					}
					p.say(fmt.Sprintf("%s (%s) in %s of account %s is %s", r.Image.ID, printable(r.Image.Name), r.Image.Region, r.Image.Owner, what))
				}
				if err != nil && len(all) > 0 {
					return partly{err}
				}
				return err
			})
		},
		Annotations: map[string]string{exitCodes: imagesChannelExitCodes},
	}
	flags := cmd.Flags()
	f.register(p, flags)
	flags.StringVar(&image, "image", "", "look also in the accounts of this image `block`")
	flags.StringVar(&why, "reason", "", "say `why`, in the tag bake:revoked")
	flags.BoolVar(&descendants, "descendants", false, "take back what was made from the image too")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) imagesChannelCommand() *cobra.Command {
	var f channelFlags
	cmd := &cobra.Command{
		Use:   "channel IMAGE CHANNEL",
		Short: "Show what a channel names, and has named",
		Long: `Show the history of a channel of an image in each region and account: what it named, from
when on, by whom and why. The newest is first.`,
		Example: `  bake images channel web stable`,
		Args:    exactly("the name of the image", "the channel"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.on(p, cmd, args[0], func(ctx context.Context, _ *step.Scope, _ *images.Account, o *images.Outlet, block *run.ImageBlock) error {
				c, err := f.channel(block, args[0], args[1])
				if err != nil {
					return err
				}
				all, err := o.Histories(ctx, c.Parameter)
				p.json.result = historyResult{c.Parameter, list(all)}
				if err == nil && len(all) == 0 {
					err = errors.New("there is no channel " + c.Parameter)
				}
				for _, h := range all {
					p.say(h.Account + "  " + h.Region)
					for _, e := range h.Entries {
						p.say(fmt.Sprintf("  %s  %s  %s  %s", e.At.Format("2006-01-02 15:04:05"), e.Image, e.By, printable(e.Why)))
					}
				}
				return err
			})
		},
		Annotations: map[string]string{exitCodes: imagesExitCodes},
	}
	f.register(p, cmd.Flags())
	p.jsonFlag(cmd)
	return cmd
}

// historyResult is what bake images channel -json ends with.
type historyResult struct {
	Parameter string           `json:"parameter"`
	Places    []images.History `json:"places"`
}

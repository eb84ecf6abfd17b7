package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bake/builder"
	"bake/builder/amazon/images"
	"bake/golden/channels"
	"bake/internal/prose"
	"bake/run"
	"bake/run/releases"
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
With -exit-codes=packer: only 0 and 1.`

// channelFlags select channels and their place.
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
	flags.BoolVar(&f.noRules, "no-rules", false, "do not use an image block: channels are the parameters /bake/IMAGE/CHANNEL of this account, without rules")
}

// image returns the block of an image; nil with -no-rules.
func (f *channelFlags) image(ctx context.Context, p *program, command, name string) (*run.ImageBlock, error) {
	if f.noRules {
		return nil, nil
	}
	template, err := f.template(p, command, f.path)
	if err != nil {
		return nil, err
	}
	block, err := run.Image(ctx, template, p.components(template.Options, false)(ctx, p.parts()), name)
	if err == nil && block == nil {
		err = fmt.Errorf("the bake files beside %s have no image %q with the rules of its channels; name the template with -template, or use -no-rules to move channels without rules", f.path, name)
	}
	return block, err
}

// unread returns an error if flags for finding or reading the image block are set, but no
// block is read.
func (f *channelFlags) unread(cmd *cobra.Command, image string) error {
	if f.noRules && cmd.Flags().Changed("image") {
		return usageError{"-image and -no-rules cannot be combined: -no-rules uses no image block", cmd.CommandPath()}
	}
	for _, name := range []string{"template", "var", "var-file"} {
		switch {
		case !cmd.Flags().Changed(name):
		case f.noRules:
			return usageError{"-" + name + " and -no-rules cannot be combined: -no-rules uses no image block", cmd.CommandPath()}
		case image == "":
			return usageError{"-" + name + " has no effect without -image, the name of the image block", cmd.CommandPath()}
		}
	}
	return nil
}

// on runs do in a task, in all places, with the means to move the channels of an image.
func (f *channelFlags) on(p *program, cmd *cobra.Command, image string, do func(context.Context, *releases.Mover) error) error {
	if err := f.unread(cmd, image); err != nil {
		return err
	}
	return p.withImages(cmd, &f.placeFlags, func(ctx, stop context.Context, a *images.Account) error {
		var block *run.ImageBlock
		var to builder.Distribution
		if image != "" {
			var err error
			if block, err = f.image(ctx, p, cmd.CommandPath(), image); err != nil {
				return err
			}
		}
		if block != nil {
			to = block.To
		}
		return p.imagesTask(ctx, stop, func(ctx context.Context, s *step.Scope) error {
			err := do(ctx, &releases.Mover{Image: image, Block: block, Distributor: a.NewDistributor(to, s.Run.ID), Scope: s, Now: p.now})
			if _, ok := errors.AsType[*releases.ClosedError](err); ok {
				return guarded{err}
			}
			return err
		})
	})
}

// movedResult is the JSON result of commands that move a channel.
type movedResult struct {
	Channel   string           `json:"channel"`
	Parameter string           `json:"parameter"`
	Release   string           `json:"release"`
	Images    []step.Placement `json:"images"`
}

// placed are images as JSON has them.
func placed(at []builder.Placement) []step.Placement {
	all := []step.Placement{}
	for _, i := range at {
		all = append(all, step.Placement{Account: i.Account, Region: i.Region, ID: i.ID, Shared: i.Shared})
	}
	return all
}

func (p *program) imagesPromoteCommand() *cobra.Command {
	var f channelFlags
	cmd := &cobra.Command{
		Use:   "promote IMAGE FROM TO",
		Short: "Point a channel at the image of another channel",
		Long: `Point the channel TO of an image at the image that its channel FROM points at, in all
regions and accounts of the image block, or in none of them if one fails. IMAGE is the
name of the image block beside the template in -template. Its channel blocks say what TO
requires: which checks the image must have passed, how long it must have been in another
channel, and whether it must be approved. With -no-rules, no image block is needed and
nothing is required.

Each image must be available, with its snapshots, in its region and to its account, and
must not be revoked. Others who try to move the channel at the same time get an error.
The regions are changed one after another, so for a moment they may differ.`,
		Example: `  bake images promote web candidate stable
  bake images promote web candidate stable -template images/web -var-file prod.pkrvars.hcl
  bake images promote web candidate stable -no-rules -regions us-east-1,eu-west-1`,
		Args: exactly("the name of the image", "the channel to promote from", "the channel to promote to"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.on(p, cmd, args[0], func(ctx context.Context, m *releases.Mover) error {
				moved, err := m.Promote(ctx, args[1], args[2])
				if err != nil {
					return err
				}
				p.json.result = movedResult{args[2], moved.Parameter, moved.Release, placed(moved.Images)}
				p.say(fmt.Sprintf("Channel %s (%s) names %s in:", args[2], moved.Parameter, prose.Printable(moved.Release)))
				for _, one := range moved.Images {
					p.say(fmt.Sprintf("  %s  %s  %s", one.Account, one.Region, one.ID))
				}
				return nil
			})
		},
		Annotations: map[string]string{exitCodes: imagesChannelExitCodes},
	}
	f.register(p, cmd.Flags())
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) imagesRollbackCommand() *cobra.Command {
	var f channelFlags
	var to string
	cmd := &cobra.Command{
		Use:   "rollback IMAGE CHANNEL",
		Short: "Point a channel back at an earlier image",
		Long: `Point a channel of an image back at its previous release, in all its regions and
accounts: the newest earlier one that is still available everywhere and not revoked. With
-to, point it at the given release, which must be in the history of the channel. The
history is that of the parameter; it is appended to, never rewritten.`,
		Example: `  bake images rollback web stable
  bake images rollback web stable -to ami-0123456789abcdef0
  bake images rollback web stable -no-rules -regions all`,
		Args: exactly("the name of the image", "the channel"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.on(p, cmd, args[0], func(ctx context.Context, m *releases.Mover) error {
				moved, err := m.Rollback(ctx, args[1], to)
				if err != nil {
					return err
				}
				p.json.result = movedResult{args[1], moved.Parameter, moved.Release, placed(moved.Images)}
				p.say(fmt.Sprintf("Channel %s (%s) names %s again", args[1], moved.Parameter, prose.Printable(moved.Release)))
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

// approvedResult is the last object of bake images approve -json.
type approvedResult struct {
	By     string         `json:"by"`
	Images []images.Image `json:"images"`
}

func (p *program) imagesApproveCommand() *cobra.Command {
	var f placeFlags
	cmd := &cobra.Command{
		Use:   "approve AMI CHANNEL",
		Short: "Approve an image for a channel",
		Long: `Approve an image for a channel that requires approval. Who approved it, and when, is
recorded in the tag bake:approved:CHANNEL of the image and its copies, which
'bake images promote' and the next build read. Anyone who can tag images can write this
tag: restrict ec2:CreateTags for this key to the approvers.`,
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
					p.say(fmt.Sprintf("%s (%s) in %s is approved for channel %s by %s", i.ID, prose.Printable(i.Name), i.Region, args[1], who))
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

// revokedResult is the last object of bake images revoke -json.
type revokedResult struct {
	Images []images.Revocation `json:"images"`
}

func (p *program) imagesRevokeCommand() *cobra.Command {
	var f channelFlags
	var image, why string
	var descendants bool
	cmd := &cobra.Command{
		Use:   "revoke AMI",
		Short: "Withdraw an image everywhere",
		Long: `Withdraw an image and its copies in all regions and, with -image, in the accounts of
that image block: channels that point at it go back to their previous image, the tag
bake:revoked keeps it out of all channels, and it is disabled, so that it cannot be
launched. Running instances are not affected. With -descendants, also withdraw the images
made from it: those with its ID in the tag bake:parent, or as their source image.

An image stays enabled while a channel points at it that has no earlier image: point that
channel at another image, then revoke again. The accounts that the image was shared with
are recorded in its tags; 'bake images enable' shares it with them again.`,
		Example: `  bake images revoke ami-0123456789abcdef0 -reason "CVE-2026-1234"
  bake images revoke ami-0123456789abcdef0 -descendants -image web -template images/web`,
		Args: exactly("the ID or name of an image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.on(p, cmd, image, func(ctx context.Context, m *releases.Mover) error {
				all, err := m.Revoke(ctx, args[0], why, descendants)
				p.json.result = revokedResult{list(all)}
				for _, r := range all {
					what := "revoked and disabled"
					switch {
					case len(r.Channels) > 0:
						what = "revoked, but still named by " + strings.Join(r.Channels, ", ")
					case !r.Disabled:
						what = "revoked, but not disabled"
					}
					p.say(fmt.Sprintf("%s (%s) in %s of account %s is %s", r.Image.ID, prose.Printable(r.Image.Name), r.Image.Region, r.Image.Owner, what))
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
	flags.StringVar(&image, "image", "", "also look in the accounts of this image `block`")
	flags.StringVar(&why, "reason", "", "`text` for the tag bake:revoked, saying why")
	flags.BoolVar(&descendants, "descendants", false, "also withdraw images made from it")
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
			return f.on(p, cmd, args[0], func(ctx context.Context, m *releases.Mover) error {
				c, err := m.Channel(args[1])
				if err != nil {
					return err
				}
				all, err := m.Distributor.Histories(ctx, c.Parameter)
				p.json.result = historyResult{c.Parameter, list(all)}
				if err == nil && len(all) == 0 {
					err = errors.New("there is no channel " + c.Parameter)
				}
				for _, h := range all {
					p.say(h.Account + "  " + h.Region)
					for _, e := range h.Entries {
						p.say(fmt.Sprintf("  %s  %s  %s  %s", e.At.Format("2006-01-02 15:04:05"), e.Image, e.By, prose.Printable(e.Why)))
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

// historyResult is the last object of bake images channel -json.
type historyResult struct {
	Parameter string           `json:"parameter"`
	Places    []images.History `json:"places"`
}

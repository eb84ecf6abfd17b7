package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"bake/builder/amazon/images"
	"bake/internal/prose"
	"bake/run"
	"bake/step"
)

// imagesCopyFlags are the flags of bake images copy.
type imagesCopyFlags struct {
	placeFlags
	images.CopyOptions
	tags, keys []string
}

func (p *program) imagesCopyCommand() *cobra.Command {
	var f imagesCopyFlags
	cmd := &cobra.Command{
		Use:   "copy IMAGE",
		Short: "Copy an image to other regions",
		Long: `Copy an image, of this account or one that is shared with it, to other regions, and wait
until the copies are available. Copies have the name, description and tags of the image,
its snapshots' tags and its deprecation. Launch permissions and deregistration protection
are not copied; -region says where the image is.

Regions that already have a copy of the image with that name are skipped. Before anything
is copied, bake checks that the names are free and the regions enabled. If a copy fails
or is cancelled, it is deleted with its snapshots; the other copies stay. If bake is
killed, 'bake sweep' deletes unfinished copies.`,
		Example: `  bake images copy web-20261128 -to eu-west-1,eu-central-1
  bake images copy ami-0123456789abcdef0 -to us-east-1 -name web-encrypted -kms-key alias/golden
  bake images copy web-20261128 -to eu-west-1 -kms-key eu-west-1=alias/golden -tag env=prod`,
		Args: exactly("the ID or name of an image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.read(); err != nil {
				return usageError{err.Error(), cmd.CommandPath()}
			}
			return p.imagesCopy(cmd, &f, args[0])
		},
		Annotations: map[string]string{exitCodes: imagesChangeExitCodes},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.To, "to", nil, "`regions` to copy to, separated by commas")
	flags.StringVar(&f.Name, "name", "", "`name` of the copies; default: that of the image")
	flags.StringVar(&f.Description, "description", "", "`description` of the copies; default: that of the image")
	flags.BoolVar(&f.Encrypt, "encrypt", false, "encrypt the copies, with the default key of each region unless -kms-key is given")
	flags.StringSliceVar(&f.keys, "kms-key", nil, "encrypt the copies with this `key`: an ID, alias or ARN, or REGION=KEY for one region; repeatable")
	flags.StringArrayVar(&f.tags, "tag", nil, "add this `tag` to the copies and their snapshots: KEY=VALUE; repeatable")
	f.register(p, flags)
	p.jsonFlag(cmd)
	return cmd
}

// read parses the flags with text values, and checks all flags.
func (f *imagesCopyFlags) read() error {
	f.Tags, f.Keys = map[string]string{}, map[string]string{}
	for _, text := range f.tags {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return fmt.Errorf("-tag=%s: it must be KEY=VALUE", text)
		}
		f.Tags[key] = value
	}
	for _, text := range f.keys {
		region, key, ok := strings.Cut(text, "=")
		if !ok {
			region, key = "", text
		}
		if _, twice := f.Keys[region]; twice {
			return fmt.Errorf("-kms-key=%s: the same regions already have another key", text)
		}
		f.Keys[region] = key
	}
	if f.regions != nil {
		return errors.New("-regions does not apply here: use -region for the region of the image, and -to for the regions to copy it to")
	}
	return f.Check()
}

// copiedResult is the last object of bake images copy -json.
type copiedResult struct {
	Run    string          `json:"run"`
	Images []images.Copied `json:"images"`
	Left   []step.Resource `json:"left_behind"`
}

func (p *program) imagesCopy(cmd *cobra.Command, f *imagesCopyFlags, ref string) error {
	return p.withImages(cmd, &f.placeFlags, func(ctx, stop context.Context, a *images.Account) error {
		var all []images.Copied
		run, err := p.copyTask(ctx, stop, func(ctx context.Context, s *step.Scope) (err error) {
			all, err = a.Copy(ctx, s, ref, f.CopyOptions)
			return done(len(all) > 0, err)
		})
		p.json.result = copiedResult{run, list(all), list(leftBy(err))}
		for _, c := range all {
			what := "copied"
			if c.Existing {
				what = "was there already"
			}
			p.say(fmt.Sprintf("%s  %s  %s (%s)", c.Region, c.ID, prose.Printable(c.Name), what))
		}
		return err
	})
}

// copyTask runs do as a task with a progress display, and returns the task's id. It lists
// the resources that do leaves behind.
func (p *program) copyTask(ctx, stop context.Context, do func(context.Context, *step.Scope) error) (id string, err error) {
	state, err := p.env.state()
	if err != nil {
		return "", err
	}
	feed := p.openFeed(displayOptions{color: true})
	defer feed.close()
	id, err = run.Task(ctx, run.TaskOptions{
		State: state, Command: p.commandLine(), Name: "images", Emit: feed.emit, Now: p.now, Stop: stop,
	}, do)
	feed.close()
	if left := leftBy(err); len(left) > 0 {
		p.say(leftText(id, left))
	}
	return id, err
}

// leftBy returns the resources that were left behind according to an error.
func leftBy(err error) []step.Resource {
	if failed, ok := errors.AsType[*run.FailedError](err); ok {
		return failed.Left
	}
	return nil
}

package main

import (
	"context"

	"github.com/spf13/cobra"

	"bake/builder/amazon/images"
	"bake/step"
)

// imagesRemoveExitCodes are those of the commands that remove something.
const imagesRemoveExitCodes = `0    done
1    failed: there is no such image, the command line is wrong, or any other reason
2    refused by a guard: an image is in use, or it is not known that it is not
4    an image was removed, but not all of its snapshots
5    the cloud refused, or could not be reached
7    done in part: a region or an account refused
130  cancelled by Ctrl-C (SIGINT); 143: by SIGTERM
With -exit-codes=packer: only 0 and 1.`

type imagesRmOptions struct {
	placeFlags
	guardFlags
	image string
}

func (p *program) imagesRmCommand() *cobra.Command {
	var o imagesRmOptions
	cmd := &cobra.Command{
		Use:   "rm IMAGE...",
		Short: "Remove images and their snapshots, unless they are in use",
		Long: `Deregister images and delete their snapshots. IMAGE is the ID or the name of an image
of the account. With -regions, its copies in those regions go too.

If one of the images is in use, none is removed, and everything that uses them is listed.
This is checked again right before each removal. Snapshots that another image uses stay.
If bake is killed, 'bake sweep' deletes the snapshots of images already deregistered.

` + guardHelp,
		Example: `  bake images rm ami-0123456789abcdef0
  bake images rm web-20261128 -regions all
  bake images rm -image web -region eu-west-1 -ignore-guard recent`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 0) == (o.image == "") {
				return usageError{"name either images to remove or, with -image, all of one name", cmd.CommandPath()}
			}
			g, err := o.guards(p, cmd.CommandPath())
			if err != nil {
				return err
			}
			g.Children, g.Reports = true, true
			return p.withImages(cmd, &o.placeFlags, func(ctx, stop context.Context, a *images.Account) error {
				found, err := o.find(ctx, a, args)
				if err != nil {
					return err
				}
				return p.imagesTask(ctx, stop, func(ctx context.Context, s *step.Scope) error {
					var done []images.Removal
					r := images.Remover{Account: a, Scope: s, Guards: g, OnRemoval: func(r images.Removal) {
						done = append(done, r)
						p.say(r.Text())
					}}
					err := r.Remove(ctx, found)
					p.json.result = removalResult{list(done)}
					return err
				})
			})
		},
		Annotations: map[string]string{exitCodes: imagesRemoveExitCodes},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.image, "image", "", "remove all images with this `name`, or with this value of the tag bake:image")
	o.placeFlags.register(p, flags)
	o.guardFlags.register(flags)
	p.jsonFlag(cmd)
	return cmd
}

// find returns the selected images.
func (o *imagesRmOptions) find(ctx context.Context, a *images.Account, refs []string) (all []images.Image, err error) {
	if o.image != "" {
		return a.Named(ctx, o.image)
	}
	for _, ref := range refs {
		found, err := a.Find(ctx, ref)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	if o.regions != nil {
		return a.WithCopies(ctx, all)
	}
	return all, nil
}

// removalResult is the JSON result of commands that remove images.
type removalResult struct {
	Removals []images.Removal `json:"removals"`
}

package main

import (
	"context"

	"github.com/spf13/cobra"

	"bake/builder/amazon/images"
)

func (p *program) imagesShowCommand() *cobra.Command {
	var f placeFlags
	cmd := &cobra.Command{
		Use:   "show IMAGE",
		Short: "Show everything about an image",
		Long: `Show an image by its ID or name: its attributes, tags, snapshots and keys, the accounts
it is shared with, its source image, its copies, and how to launch it. Only the owner can
see the accounts.

Copies are looked up in all regions enabled for the account, or in -regions: copies of the
image, copies of the same original, and images with the same tags bake:image and
bake:release.`,
		Example: `  bake images show ami-0123456789abcdef0
  bake images show web-20261128 -region eu-west-1 -json`,
		Args: exactly("the ID or name of an image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.withImages(cmd, &f, func(ctx, _ context.Context, a *images.Account) error {
				var copies []string
				if f.regions != nil {
					copies = a.Regions
				}
				d, err := a.Show(ctx, args[0], copies)
				if d.ID != "" {
					p.json.result = struct {
						Image images.Detail `json:"image"`
					}{d}
					p.say(d.Text(a.ID, p.now()))
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

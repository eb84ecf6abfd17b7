package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"bake/builder/amazon/images"
	"bake/internal/prose"
)

func (p *program) imagesCheckCommand() *cobra.Command {
	var f placeFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Find launch templates and the like whose image cannot be launched",
		Long: `Look up the images that parameters of type aws:ec2:image, launch templates, launch
configurations, Auto Scaling groups and fleets refer to, and fail if one is missing,
disabled or no longer shared with the account, so that the next launch would fail.`,
		Example: `  bake images check -regions all`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.withImages(cmd, &f, func(ctx, _ context.Context, a *images.Account) error {
				broken, err := a.CheckUse(ctx)
				p.json.result = struct {
					Broken []images.Broken `json:"broken"`
				}{list(broken)}
				for _, b := range broken {
					p.say(prose.Printable(b.String()))
				}
				if len(broken) > 0 {
					return errors.Join(err, fmt.Errorf("%d references to images that cannot be launched", len(broken)))
				}
				if err == nil {
					p.say("All references are to images that can be launched.")
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

package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"bake/builder/amazon/images"
	"bake/internal/prose"
)

func (p *program) imagesEnableCommand() *cobra.Command {
	var f placeFlags
	cmd := &cobra.Command{
		Use:   "enable IMAGE",
		Short: "Enable a disabled image",
		Long: `Enable a disabled image, and share it again with everyone it was shared with before
'bake images prune' disabled it, according to its tags. Add the tag bake:hold to keep it:
otherwise it may be disabled again when nothing uses it.`,
		Example: `  bake images enable ami-0123456789abcdef0
  bake images enable web-20260101 -regions all`,
		Args: exactly("the ID or name of an image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.withImages(cmd, &f, func(ctx, _ context.Context, a *images.Account) error {
				done, err := a.Enable(ctx, args[0])
				p.json.result = struct {
					Images []images.EnabledImage `json:"images"`
				}{list(done)}
				for _, i := range done {
					p.say(fmt.Sprintf("Image %s (%s) in %s can be launched; shared again with %s.", i.Image.ID, prose.Printable(i.Image.Name), i.Image.Region, cmp.Or(strings.Join(i.Shared, ", "), "nobody")))
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

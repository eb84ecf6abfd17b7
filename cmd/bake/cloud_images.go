package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"bake/internal/local"
	"bake/internal/prose"
	"bake/run/localcloud"
)

func (p *program) cloudImagesCommand() *cobra.Command {
	var region string
	cmd := &cobra.Command{
		Use:        "images",
		SuggestFor: []string{"list", "ls", "describe", "show"},
		Short:      "List the images that can be launched",
		Long: `List the images of the local cloud that can be launched in a region, with their ids
and names. These include the base images that bake can make; each one is made when it
is first launched.`,
		Example: `  bake cloud images`,
		Args:    exactly(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.cloudImages(cmd.Context(), region) },
	}
	cmd.Flags().StringVar(&region, "region", local.DefaultRegion, "list the images in this `region`")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) cloudImages(ctx context.Context, region string) error {
	return p.withLocal(ctx, "", "", func(ctx context.Context, c *localcloud.Cloud) error {
		images, err := c.Images(ctx, region)
		if err != nil {
			return err
		}
		if p.json.on {
			p.json.result = struct {
				Images []localcloud.Image `json:"images"`
			}{images}
			return nil
		}
		table := prose.NewTable("ID", "OWNER", "CREATED", "STATE", "NAME")
		for _, i := range images {
			table.Row(i.ID, i.Owner, fmt.Sprintf("%.10s", i.Created), i.State, i.Name)
		}
		p.say(table.Within(p.stdout.columns()))
		return nil
	})
}

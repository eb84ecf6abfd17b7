package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bake/builder/amazon/images"
)

func (p *program) imagesDiffCommand() *cobra.Command {
	var f placeFlags
	cmd := &cobra.Command{
		Use:   "diff IMAGE IMAGE",
		Short: "Show what two images differ in",
		Long: `Compare two images, by their IDs or names: attributes, tags, block devices and, of images
of the account, the keys of their snapshots and whom they are shared with. IDs and dates,
which always differ, are not compared, and neither is what the volumes hold: installed
packages and files. The exit code is 0 whether there are differences or not.`,
		Example: `  bake images diff web-20261121 web-20261128
  bake images diff ami-0123456789abcdef0 ami-0fedcba9876543210 -regions us-east-1,eu-west-1 -json`,
		Args: exactly("the first image", "the second"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.withImages(cmd, &f, func(ctx, _ context.Context, a *images.Account) error {
				c, err := a.Diff(ctx, args[0], args[1])
				if c.A.ID != "" {
					p.showDifferences(c)
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

func (p *program) showDifferences(c images.Comparison) {
	if p.json.on {
		p.json.result = c
		return
	}
	if len(c.Differences) == 0 {
		p.say("No differences in attributes, tags, block devices and sharing.")
		return
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\t%s\t%s\n", c.A.ID, c.B.ID)
	for _, d := range c.Differences {
		fmt.Fprintf(w, "%s\t%s\t%s\n", printable(d.What), printable(cmp.Or(d.A, "-")), printable(cmp.Or(d.B, "-")))
	}
	_ = w.Flush() // into memory
	p.say(strings.TrimSuffix(table.String(), "\n"))
}

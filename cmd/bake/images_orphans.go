package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"bake/builder/amazon/images"
	"bake/ui/prompt"
)

type imagesOrphansOptions struct {
	placeFlags
	minAge age
	ignore []string
	delete bool
	yes    bool
}

func (p *program) imagesOrphansCommand() *cobra.Command {
	o := imagesOrphansOptions{minAge: age(7 * 24 * time.Hour)}
	cmd := &cobra.Command{
		Use:   "orphans",
		Short: "List or delete snapshots whose image no longer exists",
		Long: `List the account's snapshots that EC2 made for an image, according to their
descriptions or bake:... tags, if that image no longer exists, not even disabled. With
-delete, delete them, after asking once per region.

Some are listed but kept, with the reason. These guards can be skipped with -ignore-guard:
  recycle-bin   the image is in the recycle bin
  templates, scaling, fleets
                a launch template, launch configuration or fleet makes volumes from it
  shared        it is shared: others may have made images of it
  locked        it is locked
  fast-restore  fast snapshot restore is enabled for it
  fast-launch   fast launch is enabled for its image
If a guard cannot decide, for example for lack of a permission, all snapshots of the
region are kept. Those with tags of AWS Backup, Data Lifecycle Manager, EC2 Image Builder,
Kubernetes or Velero, and archived ones, are always kept. If the images of a region cannot
all be listed, no snapshot there counts as an orphan.

Sizes are upper bounds: snapshots share blocks, so deleting one frees less. Costs are
those of us-east-1.`,
		Example: `  bake images orphans -regions all
  bake images orphans -min-age 30d -delete`,
		Args:        exactly(),
		RunE:        func(cmd *cobra.Command, _ []string) error { return p.imagesOrphans(cmd, &o) },
		Annotations: map[string]string{exitCodes: imagesRemoveExitCodes},
	}
	flags := cmd.Flags()
	flags.Var(&o.minAge, "min-age", "consider only snapshots of at least this `age`")
	flags.StringSliceVar(&o.ignore, "ignore-guard", nil, "`guards` to skip, separated by commas")
	flags.BoolVar(&o.delete, "delete", false, "delete the snapshots that are not kept, after asking once per region")
	flags.BoolVar(&o.yes, "yes", false, "with -delete: do not ask")
	o.placeFlags.register(p, flags)
	p.jsonFlag(cmd)
	return cmd
}

// orphansResult is the last object of bake images orphans -json.
type orphansResult struct {
	Snapshots []images.Orphan `json:"snapshots"`
	Deleted   []string        `json:"deleted"`
}

func (p *program) imagesOrphans(cmd *cobra.Command, o *imagesOrphansOptions) error {
	options := images.OrphanOptions{MinAge: time.Duration(o.minAge), Ignore: o.ignore, Now: p.now}
	if err := options.Check(); err != nil {
		return usageError{"-ignore-guard: " + err.Error(), cmd.CommandPath()}
	}
	if o.yes && !o.delete {
		return usageError{"-yes has no effect without -delete", cmd.CommandPath()}
	}
	return p.withImages(cmd, &o.placeFlags, func(ctx, _ context.Context, a *images.Account) error {
		found, err := a.Orphans(ctx, options)
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		p.json.result = orphansResult{list(found), []string{}}
		switch {
		case len(found) > 0:
			p.say(images.OrphansText(found, p.stdout.columns()))
		case err == nil: // otherwise they are not all
			p.say("No orphaned snapshots.")
		}
		regions := images.Deletable(found)
		if !o.delete || len(regions) == 0 {
			return err
		}
		agreed, err := p.confirmed(ctx, regions, o.yes, err)
		if len(agreed) == 0 {
			return err
		}
		deleted, failed := a.DeleteOrphans(ctx, agreed, options)
		p.json.result = orphansResult{list(found), list(deleted)}
		p.say(fmt.Sprintf("Deleted %d snapshots.", len(deleted)))
		return errors.Join(err, failed)
	})
}

// confirmed returns the snapshots of the regions that the user confirms. err is joined to
// an error that prevents the question.
func (p *program) confirmed(ctx context.Context, regions [][]images.Orphan, yes bool, err error) ([]images.Orphan, error) {
	if yes {
		return slices.Concat(regions...), err
	}
	ask := p.newPrompter(func() func() { return func() {} })
	if ask == nil {
		return nil, errors.Join(err, fmt.Errorf("nothing was deleted, since there is no one to ask: %w; use -yes to delete without asking", prompt.ErrNoTerminal))
	}
	var agreed []images.Orphan
	for _, in := range regions {
		answer, failed := ask.Ask(ctx, fmt.Sprintf("Delete %d snapshots in %s? [y/N] ", len(in), in[0].Region))
		if failed != nil {
			return nil, errors.Join(err, failed)
		}
		if answer == "y" || answer == "yes" {
			agreed = append(agreed, in...)
		}
	}
	return agreed, err
}

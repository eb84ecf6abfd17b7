package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"bake/builder/amazon/images"
	"bake/run"
	"bake/step"
)

type imagesPruneOptions struct {
	placeFlags
	guardFlags
	template  templateFlags
	name      string
	tags      []string
	keep      int
	olderThan age
	max       string
	together  bool
	apply     bool
}

func (p *program) imagesPruneCommand() *cobra.Command {
	var o imagesPruneOptions
	cmd := &cobra.Command{
		Use:   "prune [TEMPLATE]",
		Short: "Retire old images and keep the newest",
		Long: `Show which images of the account are surplus and, with -apply, remove them and their
snapshots. Images with the same bake:image tag form a group; without that tag, images
whose names differ only in a date, a time or a UUID do. -together makes one group of all
images that -name and -tag select.

In each region, the newest -keep available images of a group stay. Of the others, those
older than -older-than and not in use are removed, oldest first, and at most -max of a
group per run. A group is left alone while its newest image is pending, failed or rejected
by its verification, or while fewer than -keep are available. -apply checks everything
again right before each removal.

Without -keep and -older-than, the retention blocks in the bake files of TEMPLATE, by
default the template in this directory, apply to the images of its image blocks, in all
regions unless -region or -regions is given. Older images are deprecated, then disabled,
then removed, with at least 7 days in between. Until an image is removed,
'bake images enable' brings it back.

` + guardHelp,
		Example: `  bake images prune -keep 5
  bake images prune -apply
  bake images prune -name 'web-*' -older-than 90d -regions all
  bake images prune -keep 3 -tag team=web -max 50% -apply`,
		Args:        atMost("the template"),
		RunE:        func(cmd *cobra.Command, args []string) error { return p.imagesPrune(cmd, &o, args) },
		Annotations: map[string]string{exitCodes: imagesRemoveExitCodes},
	}
	flags := cmd.Flags()
	flags.IntVar(&o.keep, "keep", 0, "keep this `number` of available images of each group in each region; default: 1 with -older-than")
	flags.Var(&o.olderThan, "older-than", "remove only images of at least this `age`, such as 30d")
	flags.StringVar(&o.name, "name", "", "consider only images whose name matches this `pattern`, with the wildcards * and ?")
	flags.StringArrayVar(&o.tags, "tag", nil, "consider only images with this `tag`: KEY=VALUE, or KEY; repeatable")
	flags.StringVar(&o.max, "max", "20%", "remove at most this `number` of images of a group per run; a percentage is rounded to at least one")
	flags.BoolVar(&o.together, "together", false, "treat all selected images as one group; needs -name or -tag")
	flags.BoolVar(&o.apply, "apply", false, "make the changes, instead of only showing them")
	o.template.registerVars(flags)
	o.placeFlags.register(p, flags)
	o.guardFlags.register(flags)
	p.jsonFlag(cmd)
	return cmd
}

// options returns the options that the flags define.
func (o *imagesPruneOptions) options(p *program, command string) (images.PruneOptions, error) {
	out := images.PruneOptions{Query: images.Query{Name: o.name}, Keep: o.keep, Stages: images.Stages{Delete: time.Duration(o.olderThan)}, Together: o.together}
	wrong := func(format string, args ...any) (images.PruneOptions, error) {
		return out, usageError{fmt.Sprintf(format, args...), command}
	}
	switch {
	case o.keep < 0:
		return wrong("-keep=%d: it must be at least 1", o.keep)
	case o.together && o.name == "" && len(o.tags) == 0:
		return wrong("-together needs -name or -tag: otherwise all images of the account would be releases of one")
	}
	out.Keep = max(1, o.keep)
	var err error
	if out.Max, err = images.ParseShare(o.max); err != nil {
		return wrong("-max: %v", err)
	}
	for _, tag := range o.tags {
		f, err := tagFilter(tag)
		if err != nil {
			return wrong("%v", err)
		}
		out.Filters = append(out.Filters, f)
	}
	out.Guards, err = o.guards(p, command)
	out.Guards.Reports = true
	return out, err
}

// byTemplate reports whether retention blocks define what to remove.
func (o *imagesPruneOptions) byTemplate() bool { return o.keep == 0 && o.olderThan == 0 }

// retained returns the options that the retention blocks of a template define, and the
// names of the images.
func (o *imagesPruneOptions) retained(ctx context.Context, p *program, command string, like images.PruneOptions, path string) (all []images.PruneOptions, err error) {
	if o.name != "" || len(o.tags) > 0 || o.together {
		return nil, usageError{"-name, -tag and -together require -keep or -older-than: retention blocks select their own images", command}
	}
	none := usageError{fmt.Sprintf("%s has no retention block in a *.bake.hcl file; specify -keep N, -older-than AGE, or both", path), command}
	if files, _ := filepath.Glob("*.bake.hcl"); path == "." && len(files) == 0 {
		return nil, none
	}
	template, err := o.template.template(p, command, path)
	if err != nil {
		return nil, err
	}
	retentions, err := run.Retentions(ctx, template)
	if err != nil {
		return nil, err
	}
	for _, r := range retentions {
		all = append(all, images.Retained(r, like.Max, like.Guards))
	}
	if len(all) == 0 {
		return nil, none
	}
	return all, nil
}

// pruneResult is the last object of bake images prune -json.
type pruneResult struct {
	Applied  bool             `json:"applied"`
	Images   []images.Planned `json:"images"`
	Removals []images.Removal `json:"removals"`
}

func (p *program) imagesPrune(cmd *cobra.Command, o *imagesPruneOptions, args []string) error {
	options, err := o.options(p, cmd.CommandPath())
	if err != nil {
		return err
	}
	all := []images.PruneOptions{options}
	switch {
	case o.byTemplate():
		path := "."
		if len(args) > 0 {
			path = args[0]
		}
		if all, err = o.retained(cmd.Context(), p, cmd.CommandPath(), options, path); err != nil {
			return err
		}
		if o.region == "" && o.regions == nil {
			o.regions = []string{"all"}
		}
	case len(args) > 0:
		return usageError{"TEMPLATE cannot be combined with -keep or -older-than: its retention blocks set the rules", cmd.CommandPath()}
	}
	return p.withImages(cmd, &o.placeFlags, func(ctx, stop context.Context, a *images.Account) error {
		result := pruneResult{o.apply, []images.Planned{}, []images.Removal{}}
		defer func() { p.json.result = result }()
		var errs []error
		for _, options := range all {
			errs = append(errs, a.PlanEach(ctx, options, "", func(in *images.Account, g images.Guards, plan *images.Plan, several bool) error {
				if several {
					p.say("Account " + in.ID + ":")
				}
				return p.prune(ctx, stop, in, o, g, plan, &result)
			}))
		}
		return done(len(result.Images) > 0, errors.Join(errs...))
	})
}

// prune shows a plan and, on request, carries it out.
func (p *program) prune(ctx, stop context.Context, a *images.Account, o *imagesPruneOptions, g images.Guards, plan *images.Plan, result *pruneResult) error {
	result.Images = append(result.Images, plan.Images...)
	p.say(plan.Text(o.byTemplate(), o.max, p.stdout.columns()))
	if plan.Empty() {
		return nil
	}
	if !o.apply {
		p.say("Nothing was changed. Use -apply to make these changes.")
		return nil
	}
	return p.imagesTask(ctx, stop, func(ctx context.Context, s *step.Scope) error {
		r := images.Remover{Account: a, Scope: s, Guards: g, OnRemoval: func(r images.Removal) {
			result.Removals = append(result.Removals, r)
			p.say(r.Text())
		}}
		return r.Prune(ctx, plan)
	})
}

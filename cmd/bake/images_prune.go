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
		Short: "Retire old images, and keep the newest of each name",
		Long: `Show which images of the account are too many, and with -apply remove them and their
snapshots. Images are releases of the same one if they have the same tag bake:image;
without it, if their names are the same but for a date, a time or a UUID. -together
takes all images that -name and -tag select for releases of one.

In each region, the newest -keep available images of a group stay; of the others, those
go that are older than -older-than, are not in use, and not more than -max of a group in
one run, the oldest first. Nothing of a group goes while its newest image is pending,
failed or rejected by its verification, or while fewer than -keep are available. -apply
looks all up again right before each removal.

Without -keep and -older-than, the retention blocks in the bake files of TEMPLATE, or of
the template in this directory, say what becomes of the images that its image blocks have
made, in all regions unless -region or -regions names some. Older images are deprecated,
disabled and removed, each at least 7 days after the other. What is disabled can be had
back until it is removed: bake images enable.

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
	flags.Var(&o.olderThan, "older-than", "remove only what is at least this `old`, such as 30d")
	flags.StringVar(&o.name, "name", "", "look only at images whose name fits this `pattern`, with the wildcards * and ?")
	flags.StringArrayVar(&o.tags, "tag", nil, "look only at images with this `tag`: KEY=VALUE, or KEY; repeatable")
	flags.StringVar(&o.max, "max", "20%", "remove at most this `share` of a group in one run: a number, or a percentage, which is at least one image")
	flags.BoolVar(&o.together, "together", false, "take all images that are looked at for releases of one; needs -name or -tag")
	flags.BoolVar(&o.apply, "apply", false, "do it, instead of only showing what would be done")
	o.template.registerVars(flags)
	o.placeFlags.register(p, flags)
	o.guardFlags.register(flags)
	p.jsonFlag(cmd)
	return cmd
}

// options are what the flags ask for.
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

// byTemplate reports whether retention blocks say what is too much.
func (o *imagesPruneOptions) byTemplate() bool { return o.keep == 0 && o.olderThan == 0 }

// retained are the options that the retention blocks of a template ask for, and the names
// of the images.
func (o *imagesPruneOptions) retained(ctx context.Context, p *program, command string, like images.PruneOptions, path string) (all []images.PruneOptions, err error) {
	if o.name != "" || len(o.tags) > 0 || o.together {
		return nil, usageError{"-name, -tag and -together say which images are looked at with -keep or -older-than; retention blocks say that themselves", command}
	}
	none := usageError{fmt.Sprintf("%s has no retention block in a *.bake.hcl file; say what is too much: -keep N, -older-than AGE, or both", path), command}
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

// pruneResult is what bake images prune -json ends with.
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
		return usageError{"a template is named for its retention blocks, without -keep and -older-than", cmd.CommandPath()}
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

// prune shows a plan and, if that is asked for, carries it out.
func (p *program) prune(ctx, stop context.Context, a *images.Account, o *imagesPruneOptions, g images.Guards, plan *images.Plan, result *pruneResult) error {
	result.Images = append(result.Images, plan.Images...)
	p.say(plan.Text(o.byTemplate(), o.max))
	if plan.Empty() {
		return nil
	}
	if !o.apply {
		p.say("Nothing was done; -apply does it.")
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

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bake/builder/amazon/images"
	"bake/internal/prose"
	"bake/run"
	"bake/step"
	"bake/ui/prompt"
)

// imagesRemoveExitCodes are those of the commands that remove something.
const imagesRemoveExitCodes = `0    done
1    failed: there is no such image, the command line is wrong, or any other reason
2    refused by a guard: an image is in use, or it is not known that it is not
4    an image was removed, but not all of its snapshots
5    the cloud refused, or could not be reached
7    done in part: a region or an account refused
130  cancelled by Ctrl-C (SIGINT); 143: by SIGTERM
With -exit-codes=packer: 0 and 1 alone.`

// guardHelp says in the help of commands what keeps an image.
const guardHelp = `An image is in use, and stays, by these guards:
  held        it has the tag bake:hold, or deregistration protection
  channel     a parameter of Systems Manager of the type aws:ec2:image names it, or
              did before its last change; or one of another type has its ID in its text
  instances   an instance was launched from it and is not terminated
  templates   a launch template names it in its default or latest version, also
              through a parameter; with -all-template-versions, in any version
  scaling     an Auto Scaling group, also one of size 0, or a launch configuration
  fleets      an active EC2 Fleet or Spot Fleet
  references  EC2 knows another reference, such as a recipe of EC2 Image Builder
  recent      it was launched in the last 7 days (-launched-within), or made in the
              last 2: AWS reports launches up to a day late
  receivers   an account that it is shared with uses it: by AWS's usage report or,
              with -role, by the guards from channel to references, asked there
A guard that could not tell, as without a permission, keeps the image too.
-ignore-guard does without one. Templates of CloudFormation and Terraform, and programs
that have the ID of an image in their text, are not searched.`

// guardFlags say what keeps an image.
type guardFlags struct {
	ignore      []string
	recent      age
	allVersions bool
	role        images.Role
}

func (f *guardFlags) register(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.ignore, "ignore-guard", nil, "do without these `guards`, separated by commas")
	flags.Var(&f.recent, "launched-within", "how long ago a launch still counts as use, such as 24h or 30d; default: 7d")
	f.registerRole(flags)
	flags.BoolVar(&f.allVersions, "all-template-versions", false, "count every version of a launch template, and not only the default and the latest")
}

func (f *guardFlags) registerRole(flags *pflag.FlagSet) {
	flags.StringVar(&f.role.ARN, "role", "", "ask the accounts that an image is shared with themselves, by this `role` in each, whose ARN has {account} for its number")
	flags.StringVar(&f.role.ExternalID, "external-id", "", "the external `ID` that the trust policy of -role asks for")
}

func (f *guardFlags) guards(p *program, command string) (images.Guards, error) {
	g := images.Guards{Ignore: f.ignore, Recent: time.Duration(f.recent), AllVersions: f.allVersions, Role: f.role, Now: p.now}
	if f.role.ARN == "" && f.role.ExternalID != "" {
		return g, usageError{"-external-id has no effect without -role", command}
	}
	if err := checkRole(f.role, command); err != nil {
		return g, err
	}
	if err := g.Check(); err != nil {
		return g, usageError{"-ignore-guard: " + err.Error(), command}
	}
	return g, nil
}

// checkRole complains about what -role says, if it is not the ARN of a role.
func checkRole(r images.Role, command string) error {
	if err := r.Check(); err != nil {
		return usageError{fmt.Sprintf("-role=%s: %v", r.ARN, err), command}
	}
	return nil
}

// guarded is the error of what a guard has kept from being removed.
type guarded struct{ error }

func (g guarded) Unwrap() error { return g.error }

// Outcome gives it an exit code of its own.
func (guarded) Outcome() run.Outcome { return gateClosed }

// ofGuard is err, with the exit code of a closed gate if a guard is the reason.
func ofGuard(err error) error {
	if used, ok := errors.AsType[*images.InUseError](err); ok {
		return guarded{errors.Join(err, errors.New(used.Advice()))}
	}
	return err
}

// imagesTask runs what removes images, so that a sweep finishes it if bake is killed.
func (p *program) imagesTask(ctx, stop context.Context, do func(context.Context, *step.Scope) error) error {
	state, err := p.env.state()
	if err != nil {
		return err
	}
	task := run.TaskOptions{State: state, Command: p.commandLine(), Name: "images", Now: p.now, Stop: stop, Emit: func(e step.Event) {
		if e.Kind == step.Warning {
			fmt.Fprintln(p.stderr, "Warning: "+prose.Printable(e.Text))
		}
	}}
	id, err := run.Task(ctx, task, do)
	if failed, ok := errors.AsType[*run.FailedError](err); ok && failed.Outcome == run.OutcomeLeft {
		p.say(leftText(id, failed.Left))
		return err // whatever a guard has kept besides
	}
	return ofGuard(err)
}

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

If one of the images is in use, none is removed, and each user is named. All is looked
up again right before each image is removed. Snapshots that belong to another image, too,
stay. If bake is killed, 'bake sweep' deletes the snapshots of an image that is gone.

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
					r := images.Remover{Account: a, Scope: s, Guards: g, Told: func(r images.Removal) {
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
	flags.StringVar(&o.image, "image", "", "remove all images of this `name`, or of this value of the tag bake:image")
	o.placeFlags.register(p, flags)
	o.guardFlags.register(flags)
	p.jsonFlag(cmd)
	return cmd
}

// find are the images that are meant.
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

// removalResult is what commands that remove images end with in JSON.
type removalResult struct {
	Removals []images.Removal `json:"removals"`
}

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
		r := images.Remover{Account: a, Scope: s, Guards: g, Told: func(r images.Removal) {
			result.Removals = append(result.Removals, r)
			p.say(r.Text())
		}}
		return r.Prune(ctx, plan)
	})
}

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
		Short: "List snapshots whose image is gone, and delete them",
		Long: `List the account's snapshots that EC2 made for an image, by what their descriptions or
tags with bake: say, that is not there any more, not even disabled. With -delete they are
deleted, after a question for each region.

Some are listed but kept, with the reason; these guards can be left out (-ignore-guard):
  recycle-bin   the image is in the recycle bin
  templates, scaling, fleets
                a launch template, launch configuration or fleet makes volumes from it
  shared        it is shared: others may have made images of it
  locked        it is locked
  fast-restore  fast snapshot restore is enabled for it
  fast-launch   fast launch is enabled for its image
A guard that could not tell keeps all snapshots of a region. Those that have tags of AWS
Backup, Data Lifecycle Manager, EC2 Image Builder, Kubernetes or Velero, and archived
ones, are always kept. A region whose images could not all be listed has no orphans.

Sizes are upper bounds: snapshots share blocks, so deleting one frees less. Costs are
those of us-east-1.`,
		Example: `  bake images orphans -regions all
  bake images orphans -min-age 30d -delete`,
		Args:        exactly(),
		RunE:        func(cmd *cobra.Command, _ []string) error { return p.imagesOrphans(cmd, &o) },
		Annotations: map[string]string{exitCodes: imagesRemoveExitCodes},
	}
	flags := cmd.Flags()
	flags.Var(&o.minAge, "min-age", "look only at snapshots that are at least this `old`")
	flags.StringSliceVar(&o.ignore, "ignore-guard", nil, "do without these `guards`, separated by commas")
	flags.BoolVar(&o.delete, "delete", false, "delete the snapshots that are not kept, after a question for each region")
	flags.BoolVar(&o.yes, "yes", false, "with -delete: do not ask")
	o.placeFlags.register(p, flags)
	p.jsonFlag(cmd)
	return cmd
}

// orphansResult is what bake images orphans -json ends with.
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
			p.say(images.OrphansText(found))
		case err == nil: // otherwise they are not all
			p.say("No snapshots without their image.")
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

// confirmed are the snapshots of those regions for which the user says yes. err is joined
// to what keeps the user from being asked.
func (p *program) confirmed(ctx context.Context, regions [][]images.Orphan, yes bool, err error) ([]images.Orphan, error) {
	if yes {
		return slices.Concat(regions...), err
	}
	ask := p.newPrompter(func() func() { return func() {} })
	if ask == nil {
		return nil, errors.Join(err, fmt.Errorf("nothing was deleted, since nobody can be asked: %w; -yes deletes without a question", prompt.ErrNoTerminal))
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

func (p *program) imagesEnableCommand() *cobra.Command {
	var f placeFlags
	cmd := &cobra.Command{
		Use:   "enable IMAGE",
		Short: "Make a disabled image launchable again",
		Long: `Enable an image that is disabled, and share it again with those whom it was shared with
before 'bake images prune' disabled it, as its tags say. Give it the tag bake:hold if it
is to stay: otherwise it may be disabled again when nothing uses it.`,
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

func (p *program) imagesCheckCommand() *cobra.Command {
	var f placeFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check that what launches machines has an image",
		Long: `Look up the images that parameters of the type aws:ec2:image, launch templates, launch
configurations, Auto Scaling groups and fleets name, and fail if one is missing, disabled,
or not shared with the account any more, so that the next launch would fail.`,
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
					p.say("Every image that is named can be launched.")
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

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bake/builder/amazon/images"
	"bake/internal/prose"
	"bake/run"
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

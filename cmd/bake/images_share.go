package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bake/builder/amazon/images"
	"bake/internal/prose"
	"bake/run"
)

// imagesChangeExitCodes are those of the commands that change images.
const imagesChangeExitCodes = `0    done
1    failed: there is no such image, the command line is wrong, or any other reason
4    something was left behind
5    the cloud refused, or could not be reached, before anything was done
7    done in some regions, but not in all
130  cancelled by Ctrl-C (SIGINT); 143: by SIGTERM
With -exit-codes=packer: 0 and 1 alone.`

// partly is the error of a command that has done something, but not all: its outcome is
// that of images which are not everywhere.
type partly struct{ error }

func (e partly) Unwrap() error      { return e.error }
func (partly) Outcome() run.Outcome { return run.OutcomePartial }

// done is err as that of a command that has done something in spite of it.
func done(something bool, err error) error {
	_, regional := errors.AsType[*images.RegionError](err)
	_, local := errors.AsType[*images.PlaceError](err)
	if !something || !regional && !local {
		return err
	}
	return partly{err}
}

// shareFlags are the flags of bake images share and unshare.
type shareFlags struct {
	placeFlags
	images.SharingChange
}

func (p *program) imagesShareCommand() *cobra.Command {
	var f shareFlags
	cmd := &cobra.Command{
		Use:   "share IMAGE",
		Short: "Let other accounts use an image",
		Long: `Share an image with accounts, organizations, organizational units or everybody. With
-regions, its copies in those regions are shared too. Whoever it is shared with may
launch it; to copy it, an account needs the -snapshots too.

What AWS would refuse is found out before anything is changed: images that are
encrypted with the account's default key, encrypted or marked images that are to be
public, and a block on public images. An image is shared with its snapshots or not at
all; if that fails in one region, those of the other regions stay shared, and doing it
again completes it.

An image that is encrypted with a customer managed key can be launched only by those who
may use the key. The statement for the policy of the key is printed; bake does not
change policies of keys.`,
		Example: `  bake images share web-20261128 -with 111122223333
  bake images share ami-0123456789abcdef0 -with 111122223333,444455556666 -snapshots
  bake images share web-20261128 -regions all -with arn:aws:organizations::123456789012:organization/o-a1b2c3d4e5
  bake images share web-20261128 -public`,
		Args: exactly("the ID or name of an image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.changeSharing(cmd, &f, args[0], f.With, (*images.Account).Share)
		},
		Annotations: map[string]string{exitCodes: imagesChangeExitCodes},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.With, "with", nil, "share with these `accounts`, or organizations and organizational units by their ARNs, separated by commas")
	flags.BoolVar(&f.Public, "public", false, "share with everybody")
	flags.BoolVar(&f.Snapshots, "snapshots", false, "share the snapshots too, so that the image can be copied")
	f.register(p, flags)
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) imagesUnshareCommand() *cobra.Command {
	var f shareFlags
	var guards guardFlags
	cmd := &cobra.Command{
		Use:   "unshare IMAGE",
		Short: "Take an image back from other accounts",
		Long: `Withdraw what 'bake images share' gives: nobody it is taken from can launch the image any
more. Instances that run are not affected, but whatever launches machines from it there
fails from now on. With -regions, its copies in those regions are taken back too.

Before, AWS is asked for a report of which accounts use the image. If one uses it that
would lose it, or that cannot be found out, it is not taken from anybody, unless
-ignore-guard=receivers says so. Reports lack the launches of the last day; with -role,
accounts are asked themselves, which tells what there is now.`,
		Example: `  bake images unshare web-20261128 -with 111122223333
  bake images unshare web-20261128 -public
  bake images unshare ami-0123456789abcdef0 -all -snapshots -regions all
  bake images unshare web-20261128 -all -ignore-guard receivers`,
		Args: exactly("the ID or name of an image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			g, err := guards.guards(p, cmd.CommandPath())
			if err != nil {
				return err
			}
			g.Reports = true
			return p.changeSharing(cmd, &f, args[0], nil, func(a *images.Account, ctx context.Context, ref string, c images.SharingChange) ([]images.Shared, error) {
				c.Guard = a.Receivers(g)
				all, err := a.Unshare(ctx, ref, c)
				return all, ofGuard(err)
			})
		},
		Annotations: map[string]string{exitCodes: strings.Replace(imagesChangeExitCodes, "4    something was left behind", "2    refused by the guard: an account uses the image, or it is not known that none does", 1)},
	}
	flags := cmd.Flags()
	guards.registerRole(flags)
	flags.StringSliceVar(&guards.ignore, "ignore-guard", nil, "do without these `guards`: receivers")
	flags.StringSliceVar(&f.With, "with", nil, "take it back from these `accounts`, organizations and organizational units")
	flags.BoolVar(&f.Public, "public", false, "take it back from everybody: those that it is shared with by name keep it")
	flags.BoolVar(&f.All, "all", false, "take it back from all that it is shared with")
	flags.BoolVar(&f.Snapshots, "snapshots", false, "take back the snapshots too")
	f.register(p, flags)
	p.jsonFlag(cmd)
	return cmd
}

// sharedResult is what bake images share -json ends with.
type sharedResult struct {
	Images []images.Shared `json:"images"`
}

// changeSharing changes whom an image is shared with. Those who receive it must be allowed
// to use its keys.
func (p *program) changeSharing(cmd *cobra.Command, f *shareFlags, ref string, receivers []string, change func(*images.Account, context.Context, string, images.SharingChange) ([]images.Shared, error)) error {
	f.Copies = f.regions != nil
	if err := f.Check(""); err != nil {
		return usageError{err.Error(), cmd.CommandPath()}
	}
	return p.withImages(cmd, &f.placeFlags, func(ctx, _ context.Context, a *images.Account) error {
		all, err := change(a, ctx, ref, f.SharingChange)
		p.json.result = sharedResult{list(all)}
		var keys []string
		for _, s := range all {
			what := "no change"
			if s.Changed {
				what = "was shared with " + s.Before.String()
			}
			p.say(fmt.Sprintf("%s (%s) in %s: shared with %s (%s)", s.Image.ID, prose.Printable(s.Image.Name), s.Image.Region, s.After, what))
			if len(receivers) > 0 {
				keys = append(keys, s.Keys...)
			}
		}
		slices.Sort(keys)
		for _, key := range slices.Compact(keys) {
			p.say(keyStatement(key, receivers))
		}
		return done(len(all) > 0, err)
	})
}

// keyStatement says what the policy of a key needs so that others can launch what is
// encrypted with it.
func keyStatement(key string, with []string) string {
	var principals, organizations []string
	for _, who := range with {
		if _, organization, ok := strings.Cut(who, "/"); ok {
			organization, _, _ = strings.Cut(organization, "/")
			organizations = append(organizations, fmt.Sprintf("%q", organization))
		} else {
			principals = append(principals, fmt.Sprintf("%q", "arn:aws:iam::"+who+":root"))
		}
	}
	statement := func(principal, condition string) string {
		return fmt.Sprintf(`{"Effect": "Allow", "Principal": {"AWS": %s}, "Action": ["kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey*", "kms:ReEncrypt*"], "Resource": "*"%s}`, principal, condition)
	}
	text := "It is encrypted with " + key + ", which those it is shared with must be allowed to use. Statement for its key policy:"
	if len(principals) > 0 {
		text += "\n  " + statement("["+strings.Join(principals, ", ")+"]", "")
	}
	if len(organizations) > 0 {
		text += "\n  " + statement(`"*"`, `, "Condition": {"StringEquals": {"aws:PrincipalOrgID": [`+strings.Join(organizations, ", ")+`]}}`)
	}
	return text
}

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
With -exit-codes=packer: only 0 and 1.`

// partly is the error of a command that has done only a part of its work. Its outcome is
// that of images which are not everywhere.
type partly struct{ error }

func (e partly) Unwrap() error      { return e.error }
func (partly) Outcome() run.Outcome { return run.OutcomePartial }

// done returns err for a command that has succeeded in part if something is set.
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
-regions, also share its copies in those regions. Sharing allows launching the image;
copying it also requires -snapshots.

Before anything is changed, bake checks for what AWS would refuse: images encrypted with
the account's default key, public sharing of images that are encrypted or have a product
code or watermark, and a block on public images. In each region, the image and its
snapshots are shared together or not at all. If one region fails, the others stay shared;
run the command again to complete it.

Launching an image that is encrypted with a customer managed key requires permission to
use the key. bake prints the statement for the key policy, but does not change policies.`,
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
		Short: "Stop sharing an image with other accounts",
		Long: `Undo 'bake images share': the given accounts can no longer launch the image. Running
instances are not affected, but new launches there will fail. With -regions, also stop
sharing its copies in those regions.

First, AWS is asked for a report of the accounts that use the image. If one of the given
accounts uses it, or the report is not available, nothing is changed, unless
-ignore-guard=receivers is given. Reports lack the launches of the last day; with -role,
the accounts themselves are queried, which gives the current state.`,
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
	flags.StringSliceVar(&guards.ignore, "ignore-guard", nil, "`guards` to skip: receivers")
	flags.StringSliceVar(&f.With, "with", nil, "stop sharing it with these `accounts`, organizations and organizational units")
	flags.BoolVar(&f.Public, "public", false, "stop sharing it publicly; accounts that it is shared with individually keep it")
	flags.BoolVar(&f.All, "all", false, "stop sharing it with everybody, including publicly")
	flags.BoolVar(&f.Snapshots, "snapshots", false, "stop sharing the snapshots too")
	f.register(p, flags)
	p.jsonFlag(cmd)
	return cmd
}

// sharedResult is the last object of bake images share -json.
type sharedResult struct {
	Images []images.Shared `json:"images"`
}

// changeSharing changes the sharing of an image. The receivers must be permitted to use
// its keys.
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

// keyStatement describes the statement that the policy of a key needs so that others can
// launch images encrypted with it.
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

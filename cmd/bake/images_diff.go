package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"bake/builder"
	"bake/builder/amazon/images"
	"bake/golden/asroot"
	"bake/golden/changes"
	"bake/golden/contents"
	"bake/golden/manifest"
	"bake/step"
)

// diffOptions are the flags of bake images diff.
type diffOptions struct {
	guest         guestFlags
	inside, boot  bool
	reports       string
	first, second string
}

func (p *program) imagesDiffCommand() *cobra.Command {
	var o diffOptions
	cmd := &cobra.Command{
		Use:   "diff IMAGE IMAGE",
		Short: "Show the differences between two images",
		Long: `Compare two images, by their IDs or names: attributes, tags, block devices and, if the
account owns them, the keys of their snapshots and the accounts they are shared with. IDs
and dates, which always differ, are not compared. The exit code is 0 with or without
differences.

With -contents, also compare their packages, files and check results, from the reports of
their builds, which are found by the images' tags. With -boot, read packages and files on
a machine launched from each image instead; the machines are always deleted again. Files
that differ from machine to machine, such as host keys, are not compared.`,
		Example: `  bake images diff web-20261121 web-20261128
  bake images diff web-20261121 web-20261128 -contents -reports reports
  bake images diff ami-0123456789abcdef0 ami-0fedcba9876543210 -boot
  bake images diff ami-0123456789abcdef0 ami-0fedcba9876543210 -regions us-east-1,eu-west-1 -json`,
		Args: exactly("the first image", "the second"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.first, o.second = args[0], args[1]
			if err := o.check(cmd); err != nil {
				return err
			}
			return p.imagesDiff(cmd, &o)
		},
		Annotations: map[string]string{exitCodes: imagesExitCodes},
	}
	flags := cmd.Flags()
	o.guest.register(p, flags)
	flags.Lookup("region").Usage = "`region` to use; default: the usual AWS settings"
	flags.StringSliceVar(&o.guest.regions, "regions", nil, "`regions` to use, separated by commas; all: those enabled for the account")
	flags.BoolVar(&o.inside, "contents", false, "also compare packages, files and check results, from the reports of the builds")
	flags.StringVar(&o.reports, "reports", "", "with -contents: `directory` or s3://BUCKET/PREFIX with the reports of both builds; default: beside the logs of their runs")
	flags.BoolVar(&o.boot, "boot", false, "also compare packages and files, on machines launched for this")
	p.jsonFlag(cmd)
	return cmd
}

// check complains about flags that do not go together.
func (o *diffOptions) check(cmd *cobra.Command) error {
	usage := func(format string, args ...any) error {
		return usageError{fmt.Sprintf(format, args...), cmd.CommandPath()}
	}
	if o.boot && o.inside {
		return usage("-contents reads reports, and -boot machines: use one of them")
	}
	if o.reports != "" && !o.inside {
		return usage("-reports needs -contents")
	}
	for _, name := range []string{"instance-type", "user", "subnet", "ssh-interface"} {
		if cmd.Flags().Changed(name) && !o.boot {
			return usage("-%s needs -boot", name)
		}
	}
	return nil
}

// difference is the output of bake images diff -json.
type difference struct {
	images.Comparison
	Contents *changes.Set `json:"contents,omitempty"`
}

func (p *program) imagesDiff(cmd *cobra.Command, o *diffOptions) error {
	var d difference
	err := p.onImages(cmd, &o.guest.placeFlags, func(ctx, _ context.Context, a *images.Account) (err error) {
		d.Comparison, err = a.Diff(ctx, o.first, o.second)
		return err
	})
	if err == nil && (o.inside || o.boot) {
		d.Contents, err = p.inside(cmd, o, d.A, d.B)
	}
	if d.A.ID != "" {
		p.json.result = d
		p.say(d.Comparison.Text(p.stdout.columns()))
		if d.Contents != nil {
			p.say("\n" + d.Contents.Text())
		}
	}
	return p.ended(err, err, o.guest.exitCodes)
}

// inside compares the contents of two images.
func (p *program) inside(cmd *cobra.Command, o *diffOptions, a, b images.Image) (*changes.Set, error) {
	var known [2]changes.Known
	for n, i := range []images.Image{a, b} {
		var err error
		if o.boot {
			known[n], err = p.insideMachine(cmd, o, i)
		} else {
			known[n], err = p.insideReports(cmd, o, i)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", i.ID, err)
		}
	}
	set := changes.Between(known[0], known[1])
	return &set, nil
}

func (p *program) insideReports(cmd *cobra.Command, o *diffOptions, i images.Image) (k changes.Known, err error) {
	err = p.onImages(cmd, &o.guest.placeFlags, func(ctx, _ context.Context, a *images.Account) error {
		in, err := p.reportsOf(ctx, a, o.reports, i.Tags)
		if err == nil {
			k, err = changes.FromReports(ctx, in, i.Tags)
		}
		return err
	})
	return k, err
}

// insideMachine reads the contents of an image on a machine launched from it.
func (p *program) insideMachine(cmd *cobra.Command, o *diffOptions, i images.Image) (k changes.Known, err error) {
	guest := o.guest
	guest.region, guest.regions = i.Region, nil
	err = p.withGuest(cmd, &guest, i.ID, func(ctx context.Context, s *step.Scope, _ images.Image, m builder.Machine) error {
		return step.Run(ctx, s, "read packages and files", func(ctx context.Context) (err error) {
			k.Packages, err = contents.FromMachine(ctx, func(ctx context.Context, script string, out io.Writer) error {
				return asroot.Stream(ctx, m, script, out)
			}, "/")
			if err != nil {
				return err
			}
			k.Files, err = manifest.Read(ctx, m)
			return err
		})
	})
	return k, err
}

package main

import (
	"cmp"
	"context"

	"github.com/spf13/cobra"

	"bake/internal/local"
	"bake/internal/prose"
	"bake/ui"
)

func (p *program) cloudBasesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bases",
		Short: "List the bases that machines boot from",
		Long: `List the bases of the local cloud: those of the releases that it offers, which are built
on first launch or by 'bake cloud base', and those of imported images. docs/bases.md says
which of them have been tested with the publisher's own packages.`,
		Example: `  bake cloud bases`,
		Args:    exactly(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.cloudBases(cmd.Context()) },
	}
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) cloudBases(ctx context.Context) error {
	dir, err := p.env.cloudDir()
	if err != nil {
		return err
	}
	bases, err := local.Bases(ctx, dir, p.log.Logger)
	if err != nil {
		return err
	}
	if p.json.on {
		p.json.result = struct {
			Bases []local.Base `json:"bases"`
		}{bases}
		return nil
	}
	table := prose.NewTable("NAME", "PUBLISHER", "USER", "MADE", "SIZE", "FROM")
	for _, b := range bases {
		made, size := "no", "-"
		if b.Made {
			made, size = b.Created.Format("2006-01-02"), ui.Bytes(b.Size)
		}
		table.Row(b.Name, cmp.Or(b.Publisher, "-"), b.User, made, size, cmp.Or(b.Source, "-"))
	}
	p.say(table.Within(p.stdout.columns()))
	return nil
}

func (p *program) cloudBaseCommand() *cobra.Command {
	var o local.BaseOptions
	var from string
	cmd := &cobra.Command{
		Use:   "base NAME",
		Short: "Build the base of a release before its first launch",
		Long: `Build the base of a release, such as ubuntu-22.04; 'bake cloud bases' lists them. It is
built from the packages of an archive: -mirror, or else $BAKE_MIRROR or the host's apt
sources. With -from, it is built from any source that 'bake cloud import' accepts. Some
releases can only be built from a container image; missing packages are installed in it.
Templates find the images of the release under the publisher's own names.`,
		Example: `  bake cloud base ubuntu-22.04
  bake cloud base ubuntu-22.04 -mirror http://mirror.example.com/ubuntu
  bake cloud base ubuntu-22.04 -from rootfs.tar.xz
  bake cloud base al2023 -from registry.example.com/amazonlinux/amazonlinux:2023`,
		Args: exactly("the name of a release"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Release = args[0]
			if from != "" && (o.Mirror != "" || o.Keyring != "") {
				return usageError{"-from cannot be combined with -mirror or -keyring", cmd.CommandPath()}
			}
			if from != "" {
				return p.cloudImport(cmd.Context(), cloudImportOptions{source: from, as: o.Release, replace: o.Replace, region: local.DefaultRegion})
			}
			return p.cloudBase(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Mirror, "mirror", "", "`URL` of the archive to take packages from")
	flags.StringVar(&o.Keyring, "keyring", "", "a `file` with the OpenPGP keys that sign the archive; default: those of the distribution")
	flags.StringVar(&from, "from", "", "build it from this `source`: an OCI image or root file system, as for 'bake cloud import'")
	flags.BoolVar(&o.Replace, "replace", false, "rebuild an existing base; images and machines made from the old one are not affected")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) cloudBase(ctx context.Context, o local.BaseOptions) error {
	ctx, _, release := p.interrupts(ctx, ignoreSignals)
	defer release()
	emit, done := p.progressDisplay()
	defer done()
	options, err := p.localOptions(emit)
	if err != nil {
		return err
	}
	o.Progress = options.Progress
	if err := local.MakeBase(ctx, options, o); err != nil {
		return err
	}
	p.say("The base " + o.Release + " is ready.")
	return nil
}

func (p *program) cloudAliasCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "alias AMI-ID RELEASE",
		Short: "Map an AMI ID of AWS to a release",
		Long: `Map an AMI ID that a template pins to a release of 'bake cloud bases', so that the
template can be built with -local. The ID is then available in every region. Mapping it
again replaces the release.`,
		Example: `  bake cloud alias ami-0c4f7023847b90238 ubuntu-22.04`,
		Args:    exactly("the AMI id", "the release"),
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := p.env.cloudDir()
			if err != nil {
				return err
			}
			if err := local.Alias(dir, p.log.Logger, args[0], args[1]); err != nil {
				return err
			}
			p.say(args[0] + " stands for " + args[1] + " on the local cloud.")
			return nil
		},
	}
	p.jsonFlag(cmd)
	return cmd
}

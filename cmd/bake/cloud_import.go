package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"bake/internal/lazyregexp"
	"bake/internal/local"
	"bake/run/localcloud"
	"bake/step"
)

// cloudImportOptions are the flags of bake cloud import.
type cloudImportOptions struct {
	source, name, owner, user, as, arch, region string
	replace                                     bool
}

func (p *program) cloudImportCommand() *cobra.Command {
	o := cloudImportOptions{owner: "self"}
	cmd := &cobra.Command{
		Use:   "import SOURCE",
		Short: "Import an OCI image, a root file system or a disk as an image",
		Long: `Make a launchable image from SOURCE: a tar archive of a root file system, a disk image
(raw, qcow2, VMDK, VHD or OVA) with an ext4, ext3 or ext2 file system, in a partition or on
the whole disk, an image saved by 'docker save' or 'podman save', a directory with an OCI
layout, a reference to an OCI image including its registry, or the ID of an image of the
local cloud, such as one that a template made. An archive or a disk image can be compressed
with gzip, xz, zstd or bzip2.

The image is available in every region under the given name and owner. With -as, it
becomes the base of a release of 'bake cloud bases' instead, with the owner, names, root
device and login user of the publisher's images.`,
		Example: `  bake cloud import rootfs.tar.gz -name my-base -user admin
  bake cloud import disk.qcow2 -name from-disk
  bake cloud import registry.example.com/team/base:1.2 -name base-1.2 -owner 123456789012
  bake cloud import rootfs.tar.xz -as ubuntu-22.04
  bake cloud import ami-0f1e2d3c4b5a69788 -owner 888995627335 -name our-base-1`,
		Args: exactly("the source"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.source = args[0]
			return p.cloudImport(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.name, "name", "", "`name` of the image, for templates to look up; required without -as")
	flags.StringVar(&o.owner, "owner", o.owner, "`account` that owns the image: 12 digits, or self")
	flags.StringVar(&o.user, "user", "", "login `user`; default: the user set in the image, or root")
	flags.StringVar(&o.as, "as", "", "make it the base of this `release`, such as ubuntu-22.04")
	flags.StringVar(&o.arch, "arch", "", "`architecture`: amd64 or arm64; default: that of this host")
	flags.StringVar(&o.region, "region", local.DefaultRegion, "`region` of the image, if SOURCE is an image ID")
	flags.BoolVar(&o.replace, "replace", false, "replace the existing image or base; machines and images made from it are not affected")
	p.jsonFlag(cmd)
	return cmd
}

var accountPattern = lazyregexp.New(`^\d{12}$`)

func (p *program) cloudImport(ctx context.Context, o cloudImportOptions) error {
	switch {
	case o.as != "" && (o.name != "" || o.user != "" || o.arch != "" || o.owner != "" && o.owner != "self"):
		return usageError{"-as cannot be combined with -name, -owner, -user or -arch: the release determines them", "bake cloud import"}
	case o.arch != "" && local.IsImageID(o.source):
		return usageError{"-arch cannot be used with an image of the local cloud, whose architecture is known", "bake cloud import"}
	case o.arch != "" && o.arch != "amd64" && o.arch != "arm64":
		return usageError{fmt.Sprintf("-arch %s: it must be amd64 or arm64", o.arch), "bake cloud import"}
	case o.as == "" && o.name == "":
		return usageError{"name the image with -name, or the release that it replaces with -as", "bake cloud import"}
	case o.as == "" && o.owner != "self" && !accountPattern.Get().MatchString(o.owner):
		return usageError{fmt.Sprintf("-owner %s: an account has 12 digits", o.owner), "bake cloud import"}
	}
	return p.withLocal(ctx, "", "", func(ctx context.Context, c *localcloud.Cloud) (err error) {
		owner := o.owner
		if owner == "self" {
			if owner, err = c.Account(ctx); err != nil {
				return err
			}
		}
		if err := p.importImage(ctx, c, o, owner); err != nil {
			return err
		}
		if o.as != "" {
			p.say("The base " + o.as + " is ready.")
			return nil
		}
		img, err := c.Image(ctx, local.DefaultRegion, o.name, "")
		if err != nil {
			return err
		}
		p.json.result = struct {
			Image localcloud.Image `json:"image"`
		}{img}
		p.say(img.ID + "  " + o.name)
		return nil
	})
}

// importImage imports the source in o and prints what the image lacks.
func (p *program) importImage(ctx context.Context, c *localcloud.Cloud, o cloudImportOptions, owner string) error {
	emit, done := p.progressDisplay()
	options, err := p.localOptions(emit)
	if err != nil {
		return err
	}
	lacks, err := local.ImportImage(ctx, options.Dir, p.log.Logger, local.Import{
		Options: options, Source: o.source, Name: o.name, Owner: owner, User: o.user, Arch: o.arch, As: o.as, Region: o.region, Endpoint: c.Endpoint, Key: local.Key{AccessKey: c.AccessKey, SecretKey: c.SecretKey}, Replace: o.replace, Now: p.now(), Progress: localcloud.Phases(p.now, emit),
	})
	done()
	if len(lacks) > 0 {
		fmt.Fprintf(p.stderr, "The image does not contain %s. What needs that will fail on its machines; a template that installs it makes an image that has it.\n", strings.Join(lacks, ", "))
	}
	return err
}

func (p *program) cloudResetCommand() *cobra.Command {
	var force, keepBases bool
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "Delete everything the local cloud holds",
		Long: `Delete all images, snapshots, instances and keys of the local cloud, and the base
images that its machines boot from. This fails while the local cloud is in use.`,
		Example: `  bake cloud reset -keep-bases`,
		Args:    exactly(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.cloudReset(cmd.Context(), force, keepBases) },
	}
	cmd.Flags().BoolVar(&force, "force", false, "do not ask for confirmation")
	cmd.Flags().BoolVar(&keepBases, "keep-bases", false, "keep base images and imported images, which take long to rebuild")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) cloudReset(ctx context.Context, force, keepBases bool) error {
	dir, err := p.env.cloudDir()
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		p.say("There is nothing to delete in " + dir + ".")
		return nil
	}
	if !force {
		q := p.newPrompter(func() func() { return func() {} })
		if q == nil {
			return errors.New("nothing was deleted: there is no terminal to confirm that everything in " + dir + " may be deleted; use -force to delete it without confirmation")
		}
		text, err := q.Ask(ctx, "Delete everything that the local cloud holds in "+dir+"? [y/N] ")
		if err != nil {
			return err
		}
		if text != "y" && text != "yes" {
			return errReported
		}
	}
	o, err := p.localOptions(func(step.Event) {})
	if err != nil {
		return err
	}
	if err := local.Reset(ctx, o, keepBases); err != nil {
		return err
	}
	p.say("The local cloud is empty.")
	return nil
}

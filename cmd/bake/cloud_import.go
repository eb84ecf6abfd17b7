package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"sync"

	"github.com/spf13/cobra"

	"bake/internal/local"
	"bake/run/localcloud"
	"bake/step"
)

// cloudImportOptions are the flags of bake cloud import.
type cloudImportOptions struct{ source, name, owner, user string }

func (p *program) cloudImportCommand() *cobra.Command {
	o := cloudImportOptions{owner: "self"}
	cmd := &cobra.Command{
		Use:   "import SOURCE",
		Short: "Import an OCI image or a root file system as an image",
		Long: `Make a launchable image from SOURCE, which is a tar archive of a root file system
(plain, gzip, xz or zstd), an image saved by 'docker save' or 'podman save', a
directory with an OCI layout, or a reference to an OCI image including its registry.
The image is available in every region under the given name and owner.`,
		Example: `  bake cloud import rootfs.tar.gz -name my-base -user admin
  bake cloud import registry.example.com/team/base:1.2 -name base-1.2 -owner 123456789012`,
		Args: exactly("the source"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.source = args[0]
			return p.cloudImport(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.name, "name", "", "`name` of the image, for templates to look up; required")
	flags.StringVar(&o.owner, "owner", o.owner, "`account` that owns the image: 12 digits, or self")
	flags.StringVar(&o.user, "user", "", "login `user`; default: the user set in the image, or root")
	p.jsonFlag(cmd)
	return cmd
}

var accountPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^\d{12}$`) })

func (p *program) cloudImport(ctx context.Context, o cloudImportOptions) error {
	if o.name == "" {
		return usageError{"name the image with -name", "bake cloud import"}
	}
	if o.owner != "self" && !accountPattern().MatchString(o.owner) {
		return usageError{fmt.Sprintf("-owner %s: an account has 12 digits", o.owner), "bake cloud import"}
	}
	return p.withLocal(ctx, "", "", func(ctx context.Context, c *localcloud.Cloud) (err error) {
		owner := o.owner
		if owner == "self" {
			if owner, err = c.Account(ctx); err != nil {
				return err
			}
		}
		dir, err := p.env.cloudDir()
		if err != nil {
			return err
		}
		emit, done := p.progressDisplay()
		defer done()
		err = local.ImportImage(ctx, dir, p.log.Logger, local.Import{
			Source: o.source, Name: o.name, Owner: owner, User: o.user, Now: p.now(), Progress: localcloud.Phases(p.now, emit),
		})
		if err != nil {
			return err
		}
		img, err := c.Image(ctx, local.DefaultRegion, o.name)
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
	cmd.Flags().BoolVar(&keepBases, "keep-bases", false, "keep base images and imported images, which take long to make again")
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
			return errors.New("there is no terminal to ask on whether everything in " + dir + " may be deleted; say so with -force")
		}
		text, err := q.ask(ctx, "Delete everything that the local cloud holds in "+dir+"? [y/N] ")
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

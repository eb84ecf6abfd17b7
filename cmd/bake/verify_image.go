package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"bake/builder"
	"bake/builder/amazon/images"
	"bake/golden/attest"
	"bake/golden/attested"
	"bake/golden/manifest"
	"bake/golden/reports"
	"bake/run/localcloud"
	"bake/step"
)

// verifyImage checks the attestation of an image in the cloud and, with -boot, the files of
// a machine launched from it.
func (p *program) verifyImage(cmd *cobra.Command, o verifyOptions, args []string) error {
	var key crypto.PublicKey
	keyOf := func(ctx context.Context, c *localcloud.Cloud) (err error) {
		cloud := localcloud.FromEnvironment(p.env)
		if c != nil {
			cloud = c.Cloud
		}
		key, err = p.verifier(ctx, o, cloud)
		return err
	}
	var err error
	if o.guest.local {
		err = p.withLocal(cmd.Context(), "", "", keyOf)
	} else {
		err = interruptible(cmd.Context(), func(ctx context.Context) error { return keyOf(ctx, nil) })
	}
	if err != nil {
		return err
	}
	var found attested.Image
	err = p.onImages(cmd, &o.guest.placeFlags, func(ctx, _ context.Context, a *images.Account) (err error) {
		w := attested.Where{Key: key, Expected: o.Expected, Files: o.boot, Reports: func(ctx context.Context, a *images.Account, tags map[string]string) (reports.Store, error) {
			return p.reportsOf(ctx, a, o.reports, tags)
		}}
		if len(args) > 1 {
			w.File = args[1]
		}
		found, err = attested.Find(ctx, a, args[0], w)
		if unread, is := errors.AsType[*attested.UnreadError](err); is && unread.Files {
			return fmt.Errorf("%w; name the directory or bucket of the reports with -reports", err)
		} else if is {
			return fmt.Errorf("%w; name the file, or its directory or bucket with -reports", err)
		}
		return flagged(err)
	})
	if err == nil && o.boot {
		err = p.sameFiles(cmd, &o, found)
	}
	if err != nil {
		return p.ended(err, err, o.guest.exitCodes)
	}
	id, err := attest.KeyID(key)
	if err != nil {
		return err
	}
	if p.json.on {
		p.json.result = struct {
			Attestations []verified `json:"attestations"`
		}{[]verified{{found.ID, id, found.Statement.PredicateType, found.Statement.Subject}}}
		return nil
	}
	fmt.Fprintf(p.stdout, "%s: verified: %s\n", found.ID, found.Statement.PredicateType)
	if o.boot {
		fmt.Fprintf(p.stdout, "%s: the files are those that are attested\n", found.ID)
	}
	return nil
}

// sameFiles launches a machine of the image, and compares its files with the attested
// ones.
func (p *program) sameFiles(cmd *cobra.Command, o *verifyOptions, found attested.Image) error {
	before, err := found.Files()
	if err != nil {
		return err
	}
	o.guest.region = found.Region
	var changes []manifest.Change
	err = p.withGuest(cmd, &o.guest, found.ID, func(ctx context.Context, s *step.Scope, _ images.Image, m builder.Machine) error {
		return step.Run(ctx, s, "compare the files", func(ctx context.Context) error {
			after, err := manifest.Read(ctx, m)
			if err == nil {
				changes = manifest.Compare(before, after, manifest.Own(o.mayChange))
			}
			return err
		})
	})
	if len(changes) > 0 {
		return errors.Join(&attested.DifferError{Image: found.ID, Changes: changes}, err)
	}
	return err
}

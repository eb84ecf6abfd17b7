package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"bake/builder"
	"bake/builder/amazon/images"
	"bake/golden/attest"
	"bake/golden/manifest"
	"bake/golden/reports"
	"bake/run/localcloud"
	"bake/step"
)

// isImage reports whether an argument is the ID of an image, and not a file.
func isImage(arg string) bool {
	rest, ok := strings.CutPrefix(arg, "ami-")
	return ok && (len(rest) == 8 || len(rest) == 17) && strings.Trim(rest, "0123456789abcdef") == ""
}

// attested is what an image's attestation says, once that is known to be true.
type attested struct {
	image   images.Image
	reports string // their directory
	files   string // digest of the manifest
	out     verified
}

// verifyImage checks the attestation of an image that is in the cloud and, with -boot, the
// files of a machine of it.
func (p *program) verifyImage(cmd *cobra.Command, o verifyOptions, args []string) error {
	var key crypto.PublicKey
	keyOf := func(ctx context.Context, c *localcloud.Cloud) (err error) {
		cloud := localcloud.Elsewhere(p.env)
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
	var found attested
	err = p.onImages(cmd, &o.guest.placeFlags, func(ctx, _ context.Context, a *images.Account) (err error) {
		found, err = p.attestedImage(ctx, a, o, key, args)
		return err
	})
	if err == nil && o.boot {
		err = p.sameFiles(cmd, &o, found)
	}
	if err != nil {
		return p.ended(err, err, o.guest.exitCodes)
	}
	if p.json.on {
		p.json.result = struct {
			Attestations []verified `json:"attestations"`
		}{[]verified{found.out}}
		return nil
	}
	fmt.Fprintf(p.stdout, "%s: verified: %s\n", found.image.ID, found.out.PredicateType)
	if o.boot {
		fmt.Fprintf(p.stdout, "%s: the files are those that are attested\n", found.image.ID)
	}
	return nil
}

// attestedImage checks what is attested of an image against what the cloud says of it.
func (p *program) attestedImage(ctx context.Context, a *images.Account, o verifyOptions, key crypto.PublicKey, args []string) (found attested, err error) {
	if found.image, err = a.One(ctx, args[0]); err != nil {
		return found, err
	}
	i := found.image
	fail := func(format string, args ...any) (attested, error) {
		return found, fmt.Errorf("%s: %w", i.ID, fmt.Errorf(format, args...))
	}
	digest := i.Tags[reports.Attestation]
	if digest == "" {
		return fail("the image has no tag %s: nothing is attested of it, or the tag was removed", reports.Attestation)
	}
	state, err := p.env.state()
	if err != nil {
		return found, err
	}
	found.reports = cmp.Or(o.reports, state.Reports(fileOf(i.Tags[reports.Run])))
	var text []byte
	if len(args) > 1 {
		if text, err = reports.ReadFile(args[1], maxAttestation); err == nil && reports.Digest(text) != digest {
			return fail("its tag %s names another attestation than %s: %.64s", reports.Attestation, args[1], digest)
		}
	} else {
		text, err = reports.Read(found.reports, digest, maxAttestation)
	}
	if err != nil {
		return fail("its attestation cannot be read: %w; name the file, or its directory with -reports", err)
	}
	st, err := attest.Open(text, key)
	if err == nil {
		err = st.Meet(o.expected)
	}
	if err != nil {
		return fail("its attestation: %w", err)
	}
	id, files, err := st.Identity()
	if err != nil {
		return fail("its attestation: %w", err)
	}
	isCopy, err := copyOf(ctx, a, i, id)
	if err != nil {
		return fail("%w", err)
	}
	have := attest.Identity{ID: i.ID, Region: i.Region, Account: i.Owner, Name: i.Name, Tags: i.Tags}
	if reasons := id.Differs(have, isCopy); len(reasons) > 0 {
		return fail("it is not what is attested: %s", strings.Join(reasons, "; "))
	}
	if files != "" && id.Tags[reports.Manifest] != files {
		return fail("its attestation names two lists of files")
	}
	if why, revoked := i.Tags[images.RevokedTag]; revoked {
		return fail("the image was revoked: %s", cmp.Or(why, "without a reason"))
	}
	keyID, err := attest.KeyID(key)
	found.files, found.out = files, verified{i.ID, keyID, st.PredicateType, st.Subject}
	return found, err
}

// fileOf is the tag of a run as the name of a directory.
func fileOf(run string) string {
	return strings.NewReplacer("/", "_", `\`, "_", "..", "_").Replace(run)
}

// copyOf reports whether an image is a copy of the attested one, and not that itself. Another
// image is an error.
func copyOf(ctx context.Context, a *images.Account, i images.Image, id attest.Identity) (bool, error) {
	if i.ID == id.ID {
		return false, nil
	}
	lineage, err := a.Lineage(ctx, i)
	for _, from := range lineage {
		if !from.Copied {
			break
		}
		if from.ID == id.ID && from.Region == id.Region {
			return true, nil
		}
	}
	if err != nil {
		return false, fmt.Errorf("what it is a copy of cannot be found out: %w", err)
	}
	return false, fmt.Errorf("it is not what is attested: that is %s in %s, which it is no copy of", id.ID, id.Region)
}

// mostChanges is how many changed files an error names.
const mostChanges = 50

// sameFiles launches a machine of the image, and compares its files with those that are
// attested.
func (p *program) sameFiles(cmd *cobra.Command, o *verifyOptions, found attested) error {
	if found.files == "" {
		return fmt.Errorf("%s: no list of files is attested, so that -boot has nothing to compare", found.image.ID)
	}
	text, err := reports.Read(found.reports, found.files, maxAttestation)
	if err != nil {
		return fmt.Errorf("%s: its list of files: %w; name the directory of the reports with -reports", found.image.ID, err)
	}
	before, err := manifest.Parse(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("%s: its list of files: %w", found.image.ID, err)
	}
	o.guest.region = found.image.Region
	var changes []manifest.Change
	err = p.withGuest(cmd, &o.guest, found.image.ID, func(ctx context.Context, s *step.Scope, _ images.Image, m builder.Machine) error {
		return step.Run(ctx, s, "compare the files", func(ctx context.Context) error {
			after, err := manifest.Read(ctx, m)
			if err == nil {
				changes = manifest.Compare(before, after, manifest.Own(o.mayChange))
			}
			return err
		})
	})
	if len(changes) == 0 {
		return err
	}
	lines := []string{fmt.Sprintf("%s: files of a machine of it differ from those that are attested (%d):", found.image.ID, len(changes))}
	for n, c := range changes {
		if n == mostChanges {
			lines = append(lines, fmt.Sprintf("and %d more", len(changes)-n))
			break
		}
		lines = append(lines, c.String())
	}
	return errors.Join(errors.New(strings.Join(lines, "\n  ")), err)
}

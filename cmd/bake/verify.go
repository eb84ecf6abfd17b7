package main

import (
	"context"
	"crypto"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"bake/builder/amazon"
	"bake/builder/amazon/kmskey"
	"bake/golden/attest"
	"bake/golden/attested"
	"bake/golden/manifest"
	"bake/run/localcloud"
)

// verifyOptions are the flags of bake verify-attestation.
type verifyOptions struct {
	mode, key, verifier string
	artifacts, images   []string
	expected            attest.Expected
	guest               guestFlags
	boot                bool
	mayChange           []string
	reports             string
	keyless             map[string]*string
	rekor, timestamp    bool
}

func (p *program) verifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify-attestation FILE... | AMI [FILE]",
		Short: "Check attestations, or an image against its attestation",
		Long: `Check that each FILE is an attestation that is signed with the given key, and with no
other, and that it matches the flags. Without -artifact and -ami any subjects are
accepted; they are printed.

With AMI, the ID of an image, check that it is the image that its attestation is about, or a
copy of that: its ID, name, account and tags are those that are attested. The attestation is
FILE, or is found in the directory of the reports, by the tag bake:attestation. With -boot, a
machine of the image is launched too, and its files are compared with those that are
attested; the machine is deleted, whatever happens.`,
		Example: `  bake verify-attestation -key key.pub -artifact disk.qcow2 disk.qcow2.provenance.json
  bake verify-attestation -key awskms:///alias/bake -ami eu-west-1:ami-0a1b2c3d4e5f60718 \
    -predicate-type https://slsa.dev/provenance/v1 ami-0a1b2c3d4e5f60718.provenance.json
  bake verify-attestation -key key.pub -region eu-west-1 -reports reports -boot ami-0a1b2c3d4e5f60718`,
		Annotations: map[string]string{exitCodes: `0    verified
1    not verified, or the command line is wrong
4    something of the machine of an image was left behind
5    the cloud refused to answer, or to launch a machine of the image
130  cancelled by Ctrl-C (SIGINT); 143: by SIGTERM
With -exit-codes=packer: 0 and 1 alone.`},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{"name the attestations to check, or an image", cmd.CommandPath()}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd, args); err != nil {
				return err
			}
			if attested.IsImage(args[0]) {
				return p.verifyImage(cmd, o, args)
			}
			if !o.guest.local {
				return interruptible(cmd.Context(), func(ctx context.Context) error {
					return p.verify(ctx, o, localcloud.Elsewhere(p.env), args)
				})
			}
			return p.withLocal(cmd.Context(), "", "", func(ctx context.Context, c *localcloud.Cloud) error { return p.verify(ctx, o, c.Cloud, args) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.mode, "signing-mode", "", "how it must be signed: key or kms; default: as -key says")
	flags.StringVar(&o.key, "key", "", "`key` that it must be signed with: a PEM file, public or private, or an AWS KMS key such as awskms:///alias/NAME")
	flags.StringVar(&o.verifier, "verifier", "", "PEM `file` with the public key that it must be signed with; it must be that of -key, if both are given")
	flags.StringVar(&o.expected.PredicateType, "predicate-type", "", "`URI` that the type of its predicate must be")
	flags.StringVar(&o.expected.BuilderID, "builder-id", "", "`URI` that the builder must have")
	flags.StringVar(&o.expected.SourceURI, "source-uri", "", "`URI` that must be among what it was built from")
	flags.StringArrayVar(&o.artifacts, "artifact", nil, "`file` that it must be about; can be repeated")
	flags.StringArrayVar(&o.images, "ami", nil, "`image` that it must be about, REGION:AMI; can be repeated")
	o.guest.register(p, flags)
	flags.BoolVar(&o.boot, "boot", false, "launch a machine of AMI, and compare its files with those that are attested")
	flags.StringArrayVar(&o.mayChange, "may-change", nil, "with -boot, files that may differ: a `pattern` of paths, as in a verify block; can be repeated")
	flags.StringVar(&o.reports, "reports", "", "`directory` of the reports of the build of AMI, or s3://BUCKET/PREFIX; default: beside the log of its run")
	o.keyless = map[string]*string{}
	for _, name := range []string{"trusted-root-path", "keyless-identity", "keyless-oidc-issuer", "bundle"} {
		o.keyless[name] = flags.String(name, "", "of keyless signing, which is not supported")
	}
	flags.BoolVar(&o.rekor, "require-rekor", false, "of keyless signing, which is not supported")
	flags.BoolVar(&o.timestamp, "require-timestamp", false, "of keyless signing, which is not supported")
	p.jsonFlag(cmd)
	return cmd
}

// check says what is wrong with the flags.
func (o *verifyOptions) check(cmd *cobra.Command, args []string) error {
	usage := func(format string, args ...any) error {
		return usageError{fmt.Sprintf(format, args...), cmd.CommandPath()}
	}
	unsupported := o.rekor || o.timestamp || o.mode == "keyless"
	for _, value := range o.keyless {
		unsupported = unsupported || *value != ""
	}
	isKMS := strings.HasPrefix(o.key, kmskey.Scheme)
	ofImage := attested.IsImage(args[0])
	if wrong := o.wrong(cmd, args); wrong != "" {
		return usage("%s", wrong)
	}
	switch {
	case unsupported:
		return usage("keyless signing is not supported: Sigstore's Fulcio and Rekor are not queried; use -key or -verifier with a public key, or cosign verify-blob-attestation")
	case o.mode != "" && o.mode != "key" && o.mode != "kms":
		return usage("-signing-mode must be key or kms, not %q", o.mode)
	case o.key == "" && o.verifier == "":
		return usage("set -key or -verifier to the key that the attestations must be signed with")
	case !isKMS && strings.Contains(o.key, "://"):
		return usage("%s is not an AWS KMS key, which begins with awskms://; keys of other services are not supported", o.key)
	case o.mode == "kms" && o.key != "" && !isKMS, o.mode == "kms" && o.key == "":
		return usage("-signing-mode=kms needs -key=awskms:///…")
	case o.mode == "key" && isKMS:
		return usage("-signing-mode=key needs a PEM file, but %s is an AWS KMS key", o.key)
	case o.guest.local && !isKMS && !ofImage:
		return usage("-local applies only to images and AWS KMS keys")
	}
	return nil
}

// wrong says which flags and arguments do not go together; empty if all do.
func (o *verifyOptions) wrong(cmd *cobra.Command, args []string) string {
	if attested.IsImage(args[0]) {
		switch {
		case len(args) > 2:
			return "an image has one attestation; name at most one file after it"
		case len(o.images)+len(o.artifacts) > 0:
			return "-ami and -artifact are for attestations in files: the image is named already"
		case len(o.mayChange) > 0 && !o.boot:
			return "-may-change needs -boot"
		}
		for _, pattern := range o.mayChange {
			if wrong := manifest.CheckPattern(pattern); wrong != "" {
				return "-may-change: " + wrong
			}
		}
		return ""
	}
	for _, name := range append([]string{"boot", "may-change", "reports", "exit-codes"}, guestNames()...) {
		if name != "local" && cmd.Flags().Changed(name) {
			return "-" + name + " is for an image: name its ID before any file"
		}
	}
	return ""
}

// verified is what bake verify-attestation prints with -json.
type verified struct {
	File          string            `json:"file"`
	KeyID         string            `json:"key_id"` // SHA-256 of the public key
	PredicateType string            `json:"predicate_type"`
	Subjects      []attest.Resource `json:"subjects"`
}

func (p *program) verify(ctx context.Context, o verifyOptions, cloud amazon.Cloud, files []string) error {
	key, err := p.verifier(ctx, o, cloud)
	if err != nil {
		return err
	}
	for _, path := range o.artifacts {
		subject, err := attest.File(path, path)
		if err != nil {
			return fmt.Errorf("-artifact: %w", err)
		}
		o.expected.Subjects = append(o.expected.Subjects, subject)
	}
	for _, image := range o.images {
		region, id, ok := strings.Cut(image, ":")
		if !ok || region == "" || !strings.HasPrefix(id, "ami-") {
			return fmt.Errorf("-ami: %q is not REGION:AMI, such as eu-west-1:ami-0a1b2c3d4e5f60718", image)
		}
		o.expected.Subjects = append(o.expected.Subjects, attest.Image(region, id))
	}
	id, err := attest.KeyID(key)
	if err != nil {
		return err
	}
	found, failed := attested.Files(files, key, o.expected)
	var all []verified
	for _, f := range found {
		all = append(all, verified{f.Path, id, f.Statement.PredicateType, f.Statement.Subject})
		if p.json.on {
			continue
		}
		fmt.Fprintf(p.stdout, "%s: verified: %s\n", f.Path, f.Statement.PredicateType)
		for _, s := range f.Statement.Subject {
			fmt.Fprintf(p.stdout, "  %s sha256:%s\n", s.Name, s.Digest["sha256"])
		}
	}
	if p.json.on {
		p.json.result = struct {
			Attestations []verified `json:"attestations"`
		}{list(all)}
	}
	return failed
}

// verifier is the public key that the flags name.
func (p *program) verifier(ctx context.Context, o verifyOptions, cloud amazon.Cloud) (crypto.PublicKey, error) {
	return attest.VerificationKey([]string{o.key, o.verifier}, p.env.get(attest.PassphraseVar), func(source string) (crypto.Signer, error) {
		if !strings.HasPrefix(source, kmskey.Scheme) {
			return nil, nil
		}
		return kmskey.Opener(cloud)(ctx, p.env, source)
	})
}

package main

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bake/builder/amazon"
	"bake/golden/attest"
	"bake/golden/attested"
	"bake/golden/manifest"
	"bake/run/localcloud"
)

// verifyOptions are the flags of bake verify-attestation.
type verifyOptions struct {
	attested.Options
	signingMode string
	keyless     bool // a flag of keyless signing is given
	guest       guestFlags
	boot        bool
	mayChange   []string
	reports     string
}

// The flags of keyless signing, for the error that rejects them.
var (
	keylessTexts    = []string{"trusted-root-path", "keyless-identity", "keyless-oidc-issuer", "bundle"}
	keylessSwitches = []string{"require-rekor", "require-timestamp"}
)

func (p *program) verifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify-attestation FILE... | AMI [FILE]",
		Short: "Verify attestations, or an image against its attestation",
		Long: `Check that each FILE is an attestation signed with the given key, and with no other, and
that it matches the flags. Without -artifact and -ami, any subjects are accepted; they are
printed.

With AMI, the ID of an image, check that it is the attested image or a copy of it, by its
ID, name, account and tags. The attestation is FILE, or the one in the reports that the
image's tag bake:attestation refers to. With -boot, also launch a machine from the image
and compare its files with the attested ones; the machine is always deleted again.`,
		Example: `  bake verify-attestation -key key.pub -artifact disk.qcow2 disk.qcow2.provenance.json
  bake verify-attestation -key awskms:///alias/bake -ami eu-west-1:ami-0a1b2c3d4e5f60718 \
    -predicate-type https://slsa.dev/provenance/v1 ami-0a1b2c3d4e5f60718.provenance.json
  bake verify-attestation -key key.pub -region eu-west-1 -reports reports -boot ami-0a1b2c3d4e5f60718`,
		Annotations: map[string]string{exitCodes: `0    verified
1    not verified, or the command line is wrong
4    something of the machine of an image was left behind
5    the cloud refused to answer, or to launch a machine of the image
130  cancelled by Ctrl-C (SIGINT); 143: by SIGTERM
With -exit-codes=packer: only 0 and 1.`},
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
					return p.verify(ctx, o, localcloud.FromEnvironment(p.env), args)
				})
			}
			return p.withLocal(cmd.Context(), "", "", func(ctx context.Context, c *localcloud.Cloud) error { return p.verify(ctx, o, c.Cloud, args) })
		},
	}
	o.register(p, cmd.Flags())
	p.jsonFlag(cmd)
	return cmd
}

// register declares the flags.
func (o *verifyOptions) register(p *program, flags *pflag.FlagSet) {
	flags.StringVar(&o.signingMode, "signing-mode", "", "required kind of signature: key or kms; default: that of -key")
	flags.StringVar(&o.Key, "key", "", "`key` that it must be signed with: a PEM file, public or private, or an AWS KMS key such as awskms:///alias/NAME")
	flags.StringVar(&o.Verifier, "verifier", "", "PEM `file` with the public key that it must be signed with; must match -key if both are given")
	flags.StringVar(&o.Expected.PredicateType, "predicate-type", "", "required `URI` of its predicate type")
	flags.StringVar(&o.Expected.BuilderID, "builder-id", "", "required `URI` of the builder")
	flags.StringVar(&o.Expected.SourceURI, "source-uri", "", "`URI` that must be among its build materials")
	flags.StringArrayVar(&o.Artifacts, "artifact", nil, "`file` that must be a subject; repeatable")
	flags.StringArrayVar(&o.AMIs, "ami", nil, "`image` that must be a subject, as REGION:AMI; repeatable")
	o.guest.register(p, flags)
	flags.BoolVar(&o.boot, "boot", false, "launch a machine from AMI and compare its files with the attested ones")
	flags.StringArrayVar(&o.mayChange, "may-change", nil, "with -boot: `pattern` of paths that may differ, as in a verify block; repeatable")
	flags.StringVar(&o.reports, "reports", "", "`directory` or s3://BUCKET/PREFIX with the reports of the build of AMI; default: beside the log of its run")
	for _, name := range keylessTexts {
		flags.String(name, "", "not supported: keyless signing")
	}
	for _, name := range keylessSwitches {
		flags.Bool(name, false, "not supported: keyless signing")
	}
}

// check returns an error if the flags and arguments are invalid.
func (o *verifyOptions) check(cmd *cobra.Command, args []string) error {
	for _, name := range slices.Concat(keylessTexts, keylessSwitches) {
		f := cmd.Flags().Lookup(name)
		o.keyless = o.keyless || f.Value.String() != f.DefValue
	}
	ofImage := attested.IsImage(args[0])
	wrong := o.forFiles(cmd)
	if ofImage {
		wrong = o.forImage(args)
	}
	wrong = cmp.Or(wrong, o.forSigning())
	if wrong == "" && o.guest.local && !o.OnKMS() && !ofImage {
		wrong = "-local applies only to images and AWS KMS keys"
	}
	if wrong != "" {
		return usageError{wrong, cmd.CommandPath()}
	}
	return nil
}

// forSigning returns an error message for invalid flags about signatures, or "".
func (o *verifyOptions) forSigning() string {
	switch {
	case o.keyless, o.signingMode == "keyless":
		return "keyless signing is not supported: Sigstore's Fulcio and Rekor are not queried; use -key or -verifier with a public key, or cosign verify-blob-attestation"
	case o.signingMode != "" && o.signingMode != "key" && o.signingMode != "kms":
		return fmt.Sprintf("-signing-mode must be key or kms, not %q", o.signingMode)
	case o.Key == "" && o.Verifier == "":
		return "set -key or -verifier to the key that the attestations must be signed with"
	case !o.OnKMS() && strings.Contains(o.Key, "://"):
		return fmt.Sprintf("%s is not an AWS KMS key, which begins with awskms://; keys of other services are not supported", o.Key)
	case o.signingMode == "kms" && !o.OnKMS():
		return "-signing-mode=kms needs -key=awskms:///…"
	case o.signingMode == "key" && o.OnKMS():
		return fmt.Sprintf("-signing-mode=key needs a PEM file, but %s is an AWS KMS key", o.Key)
	}
	return ""
}

// forImage returns an error message for flags and arguments that cannot be used with an
// image, or "".
func (o *verifyOptions) forImage(args []string) string {
	switch {
	case len(args) > 2:
		return "an image has one attestation; name at most one file after it"
	case len(o.AMIs)+len(o.Artifacts) > 0:
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

// forFiles returns an error message for flags that cannot be used with attestations in
// files, or "".
func (o *verifyOptions) forFiles(cmd *cobra.Command) string {
	for _, name := range append([]string{"boot", "may-change", "reports", "exit-codes"}, guestNames()...) {
		if name != "local" && cmd.Flags().Changed(name) {
			return "-" + name + " is for an image: name its ID before any file"
		}
	}
	return ""
}

// verified is the output of bake verify-attestation -json.
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
	want, err := o.Want()
	if err != nil {
		return flagged(err)
	}
	id, err := attest.KeyID(key)
	if err != nil {
		return err
	}
	found, failed := attested.Files(files, key, want)
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

// flagged prefixes an error with the flag that caused it.
func flagged(err error) error {
	switch {
	case errors.Is(err, attested.ErrArtifact):
		return fmt.Errorf("-artifact: %w", err)
	case errors.Is(err, attested.ErrImage):
		return fmt.Errorf("-ami: %w", err)
	case errors.Is(err, attested.ErrNoList):
		return fmt.Errorf("-boot: %w", err)
	}
	return err
}

// verifier returns the public key that the flags name.
func (p *program) verifier(ctx context.Context, o verifyOptions, cloud amazon.Cloud) (crypto.PublicKey, error) {
	return o.PublicKey(ctx, cloud, p.env, p.env.get(attest.PassphraseVar))
}

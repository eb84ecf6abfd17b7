package attested

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"strings"

	"bake/builder/amazon"
	"bake/builder/amazon/kmskey"
	"bake/golden/attest"
)

// Options say what is demanded of attestations. They have the names of the flags of
// 'bake verify-attestation'.
type Options struct {
	SigningMode string   // how they must be signed: key or kms; empty: as Key says
	Key         string   // that they must be signed with: a PEM file, or the URI of a key of AWS KMS
	Verifier    string   // a PEM file with the public key; that of Key, if both are given
	Keyless     bool     // an option of keyless signing is given
	Artifacts   []string // files that they must be about
	AMIs        []string // images that they must be about: REGION:AMI
	Expected    attest.Expected
}

// OnKMS reports whether the key is one of AWS KMS.
func (o *Options) OnKMS() bool { return strings.HasPrefix(o.Key, kmskey.Scheme) }

// Check says which options are wrong, or do not go together.
func (o *Options) Check() error {
	switch {
	case o.Keyless, o.SigningMode == "keyless":
		return errors.New("keyless signing is not supported: Sigstore's Fulcio and Rekor are not queried; use -key or -verifier with a public key, or cosign verify-blob-attestation")
	case o.SigningMode != "" && o.SigningMode != "key" && o.SigningMode != "kms":
		return fmt.Errorf("-signing-mode must be key or kms, not %q", o.SigningMode)
	case o.Key == "" && o.Verifier == "":
		return errors.New("set -key or -verifier to the key that the attestations must be signed with")
	case !o.OnKMS() && strings.Contains(o.Key, "://"):
		return fmt.Errorf("%s is not an AWS KMS key, which begins with awskms://; keys of other services are not supported", o.Key)
	case o.SigningMode == "kms" && !o.OnKMS():
		return errors.New("-signing-mode=kms needs -key=awskms:///…")
	case o.SigningMode == "key" && o.OnKMS():
		return fmt.Errorf("-signing-mode=key needs a PEM file, but %s is an AWS KMS key", o.Key)
	}
	return nil
}

// PublicKey is the key that the attestations must be signed with. A key of AWS KMS is that of cloud;
// env is the environment, as "NAME=value", and passphrase is that of a private key.
func (o *Options) PublicKey(ctx context.Context, cloud amazon.Cloud, env []string, passphrase string) (crypto.PublicKey, error) {
	return attest.VerificationKey([]string{o.Key, o.Verifier}, passphrase, func(source string) (crypto.Signer, error) {
		if !strings.HasPrefix(source, kmskey.Scheme) {
			return nil, nil
		}
		return kmskey.Opener(cloud)(ctx, env, source)
	})
}

// Want is what is expected, with the digests of the artifacts and the images.
func (o *Options) Want() (attest.Expected, error) {
	want := o.Expected
	for _, path := range o.Artifacts {
		subject, err := attest.File(path, path)
		if err != nil {
			return want, fmt.Errorf("-artifact: %w", err)
		}
		want.Subjects = append(want.Subjects, subject)
	}
	for _, image := range o.AMIs {
		region, id, ok := strings.Cut(image, ":")
		if !ok || region == "" || !strings.HasPrefix(id, "ami-") {
			return want, fmt.Errorf("-ami: %q is not REGION:AMI, such as eu-west-1:ami-0a1b2c3d4e5f60718", image)
		}
		want.Subjects = append(want.Subjects, attest.Image(region, id))
	}
	return want, nil
}

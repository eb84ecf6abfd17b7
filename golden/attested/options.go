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

// The subjects of errors: the requirements in [Options], and files without an attested
// list.
var (
	ErrArtifact = errors.New("an artifact that is demanded")
	ErrImage    = errors.New("an image that is demanded")
	ErrNoList   = errors.New("the attestation has no list of files to compare with those of the machine")
)

// Options are the requirements for attestations.
type Options struct {
	Key       string   // that they must be signed with: a PEM file, or the URI of a key of AWS KMS
	Verifier  string   // a PEM file with the public key; that of Key, if both are given
	Artifacts []string // files that must be subjects
	AMIs      []string // images that must be subjects, as REGION:AMI
	Expected  attest.Expected
}

// OnKMS reports whether the key is in AWS KMS.
func (o *Options) OnKMS() bool { return strings.HasPrefix(o.Key, kmskey.Scheme) }

// PublicKey returns the key that the attestations must be signed with. cloud is where keys of AWS
// KMS are; env is the environment, as "NAME=value", and passphrase that of a private key.
func (o *Options) PublicKey(ctx context.Context, cloud amazon.Cloud, env []string, passphrase string) (crypto.PublicKey, error) {
	return attest.VerificationKey([]string{o.Key, o.Verifier}, passphrase, func(source string) (crypto.Signer, error) {
		if !strings.HasPrefix(source, kmskey.Scheme) {
			return nil, nil
		}
		return kmskey.Opener(cloud)(ctx, env, source)
	})
}

// Want returns the expected attestation, with the digests of the artifacts and the images.
func (o *Options) Want() (attest.Expected, error) {
	want := o.Expected
	for _, path := range o.Artifacts {
		subject, err := attest.File(path, path)
		if err != nil {
			return want, fmt.Errorf("%w: %w", ErrArtifact, err)
		}
		want.Subjects = append(want.Subjects, subject)
	}
	for _, image := range o.AMIs {
		region, id, ok := strings.Cut(image, ":")
		if !ok || region == "" || !strings.HasPrefix(id, "ami-") {
			return want, fmt.Errorf("%w: %q is not REGION:AMI, such as eu-west-1:ami-0a1b2c3d4e5f60718", ErrImage, image)
		}
		want.Subjects = append(want.Subjects, attest.Image(region, id))
	}
	return want, nil
}

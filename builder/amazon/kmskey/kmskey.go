// Package kmskey signs with asymmetric keys of AWS KMS, which never leave it.
package kmskey

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"bake/builder/amazon/internal/access"
)

// Scheme is what the URI of a key begins with.
const Scheme = "awskms://"

// Opener returns what opens the key of a URI: "awskms:///" and an ID, alias or ARN. A
// host before the third slash is the endpoint to call. cloud stands in for AWS.
func Opener(cloud access.Cloud) func(ctx context.Context, env []string, uri string) (crypto.Signer, error) {
	return func(ctx context.Context, env []string, uri string) (crypto.Signer, error) {
		endpoint, id, ok := strings.Cut(strings.TrimPrefix(uri, Scheme), "/")
		if !strings.HasPrefix(uri, Scheme) || !ok || id == "" {
			return nil, fmt.Errorf("%q is not an AWS KMS key: write awskms:/// and an ID, alias or ARN", uri)
		}
		o := access.Defaults()
		if part := strings.Split(id, ":"); len(part) > 5 && part[0] == "arn" {
			o.Region = part[3]
		}
		session, err := access.Open(ctx, &o, nil, cloud, env)
		if err != nil {
			return nil, err
		}
		k := &key{ctx: ctx, client: session.KMS(endpoint), id: id}
		out, err := access.Call(ctx, k.client.GetPublicKey, &kms.GetPublicKeyInput{KeyId: &id})
		if err != nil {
			return nil, err
		}
		if k.public, err = x509.ParsePKIXPublicKey(out.PublicKey); err != nil {
			return nil, err
		}
		if out.KeyUsage != types.KeyUsageTypeSignVerify {
			return nil, fmt.Errorf("the key %s is for %s; signing needs one for SIGN_VERIFY", id, out.KeyUsage)
		}
		return k, nil
	}
}

// key is a [crypto.Signer].
type key struct {
	ctx    context.Context //nolint:containedctx // crypto.Signer has none
	client *kms.Client
	id     string
	public crypto.PublicKey
}

func (k *key) Public() crypto.PublicKey { return k.public }

// Sign implements [crypto.Signer] for digests.
func (k *key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	algorithm := types.SigningAlgorithmSpec("")
	switch k.public.(type) {
	case *ecdsa.PublicKey:
		algorithm = map[crypto.Hash]types.SigningAlgorithmSpec{
			crypto.SHA256: types.SigningAlgorithmSpecEcdsaSha256, crypto.SHA384: types.SigningAlgorithmSpecEcdsaSha384, crypto.SHA512: types.SigningAlgorithmSpecEcdsaSha512,
		}[opts.HashFunc()]
	case *rsa.PublicKey:
		if opts.HashFunc() == crypto.SHA256 {
			algorithm = types.SigningAlgorithmSpecRsassaPkcs1V15Sha256
		}
	}
	if algorithm == "" {
		return nil, errors.New("keys of this type cannot be used; make one with the key spec ECC_NIST_P256 or RSA_2048")
	}
	out, err := access.Call(k.ctx, k.client.Sign, &kms.SignInput{
		KeyId: aws.String(k.id), Message: digest, MessageType: types.MessageTypeDigest, SigningAlgorithm: algorithm,
	})
	if err != nil {
		return nil, err
	}
	return out.Signature, nil
}

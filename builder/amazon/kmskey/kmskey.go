// Package kmskey signs with asymmetric keys in AWS KMS.
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

	"bake/builder/amazon/internal/access"
)

// Scheme is the prefix of the URI of a key.
const Scheme = "awskms://"

// Opener returns a function that opens the key of a URI: "awskms:///" and an ID, alias or
// ARN. A host before the third slash is the endpoint to call. cloud replaces AWS.
func Opener(cloud access.Cloud) func(ctx context.Context, env []string, uri string) (crypto.Signer, error) {
	return func(ctx context.Context, env []string, uri string) (crypto.Signer, error) {
		endpoint, id, ok := strings.Cut(strings.TrimPrefix(uri, Scheme), "/")
		if !strings.HasPrefix(uri, Scheme) || !ok || id == "" {
			return nil, fmt.Errorf("%q is not an AWS KMS key: write awskms:/// and an ID, alias or ARN", uri)
		}
		o, at := access.Defaults(), cloud
		if part := strings.Split(id, ":"); len(part) > 5 && part[0] == "arn" {
			o.Region, at = part[3], cloud.In(part[3])
		}
		session, err := access.Open(ctx, &o, nil, at, env)
		if err != nil {
			return nil, err
		}
		k := &key{ctx: ctx, client: session.KMS(session.Region, endpoint), id: id}
		var out struct {
			PublicKey []byte
			KeyUsage  string
		}
		if err := k.client.Do(ctx, "GetPublicKey", map[string]any{"KeyId": id}, &out); err != nil {
			return nil, err
		}
		if k.public, err = x509.ParsePKIXPublicKey(out.PublicKey); err != nil {
			return nil, err
		}
		if out.KeyUsage != "SIGN_VERIFY" {
			return nil, fmt.Errorf("the key %s is for %s; signing needs one for SIGN_VERIFY", id, out.KeyUsage)
		}
		return k, nil
	}
}

// key is a [crypto.Signer].
type key struct {
	ctx    context.Context // crypto.Signer has none
	client *access.JSON
	id     string
	public crypto.PublicKey
}

func (k *key) Public() crypto.PublicKey { return k.public }

// Sign implements [crypto.Signer] for digests.
func (k *key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	algorithm := ""
	switch k.public.(type) {
	case *ecdsa.PublicKey:
		algorithm = map[crypto.Hash]string{
			crypto.SHA256: "ECDSA_SHA_256", crypto.SHA384: "ECDSA_SHA_384", crypto.SHA512: "ECDSA_SHA_512",
		}[opts.HashFunc()]
	case *rsa.PublicKey:
		if opts.HashFunc() == crypto.SHA256 {
			algorithm = "RSASSA_PKCS1_V1_5_SHA_256"
		}
	}
	if algorithm == "" {
		return nil, errors.New("keys of this type cannot be used; make one with the key spec ECC_NIST_P256 or RSA_2048")
	}
	var out struct{ Signature []byte }
	err := k.client.Do(k.ctx, "Sign", map[string]any{"KeyId": k.id, "Message": digest, "MessageType": "DIGEST", "SigningAlgorithm": algorithm}, &out)
	if err != nil {
		return nil, err
	}
	return out.Signature, nil
}

package kms

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/uuid"

	"bake/cloud/api/kms"
	"bake/cloud/durable"
	"bake/cloud/wire"
)

// Options configure a service. All are required.
type Options struct {
	Dir   string // for the state
	Now   func() time.Time
	Wrote func() // called after every change of the state on disk, with the state locked
}

// Service is the embedded Key Management Service of all accounts and regions: keys that
// sign.
type Service struct{ guarded *durable.Guarded[*state] }

// state is the service's state. Its methods run with the lock held.
type state struct {
	opts    Options
	key     *Key // encrypts the private keys
	keys    *durable.Table[signingKey]
	aliases *durable.Table[alias]
}

// signingKey is an asymmetric key.
type signingKey struct {
	Account, Region string
	ID              string
	Spec            kms.KeySpec
	Description     *string
	Private         string // PKCS #8, encrypted
	Created         time.Time
	Deletion        *time.Time // when the key will be deleted
}

type alias struct {
	Account, Region string
	Name            string // with the prefix "alias/"
	Key             string // the id of its key
	Created         time.Time
}

// Open returns the service whose state is in opts.Dir.
func Open(opts Options) (*Service, error) {
	s := &state{opts: opts}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("embedded KMS: state in %s: %w", opts.Dir, err)
	}
	return &Service{durable.Guard(s)}, nil
}

func (s *state) open() (err error) {
	if err = os.MkdirAll(s.opts.Dir, 0o700); err != nil {
		return err
	}
	if s.key, err = OpenKey(filepath.Join(s.opts.Dir, "key")); err != nil {
		return err
	}
	if s.keys, err = durable.OpenTable[signingKey](filepath.Join(s.opts.Dir, "keys"), s.opts.Wrote); err != nil {
		return err
	}
	s.aliases, err = durable.OpenTable[alias](filepath.Join(s.opts.Dir, "aliases"), s.opts.Wrote)
	return err
}

// Endpoint returns the handler of requests to the service.
func (s *Service) Endpoint() (*wire.Service, error) {
	model, err := wire.Load("kms")
	if err != nil {
		return nil, err
	}
	return wire.New(model, s.actions())
}

func arn(account, region, resource string) string {
	return "arn:aws:kms:" + region + ":" + account + ":" + resource
}

func (k *signingKey) arn() string { return arn(k.Account, k.Region, "key/"+k.ID) }

func (a *alias) arn() string { return arn(a.Account, a.Region, a.Name) }

// find returns the caller's key with that id, ARN or alias.
func (s *state) find(c wire.Caller, name string) (*signingKey, error) {
	prefix := arn(c.Account, c.Region, "")
	id := strings.TrimPrefix(name, prefix)
	if strings.HasPrefix(id, "arn:") {
		return nil, wire.Errorf("NotFoundException", "Invalid arn %s", name)
	}
	if strings.HasPrefix(id, "alias/") {
		a, ok := s.aliases.Get(durable.NameID(c.Account, c.Region, id))
		if !ok {
			return nil, wire.Errorf("NotFoundException", "Alias %s is not found.", prefix+id)
		}
		id = a.Key
	}
	id = strings.TrimPrefix(id, "key/")
	k, ok := s.keys.Get(durable.NameID(c.Account, c.Region, id))
	if !ok || k.Deletion != nil && !s.opts.Now().Before(*k.Deletion) {
		return nil, wire.Errorf("NotFoundException", "Key '%s' does not exist", prefix+"key/"+id)
	}
	return k, nil
}

// usable is find for a key that is about to be used; it fails if the key's state forbids
// that.
func (s *state) usable(c wire.Caller, name string) (*signingKey, crypto.Signer, error) {
	k, err := s.find(c, name)
	if err != nil {
		return nil, nil, err
	}
	if k.Deletion != nil {
		return nil, nil, wire.Errorf("KMSInvalidStateException", "%s is pending deletion.", k.arn())
	}
	der, err := s.key.Unseal(k.Private, k.arn())
	if err != nil {
		return nil, nil, err
	}
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, nil, err
	}
	return k, private.(crypto.Signer), nil
}

// generate generates a private key.
func generate(spec kms.KeySpec) (crypto.Signer, error) {
	switch spec {
	case kms.KeySpecEccNistP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case kms.KeySpecEccNistP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case kms.KeySpecEccNistP521:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case kms.KeySpecRsa2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case kms.KeySpecRsa3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case kms.KeySpecRsa4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	return nil, wire.Errorf("UnsupportedOperationException", "The embedded cloud supports only keys for SIGN_VERIFY with the specs ECC_NIST_P256, P384 and P521 and RSA_2048, 3072 and 4096; not %s.", spec)
}

// algorithms returns the signing algorithms of a key.
func (k *signingKey) algorithms() []kms.SigningAlgorithmSpec {
	switch k.Spec {
	case kms.KeySpecEccNistP256:
		return []kms.SigningAlgorithmSpec{kms.SigningAlgorithmSpecEcdsaSha256}
	case kms.KeySpecEccNistP384:
		return []kms.SigningAlgorithmSpec{kms.SigningAlgorithmSpecEcdsaSha384}
	case kms.KeySpecEccNistP521:
		return []kms.SigningAlgorithmSpec{kms.SigningAlgorithmSpecEcdsaSha512}
	}
	return []kms.SigningAlgorithmSpec{
		kms.SigningAlgorithmSpecRsassaPkcs1V15Sha256, kms.SigningAlgorithmSpecRsassaPkcs1V15Sha384, kms.SigningAlgorithmSpecRsassaPkcs1V15Sha512,
		kms.SigningAlgorithmSpecRsassaPssSha256, kms.SigningAlgorithmSpecRsassaPssSha384, kms.SigningAlgorithmSpecRsassaPssSha512,
	}
}

func (k *signingKey) metadata() *kms.KeyMetadata {
	m := &kms.KeyMetadata{
		AWSAccountId: &k.Account, KeyId: &k.ID, Arn: aws.String(k.arn()), CreationDate: &k.Created, Enabled: k.Deletion == nil,
		Description: aws.String(aws.ToString(k.Description)), KeyUsage: kms.KeyUsageTypeSignVerify, KeyState: kms.KeyStateEnabled,
		Origin: kms.OriginTypeAwsKms, KeyManager: kms.KeyManagerTypeCustomer, KeySpec: k.Spec,
		CustomerMasterKeySpec: kms.CustomerMasterKeySpec(k.Spec), // AWS still sends it
		SigningAlgorithms:     k.algorithms(), MultiRegion: aws.Bool(false),
	}
	if k.Deletion != nil {
		m.KeyState, m.DeletionDate = kms.KeyStatePendingDeletion, k.Deletion
	}
	return m
}

func newID() string { return uuid.NewString() }

func invalid(format string, args ...any) error {
	return wire.Errorf("ValidationException", format, args...)
}

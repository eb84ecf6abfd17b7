package kms

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // registers the hash of the algorithms
	_ "crypto/sha512"
	"crypto/x509"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/kms"
	"bake/cloud/durable"
	"bake/cloud/lazyregexp"
	"bake/cloud/wire"
)

// CreateKey creates a signing key.
func (s *state) CreateKey(ctx context.Context, in *kms.CreateKeyInput) (*kms.CreateKeyOutput, error) {
	c := wire.CallerFrom(ctx)
	spec := in.KeySpec
	if spec == "" {
		spec = kms.KeySpec(in.CustomerMasterKeySpec) // older clients send it instead
	}
	if spec == "" {
		spec = kms.KeySpecSymmetricDefault
	}
	if in.KeyUsage != kms.KeyUsageTypeSignVerify && spec != kms.KeySpecSymmetricDefault {
		return nil, invalid("You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.")
	}
	if aws.ToBool(in.MultiRegion) || in.Origin != "" && in.Origin != kms.OriginTypeAwsKms || in.CustomKeyStoreId != nil || in.XksKeyId != nil {
		return nil, wire.Errorf("UnsupportedOperationException", "The embedded cloud supports only single-region keys with key material from KMS: MultiRegion, other origins and custom key stores are not supported.")
	}
	private, err := generate(spec)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	k := &signingKey{Account: c.Account, Region: c.Region, ID: newID(), Spec: spec, Description: in.Description, Created: s.opts.Now().UTC()}
	k.Private = s.key.Seal(der, k.arn())
	return &kms.CreateKeyOutput{KeyMetadata: k.metadata()}, s.keys.Put(durable.NameID(c.Account, c.Region, k.ID), k)
}

// DescribeKey returns everything about a key except the key itself.
func (s *state) DescribeKey(ctx context.Context, in *kms.DescribeKeyInput) (*kms.DescribeKeyOutput, error) {
	c := wire.CallerFrom(ctx)
	if managed, ok := ebsKey(c, *in.KeyId); ok {
		return &kms.DescribeKeyOutput{KeyMetadata: managed}, nil
	}
	k, err := s.find(c, *in.KeyId)
	if err != nil {
		return nil, err
	}
	return &kms.DescribeKeyOutput{KeyMetadata: k.metadata()}, nil
}

// ListKeys returns keys, in pages of Limit, or 100 without it.
func (s *state) ListKeys(ctx context.Context, in *kms.ListKeysInput) (*kms.ListKeysOutput, error) {
	c := wire.CallerFrom(ctx)
	all := []kms.KeyListEntry{}
	for _, k := range s.keys.All() {
		if _, err := s.find(c, k.arn()); err == nil {
			all = append(all, kms.KeyListEntry{KeyId: &k.ID, KeyArn: aws.String(k.arn())})
		}
	}
	keys, next, err := page("keys", all, func(k kms.KeyListEntry) string { return *k.KeyId }, in.Limit, 100, 1000, in.Marker)
	if err != nil {
		return nil, err
	}
	return &kms.ListKeysOutput{Keys: keys, NextMarker: next, Truncated: next != nil}, nil
}

// page returns a page of a list, and the marker of the next page; nil if this is the last
// one.
func page[T any](list string, all []T, name func(T) string, limit *int32, usual, most int32, marker *string) ([]T, *string, error) {
	size := usual
	if limit != nil {
		size = *limit
	}
	if size < 1 || size > most {
		return nil, nil, invalid("1 validation error detected: Value '%d' at 'limit' failed to satisfy constraint: Member must have value between 1 and %d", size, most)
	}
	sort.Slice(all, func(i, j int) bool { return name(all[i]) < name(all[j]) })
	all, next, ok := wire.Page(list, all, name, strings.Compare, int(size), marker)
	if !ok {
		return nil, nil, wire.Errorf("InvalidMarkerException", "The marker is not valid.")
	}
	return all, next, nil
}

// ScheduleKeyDeletion disables a key at once, and deletes it after 7 to 30 days.
func (s *state) ScheduleKeyDeletion(ctx context.Context, in *kms.ScheduleKeyDeletionInput) (*kms.ScheduleKeyDeletionOutput, error) {
	c := wire.CallerFrom(ctx)
	k, _, err := s.usable(c, *in.KeyId)
	if err != nil {
		return nil, err
	}
	days := int32(30)
	if in.PendingWindowInDays != nil {
		days = *in.PendingWindowInDays
	}
	if days < 7 || days > 30 {
		return nil, invalid("PendingWindowInDays must be between 7 and 30.")
	}
	next := *k
	next.Deletion = aws.Time(s.opts.Now().UTC().AddDate(0, 0, int(days)).Truncate(time.Second))
	out := &kms.ScheduleKeyDeletionOutput{KeyId: aws.String(k.arn()), DeletionDate: next.Deletion, KeyState: kms.KeyStatePendingDeletion, PendingWindowInDays: &days}
	return out, s.keys.Put(durable.NameID(c.Account, c.Region, k.ID), &next)
}

var aliasPattern = lazyregexp.New(`^alias/[a-zA-Z0-9/_-]+$`)

// CreateAlias creates an alias of a key.
func (s *state) CreateAlias(ctx context.Context, in *kms.CreateAliasInput) (*kms.CreateAliasOutput, error) {
	c := wire.CallerFrom(ctx)
	if !aliasPattern.Get().MatchString(*in.AliasName) || strings.HasPrefix(*in.AliasName, "alias/aws/") {
		return nil, wire.Errorf("InvalidAliasNameException", "Alias name %s is not valid.", *in.AliasName)
	}
	if strings.Contains(*in.TargetKeyId, "alias/") {
		return nil, invalid("Aliases must refer to keys. Not aliases")
	}
	k, _, err := s.usable(c, *in.TargetKeyId)
	if err != nil {
		return nil, err
	}
	a := &alias{Account: c.Account, Region: c.Region, Name: *in.AliasName, Key: k.ID, Created: s.opts.Now().UTC()}
	id := durable.NameID(c.Account, c.Region, a.Name)
	if _, ok := s.aliases.Get(id); ok {
		return nil, wire.Errorf("AlreadyExistsException", "An alias with the name %s already exists", a.arn())
	}
	return &kms.CreateAliasOutput{}, s.aliases.Put(id, a)
}

// DeleteAlias deletes an alias; the key stays.
func (s *state) DeleteAlias(ctx context.Context, in *kms.DeleteAliasInput) (*kms.DeleteAliasOutput, error) {
	c := wire.CallerFrom(ctx)
	id := durable.NameID(c.Account, c.Region, *in.AliasName)
	if _, ok := s.aliases.Get(id); !ok {
		return nil, wire.Errorf("NotFoundException", "Alias %s is not found.", arn(c.Account, c.Region, *in.AliasName))
	}
	return &kms.DeleteAliasOutput{}, s.aliases.Drop(id)
}

// ListAliases returns all aliases or those of one key, in pages of Limit, or 50 without
// it.
func (s *state) ListAliases(ctx context.Context, in *kms.ListAliasesInput) (*kms.ListAliasesOutput, error) {
	c := wire.CallerFrom(ctx)
	only := ""
	if in.KeyId != nil {
		k, err := s.find(c, *in.KeyId)
		if err != nil {
			return nil, err
		}
		only = k.ID
	}
	all := []kms.AliasListEntry{}
	for _, a := range s.aliases.All() {
		if a.Account == c.Account && a.Region == c.Region && (only == "" || a.Key == only) {
			all = append(all, kms.AliasListEntry{
				AliasName: &a.Name, AliasArn: aws.String(a.arn()), TargetKeyId: &a.Key, CreationDate: &a.Created, LastUpdatedDate: &a.Created,
			})
		}
	}
	aliases, next, err := page("aliases", all, func(a kms.AliasListEntry) string { return *a.AliasName }, in.Limit, 50, 100, in.Marker)
	if err != nil {
		return nil, err
	}
	return &kms.ListAliasesOutput{Aliases: aliases, NextMarker: next, Truncated: next != nil}, nil
}

// GetPublicKey returns the public half of a key.
func (s *state) GetPublicKey(ctx context.Context, in *kms.GetPublicKeyInput) (*kms.GetPublicKeyOutput, error) {
	k, private, err := s.usable(wire.CallerFrom(ctx), *in.KeyId)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	return &kms.GetPublicKeyOutput{
		KeyId: aws.String(k.arn()), PublicKey: der, KeySpec: k.Spec,
		CustomerMasterKeySpec: kms.CustomerMasterKeySpec(k.Spec), // AWS still sends it
		KeyUsage:              kms.KeyUsageTypeSignVerify, SigningAlgorithms: k.algorithms(),
	}, err
}

// digest checks an algorithm, and returns the digest of the message that it signs.
func (k *signingKey) digest(algorithm kms.SigningAlgorithmSpec, kind kms.MessageType, message []byte) ([]byte, crypto.SignerOpts, error) {
	if !slices.Contains(k.algorithms(), algorithm) {
		return nil, nil, wire.Errorf("InvalidKeyUsageException", "Algorithm %s is incompatible with key spec %s.", algorithm, k.Spec)
	}
	if len(message) == 0 || len(message) > 4096 {
		return nil, nil, invalid("1 validation error detected: Value at 'message' failed to satisfy constraint: Member must have length between 1 and 4096")
	}
	hash := crypto.SHA256
	switch name := string(algorithm); {
	case strings.HasSuffix(name, "384"):
		hash = crypto.SHA384
	case strings.HasSuffix(name, "512"):
		hash = crypto.SHA512
	}
	if kind == kms.MessageTypeDigest {
		if len(message) != hash.Size() {
			return nil, nil, invalid("Digest is invalid length for algorithm %s.", algorithm)
		}
	} else {
		h := hash.New()
		h.Write(message)
		message = h.Sum(nil)
	}
	if strings.HasPrefix(string(algorithm), "RSASSA_PSS") {
		return message, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}, nil
	}
	return message, hash, nil
}

// Sign signs a message, or the digest of a message.
func (s *state) Sign(ctx context.Context, in *kms.SignInput) (*kms.SignOutput, error) {
	k, private, err := s.usable(wire.CallerFrom(ctx), *in.KeyId)
	if err != nil {
		return nil, err
	}
	digest, opts, err := k.digest(in.SigningAlgorithm, in.MessageType, in.Message)
	if err != nil {
		return nil, err
	}
	sig, err := private.Sign(rand.Reader, digest, opts)
	return &kms.SignOutput{KeyId: aws.String(k.arn()), Signature: sig, SigningAlgorithm: in.SigningAlgorithm}, err
}

// Verify checks a signature; an invalid one is an error.
func (s *state) Verify(ctx context.Context, in *kms.VerifyInput) (*kms.VerifyOutput, error) {
	k, private, err := s.usable(wire.CallerFrom(ctx), *in.KeyId)
	if err != nil {
		return nil, err
	}
	digest, opts, err := k.digest(in.SigningAlgorithm, in.MessageType, in.Message)
	if err != nil {
		return nil, err
	}
	valid := false
	switch public := private.Public().(type) {
	case *ecdsa.PublicKey:
		valid = ecdsa.VerifyASN1(public, digest, in.Signature)
	case *rsa.PublicKey:
		if pss, ok := opts.(*rsa.PSSOptions); ok {
			valid = rsa.VerifyPSS(public, pss.Hash, digest, in.Signature, pss) == nil
		} else {
			valid = rsa.VerifyPKCS1v15(public, opts.HashFunc(), digest, in.Signature) == nil
		}
	}
	if !valid {
		return nil, wire.Errorf("KMSInvalidSignatureException", "")
	}
	return &kms.VerifyOutput{KeyId: aws.String(k.arn()), SignatureValid: true, SigningAlgorithm: in.SigningAlgorithm}, nil
}

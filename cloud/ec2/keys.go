package ec2

import (
	"context"
	"crypto/ed25519"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/crypto/ssh"

	"bake/cloud/wire"
)

// keyPair is the public half of a key pair; PublicKey is in authorized_keys format. The
// private half is only returned by CreateKeyPair and never stored.
type keyPair struct {
	Region  string
	OwnerId string
	types.KeyPairInfo
}

// addKey stores a new key pair.
func (s *Service) addKey(c wire.Caller, name *string, key ssh.PublicKey, fingerprint string, specs []types.TagSpecification) (*keyPair, error) {
	tags, err := tagsFor(specs, kindKey.resource)
	if err != nil {
		return nil, err
	}
	if n := len(aws.ToString(name)); n == 0 || n > 255 {
		return nil, invalidValue("Invalid value '%s' for keyPairNames. It must be 1 to 255 characters long.", aws.ToString(name))
	}
	kind := types.KeyTypeRsa
	if key.Type() == ssh.KeyAlgoED25519 {
		kind = types.KeyTypeEd25519
	}
	row := &keyPair{Region: c.Region, OwnerId: c.Account, KeyPairInfo: types.KeyPairInfo{
		KeyName: name, KeyPairId: aws.String(newID("key")), KeyFingerprint: &fingerprint, KeyType: kind, CreateTime: aws.Time(s.now()),
		PublicKey: aws.String(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + *name), Tags: tags[kindKey.resource],
	}}
	return row, s.update(func(st *state) error {
		if st.keys.named(c, *name) != nil {
			return wire.Errorf("InvalidKeyPair.Duplicate", "The keypair '%s' already exists.", *name)
		}
		return st.keys.Put(*row.KeyPairId, row)
	})
}

// makeKey generates a private key for CreateKeyPair, which takes about a tenth of a
// second.
func makeKey() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) }

// ExpectKey generates the key of the next RSA key pair in the background, unless it has done
// so already.
func (s *Service) ExpectKey() {
	key := sync.OnceValues(makeKey)
	if s.ahead.CompareAndSwap(nil, &key) {
		go func() { _, _ = key() }()
	}
}

// rsaKey returns a new key: the one that ExpectKey has generated, if it is unused, or
// another.
func (s *Service) rsaKey() (*rsa.PrivateKey, error) {
	if key := s.ahead.Swap(nil); key != nil {
		return (*key)()
	}
	return makeKey()
}

// CreateKeyPair creates a key pair: 2048-bit RSA in PKCS #1 PEM, or ED25519 in OpenSSH's
// format.
func (s *Service) CreateKeyPair(ctx context.Context, in *ec2.CreateKeyPairInput) (*ec2.CreateKeyPairOutput, error) {
	if in.KeyFormat == types.KeyFormatPpk {
		return nil, wire.Errorf("Unsupported", "The embedded cloud creates key pairs only in the format pem.")
	}
	var public ssh.PublicKey
	var block *pem.Block
	var fingerprint string
	if in.KeyType == types.KeyTypeEd25519 {
		pub, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		if block, err = ssh.MarshalPrivateKey(private, ""); err != nil {
			return nil, err
		}
		if public, err = ssh.NewPublicKey(pub); err != nil {
			return nil, err
		}
		fingerprint = sshFingerprint(public)
	} else {
		private, err := s.rsaKey()
		if err != nil {
			return nil, err
		}
		block = &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)}
		if public, err = ssh.NewPublicKey(private.Public()); err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			return nil, err
		}
		sum := sha1.Sum(der)
		fingerprint = colons(sum[:])
	}
	row, err := s.addKey(wire.CallerFrom(ctx), in.KeyName, public, fingerprint, in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	return &ec2.CreateKeyPairOutput{KeyName: row.KeyName, KeyPairId: row.KeyPairId, KeyFingerprint: row.KeyFingerprint, Tags: row.Tags,
		KeyMaterial: aws.String(strings.TrimSuffix(string(pem.EncodeToMemory(block)), "\n"))}, nil
}

// ImportKeyPair imports an RSA or ED25519 public key in authorized_keys, RFC 4716, PEM or
// DER format, base64-encoded or not.
func (s *Service) ImportKeyPair(ctx context.Context, in *ec2.ImportKeyPairInput) (*ec2.ImportKeyPairOutput, error) {
	public, err := parsePublicKey(in.PublicKeyMaterial)
	if err != nil {
		return nil, err
	}
	fingerprint := sshFingerprint(public)
	if crypto, ok := public.(ssh.CryptoPublicKey); ok && public.Type() == ssh.KeyAlgoRSA {
		der, err := x509.MarshalPKIXPublicKey(crypto.CryptoPublicKey())
		if err != nil {
			return nil, err
		}
		sum := md5.Sum(der)
		fingerprint = colons(sum[:])
	}
	row, err := s.addKey(wire.CallerFrom(ctx), in.KeyName, public, fingerprint, in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	return &ec2.ImportKeyPairOutput{KeyName: row.KeyName, KeyPairId: row.KeyPairId, KeyFingerprint: row.KeyFingerprint, Tags: row.Tags}, nil
}

func parsePublicKey(material []byte) (ssh.PublicKey, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey(material)
	if err != nil {
		key, err = decodePublicKey(material)
	}
	if err != nil {
		return nil, wire.Errorf("InvalidKey.Format", "Key is not in valid OpenSSH public key format")
	}
	switch key.Type() {
	case ssh.KeyAlgoRSA, ssh.KeyAlgoED25519:
		return key, nil
	}
	return nil, wire.Errorf("InvalidKey.Format", "Key is a %s; EC2 takes RSA and ED25519 keys", key.Type())
}

// decodePublicKey parses the formats other than authorized_keys.
func decodePublicKey(material []byte) (ssh.PublicKey, error) {
	if blob, ok := rfc4716(string(material)); ok {
		return ssh.ParsePublicKey(blob)
	}
	der := material
	if block, _ := pem.Decode(material); block != nil {
		der = block.Bytes
	} else if plain, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(material)), "")); err == nil {
		der = plain
	}
	if parsed, err := x509.ParsePKIXPublicKey(der); err == nil {
		return ssh.NewPublicKey(parsed)
	}
	parsed, err := x509.ParsePKCS1PublicKey(der)
	if err != nil {
		return nil, err
	}
	return ssh.NewPublicKey(parsed)
}

// rfc4716 decodes the file format of RFC 4716: base64 between two markers, after headers.
// A header line that continues ends in a backslash.
func rfc4716(text string) (blob []byte, ok bool) {
	_, text, begins := strings.Cut(text, "---- BEGIN SSH2 PUBLIC KEY ----")
	text, _, ends := strings.Cut(text, "---- END SSH2 PUBLIC KEY ----")
	if !begins || !ends {
		return nil, false
	}
	var body strings.Builder
	header := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if header = header || strings.Contains(line, ":"); header {
			header = strings.HasSuffix(line, `\`)
			continue
		}
		body.WriteString(line)
	}
	blob, err := base64.StdEncoding.DecodeString(body.String())
	return blob, err == nil
}

// sshFingerprint returns the fingerprint that EC2 shows for ED25519 keys.
func sshFingerprint(key ssh.PublicKey) string {
	sum := sha256.Sum256(key.Marshal())
	return base64.StdEncoding.EncodeToString(sum[:])
}

func colons(sum []byte) string {
	return strings.ReplaceAll(fmt.Sprintf("% x", sum), " ", ":")
}

var keyFilters = filters{{"key-pair-id", "KeyPairId"}, {"fingerprint", "KeyFingerprint"}, {"key-name", "KeyName"}}

func (s *state) DescribeKeyPairs(ctx context.Context, in *ec2.DescribeKeyPairsInput) (*ec2.DescribeKeyPairsOutput, error) {
	c := wire.CallerFrom(ctx)
	var rows []types.KeyPairInfo
	for _, k := range s.keys.of(c) {
		if len(in.KeyNames)+len(in.KeyPairIds) > 0 && !slices.Contains(in.KeyNames, *k.KeyName) && !slices.Contains(in.KeyPairIds, *k.KeyPairId) {
			continue
		}
		info := k.KeyPairInfo
		if !aws.ToBool(in.IncludePublicKey) {
			info.PublicKey = nil
		}
		rows = append(rows, info)
	}
	for _, name := range in.KeyNames {
		if s.keys.named(c, name) == nil {
			return nil, kindKey.notFound(name)
		}
	}
	for _, id := range in.KeyPairIds {
		if !slices.ContainsFunc(rows, func(k types.KeyPairInfo) bool { return *k.KeyPairId == id }) {
			return nil, wire.Errorf("InvalidKeyPair.NotFound", "The key pair ID '%s' does not exist", id)
		}
	}
	sort.Slice(rows, func(i, j int) bool { return *rows[i].KeyName < *rows[j].KeyName })
	rows, err := apply(keyFilters, in.Filters, rows)
	if rows == nil {
		rows = []types.KeyPairInfo{}
	}
	return &ec2.DescribeKeyPairsOutput{KeyPairs: rows}, err
}

// DeleteKeyPair succeeds if the key pair does not exist, as on EC2.
func (s *state) DeleteKeyPair(ctx context.Context, in *ec2.DeleteKeyPairInput) (*ec2.DeleteKeyPairOutput, error) {
	c := wire.CallerFrom(ctx)
	name, id := aws.ToString(in.KeyName), aws.ToString(in.KeyPairId)
	if name == "" && id == "" {
		return nil, missing("KeyName")
	}
	out := &ec2.DeleteKeyPairOutput{Return: aws.Bool(true)}
	for _, k := range s.keys.of(c) {
		if *k.KeyName != name && *k.KeyPairId != id {
			continue
		}
		out.KeyPairId = k.KeyPairId
		if err := s.keys.Drop(*k.KeyPairId); err != nil {
			return nil, err
		}
	}
	return out, nil
}

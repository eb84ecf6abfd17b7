package commtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// KeyPair is a key made for a test.
type KeyPair struct {
	Signer     ssh.Signer
	PrivateKey string // OpenSSH format
	PublicKey  string // a line of an authorized_keys file, with its newline
}

// NewKeyPair makes a key of type ed25519, rsa or ecdsa. bits 0 means the usual
// size: 4096 for rsa, 521 for ecdsa. comment ends the public key's line.
func NewKeyPair(kind string, bits int, comment string) (*KeyPair, error) {
	private, err := newKey(kind, bits)
	if err != nil {
		return nil, fmt.Errorf("generating a temporary %s key: %w", kind, err)
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, err
	}
	public := strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(signer.PublicKey())), "\n")
	if comment != "" {
		public += " " + comment
	}
	return &KeyPair{Signer: signer, PrivateKey: string(pem.EncodeToMemory(block)), PublicKey: public + "\n"}, nil
}

func newKey(kind string, bits int) (crypto.Signer, error) {
	switch kind {
	case "ed25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case "rsa":
		if bits == 0 {
			bits = 4096
		}
		return rsa.GenerateKey(rand.Reader, bits)
	case "ecdsa":
		curves := map[int]elliptic.Curve{0: elliptic.P521(), 256: elliptic.P256(), 384: elliptic.P384(), 521: elliptic.P521()}
		curve, ok := curves[bits]
		if !ok {
			return nil, fmt.Errorf("ecdsa keys have 256, 384 or 521 bits, not %d", bits)
		}
		return ecdsa.GenerateKey(curve, rand.Reader)
	}
	return nil, errors.New("this type of key is not supported; use ed25519, rsa or ecdsa")
}

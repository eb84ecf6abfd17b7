package attest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/youmark/pkcs8"
	"golang.org/x/crypto/ssh"

	"bake/internal/hostpath"
)

// PassphraseVar is the environment variable with the passphrase of an encrypted key.
const PassphraseVar = "BAKE_SIGNING_PASSPHRASE"

// maxKey is the maximum size of a key file.
const maxKey = 1 << 20

// readPEM returns the first key in a PEM file, and the rest of the file starting with
// that key.
func readPEM(path string) (*pem.Block, []byte, error) {
	text, err := hostpath.Read(path, maxKey)
	if err != nil {
		return nil, nil, err
	}
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, nil, fmt.Errorf("%s is not a key in PEM form", path)
		}
		if block.Type != "EC PARAMETERS" { // which 'openssl ecparam' writes before the key
			return block, text, nil
		}
		text = rest
	}
}

// PrivateKey reads a private key from a PEM file: PKCS #8, encrypted or not, PKCS #1, SEC 1
// or OpenSSH.
func PrivateKey(path, passphrase string) (crypto.Signer, error) {
	block, text, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	missing := fmt.Errorf("the key %s is encrypted: set %s to its passphrase", path, PassphraseVar)
	var key any
	switch block.Type {
	case "ENCRYPTED PRIVATE KEY":
		if passphrase == "" {
			return nil, missing
		}
		if key, err = pkcs8.ParsePKCS8PrivateKey(block.Bytes, []byte(passphrase)); err != nil {
			err = fmt.Errorf("the passphrase in %s is wrong, or the key is damaged: %w", PassphraseVar, err)
		}
	case "ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY":
		err = errors.New("cosign keys are not supported; make a key with: openssl genpkey -algorithm ed25519")
	default:
		key, err = ssh.ParseRawPrivateKey(text)
		if _, encrypted := errors.AsType[*ssh.PassphraseMissingError](err); encrypted {
			if passphrase == "" {
				return nil, missing
			}
			if key, err = ssh.ParseRawPrivateKeyWithPassphrase(text, []byte(passphrase)); err != nil {
				err = fmt.Errorf("the passphrase in %s is wrong, or the key is damaged: %w", PassphraseVar, err)
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if k, ok := key.(*ed25519.PrivateKey); ok { // of OpenSSH
		key = *k
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: keys of type %T cannot sign", path, key)
	}
	if _, err := hashOf(signer.Public()); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return signer, nil
}

// PublicKey reads a public key from a PEM file with a public key, a certificate or a
// private key.
func PublicKey(path, passphrase string) (crypto.PublicKey, error) {
	block, _, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	var key crypto.PublicKey
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = cert.PublicKey
		}
	default:
		signer, err := PrivateKey(path, passphrase)
		if err != nil {
			return nil, err
		}
		return signer.Public(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	_, err = hashOf(key)
	return key, err
}

// SameKey reports whether two public keys are equal.
func SameKey(a, b crypto.PublicKey) bool {
	switch a := a.(type) {
	case ed25519.PublicKey:
		return a.Equal(b)
	case *ecdsa.PublicKey:
		return a.Equal(b)
	case *rsa.PublicKey:
		return a.Equal(b)
	}
	return false
}

// VerificationKey returns the public key that all sources name: PEM files, as for [PublicKey], or
// keys that remote opens; it returns nil for other sources. Empty sources are ignored. It is an
// error if they name different keys, or none.
func VerificationKey(sources []string, passphrase string, remote func(source string) (crypto.Signer, error)) (key crypto.PublicKey, err error) {
	var from string
	for _, source := range sources {
		if source == "" {
			continue
		}
		var one crypto.PublicKey
		signer, err := remote(source)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", source, err)
		case signer != nil:
			one = signer.Public()
		default:
			if one, err = PublicKey(source, passphrase); err != nil {
				return nil, err
			}
		}
		if key != nil && !SameKey(key, one) {
			return nil, fmt.Errorf("%s and %s are different keys", from, source)
		}
		key, from = one, source
	}
	if key == nil {
		return nil, errors.New("no key is named")
	}
	return key, nil
}

// Package kms is the embedded Key Management Service, whose keys sign. Services that
// encrypt what they store do not use it: each has a [Key] of its own, in a file next to
// the data.
package kms

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"bake/cloud/durable"
)

// Key encrypts and decrypts.
type Key struct{ aead cipher.AEAD }

// OpenKey reads the key in the file name, or creates both.
func OpenKey(name string) (*Key, error) {
	secret, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		secret = make([]byte, 32)
		_, _ = rand.Read(secret) // never fails
		err = durable.Replace(name, secret, 0o600)
	}
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("the key %s is damaged: %w; move it to another directory to get a new one, which cannot decrypt what the old one has encrypted", name, err)
	}
	aead, err := cipher.NewGCM(block)
	return &Key{aead}, err
}

// Seal encrypts plain. The result can be decrypted only with the same context, which is
// not secret: it says what plain belongs to.
func (k *Key) Seal(plain []byte, context string) string {
	nonce := make([]byte, k.aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return base64.StdEncoding.EncodeToString(k.aead.Seal(nonce, nonce, plain, []byte(context)))
}

// Unseal decrypts the result of Seal.
func (k *Key) Unseal(text, context string) ([]byte, error) {
	sealed, err := base64.StdEncoding.DecodeString(text)
	if n := k.aead.NonceSize(); err == nil && len(sealed) >= n {
		plain, err := k.aead.Open(nil, sealed[:n], sealed[n:], []byte(context))
		if err == nil {
			return plain, nil
		}
	}
	return nil, errors.New("the value cannot be decrypted: it, or the key, has been changed outside of the embedded cloud")
}

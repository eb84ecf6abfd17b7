package ssmsession

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
)

// DataKeySize is the length of a data key in bytes: one AES-256 key for each direction,
// first that for data from the machine.
const DataKeySize = 64

// cipherKeys encrypt the stream of a session with keys from KMS: AES-GCM, with a new
// nonce before each message.
type cipherKeys struct{ in, out cipher.AEAD }

func newCipherKeys(plain []byte) (*cipherKeys, error) {
	if len(plain) != DataKeySize {
		return nil, fmt.Errorf("the data key from KMS has %d bytes, not %d", len(plain), DataKeySize)
	}
	var keys cipherKeys
	for key, aead := range map[*[]byte]*cipher.AEAD{
		new(plain[:DataKeySize/2]): &keys.in, new(plain[DataKeySize/2:]): &keys.out,
	} {
		block, err := aes.NewCipher(*key)
		if err != nil {
			return nil, err
		}
		if *aead, err = cipher.NewGCM(block); err != nil {
			return nil, err
		}
	}
	return &keys, nil
}

// seal encrypts data for the machine.
func (k *cipherKeys) seal(b []byte) []byte {
	nonce := make([]byte, k.out.NonceSize(), k.out.NonceSize()+len(b)+k.out.Overhead())
	_, _ = rand.Read(nonce) // never fails
	return k.out.Seal(nonce, nonce, b, nil)
}

// open decrypts data from the machine.
func (k *cipherKeys) open(b []byte) ([]byte, error) {
	n := k.in.NonceSize()
	if len(b) < n {
		return nil, errors.New("a message of the encrypted session is too short")
	}
	plain, err := k.in.Open(nil, b[:n], b[n:], nil)
	if err != nil {
		return nil, errors.New("a message of the encrypted session cannot be decrypted")
	}
	return plain, nil
}

package registry

import (
	"bytes"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// hashicorpKey is the public key that HashiCorp signs releases with, armored, as it
// publishes it: C874 011F 0AB4 0511 0D02 1055 3436 5D94 72D7 468F.
//
//go:embed hashicorp.asc
var hashicorpKey []byte

// verifySums checks that signature is a signature of sums by one of keys. The key may
// have expired since, but not before the signature was made.
func verifySums(keys, sums, signature []byte, now time.Time) error {
	ring, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(keys))
	if err != nil {
		return err
	}
	config := &packet.Config{Time: func() time.Time { return now }}
	sig, _, err := openpgp.VerifyDetachedSignature(ring, bytes.NewReader(sums), bytes.NewReader(signature), config)
	if errors.Is(err, pgperrors.ErrKeyExpired) && sig != nil && !sig.SigExpired(now) && validWhen(ring, sig) {
		return nil
	}
	return err
}

// validWhen reports whether the key that made sig had not expired at that time.
// Verifying the signature as of then would not work: a key that was renewed later has
// no self-signature that is old enough.
func validWhen(ring openpgp.EntityList, sig *packet.Signature) bool {
	if sig.IssuerKeyId == nil {
		return false
	}
	return slices.ContainsFunc(ring.KeysById(*sig.IssuerKeyId), func(k openpgp.Key) bool {
		primary, _ := k.Entity.PrimarySelfSignature()
		return primary != nil && k.SelfSignature != nil &&
			!k.Entity.PrimaryKey.KeyExpired(primary, sig.CreationTime) && !k.PublicKey.KeyExpired(k.SelfSignature, sig.CreationTime)
	})
}

// parseSums reads a file of SHA-256 checksums: the name of a file to the hex digits.
func parseSums(text []byte) (map[string]string, error) {
	sums := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 2 {
			return nil, fmt.Errorf("%q is not a line of a checksum file", clip(line))
		}
		sum, err := parseSum(f[0])
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(f[1], "*")
		if old, ok := sums[name]; ok && old != sum {
			return nil, fmt.Errorf("there are two checksums of %s", clip(name))
		}
		sums[name] = sum
	}
	if len(sums) == 0 {
		return nil, errors.New("there are no checksums in it")
	}
	return sums, nil
}

// parseSum reads a SHA-256 checksum.
func parseSum(text string) (string, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 32 {
		return "", fmt.Errorf("%q is not a SHA-256 checksum", clip(text))
	}
	return hex.EncodeToString(b), nil
}

// clip shortens a text from a server for display.
func clip(text string) string {
	const most = 80
	text = strings.TrimSpace(text)
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

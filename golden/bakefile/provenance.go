package bakefile

import (
	"strings"

	"bake/config/schema"
)

// Provenance are the arguments of a provenance block.
type Provenance struct {
	// Key to sign the attestation with: path of a private key in PEM format (Ed25519, ECDSA
	// or RSA), or an AWS KMS key: `awskms:///` followed by its ID, ARN or alias. Relative
	// paths start at the current directory. The passphrase of an encrypted key is read from
	// the environment variable `BAKE_SIGNING_PASSPHRASE`.
	Key string `hcl:"key"`
}

// Validate implements [schema.Validator].
func (o *Provenance) Validate(c *schema.Checker) {
	scheme, rest, isURI := strings.Cut(o.Key, "://")
	_, id, _ := strings.Cut(rest, "/")
	switch {
	case o.Key == "" && c.Known(&o.Key):
		c.Errorf(&o.Key, "No key", "Set key to the path of a private key, or to a key of AWS KMS such as \"awskms:///alias/bake\".")
	case isURI && scheme != "awskms":
		c.Errorf(&o.Key, "Unsupported key", "%s is not an AWS KMS key, which begins with awskms://; keys of other services are not supported.", o.Key)
	case isURI && id == "":
		c.Errorf(&o.Key, "Unsupported key", "%q is not an AWS KMS key: write awskms:/// and an ID, alias or ARN.", o.Key)
	}
}

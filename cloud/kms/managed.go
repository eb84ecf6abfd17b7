package kms

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/kms"
	"bake/cloud/wire"
)

// ebsAlias is the name of the AWS managed key for EBS in every account and region.
const ebsAlias = "alias/aws/ebs"

// EBSKey returns the id of the key that EBS uses for the caller if a request names none.
// It is managed by AWS, so that its use cannot be granted to others.
func EBSKey(c wire.Caller) string {
	sum := sha256.Sum256([]byte(c.Account + c.Region))
	f := hex.EncodeToString(sum[:8])
	return f[:8] + "-" + f[8:12] + "-4" + f[13:16] + "-8" + f[1:4] + "-" + f[4:16]
}

// ebsKey describes the caller's EBS key, if name is that key's id, alias, or the ARN of
// one of them.
func ebsKey(c wire.Caller, name string) (*kms.KeyMetadata, bool) {
	id := EBSKey(c)
	switch strings.TrimPrefix(name, arn(c.Account, c.Region, "")) {
	case ebsAlias, id, "key/" + id:
	default:
		return nil, false
	}
	return &kms.KeyMetadata{
		AWSAccountId: &c.Account, KeyId: &id, Arn: aws.String(arn(c.Account, c.Region, "key/"+id)), Enabled: true, MultiRegion: aws.Bool(false),
		Description: aws.String("Default key that protects my EBS volumes when no other key is defined"),
		KeyUsage:    kms.KeyUsageTypeEncryptDecrypt, KeyState: kms.KeyStateEnabled, Origin: kms.OriginTypeAwsKms, KeyManager: kms.KeyManagerTypeAws,
		KeySpec: kms.KeySpecSymmetricDefault, CustomerMasterKeySpec: kms.CustomerMasterKeySpecSymmetricDefault, // AWS still sends it
		EncryptionAlgorithms: []kms.EncryptionAlgorithmSpec{kms.EncryptionAlgorithmSpecSymmetricDefault},
	}, true
}

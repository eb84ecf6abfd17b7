package access

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// ManagedKey reports whether a KMS key, given by its alias or the ARN of the alias, is
// managed by AWS for the account: such a key cannot be shared.
func ManagedKey(key string) bool {
	_, alias, arn := strings.Cut(key, ":alias/")
	return strings.HasPrefix(key, "alias/aws/") || arn && strings.HasPrefix(alias, "aws/")
}

// EncryptsAll returns a clause for messages if the account encrypts all volumes and
// snapshots in a region. It is empty if the account does not, or if the query is not
// permitted. The error is that of ctx.
func (s *Session) EncryptsAll(ctx context.Context, region string) (why string, err error) {
	out, err := Call(ctx, s.EC2(region).GetEbsEncryptionByDefault, &ec2.GetEbsEncryptionByDefaultInput{})
	if err != nil {
		return "", context.Cause(ctx)
	}
	if aws.ToBool(out.EbsEncryptionByDefault) {
		why = "The account encrypts everything in " + region
	}
	return why, nil
}

// DefaultKey returns the KMS key that EBS uses in a region if none is named. It is empty
// if the query is not permitted. The error is that of ctx.
func (s *Session) DefaultKey(ctx context.Context, region string) (string, error) {
	out, err := Call(ctx, s.EC2(region).GetEbsDefaultKmsKeyId, &ec2.GetEbsDefaultKmsKeyIdInput{})
	if err != nil {
		return "", context.Cause(ctx)
	}
	return aws.ToString(out.KmsKeyId), nil
}

package access

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// ManagedKey reports whether a KMS key, by its alias or the ARN of that, is one that AWS
// manages for the account: nobody else can be let use it.
func ManagedKey(key string) bool {
	_, alias, arn := strings.Cut(key, ":alias/")
	return strings.HasPrefix(key, "alias/aws/") || arn && strings.HasPrefix(alias, "aws/")
}

// EncryptsAll is a clause that says so if the account encrypts all volumes and snapshots in a
// region; empty if it does not, or may not be asked. The error is that of ctx.
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

// DefaultKey is the KMS key that EBS encrypts with in a region where none is named; empty if
// the account may not be asked. The error is that of ctx.
func (s *Session) DefaultKey(ctx context.Context, region string) (string, error) {
	out, err := Call(ctx, s.EC2(region).GetEbsDefaultKmsKeyId, &ec2.GetEbsDefaultKmsKeyIdInput{})
	if err != nil {
		return "", context.Cause(ctx)
	}
	return aws.ToString(out.KmsKeyId), nil
}

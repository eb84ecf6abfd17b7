package access

import (
	"context"
	"io"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
)

// Credentials returns the current credentials of the session.
func (s *Session) Credentials(ctx context.Context) (aws.Credentials, error) {
	return s.config.Credentials.Retrieve(ctx)
}

// InstanceID returns the ID of the EC2 instance that this machine is, from the metadata
// service.
func (s *Session) InstanceID(ctx context.Context) (string, error) {
	out, err := imds.NewFromConfig(s.config).GetMetadata(ctx, &imds.GetMetadataInput{Path: "instance-id"})
	if err != nil {
		return "", err
	}
	defer out.Content.Close()
	id, err := io.ReadAll(io.LimitReader(out.Content, 1<<10))
	return strings.TrimSpace(string(id)), err
}

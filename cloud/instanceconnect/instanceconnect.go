// Package instanceconnect is the embedded EC2 Instance Connect: it lends public keys
// to instances, whose sshd finds them in the metadata.
package instanceconnect

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/crypto/ssh"

	"bake/cloud/api/ec2instanceconnect"
	"bake/cloud/wire"
)

// Instances take keys.
type Instances interface {
	// AddTemporaryKey has an instance of the caller's tell, for a minute, that a user may log
	// in with a key. zone, if not empty, is where the instance has to be.
	AddTemporaryKey(c wire.Caller, id, zone, user, key string) error
}

// Service is the embedded EC2 Instance Connect of all accounts and regions.
type Service struct{ Instances Instances }

// Endpoint returns the handler of the service's requests.
func (s *Service) Endpoint() (*wire.Service, error) {
	model, err := wire.Load("ec2-instance-connect")
	if err != nil {
		return nil, err
	}
	return wire.New(model, s.actions())
}

// actions are those that the service answers.
func (s *Service) actions() wire.Actions {
	return wire.Actions{
		"SendSSHPublicKey": wire.Answer(s.SendSSHPublicKey),
	}
}

// userCharacters are those that names of users have.
const userCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.@$"

// SendSSHPublicKey lends an instance a key.
func (s *Service) SendSSHPublicKey(ctx context.Context, in *ec2instanceconnect.SendSSHPublicKeyInput) (*ec2instanceconnect.SendSSHPublicKeyOutput, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(*in.SSHPublicKey))
	if err != nil || strings.Contains(strings.TrimSpace(*in.SSHPublicKey), "\n") || key.Type() != ssh.KeyAlgoRSA && key.Type() != ssh.KeyAlgoED25519 {
		return nil, wire.Errorf("InvalidArgsException", "The SSH public key provided is invalid: it has to be one key of type RSA or ED25519 in OpenSSH's format.")
	}
	if strings.Trim(*in.InstanceOSUser, userCharacters) != "" || strings.HasPrefix(*in.InstanceOSUser, ".") {
		return nil, wire.Errorf("InvalidArgsException", "The OS user name provided is invalid.")
	}
	err = s.Instances.AddTemporaryKey(wire.CallerFrom(ctx), *in.InstanceId, aws.ToString(in.AvailabilityZone), *in.InstanceOSUser, *in.SSHPublicKey)
	if err != nil {
		return nil, err
	}
	return &ec2instanceconnect.SendSSHPublicKeyOutput{RequestId: aws.String(wire.NewRequestID()), Success: true}, nil
}

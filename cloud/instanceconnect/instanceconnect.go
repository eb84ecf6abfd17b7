// Package instanceconnect is the embedded EC2 Instance Connect: it adds temporary public keys to
// the metadata of instances, where their sshd finds them.
package instanceconnect

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/crypto/ssh"

	"bake/cloud/api/ec2instanceconnect"
	"bake/cloud/wire"
)

// Instances is the service's interface to EC2.
type Instances interface {
	// AddTemporaryKey makes one of the caller's instances accept a key for logging in as user, for
	// a minute. If zone is not empty, the instance must be in it.
	AddTemporaryKey(c wire.Caller, id, zone, user, key string) error
}

// Service is the embedded EC2 Instance Connect of all accounts and regions.
type Service struct{ Instances Instances }

// Endpoint returns the handler of requests to the service.
func (s *Service) Endpoint() (*wire.Service, error) {
	model, err := wire.Load("ec2-instance-connect")
	if err != nil {
		return nil, err
	}
	return wire.New(model, s.actions())
}

// actions returns the actions that the service answers; wire/genmodel reads them from here.
func (s *Service) actions() wire.Actions {
	return wire.Actions{
		"SendSSHPublicKey": wire.Answer(s.SendSSHPublicKey),
	}
}

// userCharacters are the characters allowed in user names.
const userCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.@$"

// SendSSHPublicKey adds a temporary key to an instance.
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

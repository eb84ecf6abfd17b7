package launch

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	gossh "golang.org/x/crypto/ssh"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/destroy"
	"bake/builder/amazon/internal/ownership"
	"bake/communicator/ssh"
	"bake/step"
)

// Key is the key pair that a machine is launched with.
type Key struct {
	Name    string       // empty: none
	Private string       // of a temporary one, in PEM
	Public  string       // of a temporary one, as a line of an authorized_keys file
	signer  gossh.Signer // of a temporary one
}

// KeptKey returns the key pair with which an earlier process of the run has launched the
// machine. private is empty if the options define another way to log in.
func (l *Launcher) KeptKey(name, private string) (Key, error) {
	k := Key{Name: name}
	if name == l.SSHKeyPairName || l.Communicator != ssh.SSH {
		return k, nil
	}
	if private == "" {
		return k, fmt.Errorf("the private key of the machine, of the key pair %s, was not kept", name)
	}
	k.Private = private
	var err error
	if k.signer, err = gossh.ParsePrivateKey([]byte(private)); err != nil {
		return k, fmt.Errorf("the private key of the machine that was kept cannot be used: %w", err)
	}
	k.Public = string(gossh.MarshalAuthorizedKey(k.signer.PublicKey()))
	return k, nil
}

// makesKey reports whether the machine gets a temporary key pair.
func (l *Launcher) makesKey() bool {
	switch l.Communicator {
	case ssh.None:
		return false
	case ssh.WinRM:
		return l.SSHKeyPairName == "" && l.WinRMPassword == ""
	}
	return l.SSHKeyPairName == "" && l.PrivateKeyFile == "" && l.Password == "" && !l.AgentAuth
}

// ExpectKey has a cloud that replaces AWS prepare for the temporary key pair, if that is RSA.
func (l *Launcher) ExpectKey() {
	if expect := l.Session.Cloud.ExpectKey; expect != nil && l.makesKey() && types.KeyType(l.TemporaryKeyPairType) == types.KeyTypeRsa {
		expect()
	}
}

// KeyPair makes the temporary key pair, unless the options define another way to log in.
func (l *Launcher) KeyPair(ctx context.Context, tags map[string]string) (Key, error) {
	if !l.makesKey() {
		return Key{Name: l.SSHKeyPairName}, nil
	}
	name := cmp.Or(l.TemporaryKeyPairName, "packer_"+l.Owner.ID)
	want := l.Owner.Resource(ownership.KeyPair, "key pair "+name+" "+l.Owner.ID, l.Session.Region, ownership.WithName, name)
	return ownership.Acquire(ctx, l.Scope, "create a temporary key pair", want, func(ctx context.Context) (string, Key, error) {
		in := &ec2.CreateKeyPairInput{
			KeyName:           &name,
			KeyType:           types.KeyType(l.TemporaryKeyPairType),
			TagSpecifications: l.Owner.Specs(tags, types.ResourceTypeKeyPair),
		}
		out, err := access.Finish(ctx, l.client().CreateKeyPair, in)
		if access.Is(err, "InvalidKeyPair.Duplicate") && !access.Refused(err) {
			// An earlier attempt of the call may have made the key pair, whose private key
			// is lost.
			if gone, derr := destroy.OwnKeyPair(ctx, l.client(), name, l.Owner.ID); derr != nil {
				return "", Key{}, derr
			} else if gone {
				out, err = access.Finish(ctx, l.client().CreateKeyPair, in)
			}
		}
		if access.Is(err, "InvalidKeyPair.Duplicate") && l.TemporaryKeyPairName != "" && access.Refused(err) {
			return "", Key{}, access.Blame(err, l.Src.Errorf(&l.TemporaryKeyPairName, "Key pair exists", "There is a key pair %q in %s already.", name, l.Session.Region))
		} else if err != nil {
			return "", Key{}, err
		}
		k := Key{Name: name, Private: aws.ToString(out.KeyMaterial)}
		if k.signer, err = gossh.ParsePrivateKey([]byte(k.Private)); err != nil {
			return "", Key{}, fmt.Errorf("the private key from EC2 cannot be used: %w", err)
		}
		k.Public = string(gossh.MarshalAuthorizedKey(k.signer.PublicKey()))
		if l.Scope.Run.Debug {
			file := fmt.Sprintf("ec2_%s.pem", l.Scope.SourceName)
			if err := l.saveKey(ctx, file, k.Private); err != nil {
				return "", Key{}, fmt.Errorf("saving the private key for debugging: %w", err)
			}
			l.Scope.Say(ctx, "Saving the private key of the machine for debugging: %s", file)
		}
		return aws.ToString(out.KeyPairId), k, nil
	})
}

// saveKey writes the key to a file that is deleted with the other resources of the build.
func (l *Launcher) saveKey(ctx context.Context, path, text string) error {
	file, err := builder.File(path)
	if err != nil {
		return err
	}
	l.Scope.Handle(builder.FilePrefix, step.DestroyerFunc(builder.DestroyFile))
	_, err = step.Acquire(ctx, l.Scope, "save the private key", file, func(context.Context) (string, struct{}, error) {
		return file.ID, struct{}{}, writePrivate(path, text)
	})
	return err
}

// writePrivate writes a file that only its owner may read, even if the file existed with
// other permissions.
func writePrivate(path, text string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o600)
}

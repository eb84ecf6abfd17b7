package launch

import (
	"cmp"
	"context"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	gossh "golang.org/x/crypto/ssh"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/wait"
	"bake/communicator"
	"bake/communicator/ssh"
	"bake/communicator/winrm"
	"bake/config/schema"
	"bake/internal/hostpath"
	"bake/step"
)

// validateWindows checks the options for machines that are reached over WinRM.
func (o *Options) validateWindows(c *schema.Checker) {
	if o.WindowsPasswordTimeout < 0 {
		c.Errorf(&o.WindowsPasswordTimeout, "Negative duration", "windows_password_timeout cannot be negative.")
	}
	if o.Communicator != ssh.WinRM {
		return
	}
	o.ValidateWinRM(c)
	switch {
	case o.WinRMPassword != "" || !c.Known(&o.WinRMPassword) || !c.Known(&o.SSHKeyPairName) || !c.Known(&o.PrivateKeyFile):
	case o.PrivateKeyFile != "" && o.SSHKeyPairName == "":
		c.Errorf(&o.PrivateKeyFile, "Private key without its key pair", "EC2 encrypts the Windows password with the key pair that the machine is launched with: set ssh_keypair_name to the key pair of this private key, or set neither.")
	case o.PrivateKeyFile == "" && o.SSHKeyPairName != "":
		c.Errorf(&o.SSHKeyPairName, "Key pair without its private key", "EC2 encrypts the Windows password with this key pair: set ssh_private_key_file to its private key, or winrm_password.")
	case o.SSHKeyPairName == "" && o.TemporaryKeyPairType != "rsa":
		c.Errorf(&o.TemporaryKeyPairType, "Wrong type of key pair", "EC2 encrypts the Windows password with an RSA key: leave temporary_key_pair_type out, or set winrm_password.")
	}
}

// port returns the port of the communicator.
func (l *Launcher) port() int {
	if l.Communicator == ssh.WinRM {
		return l.ServicePort()
	}
	return l.Port
}

// fixedHost returns the host that the template names, or "".
func (l *Launcher) fixedHost() string {
	if l.Communicator == ssh.WinRM {
		return l.WinRMHost
	}
	return l.Host
}

// connectWinRM waits until login to a Windows machine is possible, if necessary with the
// password that Windows has generated.
func (l *Launcher) connectWinRM(ctx context.Context, a *address, key Key) (communicator.Communicator, error) {
	settings := l.Settings
	if settings.WinRMPassword == "" {
		var err error
		if settings.WinRMPassword, err = l.windowsPassword(ctx, a.instance, key); err != nil {
			return nil, err
		}
	}
	return step.Do(ctx, l.Scope, "connect to the machine", func(ctx context.Context) (communicator.Communicator, error) {
		return winrm.Connect(ctx, l.Scope, &settings, l.PauseBeforeConnecting, winrm.Target{
			Addr: func(ctx context.Context) (string, error) {
				host, _, err := a.lookUp(ctx)
				return host, err
			},
			NotYet: func(err error) bool { return errors.Is(err, ssh.ErrNotYet) },
			Dial:   a.dial,
		})
	})
}

// windowsPassword waits for the password that Windows generates at its first start, and
// decrypts it.
func (l *Launcher) windowsPassword(ctx context.Context, instance types.Instance, key Key) (string, error) {
	id := aws.ToString(instance.InstanceId)
	if !strings.EqualFold(string(instance.Platform), "windows") { // EC2 uses lower case, its API model a capital letter
		return "", l.Src.Errorf(&l.Communicator, "No Windows password", "The source image is not a Windows image, so EC2 has no password for instance %s. Set winrm_password, or another communicator.", id)
	}
	private, err := l.passwordKey(key)
	if err != nil {
		return "", err
	}
	return step.Do(ctx, l.Scope, "wait for the Windows password", func(ctx context.Context) (string, error) {
		var data string
		w := wait.Watch{Delay: 5 * time.Second, Limit: cmp.Or(l.WindowsPasswordTimeout, 20*time.Minute)}
		err := w.Until(ctx, "the Windows password of instance "+id+" (windows_password_timeout)", func(ctx context.Context) (bool, error) {
			out, err := access.Call(ctx, l.client().GetPasswordData, &ec2.GetPasswordDataInput{InstanceId: &id})
			if err != nil {
				return false, err
			}
			data = strings.TrimSpace(aws.ToString(out.PasswordData))
			return data != "", nil
		})
		if err != nil {
			return "", err
		}
		password, err := decryptPassword(data, private)
		if err == nil && l.Scope.Run.Debug {
			l.Scope.Say(ctx, "Password (shown because of -debug): %s", password)
		}
		return password, err
	})
}

// passwordKey returns the private key of the key pair that the machine was
// launched with.
func (l *Launcher) passwordKey(key Key) (*rsa.PrivateKey, error) {
	pem := []byte(key.Private)
	if key.Private == "" {
		file, err := ssh.ExpandHome(l.PrivateKeyFile)
		if err == nil {
			pem, err = hostpath.Read(file, hostpath.Limit)
		}
		if err != nil {
			return nil, l.Src.Errorf(&l.PrivateKeyFile, "Unusable private key", "%s.", err)
		}
	}
	raw, err := gossh.ParseRawPrivateKey(pem)
	private, ok := raw.(*rsa.PrivateKey)
	if err == nil && !ok {
		err = errors.New("EC2 encrypts the Windows password with an RSA key, which this is not")
	}
	if err != nil {
		return nil, l.Src.Errorf(&l.PrivateKeyFile, "Unusable private key", "%s.", err)
	}
	return private, nil
}

// decryptPassword decrypts the result of GetPasswordData: PKCS #1 v1.5, in base64.
func decryptPassword(data string, private *rsa.PrivateKey) (string, error) {
	raw, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		return "", fmt.Errorf("the Windows password that EC2 gave is not base64: %w", err)
	}
	password, err := rsa.DecryptPKCS1v15(nil, private, raw) //nolint:staticcheck // what GetPasswordData answers with
	if err != nil {
		return "", errors.New("the Windows password cannot be decrypted with the private key: is it the key of the key pair that the machine was launched with?")
	}
	return string(password), nil
}

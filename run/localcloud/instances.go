package localcloud

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"bake/internal/hostpath"
)

// openGroup is the security group of instances that Launch starts. It allows all inbound
// traffic, because only this host can reach them anyway.
const openGroup = "bake-cloud-run"

// startLimit is how long an instance may take to start or to terminate.
const startLimit = 5 * time.Minute

// answers is how long to wait for the SSH server of a new machine.
const answers = 15 * time.Second

// LaunchOptions are the options of [Cloud.Launch].
type LaunchOptions struct {
	Region   string
	Image    string // an id, or a name with wildcards for the newest image it matches
	Type     string // of the instance
	KeyFile  string // the private key to log in with; empty: a new one, which Terminate deletes
	UserData []byte // nil: none
}

// Instance is an instance that Launch has started.
type Instance struct {
	ID      string
	Image   Image
	KeyFile string // the private key that logs in
	Address string // public; empty before Running has returned

	client   *ec2.Client
	key      string // name of the key pair
	cleanKey func()
}

// User returns the login user.
func (i *Instance) User() string { return i.Image.Tags[userTag] }

// Launch starts an instance, which the caller terminates. After an error, nothing is left of
// it.
func (c *Cloud) Launch(ctx context.Context, o LaunchOptions) (_ *Instance, err error) {
	i := &Instance{client: c.ec2(o.Region), key: openGroup + "-" + uuid.NewString()}
	if i.Image, err = c.Image(ctx, o.Region, o.Image, o.Type); err != nil {
		return nil, err
	}
	var public []byte
	if i.KeyFile, public, i.cleanKey, err = loginKey(o.KeyFile); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, i.deleteKey(context.WithoutCancel(ctx)))
		}
	}()
	group, err := ensureOpenGroup(ctx, i.client)
	if err != nil {
		return nil, err
	}
	if _, err := i.client.ImportKeyPair(ctx, &ec2.ImportKeyPairInput{KeyName: &i.key, PublicKeyMaterial: public}); err != nil {
		return nil, err
	}
	var userData *string
	if o.UserData != nil {
		userData = aws.String(base64.StdEncoding.EncodeToString(o.UserData))
	}
	started, err := i.client.RunInstances(ctx, &ec2.RunInstancesInput{
		ImageId: &i.Image.ID, InstanceType: types.InstanceType(o.Type), MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
		KeyName: &i.key, SecurityGroupIds: []string{group}, UserData: userData,
	})
	if err != nil {
		return nil, err
	}
	i.ID = aws.ToString(started.Instances[0].InstanceId)
	return i, nil
}

// deleteKey deletes the key pair, if it exists, and the private key if Launch has made
// it.
func (i *Instance) deleteKey(ctx context.Context) error {
	i.cleanKey()
	_, err := i.client.DeleteKeyPair(ctx, &ec2.DeleteKeyPairInput{KeyName: &i.key})
	return err
}

// Running waits until the instance is running.
func (i *Instance) Running(ctx context.Context) error {
	instance, err := i.wait(ctx, types.InstanceStateNameRunning)
	i.Address = aws.ToString(instance.PublicIpAddress)
	return err
}

// Terminate terminates the instance, waits until it has ended and deletes what Launch
// made for it.
func (i *Instance) Terminate(ctx context.Context) error {
	_, err := i.client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{i.ID}})
	if err == nil {
		_, err = i.wait(ctx, types.InstanceStateNameTerminated)
	}
	return errors.Join(err, i.deleteKey(ctx))
}

// AwaitSSH waits for a while until the SSH server of the running instance answers, so that
// the user need not retry. A machine may have none.
func (i *Instance) AwaitSSH(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answers)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(i.Address, strconv.Itoa(ServedPort(22))))
		if err == nil {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			n, _ := conn.Read(make([]byte, 1))
			stop()
			conn.Close()
			if n > 0 {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// wait polls the instance until it is in the wanted state, or in a state from which it will
// not reach it. The local cloud answers immediately, so wait polls often. Unlike a waiter of the
// SDK, it reports why an instance has stopped.
func (i *Instance) wait(ctx context.Context, want types.InstanceStateName) (types.Instance, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("%s is not %s after %s", i.ID, want, startLimit))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := i.client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{i.ID}})
		if err != nil {
			return types.Instance{}, err
		}
		instance := out.Reservations[0].Instances[0]
		switch instance.State.Name {
		case want:
			return instance, nil
		case types.InstanceStateNameTerminated, types.InstanceStateNameStopped:
			reason := ""
			if instance.StateReason != nil {
				reason = ": " + aws.ToString(instance.StateReason.Message)
			}
			return instance, fmt.Errorf("%s is %s%s", i.ID, instance.State.Name, reason)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return instance, context.Cause(ctx)
		}
	}
}

// ensureOpenGroup returns the id of the group [openGroup] of the default VPC.
func ensureOpenGroup(ctx context.Context, client *ec2.Client) (string, error) {
	found, err := client.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{
		Filters: []types.Filter{{Name: aws.String("group-name"), Values: []string{openGroup}}},
	})
	if err != nil {
		return "", err
	}
	if len(found.SecurityGroups) > 0 {
		return aws.ToString(found.SecurityGroups[0].GroupId), nil
	}
	made, err := client.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{
		GroupName: aws.String(openGroup), Description: aws.String("instances of bake cloud run"),
	})
	if err != nil {
		return "", err
	}
	_, err = client.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{
		GroupId: made.GroupId,
		IpPermissions: []types.IpPermission{{
			IpProtocol: aws.String("-1"), IpRanges: []types.IpRange{{CidrIp: aws.String("0.0.0.0/0")}},
		}},
	})
	return aws.ToString(made.GroupId), err
}

// loginKey returns the file of a private key, and its public key in the format of
// authorized_keys. If no file is given, it writes a new key to a file that clean deletes.
func loginKey(file string) (path string, public []byte, clean func(), err error) {
	if file != "" {
		text, err := hostpath.Read(file, hostpath.Limit)
		if err != nil {
			return "", nil, nil, fmt.Errorf("the login key: %w", err)
		}
		key, err := ssh.ParsePrivateKey(text)
		if err == nil {
			return file, ssh.MarshalAuthorizedKey(key.PublicKey()), func() {}, nil
		}
		var locked *ssh.PassphraseMissingError
		if errors.As(err, &locked) && locked.PublicKey != nil {
			return file, ssh.MarshalAuthorizedKey(locked.PublicKey), func() {}, nil
		}
		return "", nil, nil, fmt.Errorf("the login key %s: %w", file, err)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", nil, nil, err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return "", nil, nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, openGroup)
	if err != nil {
		return "", nil, nil, err
	}
	dir, err := os.MkdirTemp("", "bake-")
	if err != nil {
		return "", nil, nil, err
	}
	path = filepath.Join(dir, "id_ed25519")
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		os.RemoveAll(dir)
		return "", nil, nil, err
	}
	return path, ssh.MarshalAuthorizedKey(signer.PublicKey()), func() { os.RemoveAll(dir) }, nil
}

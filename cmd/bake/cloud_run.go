package main

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
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"bake/internal/local"
	"bake/internal/login"
	"bake/run/localcloud"
)

// cloudRunOptions are the flags of bake cloud run.
type cloudRunOptions struct {
	image                               string
	key, userData, instanceType, region string
	egress                              string
}

// openGroup is the security group of instances that bake cloud run starts. It
// lets everything in: only this host can reach them anyway.
const openGroup = "bake-cloud-run"

// startLimit is how long an instance may take to run, and to end.
const startLimit = 5 * time.Minute

func (p *program) cloudRunCommand() *cobra.Command {
	var o cloudRunOptions
	cmd := &cobra.Command{
		Use:   "run IMAGE",
		Short: "Boot an instance of an image until Ctrl-C",
		Long: `Boot an instance of IMAGE, which is an id or a name, print its address and how to
log in, and terminate it on Ctrl-C.`,
		Example: `  bake cloud run ami-0a1b2c3d4e5f60718
  bake cloud run -key ~/.ssh/id_ed25519 'debian-12-amd64-*'`,
		Args: exactly("the image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.image = args[0]
			return p.withLocal(cmd.Context(), o.egress, func(ctx context.Context, c *localcloud.Cloud) error { return p.cloudRun(ctx, c, o) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.key, "key", "", "log in with the private key in this `file`; default: a new key")
	flags.StringVar(&o.userData, "user-data", "", "pass the contents of this `file` to the instance as user data")
	flags.StringVar(&o.instanceType, "type", "t3.micro", "instance `type`: its CPU, memory and process limits apply where the host's control groups allow it (see bake doctor); the size of the root volume is not enforced")
	flags.StringVar(&o.region, "region", local.DefaultRegion, "boot it in this `region`")
	egressFlag(flags, &o.egress)
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) cloudRun(ctx context.Context, c *localcloud.Cloud, o cloudRunOptions) (err error) {
	client := c.EC2(o.region)
	image, err := findImage(ctx, client, o.image)
	if err != nil {
		return err
	}
	var userData *string
	if o.userData != "" {
		text, err := os.ReadFile(o.userData)
		if err != nil {
			return fmt.Errorf("-user-data: %w", err)
		}
		userData = aws.String(base64.StdEncoding.EncodeToString(text))
	}
	keyFile, public, cleanKey, err := loginKey(o.key)
	if err != nil {
		return err
	}
	defer cleanKey()
	group, err := ensureOpenGroup(ctx, client)
	if err != nil {
		return err
	}
	// What was started is ended even if ctx has been cancelled.
	after := context.WithoutCancel(ctx)
	keyName := fmt.Sprintf("%s-%d-%d", openGroup, os.Getpid(), p.now().UnixNano())
	if _, err := client.ImportKeyPair(ctx, &ec2.ImportKeyPairInput{KeyName: &keyName, PublicKeyMaterial: public}); err != nil {
		return err
	}
	defer func() {
		_, derr := client.DeleteKeyPair(after, &ec2.DeleteKeyPairInput{KeyName: &keyName})
		err = errors.Join(err, derr)
	}()
	started, err := client.RunInstances(ctx, &ec2.RunInstancesInput{
		ImageId: image.ImageId, InstanceType: types.InstanceType(o.instanceType), MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
		KeyName: &keyName, SecurityGroupIds: []string{group}, UserData: userData,
	})
	if err != nil {
		return err
	}
	id := aws.ToString(started.Instances[0].InstanceId)
	defer func() {
		p.say("Terminating " + id)
		_, terr := client.TerminateInstances(after, &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
		if terr == nil {
			_, terr = waitFor(after, client, id, types.InstanceStateNameTerminated)
		}
		err = errors.Join(err, terr)
	}()
	instance, err := waitFor(ctx, client, id, types.InstanceStateNameRunning)
	if context.Cause(ctx) != nil {
		return nil // it was to be ended before it ran
	}
	if err != nil {
		return err
	}
	address := aws.ToString(instance.PublicIpAddress)
	user := listed(image).Tags["bake:user"]
	machine := login.Machine{User: user, Host: address, Port: 22, KeyFile: keyFile}
	if localcloud.ServedPort(22) != 22 {
		machine.Proxy = ncProxy()
	}
	how := machine.Command()
	web := "http://" + address + "/"
	note := ""
	if at := localcloud.ServedPort(80); at != 80 {
		web = fmt.Sprintf("http://%s:%d/", address, at)
		note = fmt.Sprintf("This user cannot listen on ports below 1024, so those of the machine are served %d higher.\n", local.MovedBy)
	}
	awaitSSH(ctx, address)
	if p.json.on {
		p.writeJSON(p.header("ready"), struct {
			Instance string      `json:"instance"`
			Image    listedImage `json:"image"`
			Address  string      `json:"address"`
			User     string      `json:"user"`
			KeyFile  string      `json:"key_file"`
			Login    string      `json:"login"` // a shell command
			HTTP     string      `json:"http"`  // URL of the machine's port 80
		}{id, listed(image), address, user, keyFile, how, web})
	}
	p.say(fmt.Sprintf("%s, an instance of %s (%s), runs at %s\nLog in:  %s\nHTTP:    %s\n%sCtrl-C terminates it.",
		id, aws.ToString(image.ImageId), aws.ToString(image.Name), address, how, web, note))
	if text := c.Dependence(); text != "" {
		p.say(text)
	}
	<-ctx.Done()
	return nil
}

// answers is how long the SSH server of a new machine is waited for.
const answers = 15 * time.Second

// awaitSSH waits until the machine's SSH server says something, so that the user
// need not try. A machine may have none.
func awaitSSH(ctx context.Context, address string) {
	ctx, cancel := context.WithTimeout(ctx, answers)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(localcloud.ServedPort(22))))
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

// findImage returns the image with this id or, if it is no id, the newest one
// whose name it matches.
func findImage(ctx context.Context, client *ec2.Client, idOrName string) (types.Image, error) {
	in := &ec2.DescribeImagesInput{ImageIds: []string{idOrName}}
	if !strings.HasPrefix(idOrName, "ami-") {
		in = &ec2.DescribeImagesInput{Filters: []types.Filter{{Name: aws.String("name"), Values: []string{idOrName}}}}
	}
	out, err := client.DescribeImages(ctx, in)
	var api smithy.APIError
	if errors.As(err, &api) {
		return types.Image{}, fmt.Errorf("image %s: %s (%s); bake cloud images lists the available images", idOrName, api.ErrorMessage(), api.ErrorCode())
	}
	if err != nil {
		return types.Image{}, err
	}
	var newest types.Image
	for _, i := range out.Images {
		if aws.ToString(i.CreationDate) >= aws.ToString(newest.CreationDate) {
			newest = i
		}
	}
	if newest.ImageId == nil {
		return newest, fmt.Errorf("there is no image %s; bake cloud images lists the available images", idOrName)
	}
	return newest, nil
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

// loginKey returns a private key's file and its public half in the format of
// authorized_keys. Without a file a new key is written to one that clean deletes.
func loginKey(file string) (path string, public []byte, clean func(), err error) {
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", nil, nil, fmt.Errorf("-key: %w", err)
		}
		key, err := ssh.ParsePrivateKey(text)
		if err == nil {
			return file, ssh.MarshalAuthorizedKey(key.PublicKey()), func() {}, nil
		}
		var locked *ssh.PassphraseMissingError
		if errors.As(err, &locked) && locked.PublicKey != nil {
			return file, ssh.MarshalAuthorizedKey(locked.PublicKey), func() {}, nil
		}
		return "", nil, nil, fmt.Errorf("-key %s: %w", file, err)
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

// waitFor asks for an instance until it is in the wanted state or in one that
// does not lead there. The local cloud answers at once, so it is asked often.
//
// It is no waiter of the SDK: those take the client as an interface, and then the
// linker keeps the code of each of EC2's 800 actions.
func waitFor(ctx context.Context, client *ec2.Client, id string, want types.InstanceStateName) (types.Instance, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("%s is not %s after %s", id, want, startLimit))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
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
			return instance, fmt.Errorf("%s is %s%s", id, instance.State.Name, reason)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return instance, context.Cause(ctx)
		}
	}
}

// Package runtest has an embedded cloud whose machines are SSH servers of the test, for
// tests of whole runs that need no machines.
package runtest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	gossh "golang.org/x/crypto/ssh"

	"bake/cloud"
	"bake/cloud/cloudtest"
	"bake/cloud/machine"
	"bake/cloud/machine/machinetest"
	"bake/communicator/commtest"
)

// World is an embedded cloud that the environment Env leads to.
type World struct {
	*cloudtest.Server
	Env []string // of the account default, without what else a program needs

	t       testing.TB
	hostKey *commtest.KeyPair
	mu      sync.Mutex
	servers map[string]*commtest.Server
}

// Start serves a cloud until the test ends. Each of its machines lets in the keys that it
// was booted with, and runs commands on this host in a directory of its own. It sets the
// environment of the test, which cannot be parallel.
func Start(t testing.TB, opts cloud.Options) *World {
	key, err := commtest.NewKeyPair("ed25519", 0, "")
	if err != nil {
		t.Fatal(err)
	}
	w := &World{t: t, hostKey: key, servers: map[string]*commtest.Server{}}
	homes := t.TempDir()
	opts.Driver = &machinetest.Driver{Dial: func(ctx context.Context, spec machine.Spec, port uint16) (net.Conn, error) {
		s, err := w.server(filepath.Join(homes, spec.ID), spec)
		if err != nil {
			return nil, err
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", net.JoinHostPort(s.Host, fmt.Sprint(s.Port)))
	}}
	w.Server = cloudtest.Start(t, opts)
	for _, c := range w.Credentials() {
		if c.Profile == "default" {
			w.Env = []string{
				"AWS_ENDPOINT_URL=" + w.URL, "AWS_ACCESS_KEY_ID=" + c.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + c.SecretAccessKey,
				"AWS_SHARED_CREDENTIALS_FILE=" + w.CredentialsFile(), "AWS_REGION=us-east-1", "AWS_CONFIG_FILE=" + os.DevNull,
			}
		}
	}
	for _, v := range w.Env { // credentials are those of the process
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	return w
}

// server is the machine of a spec.
func (w *World) server(home string, spec machine.Spec) (*commtest.Server, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.servers[spec.ID]; s != nil {
		return s, nil
	}
	login := commtest.Login{User: spec.User, HostKey: w.hostKey.Signer, Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home}}
	for _, line := range spec.AuthorizedKeys {
		key, _, _, _, err := gossh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, err
		}
		login.Key = key
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	s := commtest.Serve(w.t, home, login)
	w.servers[spec.ID] = s
	return s, nil
}

// Holdings lists what an account has in a region that costs something or is in the way:
// "image ami-1 (name)".
func (w *World) Holdings(profile, region string) (out []string) {
	w.t.Helper()
	ctx, c := context.Background(), w.EC2(profile, region)
	fatal := func(err error) {
		if err != nil {
			w.t.Fatal(err)
		}
	}
	add := func(kind string, id *string, more any) {
		out = append(out, fmt.Sprintf("%s %s (%v)", kind, aws.ToString(id), more))
	}
	instances, err := c.DescribeInstances(ctx, &ec2.DescribeInstancesInput{})
	fatal(err)
	for _, r := range instances.Reservations {
		for _, i := range r.Instances {
			if i.State.Name != types.InstanceStateNameTerminated {
				add("instance", i.InstanceId, i.State.Name)
			}
		}
	}
	images, err := c.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"self"}})
	fatal(err)
	for _, i := range images.Images {
		add("image", i.ImageId, aws.ToString(i.Name))
	}
	snapshots, err := c.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
	fatal(err)
	for _, s := range snapshots.Snapshots {
		add("snapshot", s.SnapshotId, s.State)
	}
	keys, err := c.DescribeKeyPairs(ctx, &ec2.DescribeKeyPairsInput{})
	fatal(err)
	for _, k := range keys.KeyPairs {
		add("key pair", k.KeyPairId, aws.ToString(k.KeyName))
	}
	groups, err := c.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{})
	fatal(err)
	for _, g := range groups.SecurityGroups {
		if *g.GroupName != "default" {
			add("security group", g.GroupId, *g.GroupName)
		}
	}
	slices.Sort(out)
	return out
}

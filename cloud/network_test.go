package cloud_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
	"bake/cloud/machine"
	"bake/cloud/machine/machinetest"
	"bake/cloud/network"
)

// greeter answers every connection to a machine with a line.
func greeter(_ context.Context, spec machine.Spec, port uint16) (net.Conn, error) {
	near, far := net.Pipe()
	go func() {
		_, _ = fmt.Fprintf(far, "%s port %d\n", spec.ID, port)
		_ = far.Close()
	}()
	return near, nil
}

// connect opens a tunnel and returns the status, and the first line that comes through.
func connect(t *testing.T, url, target string) (int, string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode, ""
	}
	line, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the tunnel stays open: %v", err)
	}
	return resp.StatusCode, line
}

// TestSecurityGroups checks that rules apply to the machine's policy, to tunnels and
// between instances, and that changes take effect at once.
func TestSecurityGroups(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{Driver: &machinetest.Driver{Dial: greeter}})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	group := func(name string) string {
		out, err := client.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: &name, Description: &name})
		if err != nil {
			t.Fatal(err)
		}
		return *out.GroupId
	}
	web, db := group("web"), group("db")
	a := run(t, client, ec2.RunInstancesInput{SecurityGroupIds: []string{web}})
	b := run(t, client, ec2.RunInstancesInput{SecurityGroupIds: []string{db}})
	cfg := s.Driver.Machine(*a.InstanceId).Spec().Network
	local := netip.MustParseAddr("127.0.0.1")
	target := *a.PublicIpAddress + ":22"
	if status, _ := connect(t, s.URL, target); status != http.StatusForbidden || cfg.Policy.Ingress(network.TCP, local, 22) || len(cfg.Policy.Open()) != 0 {
		t.Errorf("without a rule: %d, %v", status, cfg.Policy.Open())
	}
	changes := s.Driver.Machine(*a.InstanceId).NetworkChanges()
	ssh := []types.IpPermission{{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(22), ToPort: aws.Int32(22), IpRanges: []types.IpRange{{CidrIp: aws.String("127.0.0.0/8")}}}}
	if _, err := client.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &web, IpPermissions: ssh}); err != nil {
		t.Fatal(err)
	}
	if s.Driver.Machine(*a.InstanceId).NetworkChanges() == changes {
		t.Error("the machine did not hear of the rule")
	}
	if status, line := connect(t, s.URL, target); status != http.StatusOK || line != *a.InstanceId+" port 22\n" {
		t.Errorf("with a rule: %d %q", status, line)
	}
	for _, bad := range []string{"10.0.0.1:22", "127.0.0.1:22", "example.org:22", "127.0.0.1"} {
		if status, _ := connect(t, s.URL, bad); status == http.StatusOK {
			t.Errorf("a tunnel to %s", bad)
		}
	}
	if cfg.Policy.Ingress(network.TCP, netip.MustParseAddr("10.1.1.1"), 22) || cfg.Policy.Ingress(network.UDP, local, 22) || cfg.Policy.Ingress(network.TCP, local, 23) {
		t.Error("the rule admits too much")
	}
	if !cfg.Policy.Egress(network.TCP, netip.MustParseAddr("8.8.8.8"), 443) {
		t.Error("nothing may leave")
	}

	// web may reach db on its port, by reference to the group.
	_, err := client.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &db, IpPermissions: []types.IpPermission{{IpProtocol: aws.String("tcp"),
		FromPort: aws.Int32(5432), ToPort: aws.Int32(5432), UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: &web}}}}})
	if err != nil {
		t.Fatal(err)
	}
	addr, ok := cfg.Names(*b.PrivateDnsName)
	if !ok || addr.String() != *b.PrivateIpAddress {
		t.Fatalf("%s is %v, want %s", *b.PrivateDnsName, addr, *b.PrivateIpAddress)
	}
	peer := cfg.Peer(addr)
	if peer == nil {
		t.Fatal("the neighbour is not found")
	}
	if _, err := peer.Dial(ctx, netip.MustParseAddr(*a.PrivateIpAddress), 5432); err != nil {
		t.Errorf("to the neighbour: %v", err)
	}
	if _, err := peer.Dial(ctx, netip.MustParseAddr("172.31.255.254"), 5432); err == nil {
		t.Error("a stranger reaches the neighbour")
	}

	// The groups of running instances cannot be deleted; revoking a rule takes effect at
	// once.
	if _, err := client.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: &web}); code(err) != "DependencyViolation" {
		t.Errorf("delete a group in use: %v", err)
	}
	if _, err := client.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: &web, IpPermissions: ssh}); err != nil {
		t.Fatal(err)
	}
	if status, _ := connect(t, s.URL, target); status != http.StatusForbidden {
		t.Errorf("after the rule was taken back: %d", status)
	}
}

// TestConcurrency runs many clients at once, for the race detector; nothing may be lost.
func TestConcurrency(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ami := source(t, client)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			ctx := t.Context()
			out, err := client.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: &ami, InstanceType: "t3.micro", MinCount: aws.Int32(1), MaxCount: aws.Int32(1), ClientToken: aws.String(fmt.Sprint(i / 2))})
			if err != nil {
				t.Error(err)
				return
			}
			id := *out.Instances[0].InstanceId
			await(t, client, id, types.InstanceStateNameRunning)
			for _, do := range []func() error{
				func() error {
					_, err := client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: &id, Name: aws.String(fmt.Sprintf("image %d", i)), NoReboot: aws.Bool(i%4 < 2)})
					return err
				},
				func() error {
					_, err := client.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{id}, Tags: []types.Tag{{Key: aws.String(fmt.Sprint(i)), Value: aws.String("x")}}})
					return err
				},
				func() error { _, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{}); return err },
				func() error {
					_, err := client.RebootInstances(ctx, &ec2.RebootInstancesInput{InstanceIds: []string{id}})
					return err
				},
			} {
				if err := do(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	images, err := client.DescribeImages(t.Context(), &ec2.DescribeImagesInput{Owners: []string{"self"}})
	if err != nil || len(images.Images) != 8 {
		t.Fatalf("%d images, %v", len(images.Images), err)
	}
	for _, img := range images.Images {
		awaitImage(t, client, *img.ImageId)
	}
	all, err := client.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{})
	if err != nil || len(all.Reservations) != 4 {
		t.Fatalf("%d launches with 4 client tokens, %v", len(all.Reservations), err)
	}
	for _, r := range all.Reservations {
		if len(r.Instances) != 1 || len(r.Instances[0].Tags) != 2 {
			t.Errorf("instance %+v", r.Instances)
		}
	}
}

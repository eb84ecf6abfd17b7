//go:build linux

package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestInventoryOfNetworks: a network that a bake left is counted, the default one is not.
func TestInventoryOfNetworks(t *testing.T) {
	w := &world{dir: t.TempDir()}
	s := cloudtest.Start(t, cloud.Options{Dir: filepath.Join(w.dir, "cloud")})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	left := func() (kinds []string) {
		t.Helper()
		h, err := w.inventory()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range h.beside(nil) {
			kind, _, _ := strings.Cut(l, " ")
			kinds = append(kinds, kind)
		}
		return kinds
	}
	subnets, err := client.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{})
	if err != nil {
		t.Fatal(err)
	}
	if got := left(); len(got) != 0 {
		t.Errorf("in a new cloud: %q", got)
	}
	vpc, err := client.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	for _, create := range []func() error{
		func() error {
			_, err := client.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: vpc.Vpc.VpcId, CidrBlock: aws.String("10.0.1.0/24")})
			return err
		},
		func() error {
			_, err := client.CreateRouteTable(ctx, &ec2.CreateRouteTableInput{VpcId: subnets.Subnets[0].VpcId})
			return err
		},
		func() error {
			_, err := client.CreateInternetGateway(ctx, &ec2.CreateInternetGatewayInput{})
			return err
		},
		func() error {
			_, err := client.AllocateAddress(ctx, &ec2.AllocateAddressInput{})
			return err
		},
		func() error {
			_, err := client.CreateInstanceConnectEndpoint(ctx, &ec2.CreateInstanceConnectEndpointInput{SubnetId: subnets.Subnets[0].SubnetId})
			return err
		},
	} {
		if err := create(); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"addresses", "connects", "gateways", "routetables", "subnets", "vpcs"}
	if got := left(); !slices.Equal(got, want) {
		t.Errorf("left: %q, want %q", got, want)
	}
}

package ec2

import (
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// CreateInstanceConnectEndpoint records an endpoint. A VPC can have only one.
func (s *state) CreateInstanceConnectEndpoint(ctx context.Context, in *ec2.CreateInstanceConnectEndpointInput) (*ec2.CreateInstanceConnectEndpointOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindConnect.resource)
	if err != nil {
		return nil, err
	}
	if in.IpAddressType != "" && in.IpAddressType != types.IpAddressTypeIpv4 {
		return nil, wire.Errorf("Unsupported", "The embedded cloud has no IPv6.")
	}
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	have, err := n.once(in.ClientToken, fingerprint(in))
	if err != nil {
		return nil, err
	}
	if i, err := s.indexOf(kindConnect, n.Connects, &have); err == nil {
		return &ec2.CreateInstanceConnectEndpointOutput{InstanceConnectEndpoint: &n.Connects[i], ClientToken: in.ClientToken}, nil
	}
	at, err := s.indexOf(kindSubnet, n.Subnets, in.SubnetId)
	if err != nil {
		return nil, err
	}
	subnet := n.Subnets[at]
	groups, err := s.groupsFor(c, *subnet.VpcId, in.SecurityGroupIds, nil)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(n.Connects, func(e types.Ec2InstanceConnectEndpoint) bool { return *e.VpcId == *subnet.VpcId }) {
		return nil, wire.Errorf("InstanceConnectEndpointLimitExceeded", "The maximum number of EC2 Instance Connect Endpoints for the VPC %s has been reached.", *subnet.VpcId)
	}
	id := newID("eice")
	name := id + ".ec2-instance-connect-endpoint." + c.Region + ".amazonaws.com"
	e := types.Ec2InstanceConnectEndpoint{
		InstanceConnectEndpointId: &id, InstanceConnectEndpointArn: aws.String(arn(c, "ec2", "instance-connect-endpoint/"+id)), OwnerId: &c.Account,
		State: types.Ec2InstanceConnectEndpointStateCreateComplete, StateMessage: aws.String(""), CreatedAt: aws.Time(s.now()), DnsName: &name, IpAddressType: types.IpAddressTypeIpv4,
		SubnetId: subnet.SubnetId, VpcId: subnet.VpcId, AvailabilityZone: subnet.AvailabilityZone, AvailabilityZoneId: subnet.AvailabilityZoneId,
		PreserveClientIp: aws.Bool(aws.ToBool(in.PreserveClientIp)), Tags: tags[kindConnect.resource],
	}
	for _, g := range groups {
		e.SecurityGroupIds = append(e.SecurityGroupIds, *g.GroupId)
	}
	err = s.editNetwork(c, func(n *networking) {
		n.Connects = append(n.Connects, e)
		n.use(aws.ToString(in.ClientToken), fingerprint(in), id)
	})
	s.hide(ctx, id)
	e.State = types.Ec2InstanceConnectEndpointStateCreateInProgress
	return &ec2.CreateInstanceConnectEndpointOutput{InstanceConnectEndpoint: &e, ClientToken: in.ClientToken}, err
}

func (s *state) DeleteInstanceConnectEndpoint(ctx context.Context, in *ec2.DeleteInstanceConnectEndpointInput) (*ec2.DeleteInstanceConnectEndpointOutput, error) {
	c := wire.CallerFrom(ctx)
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	i, err := s.indexOf(kindConnect, n.Connects, in.InstanceConnectEndpointId)
	if err != nil {
		return nil, err
	}
	e := n.Connects[i]
	e.State = types.Ec2InstanceConnectEndpointStateDeleteInProgress
	return &ec2.DeleteInstanceConnectEndpointOutput{InstanceConnectEndpoint: &e},
		s.editNetwork(c, func(n *networking) { n.Connects = slices.Delete(n.Connects, i, i+1) })
}

var connectFilters = filters{
	{"instance-connect-endpoint-id", "InstanceConnectEndpointId"}, {"state", "State"}, {"subnet-id", "SubnetId"}, {"vpc-id", "VpcId"},
}

func (s *state) DescribeInstanceConnectEndpoints(ctx context.Context, in *ec2.DescribeInstanceConnectEndpointsInput) (*ec2.DescribeInstanceConnectEndpointsOutput, error) {
	n, err := s.networkOf(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	rows, next, err := list(s, kindConnect, query{in.InstanceConnectEndpointIds, in.Filters, in.MaxResults, in.NextToken}, n.Connects)
	return &ec2.DescribeInstanceConnectEndpointsOutput{InstanceConnectEndpoints: rows, NextToken: next}, err
}

package ec2

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// VPC endpoints are only recorded: an instance reaches the services of the embedded cloud
// with or without them.

// availableEndpoint is the state as EC2 spells it; the SDK's enumeration differs.
const availableEndpoint types.State = "available"

// defaultEndpointPolicy is the policy of an endpoint that is created without one.
const defaultEndpointPolicy = `{"Version":"2008-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}]}`

// prefixLists returns AWS's prefix lists in a region, for the services that have gateway
// endpoints.
func prefixLists(region string) []types.PrefixList {
	var all []types.PrefixList
	for _, service := range []string{"dynamodb", "s3"} {
		name := "com.amazonaws." + region + "." + service
		sum := sha256.Sum256([]byte(name))
		id := "pl-" + hex.EncodeToString(sum[:4])
		all = append(all, types.PrefixList{PrefixListId: &id, PrefixListName: &name, Cidrs: []string{}})
	}
	return all
}

// prefixList returns the id of a service's prefix list, or "".
func prefixList(region, service string) string {
	for _, l := range prefixLists(region) {
		if *l.PrefixListName == service {
			return *l.PrefixListId
		}
	}
	return ""
}

var prefixListFilters = filters{{"prefix-list-id", "PrefixListId"}, {"prefix-list-name", "PrefixListName"}}

// DescribePrefixLists lists AWS's prefix lists. They have no addresses here; on AWS the
// addresses change daily.
func (s *state) DescribePrefixLists(ctx context.Context, in *ec2.DescribePrefixListsInput) (*ec2.DescribePrefixListsOutput, error) {
	rows, next, err := list(s, kindPrefixList, query{in.PrefixListIds, in.Filters, in.MaxResults, in.NextToken}, prefixLists(wire.CallerFrom(ctx).Region))
	return &ec2.DescribePrefixListsOutput{PrefixLists: rows, NextToken: next}, err
}

// CreateVpcEndpoint records a gateway endpoint, with its routes, or an interface endpoint,
// with an interface in each subnet.
func (s *state) CreateVpcEndpoint(ctx context.Context, in *ec2.CreateVpcEndpointInput) (*ec2.CreateVpcEndpointOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindEndpoint.resource)
	if err != nil {
		return nil, err
	}
	if err := unsupported(in, "DnsOptions", "IpAddressType", "ResourceConfigurationArn", "ServiceNetworkArn", "ServiceRegion", "SubnetConfigurations"); err != nil {
		return nil, err
	}
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	id, err := n.once(in.ClientToken, fingerprint(in))
	if err != nil {
		return nil, err
	}
	if i, err := s.indexOf(kindEndpoint, n.Endpoints, &id); err == nil {
		return &ec2.CreateVpcEndpointOutput{VpcEndpoint: &n.Endpoints[i], ClientToken: in.ClientToken}, nil
	}
	if _, err := s.indexOf(kindVpc, n.Vpcs, in.VpcId); err != nil {
		return nil, err
	}
	e := types.VpcEndpoint{VpcEndpointId: aws.String(newID("vpce")), VpcId: in.VpcId, ServiceName: in.ServiceName, OwnerId: &c.Account, CreationTimestamp: aws.Time(s.now()),
		VpcEndpointType: cmp.Or(in.VpcEndpointType, types.VpcEndpointTypeGateway), State: availableEndpoint, Tags: tags[kindEndpoint.resource],
		PolicyDocument: aws.String(cmp.Or(aws.ToString(in.PolicyDocument), defaultEndpointPolicy)), PrivateDnsEnabled: aws.Bool(false), RequesterManaged: aws.Bool(false),
		RouteTableIds: []string{}, SubnetIds: []string{}, Groups: []types.SecurityGroupIdentifier{}, NetworkInterfaceIds: []string{}, DnsEntries: []types.DnsEntry{}}
	gateway := prefixList(c.Region, aws.ToString(in.ServiceName))
	var nics []types.NetworkInterface
	switch {
	case aws.ToString(in.ServiceName) == "":
		return nil, missing("ServiceName")
	case !strings.HasPrefix(*in.ServiceName, "com.amazonaws."+c.Region+".") && !strings.HasPrefix(*in.ServiceName, "com.amazonaws.vpce."),
		e.VpcEndpointType == types.VpcEndpointTypeGateway && gateway == "":
		return nil, wire.Errorf("InvalidServiceName", "The Vpc Endpoint Service '%s' does not exist", *in.ServiceName)
	case e.VpcEndpointType == types.VpcEndpointTypeGateway:
		err = s.checkGatewayEndpoint(n, &e, in)
	case e.VpcEndpointType == types.VpcEndpointTypeInterface:
		nics, err = s.interfaceEndpoint(c, n, &e, in)
	default:
		err = wire.Errorf("Unsupported", "The embedded cloud has VPC endpoints of the types Gateway and Interface only.")
	}
	if err != nil {
		return nil, err
	}
	err = s.editNetwork(c, func(n *networking) {
		n.Endpoints = append(n.Endpoints, e)
		n.Interfaces = append(n.Interfaces, nics...)
		n.routeEndpoint(&e, gateway, e.RouteTableIds, nil)
		n.use(aws.ToString(in.ClientToken), fingerprint(in), *e.VpcEndpointId)
	})
	s.hide(ctx, *e.VpcEndpointId)
	if e.VpcEndpointType == types.VpcEndpointTypeInterface {
		e.State = "pending"
	}
	return &ec2.CreateVpcEndpointOutput{VpcEndpoint: &e, ClientToken: in.ClientToken}, err
}

// checkTables reports route tables that do not belong to the VPC.
func (s *state) checkTables(n *networking, vpc string, ids []string) error {
	for _, id := range ids {
		i, err := s.indexOf(kindRouteTable, n.RouteTables, &id)
		if err != nil {
			return wire.Errorf("InvalidRouteTableId.NotFound", "The routeTable ID '%s' does not exist", id)
		}
		if *n.RouteTables[i].VpcId != vpc {
			return wire.Errorf("InvalidParameter", "The route table %s does not belong to the VPC %s", id, vpc)
		}
	}
	return nil
}

func (s *state) checkGatewayEndpoint(n *networking, e *types.VpcEndpoint, in *ec2.CreateVpcEndpointInput) error {
	if len(in.SubnetIds)+len(in.SecurityGroupIds) > 0 {
		return wire.Errorf("InvalidParameter", "Subnets and security groups are not supported for endpoints of the type Gateway.")
	}
	if err := s.checkTables(n, *e.VpcId, in.RouteTableIds); err != nil {
		return err
	}
	for _, other := range n.Endpoints {
		for _, id := range in.RouteTableIds {
			if *other.ServiceName == *e.ServiceName && slices.Contains(other.RouteTableIds, id) {
				return wire.Errorf("RouteAlreadyExists", "route table %s already has a route with destination-prefix-list-id %s", id, prefixList(strings.Split(*e.ServiceName, ".")[2], *e.ServiceName))
			}
		}
	}
	e.RouteTableIds = append(e.RouteTableIds, in.RouteTableIds...)
	return nil
}

// interfaceEndpoint completes an interface endpoint and returns its interfaces.
func (s *state) interfaceEndpoint(c wire.Caller, n *networking, e *types.VpcEndpoint, in *ec2.CreateVpcEndpointInput) (nics []types.NetworkInterface, err error) {
	if len(in.RouteTableIds) > 0 {
		return nil, wire.Errorf("InvalidParameter", "Route tables are not supported for endpoints of the type Interface.")
	}
	groups, err := s.groupsFor(c, *e.VpcId, in.SecurityGroupIds, nil)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		e.Groups = append(e.Groups, types.SecurityGroupIdentifier{GroupId: g.GroupId, GroupName: g.GroupName})
	}
	zones := map[string]bool{}
	for _, id := range in.SubnetIds {
		subnet, err := s.subnetFor(n, &id)
		switch {
		case err != nil:
			return nil, err
		case *subnet.VpcId != *e.VpcId:
			return nil, wire.Errorf("InvalidParameter", "The subnet %s does not belong to the VPC %s", id, *e.VpcId)
		case zones[*subnet.AvailabilityZone]:
			return nil, wire.Errorf("DuplicateSubnetsInSameZone", "Found another VPC endpoint subnet in the availability zone of %s. VPC endpoint subnets should be in different availability zones supported by the VPC endpoint service.", id)
		}
		zones[*subnet.AvailabilityZone] = true
		nic, err := s.newInterface(c, subnet, groups, "")
		if err != nil {
			return nil, err
		}
		managed(&nic, types.NetworkInterfaceTypeVpcEndpoint, "VPC Endpoint Interface "+*e.VpcEndpointId)
		nics = append(nics, nic)
		e.SubnetIds, e.NetworkInterfaceIds = append(e.SubnetIds, id), append(e.NetworkInterfaceIds, *nic.NetworkInterfaceId)
	}
	service := (*e.ServiceName)[strings.LastIndex(*e.ServiceName, ".")+1:]
	e.DnsEntries = append(e.DnsEntries, types.DnsEntry{DnsName: aws.String(*e.VpcEndpointId + "." + service + "." + c.Region + ".vpce.amazonaws.com")})
	e.PrivateDnsEnabled, e.IpAddressType = aws.Bool(in.PrivateDnsEnabled == nil || *in.PrivateDnsEnabled), types.IpAddressTypeIpv4
	e.DnsOptions = &types.DnsOptions{DnsRecordIpType: types.DnsRecordIpTypeIpv4}
	return nics, nil
}

// routeEndpoint adds the routes to a gateway endpoint to some tables, and removes them
// from others.
func (n *networking) routeEndpoint(e *types.VpcEndpoint, list string, add, remove []string) {
	for i := range n.RouteTables {
		t := &n.RouteTables[i]
		if slices.Contains(remove, *t.RouteTableId) {
			t.Routes = slices.DeleteFunc(t.Routes, func(r types.Route) bool { return aws.ToString(r.GatewayId) == *e.VpcEndpointId })
		}
		if slices.Contains(add, *t.RouteTableId) {
			t.Routes = append(t.Routes, types.Route{DestinationPrefixListId: &list, GatewayId: e.VpcEndpointId, Origin: types.RouteOriginCreateRoute, State: types.RouteStateActive})
		}
	}
}

// ModifyVpcEndpoint changes the policy of an endpoint, and the route tables of a gateway
// endpoint.
func (s *state) ModifyVpcEndpoint(ctx context.Context, in *ec2.ModifyVpcEndpointInput) (*ec2.ModifyVpcEndpointOutput, error) {
	c := wire.CallerFrom(ctx)
	if err := unsupported(in, "AddSecurityGroupIds", "AddSubnetIds", "DnsOptions", "IpAddressType", "RemoveSecurityGroupIds", "RemoveSubnetIds", "SubnetConfigurations"); err != nil {
		return nil, err
	}
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	i, err := s.indexOf(kindEndpoint, n.Endpoints, in.VpcEndpointId)
	if err != nil {
		return nil, err
	}
	e := n.Endpoints[i]
	if e.VpcEndpointType != types.VpcEndpointTypeGateway && len(in.AddRouteTableIds)+len(in.RemoveRouteTableIds) > 0 {
		return nil, wire.Errorf("InvalidParameter", "Route tables are not supported for endpoints of the type %s.", e.VpcEndpointType)
	}
	if err := s.checkTables(n, *e.VpcId, slices.Concat(in.AddRouteTableIds, in.RemoveRouteTableIds)); err != nil {
		return nil, err
	}
	added := slices.DeleteFunc(slices.Clone(in.AddRouteTableIds), func(id string) bool { return slices.Contains(e.RouteTableIds, id) })
	return &ec2.ModifyVpcEndpointOutput{Return: aws.Bool(true)}, s.editNetwork(c, func(n *networking) {
		e := &n.Endpoints[i]
		switch {
		case aws.ToBool(in.ResetPolicy):
			e.PolicyDocument = aws.String(defaultEndpointPolicy)
		case aws.ToString(in.PolicyDocument) != "":
			e.PolicyDocument = in.PolicyDocument
		}
		if in.PrivateDnsEnabled != nil {
			e.PrivateDnsEnabled = in.PrivateDnsEnabled
		}
		n.routeEndpoint(e, prefixList(c.Region, *e.ServiceName), added, in.RemoveRouteTableIds)
		kept := slices.DeleteFunc(slices.Clone(e.RouteTableIds), func(id string) bool { return slices.Contains(in.RemoveRouteTableIds, id) })
		e.RouteTableIds = append(kept, added...)
	})
}

// DeleteVpcEndpoints deletes endpoints with their routes and interfaces. The answer lists
// those that do not exist.
func (s *state) DeleteVpcEndpoints(ctx context.Context, in *ec2.DeleteVpcEndpointsInput) (*ec2.DeleteVpcEndpointsOutput, error) {
	c := wire.CallerFrom(ctx)
	out := &ec2.DeleteVpcEndpointsOutput{Unsuccessful: []types.UnsuccessfulItem{}}
	for _, id := range in.VpcEndpointIds {
		n, err := s.networkOf(c)
		if err != nil {
			return nil, err
		}
		i, err := s.indexOf(kindEndpoint, n.Endpoints, &id)
		if err != nil {
			e := wire.AsError(err)
			out.Unsuccessful = append(out.Unsuccessful, types.UnsuccessfulItem{ResourceId: &id, Error: &types.UnsuccessfulItemError{Code: &e.Code, Message: &e.Message}})
			continue
		}
		e := n.Endpoints[i]
		err = s.editNetwork(c, func(n *networking) {
			n.routeEndpoint(&e, "", nil, e.RouteTableIds)
			n.Interfaces = slices.DeleteFunc(n.Interfaces, func(i types.NetworkInterface) bool {
				return slices.Contains(e.NetworkInterfaceIds, *i.NetworkInterfaceId)
			})
			n.Endpoints = slices.Delete(n.Endpoints, i, i+1)
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

var endpointFilters = filters{
	{"ip-address-type", "IpAddressType"}, {"service-name", "ServiceName"}, {"vpc-id", "VpcId"}, {"vpc-endpoint-id", "VpcEndpointId"}, {"vpc-endpoint-state", "State"}, {"vpc-endpoint-type", "VpcEndpointType"},
}

// DescribeVpcEndpoints lists VPC endpoints.
func (s *state) DescribeVpcEndpoints(ctx context.Context, in *ec2.DescribeVpcEndpointsInput) (*ec2.DescribeVpcEndpointsOutput, error) {
	n, err := s.networkOf(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	rows, next, err := list(s, kindEndpoint, query{in.VpcEndpointIds, in.Filters, in.MaxResults, in.NextToken}, n.Endpoints)
	return &ec2.DescribeVpcEndpointsOutput{VpcEndpoints: rows, NextToken: next}, err
}

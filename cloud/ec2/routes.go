package ec2

import (
	"context"
	"net/netip"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// attachedGateway is the state of an internet gateway's attachment. The SDK's enumeration
// lacks it.
const attachedGateway types.AttachmentStatus = "available"

// newRouteTable returns a route table of a VPC with the local route that every table has.
func newRouteTable(c wire.Caller, v *vpc) types.RouteTable {
	return types.RouteTable{RouteTableId: aws.String(newID("rtb")), VpcId: v.VpcId, OwnerId: &c.Account, Routes: []types.Route{
		{DestinationCidrBlock: v.CidrBlock, GatewayId: aws.String("local"), Origin: types.RouteOriginCreateRouteTable, State: types.RouteStateActive}}}
}

// newAssociation returns an association of a route table with a subnet or, if subnet is
// nil, with its VPC as the main table.
func newAssociation(table string, subnet *string) types.RouteTableAssociation {
	return types.RouteTableAssociation{RouteTableAssociationId: aws.String(newID("rtbassoc")), RouteTableId: &table, SubnetId: subnet, Main: aws.Bool(subnet == nil),
		AssociationState: &types.RouteTableAssociationState{State: types.RouteTableAssociationStateCodeAssociated}}
}

func isMain(t types.RouteTable) bool {
	return slices.ContainsFunc(t.Associations, func(a types.RouteTableAssociation) bool { return aws.ToBool(a.Main) })
}

// mainTable returns the main route table of a VPC.
func (n *networking) mainTable(vpc string) *types.RouteTable {
	for i := range n.RouteTables {
		if t := &n.RouteTables[i]; *t.VpcId == vpc && isMain(*t) {
			return t
		}
	}
	return nil
}

// routeTable returns the caller's networks and the index of a route table in them.
func (s *state) routeTable(c wire.Caller, id *string) (*networking, int, error) {
	n, err := s.networkOf(c)
	if err != nil {
		return nil, 0, err
	}
	i, err := s.indexOf(kindRouteTable, n.RouteTables, id)
	return n, i, err
}

func (s *state) CreateRouteTable(ctx context.Context, in *ec2.CreateRouteTableInput) (*ec2.CreateRouteTableOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindRouteTable.resource)
	if err != nil {
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
	if i, err := s.indexOf(kindRouteTable, n.RouteTables, &id); err == nil {
		return &ec2.CreateRouteTableOutput{RouteTable: &n.RouteTables[i], ClientToken: in.ClientToken}, nil
	}
	i, err := s.indexOf(kindVpc, n.Vpcs, in.VpcId)
	if err != nil {
		return nil, err
	}
	table := newRouteTable(c, &n.Vpcs[i])
	table.Tags = tags[kindRouteTable.resource]
	s.hide(ctx, *table.RouteTableId)
	err = s.editNetwork(c, func(n *networking) {
		n.RouteTables = append(n.RouteTables, table)
		n.use(aws.ToString(in.ClientToken), fingerprint(in), *table.RouteTableId)
	})
	return &ec2.CreateRouteTableOutput{RouteTable: &table, ClientToken: in.ClientToken}, err
}

func (s *state) DeleteRouteTable(ctx context.Context, in *ec2.DeleteRouteTableInput) (*ec2.DeleteRouteTableOutput, error) {
	c := wire.CallerFrom(ctx)
	n, i, err := s.routeTable(c, in.RouteTableId)
	if err != nil {
		return nil, err
	}
	if len(n.RouteTables[i].Associations) > 0 {
		return nil, errDependencies("routeTable", *in.RouteTableId)
	}
	err = s.editNetwork(c, func(n *networking) { n.RouteTables = slices.Delete(n.RouteTables, i, i+1) })
	return &ec2.DeleteRouteTableOutput{}, err
}

var routeTableFilters = filters{
	{"association.gateway-id", ""}, {"association.main", "Associations.Main"}, {"association.route-table-association-id", "Associations.RouteTableAssociationId"},
	{"association.route-table-id", "Associations.RouteTableId"}, {"association.subnet-id", "Associations.SubnetId"}, {"owner-id", "OwnerId"},
	{"route-table-id", "RouteTableId"}, {"route.destination-cidr-block", "Routes.DestinationCidrBlock"}, {"route.destination-ipv6-cidr-block", ""},
	{"route.destination-prefix-list-id", ""}, {"route.egress-only-internet-gateway-id", ""}, {"route.gateway-id", "Routes.GatewayId"},
	{"route.instance-id", "Routes.InstanceId"}, {"route.nat-gateway-id", "Routes.NatGatewayId"}, {"route.transit-gateway-id", ""},
	{"route.origin", "Routes.Origin"}, {"route.state", "Routes.State"}, {"route.vpc-peering-connection-id", ""}, {"vpc-id", "VpcId"},
}

func (s *state) DescribeRouteTables(ctx context.Context, in *ec2.DescribeRouteTablesInput) (*ec2.DescribeRouteTablesOutput, error) {
	n, err := s.networkOf(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	rows, next, err := list(s, kindRouteTable, query{in.RouteTableIds, in.Filters, in.MaxResults, in.NextToken}, s.routeTables(n))
	return &ec2.DescribeRouteTablesOutput{RouteTables: rows, NextToken: next}, err
}

// routeTables returns the route tables with the current state of each route: a route whose
// target is deleted stays, and becomes active again if the target returns.
func (s *state) routeTables(n *networking) []types.RouteTable {
	tables := slices.Clone(n.RouteTables)
	for i := range tables {
		routes := slices.Clone(tables[i].Routes)
		for j := range routes {
			routes[j].State = types.RouteStateActive
			if !s.targetExists(n, routes[j], *tables[i].VpcId) {
				routes[j].State = types.RouteStateBlackhole
			}
		}
		tables[i].Routes = routes
	}
	return tables
}

// targetExists reports whether the target of a route in a table of vpc exists.
func (s *state) targetExists(n *networking, route types.Route, vpc string) bool {
	if route.InstanceId != nil {
		row, ok := s.instances.Get(*route.InstanceId)
		return ok && row.Ended == nil
	}
	if route.NatGatewayId != nil {
		return slices.ContainsFunc(n.Nats, func(g types.NatGateway) bool {
			return *g.NatGatewayId == *route.NatGatewayId && g.State == types.NatGatewayStateAvailable
		})
	}
	gateway := aws.ToString(route.GatewayId)
	if slices.ContainsFunc(n.Endpoints, func(e types.VpcEndpoint) bool { return *e.VpcEndpointId == gateway }) {
		return true
	}
	return gateway == "local" || slices.ContainsFunc(n.Gateways, func(g types.InternetGateway) bool { return *g.InternetGatewayId == gateway && attachedTo(g, vpc) })
}

// routeTo returns the route that a request describes, for a table of vpc.
func (s *state) routeTo(c wire.Caller, n *networking, vpc string, in *ec2.CreateRouteInput) (types.Route, error) {
	route := types.Route{Origin: types.RouteOriginCreateRoute, State: types.RouteStateActive}
	if err := unsupported(in, "CarrierGatewayId", "CoreNetworkArn", "DestinationIpv6CidrBlock", "DestinationPrefixListId", "EgressOnlyInternetGatewayId",
		"LocalGatewayId", "NetworkInterfaceId", "OdbNetworkArn", "TransitGatewayId", "VpcEndpointId", "VpcPeeringConnectionId"); err != nil {
		return route, err
	}
	destination := aws.ToString(in.DestinationCidrBlock)
	if destination == "" {
		return route, missing("DestinationCidrBlock")
	}
	prefix, err := netip.ParsePrefix(destination)
	if err != nil || !prefix.Addr().Is4() {
		return route, invalidValue("Value (%s) for parameter destinationCidrBlock is invalid. This is not a valid CIDR block.", destination)
	}
	route.DestinationCidrBlock = aws.String(prefix.Masked().String())
	nat := aws.ToString(in.NatGatewayId)
	switch gateway, instance := aws.ToString(in.GatewayId), aws.ToString(in.InstanceId); {
	case gateway != "" && instance != "" || nat != "" && gateway+instance != "":
		return route, wire.Errorf("InvalidParameterCombination", "A route has one target only.")
	case nat != "":
		i, err := s.indexOf(kindNat, n.Nats, in.NatGatewayId)
		if err != nil {
			return route, err
		}
		if *n.Nats[i].VpcId != vpc {
			return route, invalidValue("route table and NAT gateway %s belong to different networks", nat)
		}
		route.NatGatewayId = in.NatGatewayId
	case gateway == "local":
		return route, invalidValue("Value (local) for parameter gatewayId is invalid. The route of the VPC itself cannot be made.")
	case gateway != "":
		i, err := s.indexOf(kindGateway, n.Gateways, in.GatewayId)
		if err != nil {
			return route, err
		}
		if !attachedTo(n.Gateways[i], vpc) {
			return route, invalidValue("route table and network gateway %s belong to different networks", gateway)
		}
		route.GatewayId = in.GatewayId
	case instance != "":
		row, err := s.findInstance(c, in.InstanceId)
		if err != nil {
			return route, err
		}
		if aws.ToString(row.VpcId) != vpc {
			return route, invalidValue("route table and interface of instance %s belong to different networks", instance)
		}
		if err := n.oneInterface(row); err != nil {
			return route, err
		}
		route.InstanceId, route.InstanceOwnerId, route.NetworkInterfaceId = in.InstanceId, &row.OwnerId, row.NetworkInterfaces[0].NetworkInterfaceId
	default:
		return route, missing("GatewayId")
	}
	return route, nil
}

// routeIndex returns the index of the route to a destination, or -1.
func routeIndex(t types.RouteTable, destination *string) int {
	return slices.IndexFunc(t.Routes, func(r types.Route) bool {
		return r.DestinationCidrBlock != nil && *r.DestinationCidrBlock == aws.ToString(destination)
	})
}

func (s *state) CreateRoute(ctx context.Context, in *ec2.CreateRouteInput) (*ec2.CreateRouteOutput, error) {
	c := wire.CallerFrom(ctx)
	n, i, err := s.routeTable(c, in.RouteTableId)
	if err != nil {
		return nil, err
	}
	route, err := s.routeTo(c, n, *n.RouteTables[i].VpcId, in)
	if err != nil {
		return nil, err
	}
	if routeIndex(n.RouteTables[i], route.DestinationCidrBlock) >= 0 {
		return nil, wire.Errorf("RouteAlreadyExists", "The route identified by %s already exists.", *route.DestinationCidrBlock)
	}
	err = s.editNetwork(c, func(n *networking) { n.RouteTables[i].Routes = append(n.RouteTables[i].Routes, route) })
	return &ec2.CreateRouteOutput{Return: aws.Bool(true)}, err
}

func errNoRoute(table, destination *string) error {
	return wire.Errorf("InvalidRoute.NotFound", "no route with destination-cidr-block %s in route table %s", aws.ToString(destination), *table)
}

func (s *state) ReplaceRoute(ctx context.Context, in *ec2.ReplaceRouteInput) (*ec2.ReplaceRouteOutput, error) {
	c := wire.CallerFrom(ctx)
	n, i, err := s.routeTable(c, in.RouteTableId)
	if err != nil {
		return nil, err
	}
	if err := unsupported(in, "LocalTarget"); err != nil {
		return nil, err
	}
	var wanted ec2.CreateRouteInput
	copyFields(&wanted, *in)
	route, err := s.routeTo(c, n, *n.RouteTables[i].VpcId, &wanted)
	if err != nil {
		return nil, err
	}
	at := routeIndex(n.RouteTables[i], route.DestinationCidrBlock)
	if at < 0 {
		return nil, errNoRoute(in.RouteTableId, route.DestinationCidrBlock)
	}
	err = s.editNetwork(c, func(n *networking) { n.RouteTables[i].Routes[at] = route })
	return &ec2.ReplaceRouteOutput{}, err
}

func (s *state) DeleteRoute(ctx context.Context, in *ec2.DeleteRouteInput) (*ec2.DeleteRouteOutput, error) {
	c := wire.CallerFrom(ctx)
	n, i, err := s.routeTable(c, in.RouteTableId)
	if err != nil {
		return nil, err
	}
	if err := unsupported(in, "DestinationIpv6CidrBlock", "DestinationPrefixListId"); err != nil {
		return nil, err
	}
	at := routeIndex(n.RouteTables[i], in.DestinationCidrBlock)
	switch {
	case at < 0:
		return nil, errNoRoute(in.RouteTableId, in.DestinationCidrBlock)
	case n.RouteTables[i].Routes[at].Origin == types.RouteOriginCreateRouteTable:
		return nil, invalidValue("cannot remove local route %s in route table %s", *in.DestinationCidrBlock, *in.RouteTableId)
	}
	err = s.editNetwork(c, func(n *networking) { n.RouteTables[i].Routes = slices.Delete(n.RouteTables[i].Routes, at, at+1) })
	return &ec2.DeleteRouteOutput{}, err
}

func (s *state) AssociateRouteTable(ctx context.Context, in *ec2.AssociateRouteTableInput) (*ec2.AssociateRouteTableOutput, error) {
	c := wire.CallerFrom(ctx)
	n, i, err := s.routeTable(c, in.RouteTableId)
	if err != nil {
		return nil, err
	}
	if err := unsupported(in, "GatewayId", "PublicIpv4Pool"); err != nil {
		return nil, err
	}
	subnet, err := s.indexOf(kindSubnet, n.Subnets, in.SubnetId)
	if err != nil {
		return nil, err
	}
	if *n.Subnets[subnet].VpcId != *n.RouteTables[i].VpcId {
		return nil, invalidValue("Route table %s and subnet %s belong to different networks", *in.RouteTableId, *in.SubnetId)
	}
	association := newAssociation(*in.RouteTableId, in.SubnetId)
	for _, t := range n.RouteTables {
		for _, a := range t.Associations {
			switch {
			case aws.ToString(a.SubnetId) != *in.SubnetId:
			case *t.RouteTableId != *in.RouteTableId:
				return nil, wire.Errorf("Resource.AlreadyAssociated", "the specified association for route table %s conflicts with an existing association", *in.RouteTableId)
			default:
				return &ec2.AssociateRouteTableOutput{AssociationId: a.RouteTableAssociationId, AssociationState: a.AssociationState}, nil
			}
		}
	}
	err = s.editNetwork(c, func(n *networking) {
		n.RouteTables[i].Associations = append(n.RouteTables[i].Associations, association)
	})
	return &ec2.AssociateRouteTableOutput{AssociationId: association.RouteTableAssociationId, AssociationState: association.AssociationState}, err
}

// association returns the indexes of a route table association and of its table.
func (s *state) association(c wire.Caller, id *string) (n *networking, table, at int, err error) {
	if n, err = s.networkOf(c); err != nil {
		return nil, 0, 0, err
	}
	if aws.ToString(id) == "" {
		return nil, 0, 0, missing("AssociationId")
	}
	for table := range n.RouteTables {
		at := slices.IndexFunc(n.RouteTables[table].Associations, func(a types.RouteTableAssociation) bool { return *a.RouteTableAssociationId == *id })
		if at >= 0 {
			return n, table, at, nil
		}
	}
	return nil, 0, 0, wire.Errorf("InvalidAssociationID.NotFound", "The association ID '%s' does not exist", *id)
}

func (s *state) DisassociateRouteTable(ctx context.Context, in *ec2.DisassociateRouteTableInput) (*ec2.DisassociateRouteTableOutput, error) {
	c := wire.CallerFrom(ctx)
	n, table, at, err := s.association(c, in.AssociationId)
	if err != nil {
		return nil, err
	}
	if aws.ToBool(n.RouteTables[table].Associations[at].Main) {
		return nil, invalidValue("cannot disassociate the main route table association %s", *in.AssociationId)
	}
	err = s.editNetwork(c, func(n *networking) {
		t := &n.RouteTables[table]
		t.Associations = slices.Delete(t.Associations, at, at+1)
	})
	return &ec2.DisassociateRouteTableOutput{}, err
}

func (s *state) ReplaceRouteTableAssociation(ctx context.Context, in *ec2.ReplaceRouteTableAssociationInput) (*ec2.ReplaceRouteTableAssociationOutput, error) {
	c := wire.CallerFrom(ctx)
	n, table, at, err := s.association(c, in.AssociationId)
	if err != nil {
		return nil, err
	}
	to, err := s.indexOf(kindRouteTable, n.RouteTables, in.RouteTableId)
	if err != nil {
		return nil, err
	}
	if *n.RouteTables[to].VpcId != *n.RouteTables[table].VpcId {
		return nil, invalidValue("Route tables %s and %s belong to different networks", *n.RouteTables[table].RouteTableId, *in.RouteTableId)
	}
	association := newAssociation(*in.RouteTableId, n.RouteTables[table].Associations[at].SubnetId)
	err = s.editNetwork(c, func(n *networking) {
		t := &n.RouteTables[table]
		t.Associations = slices.Delete(t.Associations, at, at+1)
		n.RouteTables[to].Associations = append(n.RouteTables[to].Associations, association)
	})
	return &ec2.ReplaceRouteTableAssociationOutput{NewAssociationId: association.RouteTableAssociationId, AssociationState: association.AssociationState}, err
}

func attachedTo(g types.InternetGateway, vpc string) bool {
	return slices.ContainsFunc(g.Attachments, func(a types.InternetGatewayAttachment) bool { return *a.VpcId == vpc })
}

// gateway returns the caller's networks and the index of an internet gateway in them.
func (s *state) gateway(c wire.Caller, id *string) (*networking, int, error) {
	n, err := s.networkOf(c)
	if err != nil {
		return nil, 0, err
	}
	i, err := s.indexOf(kindGateway, n.Gateways, id)
	return n, i, err
}

func (s *state) CreateInternetGateway(ctx context.Context, in *ec2.CreateInternetGatewayInput) (*ec2.CreateInternetGatewayOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindGateway.resource)
	if err != nil {
		return nil, err
	}
	if _, err := s.networkOf(c); err != nil {
		return nil, err
	}
	gateway := types.InternetGateway{InternetGatewayId: aws.String(newID("igw")), OwnerId: &c.Account, Tags: tags[kindGateway.resource]}
	s.hide(ctx, *gateway.InternetGatewayId)
	return &ec2.CreateInternetGatewayOutput{InternetGateway: &gateway},
		s.editNetwork(c, func(n *networking) { n.Gateways = append(n.Gateways, gateway) })
}

func (s *state) AttachInternetGateway(ctx context.Context, in *ec2.AttachInternetGatewayInput) (*ec2.AttachInternetGatewayOutput, error) {
	c := wire.CallerFrom(ctx)
	n, i, err := s.gateway(c, in.InternetGatewayId)
	if err != nil {
		return nil, err
	}
	if _, err := s.indexOf(kindVpc, n.Vpcs, in.VpcId); err != nil {
		return nil, err
	}
	if len(n.Gateways[i].Attachments) > 0 {
		return nil, wire.Errorf("Resource.AlreadyAssociated", "resource %s is already attached to network %s", *in.InternetGatewayId, *n.Gateways[i].Attachments[0].VpcId)
	}
	if slices.ContainsFunc(n.Gateways, func(g types.InternetGateway) bool { return attachedTo(g, *in.VpcId) }) {
		return nil, invalidValue("Network %s already has an internet gateway attached", *in.VpcId)
	}
	err = s.editNetwork(c, func(n *networking) {
		n.Gateways[i].Attachments = []types.InternetGatewayAttachment{{VpcId: in.VpcId, State: attachedGateway}}
	})
	return &ec2.AttachInternetGatewayOutput{}, err
}

func (s *state) DetachInternetGateway(ctx context.Context, in *ec2.DetachInternetGatewayInput) (*ec2.DetachInternetGatewayOutput, error) {
	c := wire.CallerFrom(ctx)
	n, i, err := s.gateway(c, in.InternetGatewayId)
	if err != nil {
		return nil, err
	}
	if _, err := s.indexOf(kindVpc, n.Vpcs, in.VpcId); err != nil {
		return nil, err
	}
	if !attachedTo(n.Gateways[i], *in.VpcId) {
		return nil, wire.Errorf("Gateway.NotAttached", "resource %s is not attached to network %s", *in.InternetGatewayId, *in.VpcId)
	}
	for _, row := range s.instances.Rows {
		if aws.ToString(row.VpcId) == *in.VpcId && row.PublicIpAddress != nil {
			return nil, wire.Errorf("DependencyViolation", "Network %s has some mapped public address(es). Please unmap those public address(es) before detaching the gateway.", *in.VpcId)
		}
	}
	return &ec2.DetachInternetGatewayOutput{}, s.editNetwork(c, func(n *networking) { n.Gateways[i].Attachments = nil })
}

func (s *state) DeleteInternetGateway(ctx context.Context, in *ec2.DeleteInternetGatewayInput) (*ec2.DeleteInternetGatewayOutput, error) {
	c := wire.CallerFrom(ctx)
	n, i, err := s.gateway(c, in.InternetGatewayId)
	if err != nil {
		return nil, err
	}
	if len(n.Gateways[i].Attachments) > 0 {
		return nil, errDependencies("internetGateway", *in.InternetGatewayId)
	}
	return &ec2.DeleteInternetGatewayOutput{}, s.editNetwork(c, func(n *networking) { n.Gateways = slices.Delete(n.Gateways, i, i+1) })
}

var gatewayFilters = filters{
	{"attachment.state", "Attachments.State"}, {"attachment.vpc-id", "Attachments.VpcId"}, {"internet-gateway-id", "InternetGatewayId"}, {"owner-id", "OwnerId"},
}

func (s *state) DescribeInternetGateways(ctx context.Context, in *ec2.DescribeInternetGatewaysInput) (*ec2.DescribeInternetGatewaysOutput, error) {
	n, err := s.networkOf(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	rows, next, err := list(s, kindGateway, query{in.InternetGatewayIds, in.Filters, in.MaxResults, in.NextToken}, n.Gateways)
	return &ec2.DescribeInternetGatewaysOutput{InternetGateways: rows, NextToken: next}, err
}

package ec2

import (
	"context"
	"net/netip"
	"reflect"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// networking is all networking of an account in a region. It is one row, so that related
// objects are created and deleted together. Security groups have rows of their own.
type networking struct {
	Vpc         *vpc // the default VPC, as stored when there were no others
	Vpcs        []vpc
	Subnets     []types.Subnet
	RouteTables []types.RouteTable
	Gateways    []types.InternetGateway
	Acls        []types.NetworkAcl
	DhcpOptions []types.DhcpOptions
	Addresses   []types.Address // elastic addresses
	Connects    []types.Ec2InstanceConnectEndpoint
	Nats        []types.NatGateway
	Endpoints   []types.VpcEndpoint
	Interfaces  []types.NetworkInterface // except those that instances are launched with
	Tokens      map[string]tokenUse      // by client token
}

// tokenUse is the request that used a client token, and the id of what it created.
type tokenUse struct{ Request, ID string }

// once returns the id of what an earlier request with the client token created, or "". It
// is an error if that request was different.
func (n *networking) once(token *string, request string) (string, error) {
	have, ok := n.Tokens[aws.ToString(token)]
	if ok && have.Request != request {
		return "", errTokenMisused()
	}
	return have.ID, nil
}

// use records a client token, if there is one.
func (n *networking) use(token, request, id string) {
	if token == "" {
		return
	}
	if n.Tokens == nil {
		n.Tokens = map[string]tokenUse{}
	}
	n.Tokens[token] = tokenUse{request, id}
}

// vpc is a VPC and its attributes.
type vpc struct {
	types.Vpc
	NoDNSSupport, DNSHostnames, UsageMetrics bool
}

func (n *networking) parts() []part {
	var all []part
	for i := range n.Vpcs {
		all = append(all, part{kindVpc, n.Vpcs[i].VpcId, &n.Vpcs[i].Tags})
	}
	for i := range n.Subnets {
		all = append(all, part{kindSubnet, n.Subnets[i].SubnetId, &n.Subnets[i].Tags})
	}
	for i := range n.RouteTables {
		all = append(all, part{kindRouteTable, n.RouteTables[i].RouteTableId, &n.RouteTables[i].Tags})
	}
	for i := range n.Gateways {
		all = append(all, part{kindGateway, n.Gateways[i].InternetGatewayId, &n.Gateways[i].Tags})
	}
	for i := range n.Acls {
		all = append(all, part{kindACL, n.Acls[i].NetworkAclId, &n.Acls[i].Tags})
	}
	for i := range n.DhcpOptions {
		all = append(all, part{kindDhcp, n.DhcpOptions[i].DhcpOptionsId, &n.DhcpOptions[i].Tags})
	}
	for i := range n.Addresses {
		all = append(all, part{kindAddress, n.Addresses[i].AllocationId, &n.Addresses[i].Tags})
	}
	for i := range n.Connects {
		all = append(all, part{kindConnect, n.Connects[i].InstanceConnectEndpointId, &n.Connects[i].Tags})
	}
	for i := range n.Nats {
		all = append(all, part{kindNat, n.Nats[i].NatGatewayId, &n.Nats[i].Tags})
	}
	for i := range n.Endpoints {
		all = append(all, part{kindEndpoint, n.Endpoints[i].VpcEndpointId, &n.Endpoints[i].Tags})
	}
	for i := range n.Interfaces {
		all = append(all, part{kindInterface, n.Interfaces[i].NetworkInterfaceId, &n.Interfaces[i].TagSet})
	}
	return all
}

func networkKey(c wire.Caller) string { return c.Account + "." + c.Region }

// networkOf returns the caller's networking; the first call in a region creates the
// default VPC.
func (s *state) networkOf(c wire.Caller) (*networking, error) {
	n, ok := s.networks.Get(networkKey(c))
	if ok && n.Vpc == nil {
		return n, nil
	}
	r, known := findRegion(c.Region)
	if !known {
		return nil, invalidValue("There is no region '%s'", c.Region)
	}
	next := &networking{DhcpOptions: []types.DhcpOptions{defaultDhcp(c)}}
	if ok {
		next.addVpc(c, *n.Vpc)
		next.Vpcs[0].DNSHostnames = true
		next.addDefaultRoute(c, *n.Vpc.VpcId)
		for _, subnet := range n.Subnets {
			next.addSubnet(subnet)
		}
	} else if _, err := s.addDefaultVpc(c, r, next); err != nil {
		return nil, err
	}
	if err := s.networks.Put(networkKey(c), next); err != nil {
		return nil, err
	}
	n, _ = s.networks.Get(networkKey(c))
	return n, nil
}

// editNetwork changes the caller's networking.
func (s *state) editNetwork(c wire.Caller, change func(n *networking)) error {
	return s.networks.Edit(networkKey(c), change)
}

// indexOf returns the index of the row with that id; rows are SDK structs.
func (s *state) indexOf(k *kind, rows any, id *string) (int, error) {
	if aws.ToString(id) == "" {
		return 0, missing(k.field)
	}
	if err := k.check(*id); err != nil {
		return 0, err
	}
	v := reflect.ValueOf(rows)
	for i := range v.Len() {
		if textIn(v.Index(i), k.field) == *id && len(s.concealed([]string{*id})) == 0 {
			return i, nil
		}
	}
	return 0, k.notFound(*id)
}

// unsupported reports a request that sets one of parameters, which the embedded cloud does
// not support.
func unsupported(in any, parameters ...string) error {
	v := reflect.ValueOf(in).Elem()
	for _, name := range parameters {
		f := v.FieldByName(name)
		asked := !f.IsZero()
		switch x := f.Interface().(type) {
		case *bool:
			asked = aws.ToBool(x)
		case *string:
			asked = aws.ToString(x) != ""
		}
		if asked {
			return wire.Errorf("Unsupported", "The embedded cloud does not support the parameter %s.", name)
		}
	}
	return nil
}

func (n *networking) vpc(id string) *vpc {
	for i := range n.Vpcs {
		if *n.Vpcs[i].VpcId == id {
			return &n.Vpcs[i]
		}
	}
	return nil
}

// defaultVpc returns the id of the default VPC, or "".
func (n *networking) defaultVpc() string {
	for _, v := range n.Vpcs {
		if aws.ToBool(v.IsDefault) {
			return *v.VpcId
		}
	}
	return ""
}

// defaultSubnets returns the default VPC's subnets for launches that name none.
func (n *networking) defaultSubnets() []types.Subnet {
	return slices.DeleteFunc(slices.Clone(n.Subnets), func(v types.Subnet) bool { return !aws.ToBool(v.DefaultForAz) })
}

// vpcFor returns the VPC that a request names, or the default one.
func (s *state) vpcFor(n *networking, id *string) (*vpc, error) {
	if aws.ToString(id) == "" {
		if main := n.defaultVpc(); main != "" {
			return n.vpc(main), nil
		}
		return nil, errNoDefaultVpc()
	}
	i, err := s.indexOf(kindVpc, n.Vpcs, id)
	if err != nil {
		return nil, err
	}
	return &n.Vpcs[i], nil
}

func errNoDefaultVpc() error {
	return wire.Errorf("VPCIdNotSpecified", "No default VPC for this user")
}

// addVpc adds a VPC with its main route table and its default network ACL.
func (n *networking) addVpc(c wire.Caller, v vpc) {
	v.DhcpOptionsId = n.DhcpOptions[0].DhcpOptionsId
	n.Vpcs = append(n.Vpcs, v)
	table := newRouteTable(c, &v)
	table.Associations = []types.RouteTableAssociation{newAssociation(*table.RouteTableId, nil)}
	n.RouteTables = append(n.RouteTables, table)
	acl := types.NetworkAcl{NetworkAclId: aws.String(newID("acl")), VpcId: v.VpcId, OwnerId: &c.Account, IsDefault: aws.Bool(true)}
	for _, egress := range []bool{true, false} {
		for _, e := range []types.NetworkAclEntry{{RuleNumber: aws.Int32(100), RuleAction: types.RuleActionAllow}, {RuleNumber: aws.Int32(32767), RuleAction: types.RuleActionDeny}} {
			e.CidrBlock, e.Protocol, e.Egress = aws.String("0.0.0.0/0"), aws.String("-1"), &egress
			acl.Entries = append(acl.Entries, e)
		}
	}
	n.Acls = append(n.Acls, acl)
}

func newVpc(c wire.Caller, cidr string, tenancy types.Tenancy) vpc {
	return vpc{Vpc: types.Vpc{
		VpcId: aws.String(newID("vpc")), OwnerId: &c.Account, CidrBlock: &cidr, IsDefault: aws.Bool(false),
		State: types.VpcStateAvailable, InstanceTenancy: tenancy,
		CidrBlockAssociationSet: []types.VpcCidrBlockAssociation{{
			AssociationId: aws.String(newID("vpc-cidr-assoc")), CidrBlock: &cidr,
			CidrBlockState: &types.VpcCidrBlockState{State: types.VpcCidrBlockStateCodeAssociated},
		}},
	}}
}

// addDefaultVpc adds the VPC that a new account has in a region, with a subnet in each
// zone and a route to the internet.
func (s *state) addDefaultVpc(c wire.Caller, r region, n *networking) (*vpc, error) {
	v := newVpc(c, "172.31.0.0/16", types.TenancyDefault)
	v.IsDefault, v.DNSHostnames = aws.Bool(true), true
	n.addVpc(c, v)
	n.addDefaultRoute(c, *v.VpcId)
	for i := range r.zones {
		n.addSubnet(newDefaultSubnet(c, r, i, *v.VpcId))
	}
	// Create the group first: if a crash follows, repair removes the group, whose VPC does
	// not exist.
	return n.vpc(*v.VpcId), s.addDefaultGroup(c, *v.VpcId)
}

// addDefaultRoute adds an internet gateway to a VPC, and a route to it to the VPC's main
// route table.
func (n *networking) addDefaultRoute(c wire.Caller, vpc string) {
	gateway := types.InternetGateway{InternetGatewayId: aws.String(newID("igw")), OwnerId: &c.Account,
		Attachments: []types.InternetGatewayAttachment{{VpcId: &vpc, State: attachedGateway}}}
	n.Gateways = append(n.Gateways, gateway)
	table := n.mainTable(vpc)
	table.Routes = append(table.Routes, types.Route{DestinationCidrBlock: aws.String("0.0.0.0/0"), GatewayId: gateway.InternetGatewayId,
		Origin: types.RouteOriginCreateRoute, State: types.RouteStateActive})
}

// addDefaultGroup creates the default security group of a VPC.
func (s *state) addDefaultGroup(c wire.Caller, vpc string) error {
	g := newGroup(c, vpc, defaultGroup, "default VPC security group")
	g.Rules = append(g.Rules, types.SecurityGroupRule{
		SecurityGroupRuleId: aws.String(newID("sgr")), GroupId: g.GroupId, GroupOwnerId: &c.Account, IsEgress: aws.Bool(false),
		IpProtocol: aws.String("-1"), FromPort: aws.Int32(-1), ToPort: aws.Int32(-1),
		ReferencedGroupInfo: &types.ReferencedSecurityGroup{GroupId: g.GroupId, UserId: &c.Account},
	})
	return s.groups.Put(*g.GroupId, g)
}

// cidrBlock parses the range of a VPC or a subnet, which must be between /16 and /28. code
// is the code of the error for other sizes.
func cidrBlock(text *string, code string) (netip.Prefix, error) {
	if aws.ToString(text) == "" {
		return netip.Prefix{}, missing("CidrBlock")
	}
	prefix, err := netip.ParsePrefix(*text)
	switch {
	case err != nil || !prefix.Addr().Is4():
		return prefix, invalidValue("Value (%s) for parameter cidrBlock is invalid. This is not a valid CIDR block.", *text)
	case prefix.Bits() < 16 || prefix.Bits() > 28 || reserved(prefix.Addr()):
		return prefix, wire.Errorf(code, "The CIDR '%s' is invalid.", *text)
	}
	return prefix.Masked(), nil
}

// reserved reports whether an address is in a range that no VPC can have: "this network",
// loopback, link-local or multicast.
func reserved(a netip.Addr) bool {
	return a.As4()[0] == 0 || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast()
}

func (s *state) CreateVpc(ctx context.Context, in *ec2.CreateVpcInput) (*ec2.CreateVpcOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindVpc.resource)
	if err != nil {
		return nil, err
	}
	if err := unsupported(in, "AmazonProvidedIpv6CidrBlock", "Ipv4IpamPoolId", "Ipv4NetmaskLength", "Ipv6CidrBlock", "Ipv6CidrBlockNetworkBorderGroup",
		"Ipv6IpamPoolId", "Ipv6NetmaskLength", "Ipv6Pool", "VpcEncryptionControl"); err != nil {
		return nil, err
	}
	prefix, err := cidrBlock(in.CidrBlock, "InvalidVpc.Range")
	if err != nil {
		return nil, err
	}
	switch in.InstanceTenancy {
	case "":
		in.InstanceTenancy = types.TenancyDefault
	case types.TenancyHost:
		return nil, invalidValue("The tenancy value host is not supported for VPCs.")
	}
	if _, err := s.networkOf(c); err != nil {
		return nil, err
	}
	v := newVpc(c, prefix.String(), in.InstanceTenancy)
	v.Tags = tags[kindVpc.resource]
	if err := s.addDefaultGroup(c, *v.VpcId); err != nil {
		return nil, err
	}
	err = s.editNetwork(c, func(n *networking) {
		n.addVpc(c, v)
		v.DhcpOptionsId = n.Vpcs[len(n.Vpcs)-1].DhcpOptionsId
	})
	s.hide(ctx, *v.VpcId)
	v.State = types.VpcStatePending
	return &ec2.CreateVpcOutput{Vpc: &v.Vpc}, err
}

func (s *state) CreateDefaultVpc(ctx context.Context, _ *ec2.CreateDefaultVpcInput) (*ec2.CreateDefaultVpcOutput, error) {
	c := wire.CallerFrom(ctx)
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	if n.defaultVpc() != "" {
		return nil, wire.Errorf("DefaultVpcAlreadyExists", "A Default VPC already exists for this account in this region.")
	}
	r, _ := findRegion(c.Region)
	var made types.Vpc
	err = s.networks.Change(networkKey(c), func(n *networking) error {
		v, err := s.addDefaultVpc(c, r, n)
		made = v.Vpc
		return err
	})
	made.State = types.VpcStatePending
	return &ec2.CreateDefaultVpcOutput{Vpc: &made}, err
}

// holds reports whether a VPC contains anything that its deletion would not also delete.
func (s *state) holds(n *networking, vpc string) bool {
	in := func(id *string) bool { return aws.ToString(id) == vpc }
	for _, g := range s.groups.Rows {
		if in(g.VpcId) && *g.GroupName != defaultGroup {
			return true
		}
	}
	return slices.ContainsFunc(n.Subnets, func(v types.Subnet) bool { return in(v.VpcId) }) ||
		slices.ContainsFunc(n.RouteTables, func(t types.RouteTable) bool { return in(t.VpcId) && !isMain(t) }) ||
		slices.ContainsFunc(n.Gateways, func(g types.InternetGateway) bool { return len(g.Attachments) > 0 && in(g.Attachments[0].VpcId) }) ||
		slices.ContainsFunc(n.Acls, func(a types.NetworkAcl) bool { return in(a.VpcId) && !aws.ToBool(a.IsDefault) }) ||
		slices.ContainsFunc(n.Endpoints, func(e types.VpcEndpoint) bool { return in(e.VpcId) })
}

func errDependencies(what, id string) error {
	return wire.Errorf("DependencyViolation", "The %s '%s' has dependencies and cannot be deleted.", what, id)
}

func (s *state) DeleteVpc(ctx context.Context, in *ec2.DeleteVpcInput) (*ec2.DeleteVpcOutput, error) {
	c := wire.CallerFrom(ctx)
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	i, err := s.indexOf(kindVpc, n.Vpcs, in.VpcId)
	if err != nil {
		return nil, err
	}
	if s.holds(n, *in.VpcId) {
		return nil, errDependencies("vpc", *in.VpcId)
	}
	err = s.editNetwork(c, func(n *networking) {
		n.Vpcs = slices.Delete(n.Vpcs, i, i+1)
		n.RouteTables = slices.DeleteFunc(n.RouteTables, func(t types.RouteTable) bool { return *t.VpcId == *in.VpcId })
		n.Acls = slices.DeleteFunc(n.Acls, func(a types.NetworkAcl) bool { return *a.VpcId == *in.VpcId })
	})
	if err != nil {
		return nil, err
	}
	return &ec2.DeleteVpcOutput{}, s.repairGroups() // deletes the VPC's default group
}

var vpcFilters = filters{
	{"cidr", "CidrBlock"}, {"cidr-block-association.cidr-block", "CidrBlockAssociationSet.CidrBlock"},
	{"cidr-block-association.association-id", "CidrBlockAssociationSet.AssociationId"},
	{"cidr-block-association.state", "CidrBlockAssociationSet.CidrBlockState.State"},
	{"dhcp-options-id", "DhcpOptionsId"}, {"ipv6-cidr-block-association.ipv6-cidr-block", ""},
	{"ipv6-cidr-block-association.ipv6-pool", ""}, {"ipv6-cidr-block-association.association-id", ""},
	{"ipv6-cidr-block-association.state", ""}, {"is-default", "IsDefault"}, {"isDefault", "IsDefault"},
	{"owner-id", "OwnerId"}, {"state", "State"}, {"vpc-id", "VpcId"},
}

func (s *state) DescribeVpcs(ctx context.Context, in *ec2.DescribeVpcsInput) (*ec2.DescribeVpcsOutput, error) {
	n, err := s.networkOf(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	var rows []types.Vpc
	for _, v := range n.Vpcs {
		rows = append(rows, v.Vpc)
	}
	rows, next, err := list(s, kindVpc, query{in.VpcIds, in.Filters, in.MaxResults, in.NextToken}, rows)
	return &ec2.DescribeVpcsOutput{Vpcs: rows, NextToken: next}, err
}

func (s *state) DescribeVpcAttribute(ctx context.Context, in *ec2.DescribeVpcAttributeInput) (*ec2.DescribeVpcAttributeOutput, error) {
	n, err := s.networkOf(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	i, err := s.indexOf(kindVpc, n.Vpcs, in.VpcId)
	if err != nil {
		return nil, err
	}
	v, out := &n.Vpcs[i], &ec2.DescribeVpcAttributeOutput{VpcId: in.VpcId}
	flag := func(v bool) *types.AttributeBooleanValue { return &types.AttributeBooleanValue{Value: &v} }
	switch in.Attribute {
	case types.VpcAttributeNameEnableDnsSupport:
		out.EnableDnsSupport = flag(!v.NoDNSSupport)
	case types.VpcAttributeNameEnableDnsHostnames:
		out.EnableDnsHostnames = flag(v.DNSHostnames)
	case types.VpcAttributeNameEnableNetworkAddressUsageMetrics:
		out.EnableNetworkAddressUsageMetrics = flag(v.UsageMetrics)
	default:
		return nil, invalidValue("Value (%s) for parameter attribute is invalid. Unknown attribute.", in.Attribute)
	}
	return out, nil
}

func (s *state) ModifyVpcAttribute(ctx context.Context, in *ec2.ModifyVpcAttributeInput) (*ec2.ModifyVpcAttributeOutput, error) {
	c := wire.CallerFrom(ctx)
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	i, err := s.indexOf(kindVpc, n.Vpcs, in.VpcId)
	if err != nil {
		return nil, err
	}
	err = s.editNetwork(c, func(n *networking) {
		v := &n.Vpcs[i]
		if f := in.EnableDnsSupport; f != nil {
			v.NoDNSSupport = !aws.ToBool(f.Value)
		}
		if f := in.EnableDnsHostnames; f != nil {
			v.DNSHostnames = aws.ToBool(f.Value)
		}
		if f := in.EnableNetworkAddressUsageMetrics; f != nil {
			v.UsageMetrics = aws.ToBool(f.Value)
		}
	})
	return &ec2.ModifyVpcAttributeOutput{}, err
}

// defaultDhcp returns the DHCP options that a region has from the start.
func defaultDhcp(c wire.Caller) types.DhcpOptions {
	domain := c.Region + ".compute.internal"
	if c.Region == "us-east-1" {
		domain = "ec2.internal"
	}
	value := func(text string) []types.AttributeValue { return []types.AttributeValue{{Value: &text}} }
	return types.DhcpOptions{DhcpOptionsId: aws.String(newID("dopt")), OwnerId: &c.Account, DhcpConfigurations: []types.DhcpConfiguration{
		{Key: aws.String("domain-name"), Values: value(domain)}, {Key: aws.String("domain-name-servers"), Values: value("AmazonProvidedDNS")}}}
}

var dhcpFilters = filters{{"dhcp-options-id", "DhcpOptionsId"}, {"key", "DhcpConfigurations.Key"}, {"value", "DhcpConfigurations.Values.Value"}, {"owner-id", "OwnerId"}}

func (s *state) DescribeDhcpOptions(ctx context.Context, in *ec2.DescribeDhcpOptionsInput) (*ec2.DescribeDhcpOptionsOutput, error) {
	n, err := s.networkOf(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	rows, next, err := list(s, kindDhcp, query{in.DhcpOptionsIds, in.Filters, in.MaxResults, in.NextToken}, n.DhcpOptions)
	return &ec2.DescribeDhcpOptionsOutput{DhcpOptions: rows, NextToken: next}, err
}

var aclFilters = filters{
	{"association.association-id", "Associations.NetworkAclAssociationId"}, {"association.network-acl-id", "Associations.NetworkAclId"},
	{"association.subnet-id", "Associations.SubnetId"}, {"default", "IsDefault"}, {"entry.cidr", "Entries.CidrBlock"}, {"entry.egress", "Entries.Egress"},
	{"entry.icmp.code", ""}, {"entry.icmp.type", ""}, {"entry.ipv6-cidr", ""}, {"entry.port-range.from", ""}, {"entry.port-range.to", ""},
	{"entry.protocol", "Entries.Protocol"}, {"entry.rule-action", "Entries.RuleAction"}, {"entry.rule-number", "Entries.RuleNumber"},
	{"network-acl-id", "NetworkAclId"}, {"owner-id", "OwnerId"}, {"vpc-id", "VpcId"},
}

func (s *state) DescribeNetworkAcls(ctx context.Context, in *ec2.DescribeNetworkAclsInput) (*ec2.DescribeNetworkAclsOutput, error) {
	n, err := s.networkOf(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	rows, next, err := list(s, kindACL, query{in.NetworkAclIds, in.Filters, in.MaxResults, in.NextToken}, n.Acls)
	return &ec2.DescribeNetworkAclsOutput{NetworkAcls: rows, NextToken: next}, err
}

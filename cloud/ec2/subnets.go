package ec2

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// newSubnet returns a subnet in the region's nth zone.
func newSubnet(c wire.Caller, r region, n int, vpc, cidr string) types.Subnet {
	id := newID("subnet")
	return types.Subnet{
		SubnetId: &id, VpcId: &vpc, OwnerId: &c.Account, State: types.SubnetStateAvailable,
		SubnetArn:        aws.String(arn(c, "ec2", "subnet/"+id)),
		AvailabilityZone: aws.String(r.zoneName(n)), AvailabilityZoneId: aws.String(r.zoneID(n)),
		CidrBlock: &cidr, DefaultForAz: aws.Bool(false),
		MapPublicIpOnLaunch: aws.Bool(false), AssignIpv6AddressOnCreation: aws.Bool(false),
		EnableDns64: aws.Bool(false), Ipv6Native: aws.Bool(false), MapCustomerOwnedIpOnLaunch: aws.Bool(false),
		PrivateDnsNameOptionsOnLaunch: &types.PrivateDnsNameOptionsOnLaunch{HostnameType: types.HostnameTypeIpName,
			EnableResourceNameDnsARecord: aws.Bool(false), EnableResourceNameDnsAAAARecord: aws.Bool(false)},
	}
}

// newDefaultSubnet returns the default VPC's subnet in the region's nth zone.
func newDefaultSubnet(c wire.Caller, r region, n int, vpc string) types.Subnet {
	subnet := newSubnet(c, r, n, vpc, fmt.Sprintf("172.31.%d.0/20", 16*n))
	subnet.DefaultForAz, subnet.MapPublicIpOnLaunch = aws.Bool(true), aws.Bool(true)
	return subnet
}

// addSubnet adds a subnet and associates it with its VPC's default network ACL.
func (n *networking) addSubnet(subnet types.Subnet) {
	n.Subnets = append(n.Subnets, subnet)
	for i := range n.Acls {
		if acl := &n.Acls[i]; aws.ToString(acl.VpcId) == *subnet.VpcId && aws.ToBool(acl.IsDefault) {
			acl.Associations = append(acl.Associations, types.NetworkAclAssociation{
				NetworkAclAssociationId: aws.String(newID("aclassoc")), NetworkAclId: acl.NetworkAclId, SubnetId: subnet.SubnetId})
		}
	}
}

// taken returns the private addresses in use in a subnet.
func (s *state) taken(subnet string) map[string]bool {
	taken := map[string]bool{}
	for _, in := range s.instances.Rows {
		if in.holdsAddress() && aws.ToString(in.SubnetId) == subnet {
			taken[*in.PrivateIpAddress] = true
		}
	}
	for _, n := range s.networks.Rows {
		n.addHeldAddresses(subnet, taken)
	}
	return taken
}

// subnetsOf returns the network's subnets, with the number of free addresses in each.
func (s *state) subnetsOf(n *networking) []types.Subnet {
	subnets := slices.Clone(n.Subnets)
	for i := range subnets {
		free := 1<<(32-netip.MustParsePrefix(*subnets[i].CidrBlock).Bits()) - 5 // EC2 reserves five
		subnets[i].AvailableIpAddressCount = aws.Int32(int32(free - len(s.taken(*subnets[i].SubnetId))))
	}
	return subnets
}

func (s *state) CreateSubnet(ctx context.Context, in *ec2.CreateSubnetInput) (*ec2.CreateSubnetOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindSubnet.resource)
	if err != nil {
		return nil, err
	}
	if err := unsupported(in, "Ipv4IpamPoolId", "Ipv4NetmaskLength", "Ipv6CidrBlock", "Ipv6IpamPoolId", "Ipv6Native", "Ipv6NetmaskLength", "OutpostArn"); err != nil {
		return nil, err
	}
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	i, err := s.indexOf(kindVpc, n.Vpcs, in.VpcId)
	if err != nil {
		return nil, err
	}
	prefix, err := cidrBlock(in.CidrBlock, "InvalidSubnet.Range")
	if err != nil {
		return nil, err
	}
	whole := netip.MustParsePrefix(*n.Vpcs[i].CidrBlock)
	if !whole.Contains(prefix.Addr()) || prefix.Bits() < whole.Bits() {
		return nil, wire.Errorf("InvalidSubnet.Range", "The CIDR '%s' is invalid.", *in.CidrBlock)
	}
	for _, other := range n.Subnets {
		if *other.VpcId == *in.VpcId && netip.MustParsePrefix(*other.CidrBlock).Overlaps(prefix) {
			return nil, wire.Errorf("InvalidSubnet.Conflict", "The CIDR '%s' conflicts with another subnet", *in.CidrBlock)
		}
	}
	r, _ := findRegion(c.Region)
	zone := 0
	if name, id := aws.ToString(in.AvailabilityZone), aws.ToString(in.AvailabilityZoneId); name != "" || id != "" {
		if zone = r.zone(name, id); zone < 0 {
			return nil, invalidValue("Value (%s) for parameter availabilityZone is invalid. Subnets can currently only be created in the following availability zones: %s.", cmp.Or(name, id), r.zoneList())
		}
	}
	subnet := newSubnet(c, r, zone, *in.VpcId, prefix.String())
	subnet.Tags = tags[kindSubnet.resource]
	return &ec2.CreateSubnetOutput{Subnet: &subnet}, s.makeSubnet(ctx, &subnet)
}

// makeSubnet stores a subnet and sets the number of its free addresses.
func (s *state) makeSubnet(ctx context.Context, subnet *types.Subnet) error {
	c := wire.CallerFrom(ctx)
	if err := s.editNetwork(c, func(n *networking) { n.addSubnet(*subnet) }); err != nil {
		return err
	}
	s.hide(ctx, *subnet.SubnetId)
	*subnet = s.subnetsOf(&networking{Subnets: []types.Subnet{*subnet}})[0]
	return nil
}

func (s *state) CreateDefaultSubnet(ctx context.Context, in *ec2.CreateDefaultSubnetInput) (*ec2.CreateDefaultSubnetOutput, error) {
	c := wire.CallerFrom(ctx)
	if err := unsupported(in, "Ipv6Native"); err != nil {
		return nil, err
	}
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	main := n.defaultVpc()
	if main == "" {
		return nil, wire.Errorf("DefaultVpcDoesNotExist", "No default VPC exists for this account in this region.")
	}
	r, _ := findRegion(c.Region)
	zone := r.zone(aws.ToString(in.AvailabilityZone), aws.ToString(in.AvailabilityZoneId))
	if zone < 0 {
		return nil, invalidValue("Value (%s) for parameter availabilityZone is invalid.", cmp.Or(aws.ToString(in.AvailabilityZone), aws.ToString(in.AvailabilityZoneId)))
	}
	subnet := newDefaultSubnet(c, r, zone, main)
	prefix := netip.MustParsePrefix(*subnet.CidrBlock)
	for _, other := range n.Subnets {
		switch {
		case *other.VpcId != main:
		case aws.ToBool(other.DefaultForAz) && *other.AvailabilityZone == *subnet.AvailabilityZone:
			return nil, wire.Errorf("DefaultSubnetAlreadyExistsInAvailabilityZone", "'%s' is already the default subnet in %s.", *other.SubnetId, *subnet.AvailabilityZone)
		case netip.MustParsePrefix(*other.CidrBlock).Overlaps(prefix):
			return nil, wire.Errorf("InvalidSubnet.Conflict", "The CIDR '%s' conflicts with another subnet", prefix)
		}
	}
	return &ec2.CreateDefaultSubnetOutput{Subnet: &subnet}, s.makeSubnet(ctx, &subnet)
}

func (s *state) DeleteSubnet(ctx context.Context, in *ec2.DeleteSubnetInput) (*ec2.DeleteSubnetOutput, error) {
	c := wire.CallerFrom(ctx)
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	i, err := s.indexOf(kindSubnet, n.Subnets, in.SubnetId)
	if err != nil {
		return nil, err
	}
	inUse := slices.ContainsFunc(n.Connects, func(e types.Ec2InstanceConnectEndpoint) bool { return *e.SubnetId == *in.SubnetId })
	if inUse || len(s.taken(*in.SubnetId)) > 0 {
		return nil, errDependencies("subnet", *in.SubnetId)
	}
	err = s.editNetwork(c, func(n *networking) {
		n.Subnets = slices.Delete(n.Subnets, i, i+1)
		for i := range n.RouteTables {
			t := &n.RouteTables[i]
			t.Associations = slices.DeleteFunc(t.Associations, func(a types.RouteTableAssociation) bool { return aws.ToString(a.SubnetId) == *in.SubnetId })
		}
		for i := range n.Acls {
			a := &n.Acls[i]
			a.Associations = slices.DeleteFunc(a.Associations, func(a types.NetworkAclAssociation) bool { return *a.SubnetId == *in.SubnetId })
		}
	})
	return &ec2.DeleteSubnetOutput{}, err
}

func (s *state) ModifySubnetAttribute(ctx context.Context, in *ec2.ModifySubnetAttributeInput) (*ec2.ModifySubnetAttributeOutput, error) {
	c := wire.CallerFrom(ctx)
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	i, err := s.indexOf(kindSubnet, n.Subnets, in.SubnetId)
	if err != nil {
		return nil, err
	}
	if err := unsupported(in, "CustomerOwnedIpv4Pool", "EnableLniAtDeviceIndex"); err != nil {
		return nil, err
	}
	for name, f := range map[string]*types.AttributeBooleanValue{"AssignIpv6AddressOnCreation": in.AssignIpv6AddressOnCreation, "EnableDns64": in.EnableDns64,
		"EnableResourceNameDnsAAAARecordOnLaunch": in.EnableResourceNameDnsAAAARecordOnLaunch,
		"EnableResourceNameDnsARecordOnLaunch":    in.EnableResourceNameDnsARecordOnLaunch, "MapCustomerOwnedIpOnLaunch": in.MapCustomerOwnedIpOnLaunch} {
		if f != nil && aws.ToBool(f.Value) {
			return nil, wire.Errorf("Unsupported", "The embedded cloud does not support the parameter %s.", name)
		}
	}
	if in.PrivateDnsHostnameTypeOnLaunch == types.HostnameTypeResourceName {
		return nil, wire.Errorf("Unsupported", "The embedded cloud only supports host names derived from IP addresses.")
	}
	if f := in.MapPublicIpOnLaunch; f != nil {
		err = s.editNetwork(c, func(n *networking) { n.Subnets[i].MapPublicIpOnLaunch = aws.Bool(aws.ToBool(f.Value)) })
	}
	return &ec2.ModifySubnetAttributeOutput{}, err
}

var subnetFilters = filters{
	{"availability-zone", "AvailabilityZone"}, {"availabilityZone", "AvailabilityZone"}, {"availability-zone-id", "AvailabilityZoneId"},
	{"availabilityZoneId", "AvailabilityZoneId"}, {"available-ip-address-count", "AvailableIpAddressCount"},
	{"cidr-block", "CidrBlock"}, {"cidr", "CidrBlock"}, {"cidrBlock", "CidrBlock"}, {"customer-owned-ipv4-pool", ""},
	{"default-for-az", "DefaultForAz"}, {"defaultForAz", "DefaultForAz"}, {"enable-dns64", "EnableDns64"}, {"enable-lni-at-device-index", ""},
	{"ipv6-cidr-block-association.ipv6-cidr-block", ""}, {"ipv6-cidr-block-association.association-id", ""},
	{"ipv6-cidr-block-association.state", ""}, {"ipv6-native", "Ipv6Native"},
	{"map-customer-owned-ip-on-launch", "MapCustomerOwnedIpOnLaunch"}, {"map-public-ip-on-launch", "MapPublicIpOnLaunch"},
	{"outpost-arn", ""}, {"owner-id", "OwnerId"},
	{"private-dns-name-options-on-launch.hostname-type", "PrivateDnsNameOptionsOnLaunch.HostnameType"},
	{"private-dns-name-options-on-launch.enable-resource-name-dns-a-record", "PrivateDnsNameOptionsOnLaunch.EnableResourceNameDnsARecord"},
	{"private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record", "PrivateDnsNameOptionsOnLaunch.EnableResourceNameDnsAAAARecord"},
	{"state", "State"}, {"subnet-arn", "SubnetArn"}, {"subnet-id", "SubnetId"}, {"vpc-id", "VpcId"},
}

func (s *state) DescribeSubnets(ctx context.Context, in *ec2.DescribeSubnetsInput) (*ec2.DescribeSubnetsOutput, error) {
	n, err := s.networkOf(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	rows, next, err := list(s, kindSubnet, query{in.SubnetIds, in.Filters, in.MaxResults, in.NextToken}, s.subnetsOf(n))
	return &ec2.DescribeSubnetsOutput{Subnets: rows, NextToken: next}, err
}

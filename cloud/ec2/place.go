package ec2

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// region is one of AWS's regions: its name and the letters of the zones that a
// new account finds in it. Those that AWS asks an account to opt in to are
// opted in to here, so that every real region can be used. Those of GovCloud and
// China are partitions of their own: they see nothing of the others.
type region struct {
	name  string
	zones string
	optIn bool
}

func regions() []region {
	return []region{
		{"af-south-1", "abc", true}, {"ap-east-1", "abc", true}, {"ap-east-2", "abc", true},
		{"ap-northeast-1", "acd", false}, {"ap-northeast-2", "abcd", false}, {"ap-northeast-3", "abc", false},
		{"ap-south-1", "abc", false}, {"ap-south-2", "abc", true},
		{"ap-southeast-1", "abc", false}, {"ap-southeast-2", "abc", false}, {"ap-southeast-3", "abc", true},
		{"ap-southeast-4", "abc", true}, {"ap-southeast-5", "abc", true}, {"ap-southeast-6", "abc", true}, {"ap-southeast-7", "abc", true},
		{"ca-central-1", "abd", false}, {"ca-west-1", "abc", true},
		{"cn-north-1", "abd", false}, {"cn-northwest-1", "abc", false},
		{"eu-central-1", "abc", false}, {"eu-central-2", "abc", true}, {"eu-north-1", "abc", false},
		{"eu-south-1", "abc", true}, {"eu-south-2", "abc", true},
		{"eu-west-1", "abc", false}, {"eu-west-2", "abc", false}, {"eu-west-3", "abc", false},
		{"il-central-1", "abc", true}, {"me-central-1", "abc", true}, {"me-south-1", "abc", true},
		{"mx-central-1", "abc", true}, {"sa-east-1", "abc", false},
		{"us-east-1", "abcdef", false}, {"us-east-2", "abc", false},
		{"us-gov-east-1", "abc", false}, {"us-gov-west-1", "abc", false},
		{"us-west-1", "ac", false}, {"us-west-2", "abcd", false},
	}
}

func findRegion(name string) (region, bool) {
	all := regions()
	i := slices.IndexFunc(all, func(r region) bool { return r.name == name })
	if i < 0 {
		return region{}, false
	}
	return all[i], true
}

// partition is the part of AWS that a region is in, as ARNs name it.
func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	}
	return "aws"
}

// arn is the ARN of something in the caller's account and region.
func arn(c wire.Caller, service, resource string) string {
	return fmt.Sprintf("arn:%s:%s:%s:%s:%s", partition(c.Region), service, c.Region, c.Account, resource)
}

// zoneID is the id of the region's nth zone, such as use1-az1: the same place
// for every account, unlike the zone's name.
func (r region) zoneID(n int) string {
	parts := strings.Split(strings.Replace(r.name, "us-gov-", "usg-", 1), "-")
	direction := map[string]string{"southeast": "se", "northeast": "ne"}[parts[1]]
	if direction == "" {
		direction = parts[1][:1]
	}
	return fmt.Sprintf("%s%s%s-az%d", parts[0], direction, parts[2], n+1)
}

func (r region) optInStatus() string {
	if r.optIn {
		return "opted-in"
	}
	return "opt-in-not-required"
}

// vpcNetwork is the default VPC of an account in a region, with its subnets, one in
// each zone.
type vpcNetwork struct {
	Vpc     types.Vpc
	Subnets []types.Subnet
}

// networkOf returns the caller's default VPC; the first call in a region makes it,
// and its default security group.
func (s *state) networkOf(c wire.Caller) (*vpcNetwork, error) {
	key := c.Account + "." + c.Region
	if n, ok := s.networks.Get(key); ok {
		return n, nil
	}
	r, ok := findRegion(c.Region)
	if !ok {
		return nil, invalidValue("There is no region '%s'", c.Region)
	}
	vpc := newID("vpc")
	n := &vpcNetwork{Vpc: types.Vpc{
		VpcId: &vpc, OwnerId: &c.Account, CidrBlock: aws.String("172.31.0.0/16"), IsDefault: aws.Bool(true),
		State: types.VpcStateAvailable, InstanceTenancy: types.TenancyDefault, DhcpOptionsId: aws.String(newID("dopt")),
		CidrBlockAssociationSet: []types.VpcCidrBlockAssociation{{
			AssociationId: aws.String(newID("vpc-cidr-assoc")), CidrBlock: aws.String("172.31.0.0/16"),
			CidrBlockState: &types.VpcCidrBlockState{State: types.VpcCidrBlockStateCodeAssociated},
		}},
	}}
	for i, letter := range r.zones {
		id := newID("subnet")
		n.Subnets = append(n.Subnets, types.Subnet{
			SubnetId: &id, VpcId: &vpc, OwnerId: &c.Account, State: types.SubnetStateAvailable,
			SubnetArn:        aws.String(arn(c, "ec2", "subnet/"+id)),
			AvailabilityZone: aws.String(r.name + string(letter)), AvailabilityZoneId: aws.String(r.zoneID(i)),
			CidrBlock: aws.String(fmt.Sprintf("172.31.%d.0/20", 16*i)), DefaultForAz: aws.Bool(true),
			MapPublicIpOnLaunch: aws.Bool(true), AssignIpv6AddressOnCreation: aws.Bool(false),
			EnableDns64: aws.Bool(false), Ipv6Native: aws.Bool(false), MapCustomerOwnedIpOnLaunch: aws.Bool(false),
			PrivateDnsNameOptionsOnLaunch: &types.PrivateDnsNameOptionsOnLaunch{HostnameType: types.HostnameTypeIpName,
				EnableResourceNameDnsARecord: aws.Bool(false), EnableResourceNameDnsAAAARecord: aws.Bool(false)},
		})
	}
	// The group first: a crash in between leaves a group of no network, which
	// repair removes.
	g := newGroup(c, vpc, defaultGroup, "default VPC security group")
	g.Rules = append(g.Rules, types.SecurityGroupRule{
		SecurityGroupRuleId: aws.String(newID("sgr")), GroupId: g.GroupId, GroupOwnerId: &c.Account, IsEgress: aws.Bool(false),
		IpProtocol: aws.String("-1"), FromPort: aws.Int32(-1), ToPort: aws.Int32(-1),
		ReferencedGroupInfo: &types.ReferencedSecurityGroup{GroupId: g.GroupId, UserId: &c.Account},
	})
	if err := s.groups.Put(*g.GroupId, g); err != nil {
		return nil, err
	}
	if err := s.networks.Put(key, n); err != nil {
		return nil, err
	}
	n, _ = s.networks.Get(key)
	return n, nil
}

// subnetsOf are the network's subnets with the number of addresses left in each.
func (s *state) subnetsOf(n *vpcNetwork) []types.Subnet {
	subnets := slices.Clone(n.Subnets)
	for i := range subnets {
		free := 1<<(32-netip.MustParsePrefix(*subnets[i].CidrBlock).Bits()) - 5 // EC2 keeps five
		for _, in := range s.instances.Rows {
			if aws.ToString(in.SubnetId) == *subnets[i].SubnetId && in.holdsAddress() {
				free--
			}
		}
		subnets[i].AvailableIpAddressCount = aws.Int32(int32(free))
	}
	return subnets
}

func (s *Service) DescribeRegions(ctx context.Context, in *ec2.DescribeRegionsInput) (*ec2.DescribeRegionsOutput, error) {
	var out []types.Region
	here, domain := partition(wire.CallerFrom(ctx).Region), ".amazonaws.com"
	if here == "aws-cn" {
		domain += ".cn"
	}
	for _, r := range regions() {
		if partition(r.name) != here || len(in.RegionNames) > 0 && !slices.Contains(in.RegionNames, r.name) {
			continue
		}
		out = append(out, types.Region{
			RegionName: aws.String(r.name), Endpoint: aws.String("ec2." + r.name + domain), OptInStatus: aws.String(r.optInStatus()),
		})
	}
	for _, name := range in.RegionNames {
		if _, ok := findRegion(name); !ok || partition(name) != here {
			return nil, invalidValue("Invalid region provided: %s", name)
		}
	}
	out, err := apply(filters{"endpoint": "Endpoint", "opt-in-status": "OptInStatus", "region-name": "RegionName"}, in.Filters, out)
	return &ec2.DescribeRegionsOutput{Regions: out}, err
}

var zoneFilters = filters{
	"group-name": "GroupName", "message": "Messages.Message", "opt-in-status": "OptInStatus", "parent-zone-id": "ParentZoneId",
	"parent-zone-name": "ParentZoneName", "region-name": "RegionName", "state": "State", "zone-id": "ZoneId",
	"zone-name": "ZoneName", "zone-type": "ZoneType", "group-long-name": "GroupLongName",
}

func (s *Service) DescribeAvailabilityZones(ctx context.Context, in *ec2.DescribeAvailabilityZonesInput) (*ec2.DescribeAvailabilityZonesOutput, error) {
	r, _ := findRegion(wire.CallerFrom(ctx).Region)
	var out []types.AvailabilityZone
	found := map[string]bool{}
	for i, letter := range r.zones {
		z := types.AvailabilityZone{
			ZoneName: aws.String(r.name + string(letter)), ZoneId: aws.String(r.zoneID(i)), RegionName: aws.String(r.name),
			GroupName: aws.String(r.name + "-zg-1"), NetworkBorderGroup: aws.String(r.name), ZoneType: aws.String("availability-zone"),
			State: types.AvailabilityZoneStateAvailable, OptInStatus: types.AvailabilityZoneOptInStatusOptInNotRequired,
		}
		found[*z.ZoneName], found[*z.ZoneId] = true, true
		if len(in.ZoneNames)+len(in.ZoneIds) > 0 && !slices.Contains(in.ZoneNames, *z.ZoneName) && !slices.Contains(in.ZoneIds, *z.ZoneId) {
			continue
		}
		out = append(out, z)
	}
	for _, name := range slices.Concat(in.ZoneNames, in.ZoneIds) {
		if !found[name] {
			return nil, invalidValue("Invalid availability zone: [%s]", name)
		}
	}
	out, err := apply(zoneFilters, in.Filters, out)
	return &ec2.DescribeAvailabilityZonesOutput{AvailabilityZones: out}, err
}

var vpcFilters = filters{
	"cidr": "CidrBlock", "cidr-block-association.cidr-block": "CidrBlockAssociationSet.CidrBlock",
	"cidr-block-association.association-id": "CidrBlockAssociationSet.AssociationId",
	"cidr-block-association.state":          "CidrBlockAssociationSet.CidrBlockState.State",
	"dhcp-options-id":                       "DhcpOptionsId", "ipv6-cidr-block-association.ipv6-cidr-block": "",
	"ipv6-cidr-block-association.ipv6-pool": "", "ipv6-cidr-block-association.association-id": "",
	"ipv6-cidr-block-association.state": "", "is-default": "IsDefault", "isDefault": "IsDefault",
	"owner-id": "OwnerId", "state": "State", "vpc-id": "VpcId",
}

func (s *state) DescribeVpcs(ctx context.Context, in *ec2.DescribeVpcsInput) (*ec2.DescribeVpcsOutput, error) {
	n, err := s.networkOf(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	rows, next, err := list(s, kindVpc, query{in.VpcIds, in.Filters, in.MaxResults, in.NextToken}, []types.Vpc{n.Vpc})
	return &ec2.DescribeVpcsOutput{Vpcs: rows, NextToken: next}, err
}

var subnetFilters = filters{
	"availability-zone": "AvailabilityZone", "availabilityZone": "AvailabilityZone", "availability-zone-id": "AvailabilityZoneId",
	"availabilityZoneId": "AvailabilityZoneId", "available-ip-address-count": "AvailableIpAddressCount",
	"cidr-block": "CidrBlock", "cidr": "CidrBlock", "cidrBlock": "CidrBlock", "customer-owned-ipv4-pool": "",
	"default-for-az": "DefaultForAz", "defaultForAz": "DefaultForAz", "enable-dns64": "EnableDns64", "enable-lni-at-device-index": "",
	"ipv6-cidr-block-association.ipv6-cidr-block": "", "ipv6-cidr-block-association.association-id": "",
	"ipv6-cidr-block-association.state": "", "ipv6-native": "Ipv6Native",
	"map-customer-owned-ip-on-launch": "MapCustomerOwnedIpOnLaunch", "map-public-ip-on-launch": "MapPublicIpOnLaunch",
	"outpost-arn": "", "owner-id": "OwnerId",
	"private-dns-name-options-on-launch.hostname-type":                        "PrivateDnsNameOptionsOnLaunch.HostnameType",
	"private-dns-name-options-on-launch.enable-resource-name-dns-a-record":    "PrivateDnsNameOptionsOnLaunch.EnableResourceNameDnsARecord",
	"private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record": "PrivateDnsNameOptionsOnLaunch.EnableResourceNameDnsAAAARecord",
	"state": "State", "subnet-arn": "SubnetArn", "subnet-id": "SubnetId", "vpc-id": "VpcId",
}

func (s *state) DescribeSubnets(ctx context.Context, in *ec2.DescribeSubnetsInput) (*ec2.DescribeSubnetsOutput, error) {
	n, err := s.networkOf(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	rows, next, err := list(s, kindSubnet, query{in.SubnetIds, in.Filters, in.MaxResults, in.NextToken}, s.subnetsOf(n))
	return &ec2.DescribeSubnetsOutput{Subnets: rows, NextToken: next}, err
}

func (s *state) DescribeAccountAttributes(ctx context.Context, in *ec2.DescribeAccountAttributesInput) (*ec2.DescribeAccountAttributesOutput, error) {
	n, err := s.networkOf(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	all := []struct{ name, value string }{{"supported-platforms", "VPC"}, {"default-vpc", *n.Vpc.VpcId}}
	out := []types.AccountAttribute{}
	for _, a := range all {
		if len(in.AttributeNames) > 0 && !slices.Contains(in.AttributeNames, types.AccountAttributeName(a.name)) {
			continue
		}
		out = append(out, types.AccountAttribute{AttributeName: aws.String(a.name),
			AttributeValues: []types.AccountAttributeValue{{AttributeValue: aws.String(a.value)}}})
	}
	return &ec2.DescribeAccountAttributesOutput{AccountAttributes: out}, nil
}

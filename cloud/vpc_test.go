package cloud_test

import (
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

func where(name string, values ...string) []types.Filter {
	return []types.Filter{{Name: &name, Values: values}}
}

// got returns the result of a call, which must succeed.
func got[T any](t *testing.T) func(out T, err error) T {
	return func(out T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

// refused checks that a call fails with one of EC2's error codes.
func refused[T any](t *testing.T, want string) func(out T, err error) {
	return func(_ T, err error) {
		t.Helper()
		if code(err) != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// ownVpc is a VPC with a subnet that has a route to the internet, created as Terraform
// does.
type ownVpc struct{ vpc, subnet, gateway, table, association, group string }

func newOwnVpc(t *testing.T, client *ec2.Client) (o ownVpc) {
	ctx := t.Context()
	tags := func(kind types.ResourceType) []types.TagSpecification {
		return []types.TagSpecification{{ResourceType: kind, Tags: []types.Tag{{Key: aws.String("Name"), Value: aws.String("own")}}}}
	}
	made := got[*ec2.CreateVpcOutput](t)(client.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16"), TagSpecifications: tags(types.ResourceTypeVpc)}))
	if made.Vpc.State != types.VpcStatePending || *made.Vpc.Tags[0].Value != "own" || *made.Vpc.IsDefault {
		t.Errorf("CreateVpc answers %+v", made.Vpc)
	}
	o.vpc = *made.Vpc.VpcId
	got[*ec2.ModifyVpcAttributeOutput](t)(client.ModifyVpcAttribute(ctx, &ec2.ModifyVpcAttributeInput{VpcId: &o.vpc, EnableDnsHostnames: &types.AttributeBooleanValue{Value: aws.Bool(true)}}))
	o.subnet = *got[*ec2.CreateSubnetOutput](t)(client.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: &o.vpc, CidrBlock: aws.String("10.0.1.0/24"),
		AvailabilityZone: aws.String("us-east-1b"), TagSpecifications: tags(types.ResourceTypeSubnet)})).Subnet.SubnetId
	got[*ec2.ModifySubnetAttributeOutput](t)(client.ModifySubnetAttribute(ctx, &ec2.ModifySubnetAttributeInput{SubnetId: &o.subnet, MapPublicIpOnLaunch: &types.AttributeBooleanValue{Value: aws.Bool(true)}}))
	o.gateway = *got[*ec2.CreateInternetGatewayOutput](t)(client.CreateInternetGateway(ctx, &ec2.CreateInternetGatewayInput{TagSpecifications: tags(types.ResourceTypeInternetGateway)})).InternetGateway.InternetGatewayId
	got[*ec2.AttachInternetGatewayOutput](t)(client.AttachInternetGateway(ctx, &ec2.AttachInternetGatewayInput{InternetGatewayId: &o.gateway, VpcId: &o.vpc}))
	o.table = *got[*ec2.CreateRouteTableOutput](t)(client.CreateRouteTable(ctx, &ec2.CreateRouteTableInput{VpcId: &o.vpc, TagSpecifications: tags(types.ResourceTypeRouteTable)})).RouteTable.RouteTableId
	got[*ec2.CreateRouteOutput](t)(client.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: &o.table, DestinationCidrBlock: aws.String("0.0.0.0/0"), GatewayId: &o.gateway}))
	o.association = *got[*ec2.AssociateRouteTableOutput](t)(client.AssociateRouteTable(ctx, &ec2.AssociateRouteTableInput{RouteTableId: &o.table, SubnetId: &o.subnet})).AssociationId
	o.group = *got[*ec2.CreateSecurityGroupOutput](t)(client.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("web"), Description: aws.String("web"), VpcId: &o.vpc})).GroupId
	return o
}

// TestOwnVpc creates a network, launches into it, and deletes it in the order of
// dependencies; EC2's errors are expected for each step that is too early.
func TestOwnVpc(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	o := newOwnVpc(t, client)

	// Resources can be found the way Terraform looks them up.
	attribute := got[*ec2.DescribeVpcAttributeOutput](t)(client.DescribeVpcAttribute(ctx, &ec2.DescribeVpcAttributeInput{VpcId: &o.vpc, Attribute: types.VpcAttributeNameEnableDnsHostnames}))
	if !*attribute.EnableDnsHostnames.Value {
		t.Error("the attribute has not changed")
	}
	subnets := got[*ec2.DescribeSubnetsOutput](t)(client.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{Filters: where("vpc-id", o.vpc)})).Subnets
	if len(subnets) != 1 || *subnets[0].AvailableIpAddressCount != 251 || *subnets[0].AvailabilityZone != "us-east-1b" || !*subnets[0].MapPublicIpOnLaunch {
		t.Errorf("subnets of the VPC: %+v", subnets)
	}
	tables := got[*ec2.DescribeRouteTablesOutput](t)(client.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{Filters: slices.Concat(where("vpc-id", o.vpc), where("association.main", "true"))})).RouteTables
	if len(tables) != 1 || *tables[0].RouteTableId == o.table || len(tables[0].Routes) != 1 || *tables[0].Routes[0].GatewayId != "local" || *tables[0].Routes[0].DestinationCidrBlock != "10.0.0.0/16" {
		t.Errorf("main route table: %+v", tables)
	}
	tables = got[*ec2.DescribeRouteTablesOutput](t)(client.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{Filters: where("association.subnet-id", o.subnet)})).RouteTables
	if len(tables) != 1 || *tables[0].RouteTableId != o.table || len(tables[0].Routes) != 2 || tables[0].Routes[1].State != types.RouteStateActive {
		t.Errorf("route table of the subnet: %+v", tables)
	}
	acls := got[*ec2.DescribeNetworkAclsOutput](t)(client.DescribeNetworkAcls(ctx, &ec2.DescribeNetworkAclsInput{Filters: slices.Concat(where("vpc-id", o.vpc), where("default", "true"))})).NetworkAcls
	if len(acls) != 1 || len(acls[0].Associations) != 1 || *acls[0].Associations[0].SubnetId != o.subnet || len(acls[0].Entries) != 4 {
		t.Errorf("network ACLs of the VPC: %+v", acls)
	}
	groups := got[*ec2.DescribeSecurityGroupsOutput](t)(client.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{Filters: where("vpc-id", o.vpc)})).SecurityGroups
	if len(groups) != 2 {
		t.Errorf("security groups of the VPC: %+v", groups)
	}
	tagged := got[*ec2.DescribeTagsOutput](t)(client.DescribeTags(ctx, &ec2.DescribeTagsInput{Filters: where("value", "own")})).Tags
	if len(tagged) != 4 {
		t.Errorf("tags: %+v", tagged)
	}

	instance := run(t, client, ec2.RunInstancesInput{SubnetId: &o.subnet, SecurityGroupIds: []string{o.group}})
	if *instance.VpcId != o.vpc || *instance.SubnetId != o.subnet || (*instance.PrivateIpAddress)[:7] != "10.0.1." || instance.PublicIpAddress == nil {
		t.Errorf("launched into %s, %s with %s, %v", *instance.VpcId, *instance.SubnetId, *instance.PrivateIpAddress, instance.PublicIpAddress)
	}
	if *run(t, client, ec2.RunInstancesInput{}).VpcId == o.vpc {
		t.Error("a launch that names no subnet is not in the default VPC")
	}
	// Instances in different VPCs cannot reach each other.
	other := newOwnVpc(t, client)
	foreign := run(t, client, ec2.RunInstancesInput{SubnetId: &other.subnet})
	cfg := s.Driver.Machine(*instance.InstanceId).Spec().Network
	if _, ok := cfg.Names(*foreign.PrivateDnsName); ok && *foreign.PrivateDnsName != *instance.PrivateDnsName {
		t.Error("an instance of another VPC has a name here")
	}
	if cfg.Subnet.String() != "10.0.1.0/24" {
		t.Errorf("the machine's subnet is %s", cfg.Subnet)
	}
	refused[*ec2.RunInstancesOutput](t, "InvalidParameter")(client.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: instance.ImageId, InstanceType: "t3.micro",
		MinCount: aws.Int32(1), MaxCount: aws.Int32(1), SubnetId: &o.subnet, SecurityGroupIds: []string{other.group}}))
	refused[*ec2.AuthorizeSecurityGroupIngressOutput](t, "InvalidGroup.NotFound")(client.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &o.group,
		IpPermissions: []types.IpPermission{{IpProtocol: aws.String("-1"), UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: &other.group}}}}}))

	o.destroy(t, client, *instance.InstanceId)
}

// destroy deletes the network, and first tries each step too early.
func (o ownVpc) destroy(t *testing.T, client *ec2.Client, instance string) {
	ctx := t.Context()
	const dependent = "DependencyViolation"
	deleteVpc := func() (*ec2.DeleteVpcOutput, error) { return client.DeleteVpc(ctx, &ec2.DeleteVpcInput{VpcId: &o.vpc}) }
	deleteSubnet := func() (*ec2.DeleteSubnetOutput, error) {
		return client.DeleteSubnet(ctx, &ec2.DeleteSubnetInput{SubnetId: &o.subnet})
	}
	deleteTable := func() (*ec2.DeleteRouteTableOutput, error) {
		return client.DeleteRouteTable(ctx, &ec2.DeleteRouteTableInput{RouteTableId: &o.table})
	}
	detach := func() (*ec2.DetachInternetGatewayOutput, error) {
		return client.DetachInternetGateway(ctx, &ec2.DetachInternetGatewayInput{InternetGatewayId: &o.gateway, VpcId: &o.vpc})
	}
	deleteGateway := func() (*ec2.DeleteInternetGatewayOutput, error) {
		return client.DeleteInternetGateway(ctx, &ec2.DeleteInternetGatewayInput{InternetGatewayId: &o.gateway})
	}
	refused[*ec2.DeleteVpcOutput](t, dependent)(deleteVpc())
	refused[*ec2.DeleteSubnetOutput](t, dependent)(deleteSubnet())
	refused[*ec2.DeleteRouteTableOutput](t, dependent)(deleteTable())
	refused[*ec2.DetachInternetGatewayOutput](t, dependent)(detach())
	refused[*ec2.DeleteInternetGatewayOutput](t, dependent)(deleteGateway())
	got[*ec2.TerminateInstancesOutput](t)(client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{instance}}))
	await(t, client, instance, types.InstanceStateNameTerminated)
	got[*ec2.DeleteSecurityGroupOutput](t)(client.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: &o.group}))
	got[*ec2.DisassociateRouteTableOutput](t)(client.DisassociateRouteTable(ctx, &ec2.DisassociateRouteTableInput{AssociationId: &o.association}))
	refused[*ec2.DisassociateRouteTableOutput](t, "InvalidAssociationID.NotFound")(client.DisassociateRouteTable(ctx, &ec2.DisassociateRouteTableInput{AssociationId: &o.association}))
	got[*ec2.DetachInternetGatewayOutput](t)(detach())
	refused[*ec2.DetachInternetGatewayOutput](t, "Gateway.NotAttached")(detach())
	routes := got[*ec2.DescribeRouteTablesOutput](t)(client.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{RouteTableIds: []string{o.table}})).RouteTables[0].Routes
	if routes[1].State != types.RouteStateBlackhole {
		t.Errorf("a route without its gateway is %s", routes[1].State)
	}
	got[*ec2.DeleteRouteTableOutput](t)(deleteTable())
	refused[*ec2.DeleteRouteTableOutput](t, "InvalidRouteTableID.NotFound")(deleteTable())
	got[*ec2.DeleteInternetGatewayOutput](t)(deleteGateway())
	refused[*ec2.DeleteInternetGatewayOutput](t, "InvalidInternetGatewayID.NotFound")(deleteGateway())
	refused[*ec2.DeleteVpcOutput](t, dependent)(deleteVpc())
	got[*ec2.DeleteSubnetOutput](t)(deleteSubnet())
	refused[*ec2.DeleteSubnetOutput](t, "InvalidSubnetID.NotFound")(deleteSubnet())
	got[*ec2.DeleteVpcOutput](t)(deleteVpc())
	refused[*ec2.DeleteVpcOutput](t, "InvalidVpcID.NotFound")(deleteVpc())
	left := got[*ec2.DescribeSecurityGroupsOutput](t)(client.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{Filters: where("vpc-id", o.vpc)})).SecurityGroups
	if len(left) != 0 {
		t.Errorf("the VPC is gone, its groups are not: %+v", left)
	}
}

// TestDefaultVpc checks that the default VPC has a route to the internet, and can be
// deleted and created again.
func TestDefaultVpc(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-west-1")
	ctx := t.Context()
	vpcs := got[*ec2.DescribeVpcsOutput](t)(client.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{})).Vpcs
	main := *vpcs[0].VpcId
	gateways := got[*ec2.DescribeInternetGatewaysOutput](t)(client.DescribeInternetGateways(ctx, &ec2.DescribeInternetGatewaysInput{Filters: where("attachment.vpc-id", main)})).InternetGateways
	tables := got[*ec2.DescribeRouteTablesOutput](t)(client.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{})).RouteTables
	if len(gateways) != 1 || len(tables) != 1 || len(tables[0].Routes) != 2 || *tables[0].Routes[1].GatewayId != *gateways[0].InternetGatewayId {
		t.Fatalf("gateways %+v, route tables %+v", gateways, tables)
	}
	options := got[*ec2.DescribeDhcpOptionsOutput](t)(client.DescribeDhcpOptions(ctx, &ec2.DescribeDhcpOptionsInput{DhcpOptionsIds: []string{*vpcs[0].DhcpOptionsId}})).DhcpOptions
	if *options[0].DhcpConfigurations[0].Values[0].Value != "us-west-1.compute.internal" {
		t.Errorf("DHCP options: %+v", options)
	}
	refused[*ec2.CreateDefaultVpcOutput](t, "DefaultVpcAlreadyExists")(client.CreateDefaultVpc(ctx, &ec2.CreateDefaultVpcInput{}))
	for _, subnet := range got[*ec2.DescribeSubnetsOutput](t)(client.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{})).Subnets {
		got[*ec2.DeleteSubnetOutput](t)(client.DeleteSubnet(ctx, &ec2.DeleteSubnetInput{SubnetId: subnet.SubnetId}))
	}
	launch := &ec2.RunInstancesInput{ImageId: aws.String(source(t, client)), InstanceType: "t3.micro", MinCount: aws.Int32(1), MaxCount: aws.Int32(1)}
	refused[*ec2.RunInstancesOutput](t, "MissingInput")(client.RunInstances(ctx, launch))
	got[*ec2.CreateDefaultSubnetOutput](t)(client.CreateDefaultSubnet(ctx, &ec2.CreateDefaultSubnetInput{AvailabilityZone: aws.String("us-west-1c")}))
	refused[*ec2.CreateDefaultSubnetOutput](t, "DefaultSubnetAlreadyExistsInAvailabilityZone")(client.CreateDefaultSubnet(ctx, &ec2.CreateDefaultSubnetInput{AvailabilityZone: aws.String("us-west-1c")}))
	subnet := got[*ec2.DescribeSubnetsOutput](t)(client.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{})).Subnets[0]
	got[*ec2.DeleteSubnetOutput](t)(client.DeleteSubnet(ctx, &ec2.DeleteSubnetInput{SubnetId: subnet.SubnetId}))
	got[*ec2.DetachInternetGatewayOutput](t)(client.DetachInternetGateway(ctx, &ec2.DetachInternetGatewayInput{InternetGatewayId: gateways[0].InternetGatewayId, VpcId: &main}))
	got[*ec2.DeleteVpcOutput](t)(client.DeleteVpc(ctx, &ec2.DeleteVpcInput{VpcId: &main}))
	refused[*ec2.RunInstancesOutput](t, "VPCIdNotSpecified")(client.RunInstances(ctx, launch))
	refused[*ec2.CreateSecurityGroupOutput](t, "VPCIdNotSpecified")(client.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("a"), Description: aws.String("a")}))
	made := got[*ec2.CreateDefaultVpcOutput](t)(client.CreateDefaultVpc(ctx, &ec2.CreateDefaultVpcInput{})).Vpc
	if instance := run(t, client, ec2.RunInstancesInput{}); *instance.VpcId != *made.VpcId {
		t.Errorf("launched into %s, not %s", *instance.VpcId, *made.VpcId)
	}
}

// TestNetworkRefusals checks EC2's error codes for invalid ranges, routes and attachments.
func TestNetworkRefusals(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	o := newOwnVpc(t, client)
	for cidr, want := range map[string]string{"10.0.0.0/8": "InvalidVpc.Range", "10.0.0.0/29": "InvalidVpc.Range", "10.0.0.0": "InvalidParameterValue", "fd00::/56": "InvalidParameterValue",
		"0.0.0.0/16": "InvalidVpc.Range", "0.1.2.0/24": "InvalidVpc.Range", "127.0.0.0/16": "InvalidVpc.Range", "169.254.0.0/16": "InvalidVpc.Range",
		"169.254.169.0/24": "InvalidVpc.Range", "224.0.0.0/16": "InvalidVpc.Range", "239.255.0.0/20": "InvalidVpc.Range"} {
		refused[*ec2.CreateVpcOutput](t, want)(client.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: &cidr}))
	}
	for cidr, want := range map[string]string{"10.0.1.128/25": "InvalidSubnet.Conflict", "10.1.0.0/24": "InvalidSubnet.Range", "10.0.2.0/30": "InvalidSubnet.Range", "what": "InvalidParameterValue"} {
		refused[*ec2.CreateSubnetOutput](t, want)(client.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: &o.vpc, CidrBlock: &cidr}))
	}
	refused[*ec2.CreateSubnetOutput](t, "InvalidVpcID.NotFound")(client.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: aws.String("vpc-00000000"), CidrBlock: aws.String("10.0.2.0/24")}))
	refused[*ec2.CreateSubnetOutput](t, "InvalidParameterValue")(client.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: &o.vpc, CidrBlock: aws.String("10.0.2.0/24"), AvailabilityZone: aws.String("us-east-1x")}))
	refused[*ec2.CreateVpcOutput](t, "Unsupported")(client.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16"), AmazonProvidedIpv6CidrBlock: aws.Bool(true)}))
	refused[*ec2.CreateVpcOutput](t, "DryRunOperation")(client.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16"), DryRun: aws.Bool(true)}))

	anywhere := aws.String("0.0.0.0/0")
	refused[*ec2.CreateRouteOutput](t, "RouteAlreadyExists")(client.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: &o.table, DestinationCidrBlock: anywhere, GatewayId: &o.gateway}))
	refused[*ec2.CreateRouteOutput](t, "InvalidInternetGatewayID.NotFound")(client.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: &o.table, DestinationCidrBlock: aws.String("1.2.3.0/24"), GatewayId: aws.String("igw-00000000")}))
	got[*ec2.DeleteRouteOutput](t)(client.DeleteRoute(ctx, &ec2.DeleteRouteInput{RouteTableId: &o.table, DestinationCidrBlock: anywhere}))
	refused[*ec2.DeleteRouteOutput](t, "InvalidRoute.NotFound")(client.DeleteRoute(ctx, &ec2.DeleteRouteInput{RouteTableId: &o.table, DestinationCidrBlock: anywhere}))
	refused[*ec2.ReplaceRouteOutput](t, "InvalidRoute.NotFound")(client.ReplaceRoute(ctx, &ec2.ReplaceRouteInput{RouteTableId: &o.table, DestinationCidrBlock: anywhere, GatewayId: &o.gateway}))
	refused[*ec2.DeleteRouteOutput](t, "InvalidParameterValue")(client.DeleteRoute(ctx, &ec2.DeleteRouteInput{RouteTableId: &o.table, DestinationCidrBlock: aws.String("10.0.0.0/16")}))

	second := *got[*ec2.CreateRouteTableOutput](t)(client.CreateRouteTable(ctx, &ec2.CreateRouteTableInput{VpcId: &o.vpc, ClientToken: aws.String("once")})).RouteTable.RouteTableId
	again := got[*ec2.CreateRouteTableOutput](t)(client.CreateRouteTable(ctx, &ec2.CreateRouteTableInput{VpcId: &o.vpc, ClientToken: aws.String("once")}))
	if *again.RouteTable.RouteTableId != second {
		t.Error("a client token makes a second route table")
	}
	refused[*ec2.AssociateRouteTableOutput](t, "Resource.AlreadyAssociated")(client.AssociateRouteTable(ctx, &ec2.AssociateRouteTableInput{RouteTableId: &second, SubnetId: &o.subnet}))
	replaced := got[*ec2.ReplaceRouteTableAssociationOutput](t)(client.ReplaceRouteTableAssociation(ctx, &ec2.ReplaceRouteTableAssociationInput{AssociationId: &o.association, RouteTableId: &second}))
	tables := got[*ec2.DescribeRouteTablesOutput](t)(client.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{Filters: where("association.route-table-association-id", *replaced.NewAssociationId)})).RouteTables
	if len(tables) != 1 || *tables[0].RouteTableId != second {
		t.Errorf("the subnet is not associated with %s: %+v", second, tables)
	}

	gateway := got[*ec2.CreateInternetGatewayOutput](t)(client.CreateInternetGateway(ctx, &ec2.CreateInternetGatewayInput{})).InternetGateway.InternetGatewayId
	refused[*ec2.AttachInternetGatewayOutput](t, "InvalidParameterValue")(client.AttachInternetGateway(ctx, &ec2.AttachInternetGatewayInput{InternetGatewayId: gateway, VpcId: &o.vpc}))
	refused[*ec2.AttachInternetGatewayOutput](t, "Resource.AlreadyAssociated")(client.AttachInternetGateway(ctx, &ec2.AttachInternetGatewayInput{InternetGatewayId: &o.gateway, VpcId: &o.vpc}))
	refused[*ec2.CreateRouteOutput](t, "InvalidParameterValue")(client.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: &o.table, DestinationCidrBlock: anywhere, GatewayId: gateway}))

	// Group names are unique only within a VPC.
	got[*ec2.CreateSecurityGroupOutput](t)(client.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("web"), Description: aws.String("web")}))
	refused[*ec2.CreateSecurityGroupOutput](t, "InvalidGroup.Duplicate")(client.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("web"), Description: aws.String("web"), VpcId: &o.vpc}))
}

// TestRouteStates checks that a route is a blackhole while its target does not exist.
func TestRouteStates(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	o, other := newOwnVpc(t, client), newOwnVpc(t, client)
	nat := run(t, client, ec2.RunInstancesInput{NetworkInterfaces: []types.InstanceNetworkInterfaceSpecification{{DeviceIndex: aws.Int32(0), SubnetId: &o.subnet, AssociatePublicIpAddress: aws.Bool(false)}}})
	got[*ec2.CreateRouteOutput](t)(client.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: &o.table, DestinationCidrBlock: aws.String("192.0.2.0/24"), InstanceId: nat.InstanceId}))
	expect := func(when string, want ...types.RouteState) {
		t.Helper()
		tables := got[*ec2.DescribeRouteTablesOutput](t)(client.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{RouteTableIds: []string{o.table}})).RouteTables
		var states []types.RouteState
		for _, r := range tables[0].Routes {
			states = append(states, r.State)
		}
		if !slices.Equal(states, want) {
			t.Errorf("%s: the routes are %v, not %v", when, states, want)
		}
		found := got[*ec2.DescribeRouteTablesOutput](t)(client.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{Filters: slices.Concat(where("vpc-id", o.vpc), where("route.state", "blackhole"))})).RouteTables
		if (len(found) == 1) != slices.Contains(want, types.RouteStateBlackhole) {
			t.Errorf("%s: the filter finds %+v", when, found)
		}
	}
	attach := func(vpc string) {
		t.Helper()
		got[*ec2.AttachInternetGatewayOutput](t)(client.AttachInternetGateway(ctx, &ec2.AttachInternetGatewayInput{InternetGatewayId: &o.gateway, VpcId: &vpc}))
	}
	detach := func(gateway, vpc string) {
		t.Helper()
		got[*ec2.DetachInternetGatewayOutput](t)(client.DetachInternetGateway(ctx, &ec2.DetachInternetGatewayInput{InternetGatewayId: &gateway, VpcId: &vpc}))
	}
	const active, hole = types.RouteStateActive, types.RouteStateBlackhole
	expect("made", active, active, active)
	detach(o.gateway, o.vpc)
	detach(other.gateway, other.vpc)
	expect("detached", active, hole, active)
	attach(other.vpc)
	expect("attached to another VPC", active, hole, active)
	detach(o.gateway, other.vpc)
	attach(o.vpc)
	expect("attached again", active, active, active)
	got[*ec2.TerminateInstancesOutput](t)(client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*nat.InstanceId}}))
	await(t, client, *nat.InstanceId, types.InstanceStateNameTerminated)
	expect("terminated", active, active, hole)
}

// TestElasticAddress checks that an address can move between instances, stays with a
// stopped one, and is free after termination.
func TestElasticAddress(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	a, b := run(t, client, ec2.RunInstancesInput{}), run(t, client, ec2.RunInstancesInput{})
	allocated := got[*ec2.AllocateAddressOutput](t)(client.AllocateAddress(ctx, &ec2.AllocateAddressInput{Domain: types.DomainTypeVpc,
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeElasticIp, Tags: []types.Tag{{Key: aws.String("Name"), Value: aws.String("web")}}}}}))
	address := *allocated.PublicIp
	associate := func(id *string, again bool) (*ec2.AssociateAddressOutput, error) {
		return client.AssociateAddress(ctx, &ec2.AssociateAddressInput{AllocationId: allocated.AllocationId, InstanceId: id, AllowReassociation: &again})
	}
	public := func(id *string) string {
		t.Helper()
		return aws.ToString(got[*ec2.DescribeInstancesOutput](t)(client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{*id}})).Reservations[0].Instances[0].PublicIpAddress)
	}
	changes := s.Driver.Machine(*a.InstanceId).NetworkChanges()
	got[*ec2.AssociateAddressOutput](t)(associate(a.InstanceId, false))
	if now := s.Driver.Machine(*a.InstanceId).Spec().Network.PublicNow(); public(a.InstanceId) != address || now.String() != address || s.Driver.Machine(*a.InstanceId).NetworkChanges() == changes {
		t.Errorf("the instance has %s and its machine %s, not %s", public(a.InstanceId), now, address)
	}
	interfaces := got[*ec2.DescribeNetworkInterfacesOutput](t)(client.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{
		Filters: where("association.allocation-id", *allocated.AllocationId)})).NetworkInterfaces
	if len(interfaces) != 1 || *interfaces[0].Association.IpOwnerId != *interfaces[0].OwnerId {
		t.Errorf("interfaces with the address: %+v", interfaces)
	}
	refused[*ec2.AssociateAddressOutput](t, "Resource.AlreadyAssociated")(associate(b.InstanceId, false))
	refused[*ec2.ReleaseAddressOutput](t, "InvalidIPAddress.InUse")(client.ReleaseAddress(ctx, &ec2.ReleaseAddressInput{AllocationId: allocated.AllocationId}))
	got[*ec2.AssociateAddressOutput](t)(associate(b.InstanceId, true))
	if public(b.InstanceId) != address || public(a.InstanceId) != *a.PublicIpAddress {
		t.Errorf("after it moved: %s and %s", public(a.InstanceId), public(b.InstanceId))
	}
	got[*ec2.StopInstancesOutput](t)(client.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{*b.InstanceId}}))
	await(t, client, *b.InstanceId, types.InstanceStateNameStopped)
	if public(b.InstanceId) != address {
		t.Error("a stopped instance has lost its elastic address")
	}
	described := got[*ec2.DescribeAddressesOutput](t)(client.DescribeAddresses(ctx, &ec2.DescribeAddressesInput{Filters: where("tag:Name", "web")})).Addresses
	if len(described) != 1 || *described[0].InstanceId != *b.InstanceId || *described[0].PrivateIpAddress != *b.PrivateIpAddress {
		t.Errorf("described: %+v", described)
	}
	got[*ec2.TerminateInstancesOutput](t)(client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*b.InstanceId}}))
	await(t, client, *b.InstanceId, types.InstanceStateNameTerminated)
	associated := got[*ec2.AssociateAddressOutput](t)(associate(a.InstanceId, false))
	got[*ec2.DisassociateAddressOutput](t)(client.DisassociateAddress(ctx, &ec2.DisassociateAddressInput{AssociationId: associated.AssociationId}))
	refused[*ec2.DisassociateAddressOutput](t, "InvalidAssociationID.NotFound")(client.DisassociateAddress(ctx, &ec2.DisassociateAddressInput{AssociationId: associated.AssociationId}))
	attributes := got[*ec2.DescribeAddressesAttributeOutput](t)(client.DescribeAddressesAttribute(ctx, &ec2.DescribeAddressesAttributeInput{AllocationIds: []string{*allocated.AllocationId}, Attribute: types.AddressAttributeNameDomainName}))
	if len(attributes.Addresses) != 1 || *attributes.Addresses[0].PublicIp != address {
		t.Errorf("attributes: %+v", attributes.Addresses)
	}
	got[*ec2.ReleaseAddressOutput](t)(client.ReleaseAddress(ctx, &ec2.ReleaseAddressInput{AllocationId: allocated.AllocationId}))
	refused[*ec2.ReleaseAddressOutput](t, "InvalidAllocationID.NotFound")(client.ReleaseAddress(ctx, &ec2.ReleaseAddressInput{AllocationId: allocated.AllocationId}))
	refused[*ec2.DescribeAddressesOutput](t, "InvalidAddress.NotFound")(client.DescribeAddresses(ctx, &ec2.DescribeAddressesInput{PublicIps: []string{address}}))
	o := newOwnVpc(t, client)
	got[*ec2.DetachInternetGatewayOutput](t)(client.DetachInternetGateway(ctx, &ec2.DetachInternetGatewayInput{InternetGatewayId: &o.gateway, VpcId: &o.vpc}))
	inside := run(t, client, ec2.RunInstancesInput{NetworkInterfaces: []types.InstanceNetworkInterfaceSpecification{{DeviceIndex: aws.Int32(0), SubnetId: &o.subnet, AssociatePublicIpAddress: aws.Bool(false)}}})
	allocated = got[*ec2.AllocateAddressOutput](t)(client.AllocateAddress(ctx, &ec2.AllocateAddressInput{}))
	refused[*ec2.AssociateAddressOutput](t, "Gateway.NotAttached")(associate(inside.InstanceId, false))
}

// TestAddressOfInterface checks that an address is associated with an interface, and stays
// with it from instance to instance until the interface is deleted.
func TestAddressOfInterface(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	o := newOwnVpc(t, client)
	nic := func() *string {
		t.Helper()
		return got[*ec2.CreateNetworkInterfaceOutput](t)(client.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: &o.subnet})).NetworkInterface.NetworkInterfaceId
	}
	allocation := got[*ec2.AllocateAddressOutput](t)(client.AllocateAddress(ctx, &ec2.AllocateAddressInput{})).AllocationId
	associate := func(in ec2.AssociateAddressInput) (*ec2.AssociateAddressOutput, error) {
		in.AllocationId = allocation
		return client.AssociateAddress(ctx, &in)
	}
	where := func(when string, nic, instance *string) types.Address {
		t.Helper()
		a := got[*ec2.DescribeAddressesOutput](t)(client.DescribeAddresses(ctx, &ec2.DescribeAddressesInput{AllocationIds: []string{*allocation}})).Addresses[0]
		if aws.ToString(a.NetworkInterfaceId) != aws.ToString(nic) || aws.ToString(a.InstanceId) != aws.ToString(instance) || (a.AssociationId == nil) != (nic == nil) {
			t.Errorf("%s the address is %+v", when, a)
		}
		if nic == nil {
			return a
		}
		i := got[*ec2.DescribeNetworkInterfacesOutput](t)(client.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{*nic}})).NetworkInterfaces[0]
		if i.Association == nil || *i.Association.PublicIp != *a.PublicIp || *i.Association.AssociationId != *a.AssociationId || i.PrivateIpAddresses[0].Association == nil || *i.PrivateIpAddress != *a.PrivateIpAddress {
			t.Errorf("%s its interface is %+v", when, i)
		}
		return a
	}
	launch := func(nic *string) types.Instance {
		t.Helper()
		in := run(t, client, ec2.RunInstancesInput{NetworkInterfaces: []types.InstanceNetworkInterfaceSpecification{{DeviceIndex: aws.Int32(0), NetworkInterfaceId: nic}}})
		return await(t, client, *in.InstanceId, types.InstanceStateNameRunning)
	}
	end := func(in types.Instance) {
		t.Helper()
		got[*ec2.TerminateInstancesOutput](t)(client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*in.InstanceId}}))
		await(t, client, *in.InstanceId, types.InstanceStateNameTerminated)
	}

	first := nic()
	got[*ec2.AssociateAddressOutput](t)(associate(ec2.AssociateAddressInput{NetworkInterfaceId: first}))
	address := *where("without an instance", first, nil).PublicIp
	in := launch(first)
	if public := s.Driver.Machine(*in.InstanceId).Spec().Network.PublicNow(); aws.ToString(in.PublicIpAddress) != address || public.String() != address {
		t.Errorf("the instance has %s and its machine %s, not %s", aws.ToString(in.PublicIpAddress), public, address)
	}
	where("in use", first, in.InstanceId)
	end(in)
	where("after the instance", first, nil)
	refused[*ec2.ReleaseAddressOutput](t, "InvalidIPAddress.InUse")(client.ReleaseAddress(ctx, &ec2.ReleaseAddressInput{AllocationId: allocation}))
	second := nic()
	refused[*ec2.AssociateAddressOutput](t, "Resource.AlreadyAssociated")(associate(ec2.AssociateAddressInput{NetworkInterfaceId: second}))

	in = launch(first)
	other := run(t, client, ec2.RunInstancesInput{SubnetId: &o.subnet})
	await(t, client, *other.InstanceId, types.InstanceStateNameRunning)
	got[*ec2.AttachNetworkInterfaceOutput](t)(client.AttachNetworkInterface(ctx, &ec2.AttachNetworkInterfaceInput{NetworkInterfaceId: second, InstanceId: other.InstanceId, DeviceIndex: aws.Int32(1)}))
	got[*ec2.AssociateAddressOutput](t)(associate(ec2.AssociateAddressInput{NetworkInterfaceId: second, AllowReassociation: aws.Bool(true)}))
	where("of another nic", second, other.InstanceId)
	if now := await(t, client, *in.InstanceId, types.InstanceStateNameRunning); now.PublicIpAddress != nil {
		t.Errorf("the instance kept %s", *now.PublicIpAddress)
	}
	if now := await(t, client, *other.InstanceId, types.InstanceStateNameRunning); len(now.NetworkInterfaces) != 2 || now.NetworkInterfaces[1].Association == nil || *now.NetworkInterfaces[1].Association.PublicIp != address {
		t.Errorf("the instance with two cards shows %+v", now.NetworkInterfaces)
	}
	end(other)
	where("after the instance with two cards", second, nil)
	got[*ec2.DeleteNetworkInterfaceOutput](t)(client.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: second}))
	where("after its interface", nil, nil)

	got[*ec2.AssociateAddressOutput](t)(associate(ec2.AssociateAddressInput{InstanceId: in.InstanceId}))
	where("again", first, in.InstanceId)
	got[*ec2.ModifyNetworkInterfaceAttributeOutput](t)(client.ModifyNetworkInterfaceAttribute(ctx, &ec2.ModifyNetworkInterfaceAttributeInput{NetworkInterfaceId: first,
		Attachment: &types.NetworkInterfaceAttachmentChanges{AttachmentId: in.NetworkInterfaces[0].Attachment.AttachmentId, DeleteOnTermination: aws.Bool(true)}}))
	end(in)
	where("after an interface that ended with its instance", nil, nil)
	refused[*ec2.AssociateAddressOutput](t, "InvalidNetworkInterfaceID.NotFound")(associate(ec2.AssociateAddressInput{NetworkInterfaceId: first}))
}

// TestInstanceConnectEndpoints checks that a VPC can have one endpoint, which keeps its
// subnet in use.
func TestInstanceConnectEndpoints(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	o := newOwnVpc(t, client)
	in := &ec2.CreateInstanceConnectEndpointInput{SubnetId: &o.subnet, SecurityGroupIds: []string{o.group}, ClientToken: aws.String("once")}
	made := got[*ec2.CreateInstanceConnectEndpointOutput](t)(client.CreateInstanceConnectEndpoint(ctx, in)).InstanceConnectEndpoint
	if again := got[*ec2.CreateInstanceConnectEndpointOutput](t)(client.CreateInstanceConnectEndpoint(ctx, in)).InstanceConnectEndpoint; *again.InstanceConnectEndpointId != *made.InstanceConnectEndpointId {
		t.Error("a client token makes a second endpoint")
	}
	in.ClientToken = aws.String("twice")
	refused[*ec2.CreateInstanceConnectEndpointOutput](t, "InstanceConnectEndpointLimitExceeded")(client.CreateInstanceConnectEndpoint(ctx, in))
	found := got[*ec2.DescribeInstanceConnectEndpointsOutput](t)(client.DescribeInstanceConnectEndpoints(ctx, &ec2.DescribeInstanceConnectEndpointsInput{Filters: where("vpc-id", o.vpc)})).InstanceConnectEndpoints
	if len(found) != 1 || found[0].State != types.Ec2InstanceConnectEndpointStateCreateComplete || found[0].SecurityGroupIds[0] != o.group {
		t.Errorf("found %+v", found)
	}
	refused[*ec2.DeleteSubnetOutput](t, "DependencyViolation")(client.DeleteSubnet(ctx, &ec2.DeleteSubnetInput{SubnetId: &o.subnet}))
	refused[*ec2.DeleteSecurityGroupOutput](t, "DependencyViolation")(client.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: &o.group}))
	remove := &ec2.DeleteInstanceConnectEndpointInput{InstanceConnectEndpointId: made.InstanceConnectEndpointId}
	got[*ec2.DeleteInstanceConnectEndpointOutput](t)(client.DeleteInstanceConnectEndpoint(ctx, remove))
	refused[*ec2.DeleteInstanceConnectEndpointOutput](t, "InvalidInstanceConnectEndpointId.NotFound")(client.DeleteInstanceConnectEndpoint(ctx, remove))
	got[*ec2.DeleteSubnetOutput](t)(client.DeleteSubnet(ctx, &ec2.DeleteSubnetInput{SubnetId: &o.subnet}))
}

package cloud_test

import (
	"cmp"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestNatGateway creates a private subnet with a NAT gateway, as VPC modules do, and
// deletes it.
func TestNatGateway(t *testing.T) {
	var ahead atomic.Int64
	s := cloudtest.Start(t, cloud.Options{Clock: clock{now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	o := newOwnVpc(t, client)
	create := func(allocation, subnet string) *ec2.CreateNatGatewayOutput {
		t.Helper()
		out := got[*ec2.CreateNatGatewayOutput](t)(client.CreateNatGateway(ctx, &ec2.CreateNatGatewayInput{SubnetId: &subnet, AllocationId: &allocation,
			TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeNatgateway, Tags: []types.Tag{{Key: aws.String("Name"), Value: aws.String("way out")}}}}}))
		if out.NatGateway.State != types.NatGatewayStatePending {
			t.Errorf("a new NAT gateway is %s", out.NatGateway.State)
		}
		return out
	}
	describe := func(id string) types.NatGateway {
		t.Helper()
		return got[*ec2.DescribeNatGatewaysOutput](t)(client.DescribeNatGateways(ctx, &ec2.DescribeNatGatewaysInput{NatGatewayIds: []string{id}})).NatGateways[0]
	}
	refused[*ec2.CreateNatGatewayOutput](t, "MissingParameter")(client.CreateNatGateway(ctx, &ec2.CreateNatGatewayInput{SubnetId: &o.subnet}))
	refused[*ec2.CreateNatGatewayOutput](t, "InvalidAllocationID.NotFound")(client.CreateNatGateway(ctx, &ec2.CreateNatGatewayInput{SubnetId: &o.subnet, AllocationId: aws.String("eipalloc-0123456789abcdef0")}))
	refused[*ec2.DescribeNatGatewaysOutput](t, "NatGatewayNotFound")(client.DescribeNatGateways(ctx, &ec2.DescribeNatGatewaysInput{NatGatewayIds: []string{"nat-0123456789abcdef0"}}))
	refused[*ec2.DescribeNatGatewaysOutput](t, "NatGatewayMalformed")(client.DescribeNatGateways(ctx, &ec2.DescribeNatGatewaysInput{NatGatewayIds: []string{"x"}}))

	address := got[*ec2.AllocateAddressOutput](t)(client.AllocateAddress(ctx, &ec2.AllocateAddressInput{Domain: types.DomainTypeVpc}))
	id := *create(*address.AllocationId, o.subnet).NatGateway.NatGatewayId
	gateway := describe(id)
	if gateway.State != types.NatGatewayStateAvailable || *gateway.VpcId != o.vpc || *gateway.NatGatewayAddresses[0].PublicIp != *address.PublicIp || !strings.HasPrefix(*gateway.NatGatewayAddresses[0].PrivateIp, "10.0.1.") {
		t.Errorf("the NAT gateway is %+v", gateway)
	}
	// A second gateway cannot have the same address: the gateway itself fails.
	second := create(*address.AllocationId, o.subnet).NatGateway.NatGatewayId
	if failed := describe(*second); failed.State != types.NatGatewayStateFailed || *failed.FailureCode != "Resource.AlreadyAssociated" {
		t.Errorf("a second NAT gateway with the address is %+v", failed)
	}
	interfaces := got[*ec2.DescribeNetworkInterfacesOutput](t)(client.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{Filters: where("subnet-id", o.subnet)})).NetworkInterfaces
	if len(interfaces) != 1 || interfaces[0].InterfaceType != types.NetworkInterfaceTypeNatGateway || !*interfaces[0].RequesterManaged || *interfaces[0].Description != "Interface for NAT Gateway "+id {
		t.Errorf("interfaces: %+v", interfaces)
	}

	private := got[*ec2.CreateRouteTableOutput](t)(client.CreateRouteTable(ctx, &ec2.CreateRouteTableInput{VpcId: &o.vpc})).RouteTable.RouteTableId
	refused[*ec2.CreateRouteOutput](t, "NatGatewayNotFound")(client.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: private, DestinationCidrBlock: aws.String("0.0.0.0/0"), NatGatewayId: aws.String("nat-0123456789abcdef0")}))
	got[*ec2.CreateRouteOutput](t)(client.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: private, DestinationCidrBlock: aws.String("0.0.0.0/0"), NatGatewayId: &id}))
	route := func() types.Route {
		t.Helper()
		return got[*ec2.DescribeRouteTablesOutput](t)(client.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{Filters: where("route.nat-gateway-id", id)})).RouteTables[0].Routes[1]
	}
	if r := route(); r.State != types.RouteStateActive {
		t.Errorf("the route is %+v", r)
	}
	// The address and the subnet are in use as long as the gateway exists.
	refused[*ec2.DisassociateAddressOutput](t, "AuthFailure")(client.DisassociateAddress(ctx, &ec2.DisassociateAddressInput{AssociationId: gateway.NatGatewayAddresses[0].AssociationId}))
	refused[*ec2.ReleaseAddressOutput](t, "InvalidIPAddress.InUse")(client.ReleaseAddress(ctx, &ec2.ReleaseAddressInput{AllocationId: address.AllocationId}))
	refused[*ec2.DeleteSubnetOutput](t, "DependencyViolation")(client.DeleteSubnet(ctx, &ec2.DeleteSubnetInput{SubnetId: &o.subnet}))

	got[*ec2.DeleteNatGatewayOutput](t)(client.DeleteNatGateway(ctx, &ec2.DeleteNatGatewayInput{NatGatewayId: &id}))
	if gone := describe(id); gone.State != types.NatGatewayStateDeleted || gone.DeleteTime == nil {
		t.Errorf("deleted, it is %+v", gone)
	}
	if r := route(); r.State != types.RouteStateBlackhole {
		t.Errorf("without its gateway the route is %+v", r)
	}
	got[*ec2.ReleaseAddressOutput](t)(client.ReleaseAddress(ctx, &ec2.ReleaseAddressInput{AllocationId: address.AllocationId}))
	got[*ec2.DeleteSubnetOutput](t)(client.DeleteSubnet(ctx, &ec2.DeleteSubnetInput{SubnetId: &o.subnet}))

	// The deleted gateway disappears later.
	ahead.Store(int64(2 * time.Hour))
	got[*ec2.DeleteNatGatewayOutput](t)(client.DeleteNatGateway(ctx, &ec2.DeleteNatGatewayInput{NatGatewayId: second}))
	refused[*ec2.DeleteNatGatewayOutput](t, "NatGatewayNotFound")(client.DeleteNatGateway(ctx, &ec2.DeleteNatGatewayInput{NatGatewayId: &id}))
}

// TestNetworkInterfaces creates an interface, attaches it, and checks what happens to it
// when the instance ends.
func TestNetworkInterfaces(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	o := newOwnVpc(t, client)
	create := func() string {
		t.Helper()
		made := got[*ec2.CreateNetworkInterfaceOutput](t)(client.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: &o.subnet, Groups: []string{o.group}, Description: aws.String("second")}))
		if made.NetworkInterface.Status != "pending" || *made.NetworkInterface.VpcId != o.vpc {
			t.Errorf("made %+v", made.NetworkInterface)
		}
		return *made.NetworkInterface.NetworkInterfaceId
	}
	describe := func(id string) types.NetworkInterface {
		t.Helper()
		return got[*ec2.DescribeNetworkInterfacesOutput](t)(client.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{id}})).NetworkInterfaces[0]
	}
	fixed := got[*ec2.CreateNetworkInterfaceOutput](t)(client.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: &o.subnet, PrivateIpAddress: aws.String("10.0.1.77")}))
	refused[*ec2.CreateNetworkInterfaceOutput](t, "InvalidIPAddress.InUse")(client.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: &o.subnet, PrivateIpAddress: aws.String("10.0.1.77")}))
	got[*ec2.DeleteNetworkInterfaceOutput](t)(client.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: fixed.NetworkInterface.NetworkInterfaceId}))
	refused[*ec2.DeleteNetworkInterfaceOutput](t, "InvalidNetworkInterfaceID.NotFound")(client.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: fixed.NetworkInterface.NetworkInterfaceId}))

	refused[*ec2.CreateNetworkInterfaceOutput](t, "Unsupported")(client.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: &o.subnet, Operator: &types.OperatorRequest{Principal: aws.String("x.amazonaws.com")}}))

	kept, ends := create(), create()
	if have := describe(kept); have.Status != types.NetworkInterfaceStatusAvailable || *have.Description != "second" || *have.Groups[0].GroupId != o.group {
		t.Errorf("the interface is %+v", have)
	}
	refused[*ec2.DeleteSecurityGroupOutput](t, "DependencyViolation")(client.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: &o.group}))
	instance := run(t, client, ec2.RunInstancesInput{SubnetId: &o.subnet, InstanceType: types.InstanceTypeT3Medium})
	await(t, client, *instance.InstanceId, types.InstanceStateNameRunning)
	attach := func(id string, index int32) (*ec2.AttachNetworkInterfaceOutput, error) {
		return client.AttachNetworkInterface(ctx, &ec2.AttachNetworkInterfaceInput{NetworkInterfaceId: &id, InstanceId: instance.InstanceId, DeviceIndex: &index})
	}
	refused[*ec2.AttachNetworkInterfaceOutput](t, "InvalidParameterValue")(attach(kept, 0))
	attachment := got[*ec2.AttachNetworkInterfaceOutput](t)(attach(kept, 1)).AttachmentId
	refused[*ec2.AttachNetworkInterfaceOutput](t, "InvalidNetworkInterface.InUse")(attach(kept, 2))
	refused[*ec2.AttachNetworkInterfaceOutput](t, "InvalidParameterValue")(attach(ends, 1))
	last := got[*ec2.AttachNetworkInterfaceOutput](t)(attach(ends, 2)).AttachmentId
	refused[*ec2.AttachNetworkInterfaceOutput](t, "AttachmentLimitExceeded")(attach(create(), 3))
	refused[*ec2.DeleteNetworkInterfaceOutput](t, "InvalidParameterValue")(client.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: &kept}))
	shown := got[*ec2.DescribeInstancesOutput](t)(client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{Filters: where("network-interface.network-interface-id", kept)})).Reservations
	if len(shown) != 1 || len(shown[0].Instances[0].NetworkInterfaces) != 3 || *shown[0].Instances[0].NetworkInterfaces[1].Attachment.DeviceIndex != 1 {
		t.Errorf("the instance shows %+v", shown)
	}
	primary := *instance.NetworkInterfaces[0].NetworkInterfaceId
	refused[*ec2.DeleteNetworkInterfaceOutput](t, "OperationNotPermitted")(client.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: &primary}))
	refused[*ec2.DetachNetworkInterfaceOutput](t, "OperationNotPermitted")(client.DetachNetworkInterface(ctx, &ec2.DetachNetworkInterfaceInput{AttachmentId: describe(primary).Attachment.AttachmentId}))
	refused[*ec2.AttachNetworkInterfaceOutput](t, "InvalidNetworkInterface.InUse")(attach(primary, 3))
	refused[*ec2.AttachNetworkInterfaceOutput](t, "Unsupported")(client.AttachNetworkInterface(ctx, &ec2.AttachNetworkInterfaceInput{NetworkInterfaceId: &kept, InstanceId: instance.InstanceId, DeviceIndex: aws.Int32(3), EnaQueueCount: aws.Int32(2)}))
	for _, in := range []ec2.ModifyInstanceAttributeInput{{Groups: []string{o.group}}, {SourceDestCheck: &types.AttributeBooleanValue{Value: aws.Bool(false)}}} {
		in.InstanceId = instance.InstanceId
		refused[*ec2.ModifyInstanceAttributeOutput](t, "InvalidInstanceID")(client.ModifyInstanceAttribute(ctx, &in))
	}
	refused[*ec2.CreateRouteOutput](t, "InvalidInstanceID")(client.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: &o.table, DestinationCidrBlock: aws.String("192.0.2.0/24"), InstanceId: instance.InstanceId}))
	elastic := got[*ec2.AllocateAddressOutput](t)(client.AllocateAddress(ctx, &ec2.AllocateAddressInput{})).AllocationId
	refused[*ec2.AssociateAddressOutput](t, "InvalidInstanceID")(client.AssociateAddress(ctx, &ec2.AssociateAddressInput{AllocationId: elastic, InstanceId: instance.InstanceId}))

	modify := func(in ec2.ModifyNetworkInterfaceAttributeInput) {
		t.Helper()
		in.NetworkInterfaceId = &primary
		got[*ec2.ModifyNetworkInterfaceAttributeOutput](t)(client.ModifyNetworkInterfaceAttribute(ctx, &in))
	}
	modify(ec2.ModifyNetworkInterfaceAttributeInput{Groups: []string{o.group}})
	modify(ec2.ModifyNetworkInterfaceAttributeInput{SourceDestCheck: &types.AttributeBooleanValue{Value: aws.Bool(false)}})
	modify(ec2.ModifyNetworkInterfaceAttributeInput{Description: &types.AttributeValue{Value: aws.String("first")}})
	modify(ec2.ModifyNetworkInterfaceAttributeInput{Attachment: &types.NetworkInterfaceAttachmentChanges{AttachmentId: describe(primary).Attachment.AttachmentId, DeleteOnTermination: aws.Bool(false)}})
	if have := describe(primary); *have.Groups[0].GroupId != o.group || *have.SourceDestCheck || *have.Description != "first" || *have.Attachment.DeleteOnTermination {
		t.Errorf("the primary interface is %+v", have)
	}
	if row := await(t, client, *instance.InstanceId, types.InstanceStateNameRunning); *row.SecurityGroups[0].GroupId != o.group || *row.SourceDestCheck {
		t.Errorf("its instance is %+v", row)
	}
	refused[*ec2.ModifyNetworkInterfaceAttributeOutput](t, "InvalidAttachmentID.NotFound")(client.ModifyNetworkInterfaceAttribute(ctx, &ec2.ModifyNetworkInterfaceAttributeInput{NetworkInterfaceId: &primary,
		Attachment: &types.NetworkInterfaceAttachmentChanges{AttachmentId: attachment, DeleteOnTermination: aws.Bool(true)}}))

	got[*ec2.ModifyNetworkInterfaceAttributeOutput](t)(client.ModifyNetworkInterfaceAttribute(ctx, &ec2.ModifyNetworkInterfaceAttributeInput{NetworkInterfaceId: &ends,
		Attachment: &types.NetworkInterfaceAttachmentChanges{AttachmentId: last, DeleteOnTermination: aws.Bool(true)}}))
	got[*ec2.ModifyNetworkInterfaceAttributeOutput](t)(client.ModifyNetworkInterfaceAttribute(ctx, &ec2.ModifyNetworkInterfaceAttributeInput{NetworkInterfaceId: &kept, SourceDestCheck: &types.AttributeBooleanValue{Value: aws.Bool(false)}}))
	checked := got[*ec2.DescribeNetworkInterfaceAttributeOutput](t)(client.DescribeNetworkInterfaceAttribute(ctx, &ec2.DescribeNetworkInterfaceAttributeInput{NetworkInterfaceId: &kept, Attribute: types.NetworkInterfaceAttributeSourceDestCheck}))
	if *checked.SourceDestCheck.Value {
		t.Error("the attribute has not changed")
	}

	got[*ec2.DetachNetworkInterfaceOutput](t)(client.DetachNetworkInterface(ctx, &ec2.DetachNetworkInterfaceInput{AttachmentId: attachment}))
	got[*ec2.AttachNetworkInterfaceOutput](t)(attach(kept, 1))
	got[*ec2.TerminateInstancesOutput](t)(client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*instance.InstanceId}}))
	await(t, client, *instance.InstanceId, types.InstanceStateNameTerminated)
	if have := describe(kept); have.Status != types.NetworkInterfaceStatusAvailable || have.Attachment != nil {
		t.Errorf("after its instance it is %+v", have)
	}
	if have := describe(primary); have.Status != types.NetworkInterfaceStatusAvailable || have.Attachment != nil || *have.Description != "first" || *have.SourceDestCheck {
		t.Errorf("after its instance the one that it was launched with is %+v", have)
	}
	refused[*ec2.DescribeNetworkInterfacesOutput](t, "InvalidNetworkInterfaceID.NotFound")(client.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{ends}}))
}

// TestLaunchWithInterface launches an instance with an existing interface, whose address
// and groups it gets. The interface outlives this instance and is deleted with the next.
func TestLaunchWithInterface(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	o := newOwnVpc(t, client)
	made := got[*ec2.CreateNetworkInterfaceOutput](t)(client.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: &o.subnet, Groups: []string{o.group}, Description: aws.String("mine"),
		PrivateIpAddress: aws.String("10.0.1.77"), TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeNetworkInterface, Tags: []types.Tag{{Key: aws.String("Name"), Value: aws.String("mine")}}}}})).NetworkInterface
	id := *made.NetworkInterfaceId
	describe := func() types.NetworkInterface {
		t.Helper()
		found := got[*ec2.DescribeNetworkInterfacesOutput](t)(client.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{Filters: where("network-interface-id", id)})).NetworkInterfaces
		if len(found) != 1 {
			t.Fatalf("there are %d of it", len(found))
		}
		return found[0]
	}
	asked := func(change func(in *ec2.RunInstancesInput, i *types.InstanceNetworkInterfaceSpecification)) ec2.RunInstancesInput {
		in := ec2.RunInstancesInput{NetworkInterfaces: []types.InstanceNetworkInterfaceSpecification{{DeviceIndex: aws.Int32(0), NetworkInterfaceId: &id}}}
		if change != nil {
			change(&in, &in.NetworkInterfaces[0])
		}
		return in
	}
	first := run(t, client, asked(nil))
	if *first.PrivateIpAddress != "10.0.1.77" || *first.SubnetId != o.subnet || *first.SecurityGroups[0].GroupId != o.group || len(first.NetworkInterfaces) != 1 {
		t.Errorf("the instance is %+v", first)
	}
	if i := first.NetworkInterfaces[0]; *i.NetworkInterfaceId != id || *i.MacAddress != *made.MacAddress || *i.Attachment.DeleteOnTermination || *i.Attachment.DeviceIndex != 0 {
		t.Errorf("its interface is %+v", i)
	}
	if running := await(t, client, *first.InstanceId, types.InstanceStateNameRunning); aws.ToString(running.PublicIpAddress) != "" {
		t.Errorf("an interface that exists got the public address %s", *running.PublicIpAddress)
	}
	if have := describe(); have.Status != types.NetworkInterfaceStatusInUse || *have.Attachment.InstanceId != *first.InstanceId || *have.Description != "mine" || len(have.TagSet) != 1 {
		t.Errorf("in use, it is %+v", have)
	}
	type spec = types.InstanceNetworkInterfaceSpecification
	launch := func(change func(in *ec2.RunInstancesInput, i *spec)) (*ec2.RunInstancesOutput, error) {
		in := asked(change)
		in.ImageId, in.InstanceType, in.MinCount, in.MaxCount = first.ImageId, types.InstanceTypeT3Micro, aws.Int32(1), cmp.Or(in.MaxCount, aws.Int32(1))
		return client.RunInstances(ctx, &in)
	}
	named := func(id string) func(*ec2.RunInstancesInput, *spec) {
		return func(_ *ec2.RunInstancesInput, i *spec) { i.NetworkInterfaceId = &id }
	}
	refused[*ec2.RunInstancesOutput](t, "InvalidNetworkInterface.InUse")(launch(nil))
	refused[*ec2.RunInstancesOutput](t, "InvalidNetworkInterfaceID.NotFound")(launch(named("eni-0123456789abcdef0")))
	refused[*ec2.RunInstancesOutput](t, "InvalidNetworkInterfaceID.Malformed")(launch(named("eni")))
	end := func(instance types.Instance) {
		t.Helper()
		got[*ec2.TerminateInstancesOutput](t)(client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*instance.InstanceId}}))
		await(t, client, *instance.InstanceId, types.InstanceStateNameTerminated)
	}
	end(first)
	if have := describe(); have.Status != types.NetworkInterfaceStatusAvailable || have.Attachment != nil || *have.PrivateIpAddress != "10.0.1.77" || *have.Groups[0].GroupId != o.group || len(have.TagSet) != 1 {
		t.Errorf("after its instance it is %+v", have)
	}

	for _, change := range []func(in *ec2.RunInstancesInput, i *spec){
		func(in *ec2.RunInstancesInput, _ *spec) { in.SubnetId = &o.subnet },
		func(in *ec2.RunInstancesInput, _ *spec) { in.SecurityGroupIds = []string{o.group} },
		func(in *ec2.RunInstancesInput, _ *spec) { in.PrivateIpAddress = aws.String("10.0.1.9") },
		func(in *ec2.RunInstancesInput, _ *spec) { in.MaxCount = aws.Int32(2) },
		func(in *ec2.RunInstancesInput, _ *spec) {
			in.Placement = &types.Placement{AvailabilityZone: aws.String("us-east-1f")}
		},
		func(_ *ec2.RunInstancesInput, i *spec) { i.SubnetId = &o.subnet },
		func(_ *ec2.RunInstancesInput, i *spec) { i.Groups = []string{o.group} },
		func(_ *ec2.RunInstancesInput, i *spec) { i.PrivateIpAddress = aws.String("10.0.1.9") },
		func(_ *ec2.RunInstancesInput, i *spec) { i.Description = aws.String("other") },
		func(_ *ec2.RunInstancesInput, i *spec) { i.AssociatePublicIpAddress = aws.Bool(true) },
		func(_ *ec2.RunInstancesInput, i *spec) { i.DeleteOnTermination = aws.Bool(true) },
	} {
		refused[*ec2.RunInstancesOutput](t, "InvalidParameterCombination")(launch(change))
	}
	second := run(t, client, asked(nil))
	got[*ec2.ModifyNetworkInterfaceAttributeOutput](t)(client.ModifyNetworkInterfaceAttribute(ctx, &ec2.ModifyNetworkInterfaceAttributeInput{NetworkInterfaceId: &id,
		Attachment: &types.NetworkInterfaceAttachmentChanges{AttachmentId: describe().Attachment.AttachmentId, DeleteOnTermination: aws.Bool(true)}}))
	end(second)
	refused[*ec2.DescribeNetworkInterfacesOutput](t, "InvalidNetworkInterfaceID.NotFound")(client.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{id}}))
}

// TestInterfaceAfterCrash ends the cloud between the two writes of a launch with an
// interface: afterwards, the interface belongs to the instance only.
func TestInterfaceAfterCrash(t *testing.T) {
	dir := t.TempDir()
	networks := map[string][]byte{}
	var id string
	serveOnce(t, cloud.Options{Dir: dir}, func(s *cloudtest.Server) {
		client := s.EC2("default", "us-east-1")
		o := newOwnVpc(t, client)
		id = *got[*ec2.CreateNetworkInterfaceOutput](t)(client.CreateNetworkInterface(t.Context(), &ec2.CreateNetworkInterfaceInput{SubnetId: &o.subnet})).NetworkInterface.NetworkInterfaceId
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && filepath.Base(filepath.Dir(path)) == "networks" {
				networks[path], err = os.ReadFile(path)
			}
			return err
		})
		if err != nil || len(networks) == 0 {
			t.Fatalf("%d files of networks, %v", len(networks), err)
		}
		run(t, client, ec2.RunInstancesInput{NetworkInterfaces: []types.InstanceNetworkInterfaceSpecification{{DeviceIndex: aws.Int32(0), NetworkInterfaceId: &id}}})
	})
	for path, data := range networks {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	serveOnce(t, cloud.Options{Dir: dir}, func(s *cloudtest.Server) {
		found := got[*ec2.DescribeNetworkInterfacesOutput](t)(s.EC2("default", "us-east-1").DescribeNetworkInterfaces(t.Context(), &ec2.DescribeNetworkInterfacesInput{Filters: where("network-interface-id", id)})).NetworkInterfaces
		if len(found) != 1 || found[0].Status != types.NetworkInterfaceStatusInUse {
			t.Errorf("after the crash there are %+v", found)
		}
	})
}

// TestVpcEndpoints creates and deletes endpoints of both types.
func TestVpcEndpoints(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	o := newOwnVpc(t, client)
	create := func(in ec2.CreateVpcEndpointInput) (*ec2.CreateVpcEndpointOutput, error) {
		in.VpcId = &o.vpc
		return client.CreateVpcEndpoint(ctx, &in)
	}
	refused[*ec2.CreateVpcEndpointOutput](t, "InvalidServiceName")(create(ec2.CreateVpcEndpointInput{ServiceName: aws.String("com.amazonaws.eu-west-1.s3")}))
	refused[*ec2.CreateVpcEndpointOutput](t, "InvalidRouteTableId.NotFound")(create(ec2.CreateVpcEndpointInput{ServiceName: aws.String("com.amazonaws.us-east-1.s3"), RouteTableIds: []string{"rtb-0123456789abcdef0"}}))
	refused[*ec2.CreateVpcEndpointOutput](t, "Unsupported")(create(ec2.CreateVpcEndpointInput{ServiceName: aws.String("com.amazonaws.us-east-1.s3"), IpAddressType: types.IpAddressTypeDualstack}))
	gateway := got[*ec2.CreateVpcEndpointOutput](t)(create(ec2.CreateVpcEndpointInput{ServiceName: aws.String("com.amazonaws.us-east-1.s3"), RouteTableIds: []string{o.table}})).VpcEndpoint
	lists := got[*ec2.DescribePrefixListsOutput](t)(client.DescribePrefixLists(ctx, &ec2.DescribePrefixListsInput{Filters: where("prefix-list-name", *gateway.ServiceName)})).PrefixLists
	routes := func() []types.Route {
		t.Helper()
		return got[*ec2.DescribeRouteTablesOutput](t)(client.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{RouteTableIds: []string{o.table}})).RouteTables[0].Routes
	}
	led := func(r types.Route) bool {
		return aws.ToString(r.GatewayId) == *gateway.VpcEndpointId && *r.DestinationPrefixListId == *lists[0].PrefixListId && r.State == types.RouteStateActive
	}
	if !slices.ContainsFunc(routes(), led) {
		t.Errorf("no route to the endpoint: %+v", routes())
	}
	refused[*ec2.DeleteRouteOutput](t, "InvalidRoute.NotFound")(client.DeleteRoute(ctx, &ec2.DeleteRouteInput{RouteTableId: &o.table}))
	refused[*ec2.CreateVpcEndpointOutput](t, "RouteAlreadyExists")(create(ec2.CreateVpcEndpointInput{ServiceName: aws.String("com.amazonaws.us-east-1.s3"), RouteTableIds: []string{o.table}}))
	refused[*ec2.ModifyVpcEndpointOutput](t, "Unsupported")(client.ModifyVpcEndpoint(ctx, &ec2.ModifyVpcEndpointInput{VpcEndpointId: gateway.VpcEndpointId, IpAddressType: types.IpAddressTypeIpv6}))
	got[*ec2.ModifyVpcEndpointOutput](t)(client.ModifyVpcEndpoint(ctx, &ec2.ModifyVpcEndpointInput{VpcEndpointId: gateway.VpcEndpointId, RemoveRouteTableIds: []string{o.table}, PolicyDocument: aws.String(`{"Statement":[]}`)}))
	if slices.ContainsFunc(routes(), led) {
		t.Error("the route is still there")
	}
	private := got[*ec2.CreateVpcEndpointOutput](t)(create(ec2.CreateVpcEndpointInput{ServiceName: aws.String("com.amazonaws.us-east-1.ssm"), VpcEndpointType: types.VpcEndpointTypeInterface,
		SubnetIds: []string{o.subnet}, SecurityGroupIds: []string{o.group}, PrivateDnsEnabled: aws.Bool(true)})).VpcEndpoint
	found := got[*ec2.DescribeVpcEndpointsOutput](t)(client.DescribeVpcEndpoints(ctx, &ec2.DescribeVpcEndpointsInput{Filters: slices.Concat(where("vpc-id", o.vpc), where("vpc-endpoint-type", "Interface"))})).VpcEndpoints
	if len(found) != 1 || found[0].State != "available" || *found[0].Groups[0].GroupId != o.group || len(found[0].NetworkInterfaceIds) != 1 || !strings.HasPrefix(*found[0].DnsEntries[0].DnsName, *private.VpcEndpointId+".ssm.") {
		t.Errorf("found %+v", found)
	}
	card := got[*ec2.DescribeNetworkInterfacesOutput](t)(client.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: found[0].NetworkInterfaceIds})).NetworkInterfaces[0]
	if card.InterfaceType != types.NetworkInterfaceTypeVpcEndpoint || *card.SubnetId != o.subnet {
		t.Errorf("its interface is %+v", card)
	}
	deleted := got[*ec2.DeleteVpcEndpointsOutput](t)(client.DeleteVpcEndpoints(ctx, &ec2.DeleteVpcEndpointsInput{VpcEndpointIds: []string{*gateway.VpcEndpointId, *private.VpcEndpointId, "vpce-0123456789abcdef0"}}))
	if len(deleted.Unsuccessful) != 1 || *deleted.Unsuccessful[0].Error.Code != "InvalidVpcEndpointId.NotFound" {
		t.Errorf("answered %+v", deleted.Unsuccessful)
	}
	refused[*ec2.DescribeVpcEndpointsOutput](t, "InvalidVpcEndpointId.NotFound")(client.DescribeVpcEndpoints(ctx, &ec2.DescribeVpcEndpointsInput{VpcEndpointIds: []string{*private.VpcEndpointId}}))
	got[*ec2.DeleteSubnetOutput](t)(client.DeleteSubnet(ctx, &ec2.DeleteSubnetInput{SubnetId: &o.subnet}))
}

// TestNetworkAclsAndDhcp creates what Terraform creates.
func TestNetworkAclsAndDhcp(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	o := newOwnVpc(t, client)
	acl := got[*ec2.CreateNetworkAclOutput](t)(client.CreateNetworkAcl(ctx, &ec2.CreateNetworkAclInput{VpcId: &o.vpc})).NetworkAcl
	if len(acl.Entries) != 2 || *acl.IsDefault {
		t.Errorf("a new network ACL is %+v", acl)
	}
	entry := func(number, from, to int32) *ec2.CreateNetworkAclEntryInput {
		return &ec2.CreateNetworkAclEntryInput{NetworkAclId: acl.NetworkAclId, RuleNumber: &number, Egress: aws.Bool(false), Protocol: aws.String("6"), RuleAction: types.RuleActionAllow,
			CidrBlock: aws.String("0.0.0.0/0"), PortRange: &types.PortRange{From: &from, To: &to}}
	}
	got[*ec2.CreateNetworkAclEntryOutput](t)(client.CreateNetworkAclEntry(ctx, entry(100, 22, 22)))
	refused[*ec2.CreateNetworkAclEntryOutput](t, "NetworkAclEntryAlreadyExists")(client.CreateNetworkAclEntry(ctx, entry(100, 80, 80)))
	refused[*ec2.CreateNetworkAclEntryOutput](t, "InvalidParameterValue")(client.CreateNetworkAclEntry(ctx, entry(32767, 80, 80)))
	refused[*ec2.CreateNetworkAclEntryOutput](t, "InvalidParameterValue")(client.CreateNetworkAclEntry(ctx, entry(110, 81, 80)))
	got[*ec2.ReplaceNetworkAclEntryOutput](t)(client.ReplaceNetworkAclEntry(ctx, &ec2.ReplaceNetworkAclEntryInput{NetworkAclId: acl.NetworkAclId, RuleNumber: aws.Int32(100), Egress: aws.Bool(false),
		Protocol: aws.String("-1"), RuleAction: types.RuleActionDeny, CidrBlock: aws.String("10.0.0.0/8")}))
	refused[*ec2.DeleteNetworkAclEntryOutput](t, "InvalidNetworkAclEntry.NotFound")(client.DeleteNetworkAclEntry(ctx, &ec2.DeleteNetworkAclEntryInput{NetworkAclId: acl.NetworkAclId, RuleNumber: aws.Int32(100), Egress: aws.Bool(true)}))
	find := func(name, value string) []types.NetworkAcl {
		t.Helper()
		return got[*ec2.DescribeNetworkAclsOutput](t)(client.DescribeNetworkAcls(ctx, &ec2.DescribeNetworkAclsInput{Filters: where(name, value)})).NetworkAcls
	}
	if have := find("entry.cidr", "10.0.0.0/8"); len(have) != 1 || *have[0].NetworkAclId != *acl.NetworkAclId {
		t.Errorf("with the entry there are %+v", have)
	}
	first := find("association.subnet-id", o.subnet)[0].Associations[0].NetworkAclAssociationId
	moved := got[*ec2.ReplaceNetworkAclAssociationOutput](t)(client.ReplaceNetworkAclAssociation(ctx, &ec2.ReplaceNetworkAclAssociationInput{AssociationId: first, NetworkAclId: acl.NetworkAclId}))
	if have := find("association.subnet-id", o.subnet); len(have) != 1 || *have[0].NetworkAclId != *acl.NetworkAclId {
		t.Errorf("the subnet has %+v", have)
	}
	remove := &ec2.DeleteNetworkAclInput{NetworkAclId: acl.NetworkAclId}
	refused[*ec2.DeleteNetworkAclOutput](t, "DependencyViolation")(client.DeleteNetworkAcl(ctx, remove))
	normal := find("vpc-id", o.vpc)
	standard := normal[slices.IndexFunc(normal, func(a types.NetworkAcl) bool { return *a.IsDefault })].NetworkAclId
	refused[*ec2.DeleteNetworkAclOutput](t, "InvalidParameterValue")(client.DeleteNetworkAcl(ctx, &ec2.DeleteNetworkAclInput{NetworkAclId: standard}))
	got[*ec2.ReplaceNetworkAclAssociationOutput](t)(client.ReplaceNetworkAclAssociation(ctx, &ec2.ReplaceNetworkAclAssociationInput{AssociationId: moved.NewAssociationId, NetworkAclId: standard}))
	got[*ec2.DeleteNetworkAclOutput](t)(client.DeleteNetworkAcl(ctx, remove))

	options := got[*ec2.CreateDhcpOptionsOutput](t)(client.CreateDhcpOptions(ctx, &ec2.CreateDhcpOptionsInput{DhcpConfigurations: []types.NewDhcpConfiguration{{Key: aws.String("domain-name"), Values: []string{"example.test"}}}})).DhcpOptions
	refused[*ec2.CreateDhcpOptionsOutput](t, "InvalidParameterValue")(client.CreateDhcpOptions(ctx, &ec2.CreateDhcpOptionsInput{DhcpConfigurations: []types.NewDhcpConfiguration{{Key: aws.String("domain"), Values: []string{"x"}}}}))
	got[*ec2.AssociateDhcpOptionsOutput](t)(client.AssociateDhcpOptions(ctx, &ec2.AssociateDhcpOptionsInput{VpcId: &o.vpc, DhcpOptionsId: options.DhcpOptionsId}))
	if v := got[*ec2.DescribeVpcsOutput](t)(client.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{Filters: where("dhcp-options-id", *options.DhcpOptionsId)})).Vpcs; len(v) != 1 || *v[0].VpcId != o.vpc {
		t.Errorf("with the options there are %+v", v)
	}
	refused[*ec2.DeleteDhcpOptionsOutput](t, "DependencyViolation")(client.DeleteDhcpOptions(ctx, &ec2.DeleteDhcpOptionsInput{DhcpOptionsId: options.DhcpOptionsId}))
	got[*ec2.AssociateDhcpOptionsOutput](t)(client.AssociateDhcpOptions(ctx, &ec2.AssociateDhcpOptionsInput{VpcId: &o.vpc, DhcpOptionsId: aws.String("default")}))
	got[*ec2.DeleteDhcpOptionsOutput](t)(client.DeleteDhcpOptions(ctx, &ec2.DeleteDhcpOptionsInput{DhcpOptionsId: options.DhcpOptionsId}))
}

// TestModifyVolume grows a volume, and asks for impossible changes.
func TestModifyVolume(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	made := got[*ec2.CreateVolumeOutput](t)(client.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-east-1a"), Size: aws.Int32(10), VolumeType: types.VolumeTypeGp2}))
	modify := func(in ec2.ModifyVolumeInput) (*ec2.ModifyVolumeOutput, error) {
		in.VolumeId = made.VolumeId
		return client.ModifyVolume(ctx, &in)
	}
	refused[*ec2.DescribeVolumesModificationsOutput](t, "InvalidVolumeModification.NotFound")(client.DescribeVolumesModifications(ctx, &ec2.DescribeVolumesModificationsInput{VolumeIds: []string{*made.VolumeId}}))
	refused[*ec2.ModifyVolumeOutput](t, "InvalidParameterValue")(modify(ec2.ModifyVolumeInput{Size: aws.Int32(9)}))
	refused[*ec2.ModifyVolumeOutput](t, "InvalidParameterValue")(modify(ec2.ModifyVolumeInput{}))
	refused[*ec2.ModifyVolumeOutput](t, "InvalidParameterCombination")(modify(ec2.ModifyVolumeInput{Iops: aws.Int32(4000)}))
	m := got[*ec2.ModifyVolumeOutput](t)(modify(ec2.ModifyVolumeInput{Size: aws.Int32(20), VolumeType: types.VolumeTypeGp3, Iops: aws.Int32(4000)})).VolumeModification
	if m.ModificationState != types.VolumeModificationStateModifying || *m.OriginalSize != 10 || *m.OriginalIops != 100 || *m.TargetSize != 20 || *m.TargetIops != 4000 || *m.TargetThroughput != 125 {
		t.Errorf("answered %+v", m)
	}
	done := got[*ec2.DescribeVolumesModificationsOutput](t)(client.DescribeVolumesModifications(ctx, &ec2.DescribeVolumesModificationsInput{VolumeIds: []string{*made.VolumeId}})).VolumesModifications
	if len(done) != 1 || done[0].ModificationState != types.VolumeModificationStateCompleted || *done[0].Progress != 100 {
		t.Errorf("described %+v", done)
	}
	v := got[*ec2.DescribeVolumesOutput](t)(client.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{*made.VolumeId}})).Volumes[0]
	if *v.Size != 20 || v.VolumeType != types.VolumeTypeGp3 || *v.Iops != 4000 {
		t.Errorf("the volume is %+v", v)
	}
}

// TestInstanceRecords covers snapshots of all volumes, credits, monitoring, and spot
// requests.
func TestInstanceRecords(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	instance := run(t, client, ec2.RunInstancesInput{CreditSpecification: &types.CreditSpecificationRequest{CpuCredits: aws.String("standard")},
		BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/sdf"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(1)}}}})
	id := *instance.InstanceId
	await(t, client, id, types.InstanceStateNameRunning)

	taken := got[*ec2.CreateSnapshotsOutput](t)(client.CreateSnapshots(ctx, &ec2.CreateSnapshotsInput{InstanceSpecification: &types.InstanceSpecification{InstanceId: &id}, Description: aws.String("both")})).Snapshots
	if len(taken) != 2 || *taken[0].Description != "both" || taken[0].State != types.SnapshotStatePending || taken[0].Tags == nil {
		t.Fatalf("answered %+v", taken)
	}
	for _, snap := range taken {
		eventually(t, *snap.SnapshotId+" completed", func() bool {
			out := got[*ec2.DescribeSnapshotsOutput](t)(client.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*snap.SnapshotId}}))
			return out.Snapshots[0].State == types.SnapshotStateCompleted
		})
	}
	data := got[*ec2.CreateSnapshotsOutput](t)(client.CreateSnapshots(ctx, &ec2.CreateSnapshotsInput{InstanceSpecification: &types.InstanceSpecification{InstanceId: &id, ExcludeBootVolume: aws.Bool(true)}})).Snapshots
	if len(data) != 1 || *data[0].VolumeSize != 1 {
		t.Errorf("without the root: %+v", data)
	}
	refused[*ec2.CreateSnapshotsOutput](t, "InvalidParameterValue")(client.CreateSnapshots(ctx, &ec2.CreateSnapshotsInput{InstanceSpecification: &types.InstanceSpecification{InstanceId: &id, ExcludeDataVolumeIds: []string{"vol-0123456789abcdef0"}}}))

	credits := func() string {
		t.Helper()
		out := got[*ec2.DescribeInstanceCreditSpecificationsOutput](t)(client.DescribeInstanceCreditSpecifications(ctx, &ec2.DescribeInstanceCreditSpecificationsInput{InstanceIds: []string{id}}))
		return *out.InstanceCreditSpecifications[0].CpuCredits
	}
	if credits() != "standard" {
		t.Errorf("launched with standard credits, it has %s", credits())
	}
	plain := run(t, client, ec2.RunInstancesInput{InstanceType: types.InstanceTypeM5Large})
	changed := got[*ec2.ModifyInstanceCreditSpecificationOutput](t)(client.ModifyInstanceCreditSpecification(ctx, &ec2.ModifyInstanceCreditSpecificationInput{InstanceCreditSpecifications: []types.InstanceCreditSpecificationRequest{
		{InstanceId: &id, CpuCredits: aws.String("unlimited")}, {InstanceId: plain.InstanceId, CpuCredits: aws.String("standard")}}}))
	if len(changed.SuccessfulInstanceCreditSpecifications) != 1 || len(changed.UnsuccessfulInstanceCreditSpecifications) != 1 || credits() != "unlimited" {
		t.Errorf("changed %+v, and it has %s", changed, credits())
	}
	refused[*ec2.DescribeInstanceCreditSpecificationsOutput](t, "UnsupportedOperation")(client.DescribeInstanceCreditSpecifications(ctx, &ec2.DescribeInstanceCreditSpecificationsInput{InstanceIds: []string{*plain.InstanceId}}))

	monitored := got[*ec2.MonitorInstancesOutput](t)(client.MonitorInstances(ctx, &ec2.MonitorInstancesInput{InstanceIds: []string{id}})).InstanceMonitorings
	if monitored[0].Monitoring.State != types.MonitoringStatePending || await(t, client, id, types.InstanceStateNameRunning).Monitoring.State != types.MonitoringStateEnabled {
		t.Errorf("monitored: %+v", monitored)
	}
	monitored = got[*ec2.MonitorInstancesOutput](t)(client.MonitorInstances(ctx, &ec2.MonitorInstancesInput{InstanceIds: []string{id, *plain.InstanceId}})).InstanceMonitorings
	if monitored[0].Monitoring.State != types.MonitoringStateEnabled || monitored[1].Monitoring.State != types.MonitoringStatePending {
		t.Errorf("one of two was monitored: %+v", monitored)
	}
	got[*ec2.UnmonitorInstancesOutput](t)(client.UnmonitorInstances(ctx, &ec2.UnmonitorInstancesInput{InstanceIds: []string{id}}))

	requests := got[*ec2.RequestSpotInstancesOutput](t)(client.RequestSpotInstances(ctx, &ec2.RequestSpotInstancesInput{InstanceCount: aws.Int32(2), SpotPrice: aws.String("0.05"),
		LaunchSpecification: &types.RequestSpotLaunchSpecification{ImageId: instance.ImageId, InstanceType: types.InstanceTypeT3Micro}})).SpotInstanceRequests
	if len(requests) != 2 || requests[0].State != types.SpotInstanceStateOpen || requests[0].InstanceId != nil || *requests[0].SpotPrice != "0.05" {
		t.Fatalf("answered %+v", requests)
	}
	fulfilled := got[*ec2.DescribeSpotInstanceRequestsOutput](t)(client.DescribeSpotInstanceRequests(ctx, &ec2.DescribeSpotInstanceRequestsInput{SpotInstanceRequestIds: []string{*requests[0].SpotInstanceRequestId}})).SpotInstanceRequests[0]
	for kind, want := range map[types.InstanceType]int{types.InstanceTypeT3Micro: 2, types.InstanceTypeM5Large: 0} {
		launched := []types.Filter{{Name: aws.String("launch.instance-type"), Values: []string{string(kind)}}, {Name: aws.String("spot-price"), Values: []string{"0.05*"}}}
		if of := got[*ec2.DescribeSpotInstanceRequestsOutput](t)(client.DescribeSpotInstanceRequests(ctx, &ec2.DescribeSpotInstanceRequestsInput{Filters: launched})); len(of.SpotInstanceRequests) != want {
			t.Errorf("%d requests for %s, not %d", len(of.SpotInstanceRequests), kind, want)
		}
	}
	if fulfilled.State != types.SpotInstanceStateActive || *fulfilled.LaunchSpecification.ImageId != *instance.ImageId {
		t.Errorf("described %+v", fulfilled)
	}
	if spot := await(t, client, *fulfilled.InstanceId, types.InstanceStateNameRunning); spot.InstanceLifecycle != types.InstanceLifecycleTypeSpot {
		t.Errorf("the instance is %+v", spot)
	}
	refused[*ec2.RequestSpotInstancesOutput](t, "InvalidAMIID.NotFound")(client.RequestSpotInstances(ctx, &ec2.RequestSpotInstancesInput{LaunchSpecification: &types.RequestSpotLaunchSpecification{ImageId: aws.String("ami-0123456789abcdef0")}}))
}

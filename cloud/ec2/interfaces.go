package ec2

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// Network interfaces other than the one an instance is launched with are only recorded:
// they hold an address of their subnet and can be attached to an instance, but the machine
// does not get another network card. The interface that an instance is launched with,
// whether new or an existing one, is stored in the instance's row. When the instance ends,
// it becomes a record of its own unless it is deleted on termination.

// newInterface returns an interface in a subnet, with a free address of the subnet.
func (s *state) newInterface(c wire.Caller, subnet types.Subnet, groups []types.GroupIdentifier, private string) (types.NetworkInterface, error) {
	id := newID("eni")
	address, err := s.privateAddress(&placement{subnet: subnet, private: private}, id)
	if err != nil {
		return types.NetworkInterface{}, err
	}
	text, name := address.String(), privateName(address, c.Region)
	return types.NetworkInterface{
		NetworkInterfaceId: &id, Description: aws.String(""), Groups: groups, InterfaceType: types.NetworkInterfaceTypeInterface, MacAddress: aws.String(macAddress(id)),
		OwnerId: &c.Account, PrivateDnsName: &name, PrivateIpAddress: &text, SourceDestCheck: aws.Bool(true), Status: types.NetworkInterfaceStatusAvailable,
		PrivateIpAddresses: []types.NetworkInterfacePrivateIpAddress{{Primary: aws.Bool(true), PrivateDnsName: &name, PrivateIpAddress: &text}},
		SubnetId:           subnet.SubnetId, VpcId: subnet.VpcId, AvailabilityZone: subnet.AvailabilityZone, RequesterManaged: aws.Bool(false),
	}, nil
}

// managed marks an interface as managed by a service. Only that service can delete it.
func managed(i *types.NetworkInterface, kind types.NetworkInterfaceType, description string) {
	i.InterfaceType, i.Description, i.RequesterManaged, i.Status = kind, &description, aws.Bool(true), types.NetworkInterfaceStatusInUse
	i.RequesterId = aws.String("amazon-aws")
}

// subnetFor returns the subnet that a request names.
func (s *state) subnetFor(n *networking, id *string) (types.Subnet, error) {
	i, err := s.indexOf(kindSubnet, n.Subnets, id)
	if err != nil {
		return types.Subnet{}, err
	}
	return n.Subnets[i], nil
}

// interfaceOf returns the caller's networks and the index of an interface in them.
// Interfaces that instances were launched with are not found.
func (s *state) interfaceOf(c wire.Caller, id *string) (*networking, int, error) {
	n, err := s.networkOf(c)
	if err != nil {
		return nil, 0, err
	}
	i, err := s.indexOf(kindInterface, n.Interfaces, id)
	if err == nil {
		return n, i, nil
	}
	if row := s.launchedWith(c, id); row != nil {
		return nil, 0, wire.Errorf("OperationNotPermitted", "The network interface '%s' is the primary one of the instance '%s'.", *id, *row.InstanceId)
	}
	return nil, 0, err
}

// launchedWith returns the caller's instance that was launched with an interface, or nil.
func (s *state) launchedWith(c wire.Caller, id *string) *instance {
	if aws.ToString(id) == "" {
		return nil
	}
	for _, row := range s.instances.of(c) {
		if slices.ContainsFunc(row.NetworkInterfaces, func(i types.InstanceNetworkInterface) bool { return *i.NetworkInterfaceId == *id }) {
			return row
		}
	}
	return nil
}

// freeInterface returns an interface with which an instance may be launched.
func (s *state) freeInterface(c wire.Caller, id string) (*types.NetworkInterface, error) {
	if s.launchedWith(c, &id) != nil {
		return nil, errInterfaceInUse(&id)
	}
	n, i, err := s.interfaceOf(c, &id)
	if err != nil {
		return nil, err
	}
	if n.Interfaces[i].Status == types.NetworkInterfaceStatusInUse {
		return nil, errInterfaceInUse(&id)
	}
	free := n.Interfaces[i]
	return &free, nil
}

// dropInterface deletes the record of an interface.
func (n *networking) dropInterface(id string) {
	n.Interfaces = slices.DeleteFunc(n.Interfaces, func(i types.NetworkInterface) bool { return *i.NetworkInterfaceId == id })
}

// endInterface deletes the record of an interface that no longer exists and disassociates
// its elastic address.
func (n *networking) endInterface(id string) {
	n.dropInterface(id)
	if a := n.addressOf(id); a != nil {
		free(a)
	}
}

// oneInterface reports an instance that has several interfaces, so that the request must
// name one.
func (n *networking) oneInterface(row *instance) error {
	if len(n.attachedInterfaces(*row.InstanceId)) == 0 {
		return nil
	}
	return wire.Errorf("InvalidInstanceID", "There are multiple interfaces attached to instance '%s'. Please specify an interface ID for the operation instead.", *row.InstanceId)
}

// CreateNetworkInterface creates an unattached interface.
func (s *state) CreateNetworkInterface(ctx context.Context, in *ec2.CreateNetworkInterfaceInput) (*ec2.CreateNetworkInterfaceOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindInterface.resource)
	if err != nil {
		return nil, err
	}
	if err := unsupported(in, "ConnectionTrackingSpecification", "EnablePrimaryIpv6", "InterfaceType", "Ipv4PrefixCount", "Ipv4Prefixes", "Ipv6AddressCount", "Ipv6Addresses", "Ipv6PrefixCount", "Ipv6Prefixes",
		"Operator", "PrivateIpAddresses", "SecondaryPrivateIpAddressCount"); err != nil {
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
	if i, err := s.indexOf(kindInterface, n.Interfaces, &id); err == nil {
		return &ec2.CreateNetworkInterfaceOutput{NetworkInterface: &n.Interfaces[i], ClientToken: in.ClientToken}, nil
	}
	subnet, err := s.subnetFor(n, in.SubnetId)
	if err != nil {
		return nil, err
	}
	groups, err := s.groupsFor(c, *subnet.VpcId, in.Groups, nil)
	if err != nil {
		return nil, err
	}
	made, err := s.newInterface(c, subnet, groups, aws.ToString(in.PrivateIpAddress))
	if err != nil {
		return nil, err
	}
	made.Description, made.TagSet = aws.String(aws.ToString(in.Description)), tags[kindInterface.resource]
	err = s.editNetwork(c, func(n *networking) {
		n.Interfaces = append(n.Interfaces, made)
		n.use(aws.ToString(in.ClientToken), fingerprint(in), *made.NetworkInterfaceId)
	})
	s.hide(ctx, *made.NetworkInterfaceId)
	made.Status = "pending"
	return &ec2.CreateNetworkInterfaceOutput{NetworkInterface: &made, ClientToken: in.ClientToken}, err
}

// DeleteNetworkInterface deletes an unattached interface.
func (s *state) DeleteNetworkInterface(ctx context.Context, in *ec2.DeleteNetworkInterfaceInput) (*ec2.DeleteNetworkInterfaceOutput, error) {
	c := wire.CallerFrom(ctx)
	n, i, err := s.interfaceOf(c, in.NetworkInterfaceId)
	if err != nil {
		return nil, err
	}
	if n.Interfaces[i].Status == types.NetworkInterfaceStatusInUse {
		return nil, wire.Errorf("InvalidParameterValue", "Network interface '%s' is currently in use.", *in.NetworkInterfaceId)
	}
	return &ec2.DeleteNetworkInterfaceOutput{}, s.editNetwork(c, func(n *networking) { n.endInterface(*in.NetworkInterfaceId) })
}

// maxInterfaces returns the largest number of interfaces of an instance type.
func maxInterfaces(kind types.InstanceType) int {
	_, size, _ := strings.Cut(string(kind), ".")
	switch size {
	case "nano", "micro":
		return 2
	case "small", "medium", "large":
		return 3
	}
	return 4
}

// attachedInterfaces returns an instance's interfaces except the one it was launched with.
func (n *networking) attachedInterfaces(instance string) (all []types.NetworkInterface) {
	for _, i := range n.Interfaces {
		if i.Attachment != nil && aws.ToString(i.Attachment.InstanceId) == instance {
			all = append(all, n.addressed(i))
		}
	}
	return all
}

// addressed returns the record of an interface, with its elastic address.
func (n *networking) addressed(i types.NetworkInterface) types.NetworkInterface {
	a := n.addressOf(*i.NetworkInterfaceId)
	if a == nil {
		return i
	}
	i.Association = &types.NetworkInterfaceAssociation{AllocationId: a.AllocationId, AssociationId: a.AssociationId, IpOwnerId: i.OwnerId, PublicIp: a.PublicIp, PublicDnsName: a.PublicIp}
	i.PrivateIpAddresses = slices.Clone(i.PrivateIpAddresses)
	i.PrivateIpAddresses[0].Association = i.Association
	return i
}

func errInterfaceInUse(id *string) error {
	return wire.Errorf("InvalidNetworkInterface.InUse", "Interface: [%s] in use.", *id)
}

// AttachNetworkInterface records that an interface is attached to an instance.
func (s *state) AttachNetworkInterface(ctx context.Context, in *ec2.AttachNetworkInterfaceInput) (*ec2.AttachNetworkInterfaceOutput, error) {
	c := wire.CallerFrom(ctx)
	if err := unsupported(in, "EnaQueueCount", "EnaSrdSpecification"); err != nil {
		return nil, err
	}
	if s.launchedWith(c, in.NetworkInterfaceId) != nil {
		return nil, errInterfaceInUse(in.NetworkInterfaceId)
	}
	n, i, err := s.interfaceOf(c, in.NetworkInterfaceId)
	if err != nil {
		return nil, err
	}
	row, err := s.findInstance(c, in.InstanceId)
	if err != nil {
		return nil, err
	}
	have := n.attachedInterfaces(*row.InstanceId)
	index := aws.ToInt32(in.DeviceIndex)
	switch {
	case in.DeviceIndex == nil:
		return nil, missing("DeviceIndex")
	case n.Interfaces[i].Status == types.NetworkInterfaceStatusInUse:
		return nil, errInterfaceInUse(in.NetworkInterfaceId)
	case row.state() != types.InstanceStateNameRunning && row.state() != types.InstanceStateNameStopped:
		return nil, wire.Errorf("IncorrectState", "Instance '%s' is not 'running' or 'stopped'.", *row.InstanceId)
	case *n.Interfaces[i].AvailabilityZone != *row.Placement.AvailabilityZone:
		return nil, invalidValue("You may not attach a network interface to an instance if they are not in the same availability zone")
	case index == 0 || slices.ContainsFunc(have, func(o types.NetworkInterface) bool { return aws.ToInt32(o.Attachment.DeviceIndex) == index }):
		return nil, invalidValue("Instance '%s' already has an interface attached at device index '%d'.", *row.InstanceId, index)
	case 1+len(have) >= maxInterfaces(row.InstanceType):
		return nil, wire.Errorf("AttachmentLimitExceeded", "Interface count %d exceeds the limit for %s", 2+len(have), row.InstanceType)
	}
	attachment := types.NetworkInterfaceAttachment{AttachTime: aws.Time(s.now()), AttachmentId: aws.String(newID("eni-attach")), DeleteOnTermination: aws.Bool(false),
		DeviceIndex: &index, NetworkCardIndex: aws.Int32(aws.ToInt32(in.NetworkCardIndex)), InstanceId: row.InstanceId, InstanceOwnerId: &row.OwnerId, Status: types.AttachmentStatusAttached}
	err = s.editNetwork(c, func(n *networking) {
		n.Interfaces[i].Attachment, n.Interfaces[i].Status = &attachment, types.NetworkInterfaceStatusInUse
	})
	return &ec2.AttachNetworkInterfaceOutput{AttachmentId: attachment.AttachmentId, NetworkCardIndex: attachment.NetworkCardIndex}, err
}

// DetachNetworkInterface undoes AttachNetworkInterface.
func (s *state) DetachNetworkInterface(ctx context.Context, in *ec2.DetachNetworkInterfaceInput) (*ec2.DetachNetworkInterfaceOutput, error) {
	c := wire.CallerFrom(ctx)
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	id := aws.ToString(in.AttachmentId)
	if id == "" {
		return nil, missing("AttachmentId")
	}
	for i := range n.Interfaces {
		if a := n.Interfaces[i].Attachment; a != nil && *a.AttachmentId == id {
			return &ec2.DetachNetworkInterfaceOutput{}, s.editNetwork(c, func(n *networking) { unattach(&n.Interfaces[i]) })
		}
	}
	for _, row := range s.instances.of(c) {
		for _, i := range row.NetworkInterfaces {
			if *i.Attachment.AttachmentId == id {
				return nil, wire.Errorf("OperationNotPermitted", "The network interface at device index 0 cannot be detached.")
			}
		}
	}
	return nil, errNoAttachment(&id)
}

func unattach(i *types.NetworkInterface) {
	i.Attachment, i.Status = nil, types.NetworkInterfaceStatusAvailable
}

// releaseInterfaces frees or deletes the interfaces of an instance that is ending. The
// instance's row, which contains the interface it was launched with, is written
// afterwards: see [state.repairInterfaces].
func (s *state) releaseInterfaces(in *instance) error {
	key := in.OwnerId + "." + in.Region
	n, ok := s.networks.Get(key)
	if !ok {
		return nil
	}
	var stays []types.NetworkInterface
	var ends []string
	for _, i := range in.NetworkInterfaces {
		if aws.ToBool(i.Attachment.DeleteOnTermination) {
			ends = append(ends, *i.NetworkInterfaceId)
			continue
		}
		i.Association = nil
		record := s.primaryInterface(in, i)
		unattach(&record)
		stays = append(stays, record)
	}
	attached := n.attachedInterfaces(*in.InstanceId)
	if len(stays)+len(attached) == 0 && s.elasticOf(in) == nil {
		return nil
	}
	for _, i := range attached {
		if aws.ToBool(i.Attachment.DeleteOnTermination) {
			ends = append(ends, *i.NetworkInterfaceId)
		}
	}
	return s.networks.Edit(key, func(n *networking) {
		for _, id := range ends {
			n.endInterface(id)
		}
		for i := range n.Interfaces {
			if a := n.Interfaces[i].Attachment; a != nil && aws.ToString(a.InstanceId) == *in.InstanceId {
				unattach(&n.Interfaces[i])
			}
		}
		n.Interfaces = append(n.Interfaces, stays...)
	})
}

// repairInterfaces deletes the records of interfaces that are also in an instance's row.
// That happens when the process crashes between the two writes, at the start or the end of
// an instance.
func (s *state) repairInterfaces() error {
	for _, in := range s.instances.Rows {
		for _, i := range in.NetworkInterfaces {
			id, key := *i.NetworkInterfaceId, in.OwnerId+"."+in.Region
			n, ok := s.networks.Get(key)
			if !ok || !slices.ContainsFunc(n.Interfaces, func(i types.NetworkInterface) bool { return *i.NetworkInterfaceId == id }) {
				continue
			}
			if err := s.networks.Edit(key, func(n *networking) { n.dropInterface(id) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// ModifyNetworkInterfaceAttribute changes one attribute of an interface.
func (s *state) ModifyNetworkInterfaceAttribute(ctx context.Context, in *ec2.ModifyNetworkInterfaceAttributeInput) (*ec2.ModifyNetworkInterfaceAttributeOutput, error) {
	c := wire.CallerFrom(ctx)
	if err := unsupported(in, "AssociatePublicIpAddress", "AssociatedSubnetIds", "ConnectionTrackingSpecification", "EnaSrdSpecification", "EnablePrimaryIpv6"); err != nil {
		return nil, err
	}
	if row := s.launchedWith(c, in.NetworkInterfaceId); row != nil {
		return &ec2.ModifyNetworkInterfaceAttributeOutput{}, s.modifyPrimary(c, row, in)
	}
	n, i, err := s.interfaceOf(c, in.NetworkInterfaceId)
	if err != nil {
		return nil, err
	}
	have := n.Interfaces[i]
	groups := have.Groups
	if len(in.Groups) > 0 {
		if groups, err = s.groupsFor(c, *have.VpcId, in.Groups, nil); err != nil {
			return nil, err
		}
	}
	if a := in.Attachment; a != nil && (have.Attachment == nil || *have.Attachment.AttachmentId != aws.ToString(a.AttachmentId)) {
		return nil, errNoAttachment(a.AttachmentId)
	}
	return &ec2.ModifyNetworkInterfaceAttributeOutput{}, s.editNetwork(c, func(n *networking) {
		row := &n.Interfaces[i]
		row.Groups = groups
		if in.Description != nil {
			row.Description = aws.String(aws.ToString(in.Description.Value))
		}
		if in.SourceDestCheck != nil {
			row.SourceDestCheck = aws.Bool(aws.ToBool(in.SourceDestCheck.Value))
		}
		if in.Attachment != nil {
			attachment := *row.Attachment
			attachment.DeleteOnTermination = aws.Bool(aws.ToBool(in.Attachment.DeleteOnTermination))
			row.Attachment = &attachment
		}
	})
}

func errNoAttachment(id *string) error {
	return wire.Errorf("InvalidAttachmentID.NotFound", "The attachment '%s' does not exist.", aws.ToString(id))
}

// modifyPrimary changes one attribute of the interface that an instance was launched with.
// Its groups and its source/destination check are those of the instance.
func (s *state) modifyPrimary(c wire.Caller, row *instance, in *ec2.ModifyNetworkInterfaceAttributeInput) error {
	var groups []types.GroupIdentifier
	if len(in.Groups) > 0 {
		var err error
		if groups, err = s.groupsFor(c, aws.ToString(row.VpcId), in.Groups, nil); err != nil {
			return err
		}
	}
	if a := in.Attachment; a != nil && *row.NetworkInterfaces[0].Attachment.AttachmentId != aws.ToString(a.AttachmentId) {
		return errNoAttachment(a.AttachmentId)
	}
	err := s.instances.Edit(*row.InstanceId, func(row *instance) {
		row.change(&ec2.ModifyInstanceAttributeInput{SourceDestCheck: in.SourceDestCheck}, groups)
		primary := &row.NetworkInterfaces[0]
		if in.Description != nil {
			primary.Description = aws.String(aws.ToString(in.Description.Value))
		}
		if in.Attachment != nil {
			attachment := *primary.Attachment
			attachment.DeleteOnTermination = aws.Bool(aws.ToBool(in.Attachment.DeleteOnTermination))
			primary.Attachment = &attachment
		}
	})
	s.refreshPolicies()
	return err
}

// DescribeNetworkInterfaceAttribute returns one attribute of an interface.
func (s *state) DescribeNetworkInterfaceAttribute(ctx context.Context, in *ec2.DescribeNetworkInterfaceAttributeInput) (*ec2.DescribeNetworkInterfaceAttributeOutput, error) {
	rows, err := s.allInterfaces(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	at, err := s.indexOf(kindInterface, rows, in.NetworkInterfaceId)
	if err != nil {
		return nil, err
	}
	row, out := rows[at], &ec2.DescribeNetworkInterfaceAttributeOutput{NetworkInterfaceId: in.NetworkInterfaceId}
	switch in.Attribute {
	case types.NetworkInterfaceAttributeDescription:
		out.Description = &types.AttributeValue{Value: row.Description}
	case types.NetworkInterfaceAttributeGroupSet:
		out.Groups = row.Groups
	case types.NetworkInterfaceAttributeSourceDestCheck:
		out.SourceDestCheck = &types.AttributeBooleanValue{Value: row.SourceDestCheck}
	case types.NetworkInterfaceAttributeAttachment:
		out.Attachment = row.Attachment
	default:
		return nil, invalidValue("Value (%s) for parameter attribute is invalid. Unknown attribute.", in.Attribute)
	}
	return out, nil
}

// interfaceRow is an interface with its tags in the field that filters use.
type interfaceRow struct {
	types.NetworkInterface
	Tags []types.Tag
}

// allInterfaces returns the caller's interfaces, including those of its instances.
func (s *state) allInterfaces(c wire.Caller) ([]interfaceRow, error) {
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	instances, err := s.instancesOf(c)
	if err != nil {
		return nil, err
	}
	var rows []interfaceRow
	for _, i := range n.Interfaces {
		rows = append(rows, interfaceRow{n.addressed(i), i.TagSet})
	}
	for _, i := range instances {
		for _, ni := range i.NetworkInterfaces {
			rows = append(rows, interfaceRow{s.primaryInterface(i, ni), i.InterfaceTags})
		}
	}
	return rows, nil
}

// primaryInterface returns the interface that an instance was launched with.
func (s *state) primaryInterface(in *instance, n types.InstanceNetworkInterface) types.NetworkInterface {
	view := types.NetworkInterface{
		NetworkInterfaceId: n.NetworkInterfaceId, Description: n.Description, Groups: n.Groups, InterfaceType: types.NetworkInterfaceTypeInterface,
		MacAddress: n.MacAddress, OwnerId: n.OwnerId, PrivateDnsName: n.PrivateDnsName, PrivateIpAddress: n.PrivateIpAddress,
		SourceDestCheck: n.SourceDestCheck, Status: n.Status, SubnetId: n.SubnetId, VpcId: n.VpcId, RequesterManaged: aws.Bool(false),
		AvailabilityZone: in.Placement.AvailabilityZone, TagSet: in.InterfaceTags,
		Attachment: &types.NetworkInterfaceAttachment{AttachTime: n.Attachment.AttachTime, AttachmentId: n.Attachment.AttachmentId,
			DeleteOnTermination: n.Attachment.DeleteOnTermination, DeviceIndex: n.Attachment.DeviceIndex, NetworkCardIndex: n.Attachment.NetworkCardIndex,
			Status: n.Attachment.Status, InstanceId: in.InstanceId, InstanceOwnerId: &in.OwnerId},
	}
	private := types.NetworkInterfacePrivateIpAddress{Primary: aws.Bool(true), PrivateDnsName: n.PrivateDnsName, PrivateIpAddress: n.PrivateIpAddress}
	if a := n.Association; a != nil {
		view.Association = &types.NetworkInterfaceAssociation{IpOwnerId: a.IpOwnerId, PublicIp: a.PublicIp, PublicDnsName: a.PublicDnsName}
		if elastic := s.elasticOf(in); elastic != nil {
			view.Association.AllocationId, view.Association.AssociationId = elastic.AllocationId, elastic.AssociationId
		}
		private.Association = view.Association
	}
	view.PrivateIpAddresses = []types.NetworkInterfacePrivateIpAddress{private}
	return view
}

// withInterfaces returns an instance with all of its interfaces.
func (s *state) withInterfaces(in *instance) *instance {
	n, ok := s.networks.Get(in.OwnerId + "." + in.Region)
	if !ok {
		return in
	}
	more := n.attachedInterfaces(*in.InstanceId)
	if len(more) == 0 {
		return in
	}
	view := *in
	view.NetworkInterfaces = slices.Clone(in.NetworkInterfaces)
	for _, i := range more {
		view.NetworkInterfaces = append(view.NetworkInterfaces, instanceInterface(i))
	}
	return &view
}

// instanceInterface converts an attached interface to its form in an instance.
func instanceInterface(i types.NetworkInterface) types.InstanceNetworkInterface {
	address := types.InstancePrivateIpAddress{Primary: aws.Bool(true), PrivateDnsName: i.PrivateDnsName, PrivateIpAddress: i.PrivateIpAddress}
	if a := i.Association; a != nil {
		address.Association = &types.InstanceNetworkInterfaceAssociation{IpOwnerId: a.IpOwnerId, PublicIp: a.PublicIp, PublicDnsName: a.PublicDnsName}
	}
	return types.InstanceNetworkInterface{Association: address.Association,
		NetworkInterfaceId: i.NetworkInterfaceId, Description: i.Description, Groups: i.Groups, InterfaceType: aws.String(string(i.InterfaceType)),
		MacAddress: i.MacAddress, OwnerId: i.OwnerId, PrivateDnsName: i.PrivateDnsName, PrivateIpAddress: i.PrivateIpAddress,
		PrivateIpAddresses: []types.InstancePrivateIpAddress{address}, SourceDestCheck: i.SourceDestCheck, Status: i.Status, SubnetId: i.SubnetId, VpcId: i.VpcId,
		Attachment: &types.InstanceNetworkInterfaceAttachment{AttachmentId: i.Attachment.AttachmentId, AttachTime: i.Attachment.AttachTime,
			DeleteOnTermination: i.Attachment.DeleteOnTermination, DeviceIndex: i.Attachment.DeviceIndex, NetworkCardIndex: i.Attachment.NetworkCardIndex, Status: i.Attachment.Status},
	}
}

// DescribeNetworkInterfaces lists interfaces.
func (s *state) DescribeNetworkInterfaces(ctx context.Context, in *ec2.DescribeNetworkInterfacesInput) (*ec2.DescribeNetworkInterfacesOutput, error) {
	rows, err := s.allInterfaces(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	rows, next, err := list(s, kindInterface, query{in.NetworkInterfaceIds, in.Filters, in.MaxResults, in.NextToken}, rows)
	out := &ec2.DescribeNetworkInterfacesOutput{NextToken: next, NetworkInterfaces: []types.NetworkInterface{}}
	for _, r := range rows {
		out.NetworkInterfaces = append(out.NetworkInterfaces, r.NetworkInterface)
	}
	return out, err
}

// CreateNatGateway records a NAT gateway. A problem with its address or network makes the
// gateway fail, not the request, as on EC2.
func (s *state) CreateNatGateway(ctx context.Context, in *ec2.CreateNatGatewayInput) (*ec2.CreateNatGatewayOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindNat.resource)
	if err != nil {
		return nil, err
	}
	if err := unsupported(in, "AvailabilityMode", "AvailabilityZoneAddresses", "SecondaryAllocationIds", "SecondaryPrivateIpAddressCount", "SecondaryPrivateIpAddresses", "VpcId"); err != nil {
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
	if i, err := s.indexOf(kindNat, n.Nats, &id); err == nil {
		return &ec2.CreateNatGatewayOutput{NatGateway: &n.Nats[i], ClientToken: in.ClientToken}, nil
	}
	subnet, err := s.subnetFor(n, in.SubnetId)
	if err != nil {
		return nil, err
	}
	elastic, public, err := s.natAddress(n, in)
	if err != nil {
		return nil, err
	}
	nic, err := s.newInterface(c, subnet, []types.GroupIdentifier{}, aws.ToString(in.PrivateIpAddress))
	if err != nil {
		return nil, err
	}
	id = newID("nat")
	managed(&nic, types.NetworkInterfaceTypeNatGateway, "Interface for NAT Gateway "+id)
	gateway := types.NatGateway{NatGatewayId: &id, SubnetId: subnet.SubnetId, VpcId: subnet.VpcId, CreateTime: aws.Time(s.now()), State: types.NatGatewayStateAvailable,
		ConnectivityType: cmp.Or(in.ConnectivityType, types.ConnectivityTypePublic), Tags: tags[kindNat.resource]}
	address := types.NatGatewayAddress{IsPrimary: aws.Bool(true), NetworkInterfaceId: nic.NetworkInterfaceId, PrivateIp: nic.PrivateIpAddress, Status: types.NatGatewayAddressStatusSucceeded}
	if public {
		n.useElastic(&gateway, &address, n.Addresses[elastic])
	}
	gateway.NatGatewayAddresses = []types.NatGatewayAddress{address}
	err = s.editNetwork(c, func(n *networking) {
		n.Nats = append(n.Nats, gateway)
		n.use(aws.ToString(in.ClientToken), fingerprint(in), id)
		if gateway.State == types.NatGatewayStateFailed {
			return
		}
		n.Interfaces = append(n.Interfaces, nic)
		if public {
			associate(&n.Addresses[elastic], address.AssociationId, &c.Account, nic)
		}
	})
	s.hide(ctx, id)
	gateway.State, gateway.FailureCode, gateway.FailureMessage = types.NatGatewayStatePending, nil, nil
	return &ec2.CreateNatGatewayOutput{NatGateway: &gateway, ClientToken: in.ClientToken}, err
}

// useElastic gives a NAT gateway and its address an elastic address, or lets the gateway fail.
func (n *networking) useElastic(gateway *types.NatGateway, address *types.NatGatewayAddress, a types.Address) {
	address.AllocationId, address.PublicIp = a.AllocationId, a.PublicIp
	if code, why := n.natFails(a, *gateway.VpcId); code != "" {
		gateway.State, gateway.FailureCode, gateway.FailureMessage = types.NatGatewayStateFailed, &code, &why
		return
	}
	address.AssociationId = aws.String(newID("eipassoc"))
}

// natAddress returns the index of the elastic address of the requested NAT gateway, if the
// gateway is public.
func (s *state) natAddress(n *networking, in *ec2.CreateNatGatewayInput) (elastic int, public bool, err error) {
	public = cmp.Or(in.ConnectivityType, types.ConnectivityTypePublic) == types.ConnectivityTypePublic
	switch allocation := aws.ToString(in.AllocationId); {
	case public && allocation == "":
		return 0, public, wire.Errorf("MissingParameter", "The request must include the AllocationId parameter. Add the required parameter and retry the request.")
	case !public && allocation != "":
		return 0, public, wire.Errorf("InvalidParameter", "AllocationId cannot be specified for a NAT gateway with a connectivity type of private.")
	case public:
		elastic, err = s.indexOf(kindAddress, n.Addresses, in.AllocationId)
	}
	return elastic, public, err
}

// natFails returns the code and message with which a public NAT gateway in a VPC fails;
// they are empty if it does not.
func (n *networking) natFails(a types.Address, vpc string) (code, why string) {
	switch {
	case a.AssociationId != nil:
		return "Resource.AlreadyAssociated", "Elastic IP address [" + *a.AllocationId + "] is already associated"
	case !slices.ContainsFunc(n.Gateways, func(g types.InternetGateway) bool { return attachedTo(g, vpc) }):
		return "Gateway.NotAttached", "Network " + vpc + " has no Internet gateway attached"
	}
	return "", ""
}

// forgotten reports whether a NAT gateway was deleted so long ago that it is no longer
// described.
func (s *state) forgotten(g types.NatGateway) bool {
	const remembered = time.Hour
	return g.DeleteTime != nil && s.now().Sub(*g.DeleteTime) > remembered
}

// DeleteNatGateway deletes a NAT gateway, which is described as deleted for some time.
func (s *state) DeleteNatGateway(ctx context.Context, in *ec2.DeleteNatGatewayInput) (*ec2.DeleteNatGatewayOutput, error) {
	c := wire.CallerFrom(ctx)
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	i, err := s.indexOf(kindNat, n.Nats, in.NatGatewayId)
	if err != nil {
		return nil, err
	}
	nic := n.Nats[i].NatGatewayAddresses[0].NetworkInterfaceId
	return &ec2.DeleteNatGatewayOutput{NatGatewayId: in.NatGatewayId}, s.editNetwork(c, func(n *networking) {
		if n.Nats[i].State != types.NatGatewayStateDeleted {
			n.Nats[i].State, n.Nats[i].DeleteTime = types.NatGatewayStateDeleted, aws.Time(s.now())
		}
		n.endInterface(*nic)
		n.Nats = slices.DeleteFunc(n.Nats, s.forgotten)
	})
}

var natFilters = filters{{"nat-gateway-id", "NatGatewayId"}, {"state", "State"}, {"subnet-id", "SubnetId"}, {"vpc-id", "VpcId"}}

// DescribeNatGateways lists NAT gateways.
func (s *state) DescribeNatGateways(ctx context.Context, in *ec2.DescribeNatGatewaysInput) (*ec2.DescribeNatGatewaysOutput, error) {
	n, err := s.networkOf(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	rows := slices.DeleteFunc(slices.Clone(n.Nats), s.forgotten)
	rows, next, err := list(s, kindNat, query{in.NatGatewayIds, in.Filter, in.MaxResults, in.NextToken}, rows)
	return &ec2.DescribeNatGatewaysOutput{NatGateways: rows, NextToken: next}, err
}

// addHeldAddresses adds to taken the addresses of a subnet that recorded interfaces hold.
func (n *networking) addHeldAddresses(subnet string, taken map[string]bool) {
	for _, i := range n.Interfaces {
		if *i.SubnetId == subnet {
			taken[*i.PrivateIpAddress] = true
		}
	}
}

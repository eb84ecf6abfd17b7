package ec2

import (
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// An elastic address is associated with a network interface, and through it with an instance. Its
// InstanceId is not stored: see [state.DescribeAddresses].

// elasticOf returns the elastic address of the interface an instance was launched with, or
// nil.
func (s *state) elasticOf(in *instance) *types.Address {
	n, ok := s.networks.Get(in.OwnerId + "." + in.Region)
	if !ok || len(in.NetworkInterfaces) == 0 {
		return nil
	}
	return n.addressOf(*in.NetworkInterfaces[0].NetworkInterfaceId)
}

// addressOf returns the elastic address associated with an interface, or nil.
func (n *networking) addressOf(nic string) *types.Address {
	for i := range n.Addresses {
		if aws.ToString(n.Addresses[i].NetworkInterfaceId) == nic {
			return &n.Addresses[i]
		}
	}
	return nil
}

// setAddress sets the instance's public address: the associated elastic address or, if the
// instance is up and asked for one, an address of its own.
func (s *state) setAddress(in *instance, up bool) {
	elastic := s.elasticOf(in)
	switch {
	case elastic != nil:
		in.setPublic(*elastic.PublicIp, in.OwnerId)
	case up && in.WantsPublic:
		in.setPublic(s.publicAddress(*in.InstanceId), "amazon")
	default:
		in.setPublic("", "")
	}
}

// updateAddress updates the addresses of an instance and, if it runs, of its machine.
func (s *state) updateAddress(id string) error {
	r := s.runners[id]
	err := s.instances.Edit(id, func(in *instance) { s.setAddress(in, r != nil) })
	if err == nil && r != nil && r.machine != nil {
		r.machine.NetworkChanged()
	}
	return err
}

// ofService reports whether an elastic address belongs to an interface that a service manages.
func (n *networking) ofService(a types.Address) bool {
	return slices.ContainsFunc(n.Interfaces, func(i types.NetworkInterface) bool {
		return *i.NetworkInterfaceId == aws.ToString(a.NetworkInterfaceId) && aws.ToBool(i.RequesterManaged)
	})
}

func errNotYours() error {
	return wire.Errorf("AuthFailure", "You do not have permission to access the specified resource.")
}

func free(a *types.Address) {
	a.AssociationId, a.NetworkInterfaceId, a.NetworkInterfaceOwnerId, a.PrivateIpAddress = nil, nil, nil, nil
}

// associate associates an elastic address with an account's interface.
func associate(a *types.Address, association, account *string, nic types.NetworkInterface) {
	a.AssociationId, a.NetworkInterfaceId, a.NetworkInterfaceOwnerId, a.PrivateIpAddress = association, nic.NetworkInterfaceId, account, nic.PrivateIpAddress
}

// elastic returns the caller's networks and the index in them of an elastic address, which
// a request names by allocation id or by address.
func (s *state) elastic(c wire.Caller, allocation, address *string) (*networking, int, error) {
	n, err := s.networkOf(c)
	if err != nil {
		return nil, 0, err
	}
	if text := aws.ToString(address); text != "" && aws.ToString(allocation) == "" {
		i := slices.IndexFunc(n.Addresses, func(a types.Address) bool { return *a.PublicIp == text })
		if i < 0 {
			return nil, 0, wire.Errorf("InvalidAddress.NotFound", "Address '%s' not found.", text)
		}
		return n, i, nil
	}
	i, err := s.indexOf(kindAddress, n.Addresses, allocation)
	return n, i, err
}

func (s *state) AllocateAddress(ctx context.Context, in *ec2.AllocateAddressInput) (*ec2.AllocateAddressOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindAddress.resource)
	if err != nil {
		return nil, err
	}
	if err := unsupported(in, "Address", "CustomerOwnedIpv4Pool", "IpamPoolId"); err != nil {
		return nil, err
	}
	if in.Domain == types.DomainTypeStandard {
		return nil, wire.Errorf("Unsupported", "Addresses outside of a VPC are not supported.")
	}
	if group := aws.ToString(in.NetworkBorderGroup); group != "" && group != c.Region {
		return nil, invalidValue("Invalid value '%s' for networkBorderGroup.", group)
	}
	if pool := aws.ToString(in.PublicIpv4Pool); pool != "" && pool != "amazon" {
		return nil, wire.Errorf("InvalidPublicIpv4PoolID.NotFound", "The pool ID '%s' does not exist", pool)
	}
	if _, err := s.networkOf(c); err != nil {
		return nil, err
	}
	id := newID("eipalloc")
	a := types.Address{AllocationId: &id, PublicIp: aws.String(s.publicAddress(id)), Domain: types.DomainTypeVpc,
		NetworkBorderGroup: &c.Region, PublicIpv4Pool: aws.String("amazon"), Tags: tags[kindAddress.resource]}
	s.hide(ctx, id)
	return &ec2.AllocateAddressOutput{AllocationId: &id, PublicIp: a.PublicIp, Domain: a.Domain, NetworkBorderGroup: a.NetworkBorderGroup, PublicIpv4Pool: a.PublicIpv4Pool},
		s.editNetwork(c, func(n *networking) { n.Addresses = append(n.Addresses, a) })
}

func (s *state) ReleaseAddress(ctx context.Context, in *ec2.ReleaseAddressInput) (*ec2.ReleaseAddressOutput, error) {
	c := wire.CallerFrom(ctx)
	n, i, err := s.elastic(c, in.AllocationId, in.PublicIp)
	if err != nil {
		return nil, err
	}
	if n.Addresses[i].AssociationId != nil {
		return nil, wire.Errorf("InvalidIPAddress.InUse", "Address %s is in use.", *n.Addresses[i].PublicIp)
	}
	return &ec2.ReleaseAddressOutput{}, s.editNetwork(c, func(n *networking) { n.Addresses = slices.Delete(n.Addresses, i, i+1) })
}

// associationTarget returns the interface that a request wants to associate an elastic
// address with, and the instance that was launched with that interface, if any.
func (s *state) associationTarget(c wire.Caller, n *networking, in *ec2.AssociateAddressInput) (nic types.NetworkInterface, row *instance, err error) {
	switch id := in.NetworkInterfaceId; {
	case aws.ToString(id) != "":
		if row = s.launchedWith(c, id); row == nil {
			i, err := s.indexOf(kindInterface, n.Interfaces, id)
			if err != nil {
				return nic, nil, err
			}
			if nic = n.Interfaces[i]; aws.ToBool(nic.RequesterManaged) {
				return nic, nil, errNotYours()
			}
		}
	case aws.ToString(in.InstanceId) == "":
		return nic, nil, missing("InstanceId")
	default:
		if row, err = s.findInstance(c, in.InstanceId); err != nil {
			return nic, nil, err
		}
		if err := n.oneInterface(row); err != nil {
			return nic, nil, err
		}
	}
	if row != nil {
		if state := row.state(); state != types.InstanceStateNameRunning && state != types.InstanceStateNameStopped {
			return nic, nil, wire.Errorf("InvalidInstanceID", "The %s instance '%s' is not in a valid state for this operation.", state, *row.InstanceId)
		}
		nic = s.primaryInterface(row, row.NetworkInterfaces[0])
	}
	if !slices.ContainsFunc(n.Gateways, func(g types.InternetGateway) bool { return attachedTo(g, *nic.VpcId) }) {
		return nic, nil, wire.Errorf("Gateway.NotAttached", "Network %s is not attached to any internet gateway", *nic.VpcId)
	}
	if private := aws.ToString(in.PrivateIpAddress); private != "" && private != aws.ToString(nic.PrivateIpAddress) {
		return nic, nil, invalidValue("The private address %s is not one of the interface's.", private)
	}
	return nic, row, nil
}

func (s *state) AssociateAddress(ctx context.Context, in *ec2.AssociateAddressInput) (*ec2.AssociateAddressOutput, error) {
	c := wire.CallerFrom(ctx)
	n, i, err := s.elastic(c, in.AllocationId, in.PublicIp)
	if err != nil {
		return nil, err
	}
	nic, row, err := s.associationTarget(c, n, in)
	if err != nil {
		return nil, err
	}
	address := n.Addresses[i]
	if n.ofService(address) {
		return nil, errNotYours()
	}
	if aws.ToString(address.NetworkInterfaceId) == *nic.NetworkInterfaceId {
		return &ec2.AssociateAddressOutput{AssociationId: address.AssociationId}, nil
	}
	for _, a := range []*types.Address{&address, n.addressOf(*nic.NetworkInterfaceId)} {
		if a != nil && a.AssociationId != nil && !aws.ToBool(in.AllowReassociation) {
			return nil, wire.Errorf("Resource.AlreadyAssociated", "resource %s is already associated with associate-id %s", *a.AllocationId, *a.AssociationId)
		}
	}
	before, association := s.launchedWith(c, address.NetworkInterfaceId), newID("eipassoc")
	err = s.editNetwork(c, func(n *networking) {
		if a := n.addressOf(*nic.NetworkInterfaceId); a != nil {
			free(a)
		}
		associate(&n.Addresses[i], &association, &c.Account, nic)
	})
	for _, of := range []*instance{before, row} {
		if err == nil && of != nil {
			err = s.updateAddress(*of.InstanceId)
		}
	}
	return &ec2.AssociateAddressOutput{AssociationId: &association}, err
}

func (s *state) DisassociateAddress(ctx context.Context, in *ec2.DisassociateAddressInput) (*ec2.DisassociateAddressOutput, error) {
	c := wire.CallerFrom(ctx)
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	id := aws.ToString(in.AssociationId)
	if id == "" && aws.ToString(in.PublicIp) == "" {
		return nil, missing("AssociationId")
	}
	i := slices.IndexFunc(n.Addresses, func(a types.Address) bool {
		return a.AssociationId != nil && (*a.AssociationId == id || id == "" && *a.PublicIp == *in.PublicIp)
	})
	if i < 0 {
		return nil, wire.Errorf("InvalidAssociationID.NotFound", "The association ID '%s' does not exist", id)
	}
	if n.ofService(n.Addresses[i]) {
		return nil, errNotYours()
	}
	row := s.launchedWith(c, n.Addresses[i].NetworkInterfaceId)
	err = s.editNetwork(c, func(n *networking) { free(&n.Addresses[i]) })
	if err == nil && row != nil {
		err = s.updateAddress(*row.InstanceId)
	}
	return &ec2.DisassociateAddressOutput{}, err
}

// holders returns the ids of the instances that have network interfaces, keyed by
// interface id.
func (s *state) holders(c wire.Caller, n *networking) map[string]*string {
	holders := make(map[string]*string)
	for _, i := range n.Interfaces {
		if i.Attachment != nil {
			holders[*i.NetworkInterfaceId] = i.Attachment.InstanceId
		}
	}
	for _, row := range s.instances.of(c) {
		for _, i := range row.NetworkInterfaces {
			holders[*i.NetworkInterfaceId] = row.InstanceId
		}
	}
	return holders
}

var addressFilters = filters{
	{"allocation-id", "AllocationId"}, {"association-id", "AssociationId"}, {"domain", "Domain"}, {"instance-id", "InstanceId"}, {"network-border-group", "NetworkBorderGroup"},
	{"network-interface-id", "NetworkInterfaceId"}, {"network-interface-owner-id", "NetworkInterfaceOwnerId"}, {"private-ip-address", "PrivateIpAddress"}, {"public-ip", "PublicIp"},
}

func (s *state) DescribeAddresses(ctx context.Context, in *ec2.DescribeAddressesInput) (*ec2.DescribeAddressesOutput, error) {
	c := wire.CallerFrom(ctx)
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	ids := slices.Clone(in.AllocationIds)
	for _, address := range in.PublicIps {
		_, i, err := s.elastic(c, nil, &address)
		if err != nil {
			return nil, err
		}
		ids = append(ids, *n.Addresses[i].AllocationId)
	}
	all := slices.Clone(n.Addresses)
	holders := s.holders(c, n)
	for i, a := range all {
		all[i].InstanceId = holders[aws.ToString(a.NetworkInterfaceId)]
	}
	rows, _, err := list(s, kindAddress, query{ids: ids, filters: in.Filters}, all)
	return &ec2.DescribeAddressesOutput{Addresses: rows}, err
}

// DescribeAddressesAttribute returns no domain names: the addresses have no reverse DNS
// here.
func (s *state) DescribeAddressesAttribute(ctx context.Context, in *ec2.DescribeAddressesAttributeInput) (*ec2.DescribeAddressesAttributeOutput, error) {
	n, err := s.networkOf(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	if err := checkMax(in.MaxResults, 1, 1000); err != nil {
		return nil, err
	}
	rows, next, err := list(s, kindAddress, query{ids: in.AllocationIds, max: in.MaxResults, token: in.NextToken}, n.Addresses)
	out := &ec2.DescribeAddressesAttributeOutput{NextToken: next, Addresses: []types.AddressAttribute{}}
	for _, a := range rows {
		out.Addresses = append(out.Addresses, types.AddressAttribute{AllocationId: a.AllocationId, PublicIp: a.PublicIp})
	}
	return out, err
}

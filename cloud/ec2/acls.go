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

// lastRule is the number of the final rule, which denies all other traffic. EC2 shows it
// as *.
const lastRule = 32767

// acl returns the caller's networks and the index of a network ACL in them.
func (s *state) acl(c wire.Caller, id *string) (*networking, int, error) {
	n, err := s.networkOf(c)
	if err != nil {
		return nil, 0, err
	}
	i, err := s.indexOf(kindACL, n.Acls, id)
	return n, i, err
}

// CreateNetworkAcl creates a network ACL that allows nothing and belongs to no subnet.
func (s *state) CreateNetworkAcl(ctx context.Context, in *ec2.CreateNetworkAclInput) (*ec2.CreateNetworkAclOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindACL.resource)
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
	if i, err := s.indexOf(kindACL, n.Acls, &id); err == nil {
		return &ec2.CreateNetworkAclOutput{NetworkAcl: &n.Acls[i], ClientToken: in.ClientToken}, nil
	}
	if _, err := s.indexOf(kindVpc, n.Vpcs, in.VpcId); err != nil {
		return nil, err
	}
	made := types.NetworkAcl{NetworkAclId: aws.String(newID("acl")), VpcId: in.VpcId, OwnerId: &c.Account, IsDefault: aws.Bool(false), Tags: tags[kindACL.resource]}
	for _, egress := range []bool{true, false} {
		made.Entries = append(made.Entries, types.NetworkAclEntry{RuleNumber: aws.Int32(lastRule), RuleAction: types.RuleActionDeny,
			CidrBlock: aws.String("0.0.0.0/0"), Protocol: aws.String("-1"), Egress: &egress})
	}
	err = s.editNetwork(c, func(n *networking) {
		n.Acls = append(n.Acls, made)
		n.use(aws.ToString(in.ClientToken), fingerprint(in), *made.NetworkAclId)
	})
	s.hide(ctx, *made.NetworkAclId)
	return &ec2.CreateNetworkAclOutput{NetworkAcl: &made, ClientToken: in.ClientToken}, err
}

// DeleteNetworkAcl deletes a network ACL that no subnet uses.
func (s *state) DeleteNetworkAcl(ctx context.Context, in *ec2.DeleteNetworkAclInput) (*ec2.DeleteNetworkAclOutput, error) {
	c := wire.CallerFrom(ctx)
	n, i, err := s.acl(c, in.NetworkAclId)
	switch {
	case err != nil:
		return nil, err
	case aws.ToBool(n.Acls[i].IsDefault):
		return nil, invalidValue("cannot delete default network ACL %s", *in.NetworkAclId)
	case len(n.Acls[i].Associations) > 0:
		return nil, errDependencies("networkAcl", *in.NetworkAclId)
	}
	return &ec2.DeleteNetworkAclOutput{}, s.editNetwork(c, func(n *networking) { n.Acls = slices.Delete(n.Acls, i, i+1) })
}

// aclEntry returns the entry that a request describes.
func aclEntry(in *ec2.CreateNetworkAclEntryInput) (types.NetworkAclEntry, error) {
	entry := types.NetworkAclEntry{RuleNumber: in.RuleNumber, RuleAction: in.RuleAction, Protocol: in.Protocol, Egress: aws.Bool(aws.ToBool(in.Egress)),
		PortRange: in.PortRange, IcmpTypeCode: in.IcmpTypeCode}
	if err := unsupported(in, "Ipv6CidrBlock"); err != nil {
		return entry, err
	}
	prefix, err := netip.ParsePrefix(aws.ToString(in.CidrBlock))
	ports := in.PortRange
	switch protocol := aws.ToString(in.Protocol); {
	case in.RuleNumber == nil || *in.RuleNumber < 1 || *in.RuleNumber >= lastRule:
		return entry, invalidValue("Value (%d) for parameter ruleNumber is invalid. It must be from 1 to 32766.", aws.ToInt32(in.RuleNumber))
	case in.RuleAction == "":
		return entry, missing("RuleAction")
	case protocol == "":
		return entry, missing("Protocol")
	case aws.ToString(in.CidrBlock) == "":
		return entry, missing("CidrBlock")
	case err != nil || !prefix.Addr().Is4():
		return entry, invalidValue("CIDR block %s is malformed", *in.CidrBlock)
	case (protocol == "6" || protocol == "17") && (ports == nil || ports.From == nil || ports.To == nil):
		return entry, missing("PortRange")
	case protocol == "1" && in.IcmpTypeCode == nil:
		return entry, missing("Icmp")
	case ports != nil && aws.ToInt32(ports.From) > aws.ToInt32(ports.To):
		return entry, invalidValue("Invalid port range %d-%d", aws.ToInt32(ports.From), aws.ToInt32(ports.To))
	}
	entry.CidrBlock = aws.String(prefix.Masked().String())
	return entry, nil
}

// entryIndex returns the index of a rule in a network ACL, or -1.
func entryIndex(a types.NetworkAcl, egress *bool, number *int32) int {
	return slices.IndexFunc(a.Entries, func(e types.NetworkAclEntry) bool {
		return aws.ToBool(e.Egress) == aws.ToBool(egress) && *e.RuleNumber == aws.ToInt32(number)
	})
}

func errNoEntry(egress *bool, number *int32, acl *string) error {
	direction := "ingress"
	if aws.ToBool(egress) {
		direction = "egress"
	}
	return wire.Errorf("InvalidNetworkAclEntry.NotFound", "no %s entry in %s with rule number %d", direction, aws.ToString(acl), aws.ToInt32(number))
}

// CreateNetworkAclEntry adds a rule.
func (s *state) CreateNetworkAclEntry(ctx context.Context, in *ec2.CreateNetworkAclEntryInput) (*ec2.CreateNetworkAclEntryOutput, error) {
	c := wire.CallerFrom(ctx)
	n, i, err := s.acl(c, in.NetworkAclId)
	if err != nil {
		return nil, err
	}
	entry, err := aclEntry(in)
	if err != nil {
		return nil, err
	}
	if entryIndex(n.Acls[i], in.Egress, in.RuleNumber) >= 0 {
		return nil, wire.Errorf("NetworkAclEntryAlreadyExists", "The network acl entry identified by %d already exists.", *in.RuleNumber)
	}
	return &ec2.CreateNetworkAclEntryOutput{}, s.editNetwork(c, func(n *networking) { n.Acls[i].Entries = append(n.Acls[i].Entries, entry) })
}

// ReplaceNetworkAclEntry replaces the rule that has the same number.
func (s *state) ReplaceNetworkAclEntry(ctx context.Context, in *ec2.ReplaceNetworkAclEntryInput) (*ec2.ReplaceNetworkAclEntryOutput, error) {
	c := wire.CallerFrom(ctx)
	n, i, err := s.acl(c, in.NetworkAclId)
	if err != nil {
		return nil, err
	}
	var wanted ec2.CreateNetworkAclEntryInput
	copyFields(&wanted, *in)
	entry, err := aclEntry(&wanted)
	if err != nil {
		return nil, err
	}
	at := entryIndex(n.Acls[i], in.Egress, in.RuleNumber)
	if at < 0 {
		return nil, errNoEntry(in.Egress, in.RuleNumber, in.NetworkAclId)
	}
	return &ec2.ReplaceNetworkAclEntryOutput{}, s.editNetwork(c, func(n *networking) { n.Acls[i].Entries[at] = entry })
}

// DeleteNetworkAclEntry removes a rule.
func (s *state) DeleteNetworkAclEntry(ctx context.Context, in *ec2.DeleteNetworkAclEntryInput) (*ec2.DeleteNetworkAclEntryOutput, error) {
	c := wire.CallerFrom(ctx)
	n, i, err := s.acl(c, in.NetworkAclId)
	if err != nil {
		return nil, err
	}
	at := entryIndex(n.Acls[i], in.Egress, in.RuleNumber)
	switch {
	case aws.ToInt32(in.RuleNumber) == lastRule:
		return nil, invalidValue("Value (%d) for parameter ruleNumber is invalid. It must be from 1 to 32766.", lastRule)
	case at < 0:
		return nil, errNoEntry(in.Egress, in.RuleNumber, in.NetworkAclId)
	}
	return &ec2.DeleteNetworkAclEntryOutput{}, s.editNetwork(c, func(n *networking) { n.Acls[i].Entries = slices.Delete(n.Acls[i].Entries, at, at+1) })
}

// ReplaceNetworkAclAssociation associates a subnet with another network ACL.
func (s *state) ReplaceNetworkAclAssociation(ctx context.Context, in *ec2.ReplaceNetworkAclAssociationInput) (*ec2.ReplaceNetworkAclAssociationOutput, error) {
	c := wire.CallerFrom(ctx)
	n, to, err := s.acl(c, in.NetworkAclId)
	if err != nil {
		return nil, err
	}
	id := aws.ToString(in.AssociationId)
	if id == "" {
		return nil, missing("AssociationId")
	}
	for from := range n.Acls {
		at := slices.IndexFunc(n.Acls[from].Associations, func(a types.NetworkAclAssociation) bool { return *a.NetworkAclAssociationId == id })
		if at < 0 {
			continue
		}
		if *n.Acls[from].VpcId != *n.Acls[to].VpcId {
			return nil, invalidValue("The network ACLs %s and %s belong to different networks", *n.Acls[from].NetworkAclId, *in.NetworkAclId)
		}
		made := types.NetworkAclAssociation{NetworkAclAssociationId: aws.String(newID("aclassoc")), NetworkAclId: in.NetworkAclId, SubnetId: n.Acls[from].Associations[at].SubnetId}
		return &ec2.ReplaceNetworkAclAssociationOutput{NewAssociationId: made.NetworkAclAssociationId}, s.editNetwork(c, func(n *networking) {
			n.Acls[from].Associations = slices.Delete(n.Acls[from].Associations, at, at+1)
			n.Acls[to].Associations = append(n.Acls[to].Associations, made)
		})
	}
	return nil, wire.Errorf("InvalidAssociationID.NotFound", "The association ID '%s' does not exist", id)
}

// CreateDhcpOptions creates a set of DHCP options. The set is only recorded: it does not
// change the machines' resolver.
func (s *state) CreateDhcpOptions(ctx context.Context, in *ec2.CreateDhcpOptionsInput) (*ec2.CreateDhcpOptionsOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindDhcp.resource)
	if err != nil {
		return nil, err
	}
	if len(in.DhcpConfigurations) == 0 {
		return nil, missing("DhcpConfiguration")
	}
	made := types.DhcpOptions{DhcpOptionsId: aws.String(newID("dopt")), OwnerId: &c.Account, Tags: tags[kindDhcp.resource]}
	known := []string{"domain-name-servers", "domain-name", "ntp-servers", "netbios-name-servers", "netbios-node-type", "ipv6-address-preferred-lease-time"}
	for _, o := range in.DhcpConfigurations {
		if !slices.Contains(known, aws.ToString(o.Key)) {
			return nil, invalidValue("Value (%s) for parameter dhcp-configuration is invalid. Invalid DHCP option.", aws.ToString(o.Key))
		}
		values := []types.AttributeValue{}
		for _, v := range o.Values {
			values = append(values, types.AttributeValue{Value: &v})
		}
		if len(values) == 0 {
			return nil, missing("Value")
		}
		made.DhcpConfigurations = append(made.DhcpConfigurations, types.DhcpConfiguration{Key: o.Key, Values: values})
	}
	if _, err := s.networkOf(c); err != nil {
		return nil, err
	}
	s.hide(ctx, *made.DhcpOptionsId)
	return &ec2.CreateDhcpOptionsOutput{DhcpOptions: &made}, s.editNetwork(c, func(n *networking) { n.DhcpOptions = append(n.DhcpOptions, made) })
}

// DeleteDhcpOptions deletes a set that no VPC uses.
func (s *state) DeleteDhcpOptions(ctx context.Context, in *ec2.DeleteDhcpOptionsInput) (*ec2.DeleteDhcpOptionsOutput, error) {
	c := wire.CallerFrom(ctx)
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	i, err := s.indexOf(kindDhcp, n.DhcpOptions, in.DhcpOptionsId)
	if err != nil {
		return nil, err
	}
	// The first set is the one that every new VPC gets.
	if i == 0 || slices.ContainsFunc(n.Vpcs, func(v vpc) bool { return *v.DhcpOptionsId == *in.DhcpOptionsId }) {
		return nil, errDependencies("dhcpOptions", *in.DhcpOptionsId)
	}
	return &ec2.DeleteDhcpOptionsOutput{}, s.editNetwork(c, func(n *networking) { n.DhcpOptions = slices.Delete(n.DhcpOptions, i, i+1) })
}

// AssociateDhcpOptions assigns a set of options, or none, to a VPC.
func (s *state) AssociateDhcpOptions(ctx context.Context, in *ec2.AssociateDhcpOptionsInput) (*ec2.AssociateDhcpOptionsOutput, error) {
	c := wire.CallerFrom(ctx)
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	i, err := s.indexOf(kindVpc, n.Vpcs, in.VpcId)
	if err != nil {
		return nil, err
	}
	if aws.ToString(in.DhcpOptionsId) != "default" {
		if _, err := s.indexOf(kindDhcp, n.DhcpOptions, in.DhcpOptionsId); err != nil {
			return nil, err
		}
	}
	return &ec2.AssociateDhcpOptionsOutput{}, s.editNetwork(c, func(n *networking) { n.Vpcs[i].DhcpOptionsId = in.DhcpOptionsId })
}

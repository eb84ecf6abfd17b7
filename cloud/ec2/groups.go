package ec2

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// group is a security group. Its permissions are stored as rules, one for each peer; the
// grouped form is computed from them.
type group struct {
	Region string
	types.SecurityGroup
	Rules []types.SecurityGroupRule
}

// defaultGroup is the name of the group that every VPC has from the start.
const defaultGroup = "default"

// newGroup returns a group that allows all outbound and no inbound traffic.
func newGroup(c wire.Caller, vpc, name, description string) *group {
	id := newID("sg")
	return &group{
		Region: c.Region,
		SecurityGroup: types.SecurityGroup{GroupId: &id, GroupName: &name, Description: &description, OwnerId: &c.Account, VpcId: &vpc,
			SecurityGroupArn: aws.String(arn(c, "ec2", "security-group/"+id))},
		Rules: []types.SecurityGroupRule{{SecurityGroupRuleId: aws.String(newID("sgr")), GroupId: &id, GroupOwnerId: &c.Account, IsEgress: aws.Bool(true),
			IpProtocol: aws.String("-1"), FromPort: aws.Int32(-1), ToPort: aws.Int32(-1), CidrIpv4: aws.String("0.0.0.0/0")}},
	}
}

// view returns the group as DescribeSecurityGroups shows it.
func (g *group) view() types.SecurityGroup {
	v := g.SecurityGroup
	v.IpPermissions, v.IpPermissionsEgress = g.permissions(false), g.permissions(true)
	return v
}

// permissions groups the rules of one direction by protocol and ports.
func (g *group) permissions(egress bool) []types.IpPermission {
	out := []types.IpPermission{}
	for _, r := range g.Rules {
		if *r.IsEgress != egress {
			continue
		}
		i := slices.IndexFunc(out, func(p types.IpPermission) bool {
			return *p.IpProtocol == *r.IpProtocol && aws.ToInt32(p.FromPort) == portOf(r, r.FromPort) && aws.ToInt32(p.ToPort) == portOf(r, r.ToPort)
		})
		if i < 0 {
			p := types.IpPermission{IpProtocol: r.IpProtocol, IpRanges: []types.IpRange{}, Ipv6Ranges: []types.Ipv6Range{},
				PrefixListIds: []types.PrefixListId{}, UserIdGroupPairs: []types.UserIdGroupPair{}}
			if *r.IpProtocol != "-1" {
				p.FromPort, p.ToPort = r.FromPort, r.ToPort
			}
			i, out = len(out), append(out, p)
		}
		p := &out[i]
		switch {
		case r.CidrIpv4 != nil:
			p.IpRanges = append(p.IpRanges, types.IpRange{CidrIp: r.CidrIpv4, Description: r.Description})
		case r.CidrIpv6 != nil:
			p.Ipv6Ranges = append(p.Ipv6Ranges, types.Ipv6Range{CidrIpv6: r.CidrIpv6, Description: r.Description})
		case r.ReferencedGroupInfo != nil:
			p.UserIdGroupPairs = append(p.UserIdGroupPairs, types.UserIdGroupPair{GroupId: r.ReferencedGroupInfo.GroupId, UserId: r.ReferencedGroupInfo.UserId, Description: r.Description})
		}
	}
	return out
}

// portOf returns the port as in the grouped form, which has none for all protocols.
func portOf(r types.SecurityGroupRule, port *int32) int32 {
	if *r.IpProtocol == "-1" {
		return 0
	}
	return aws.ToInt32(port)
}

// groupsOf returns the caller's groups, including the default one.
func (s *state) groupsOf(c wire.Caller) ([]*group, error) {
	if _, err := s.networkOf(c); err != nil {
		return nil, err
	}
	return s.groups.of(c), nil
}

// groupNamed returns the group of a VPC with that name, or nil.
func (s *state) groupNamed(vpc, name string) *group {
	for _, g := range s.groups.Rows {
		if *g.VpcId == vpc && *g.GroupName == name {
			return g
		}
	}
	return nil
}

// findGroup returns the caller's group with that id or, if id is empty, the group of its
// default VPC with that name.
func (s *state) findGroup(c wire.Caller, id, name *string) (*group, error) {
	n, err := s.networkOf(c) // creates the default group
	if err != nil {
		return nil, err
	}
	if aws.ToString(id) != "" || aws.ToString(name) == "" {
		return s.groups.find(c, id)
	}
	if g := s.groupNamed(n.defaultVpc(), *name); g != nil && len(s.concealed([]string{*g.GroupId})) == 0 {
		return g, nil
	}
	return nil, kindGroup.notFound(*name)
}

// groupsFor returns the groups, given by id and by name, of an instance in a VPC. If none
// is given, it returns the VPC's default group.
func (s *state) groupsFor(c wire.Caller, vpc string, ids, names []string) ([]types.GroupIdentifier, error) {
	if len(ids)+len(names) == 0 {
		names = []string{defaultGroup}
	}
	var groups []*group
	for _, id := range ids {
		g, err := s.findGroup(c, &id, nil)
		if err != nil {
			return nil, err
		}
		if *g.VpcId != vpc {
			return nil, wire.Errorf("InvalidParameter", "Security group %s and the subnet belong to different networks.", id)
		}
		groups = append(groups, g)
	}
	for _, name := range names {
		g := s.groupNamed(vpc, name)
		if g == nil || len(s.concealed([]string{*g.GroupId})) > 0 {
			return nil, kindGroup.notFound(name)
		}
		groups = append(groups, g)
	}
	var out []types.GroupIdentifier
	for _, g := range groups {
		if !slices.ContainsFunc(out, func(o types.GroupIdentifier) bool { return *o.GroupId == *g.GroupId }) {
			out = append(out, types.GroupIdentifier{GroupId: g.GroupId, GroupName: g.GroupName})
		}
	}
	return out, nil
}

func (s *state) CreateSecurityGroup(ctx context.Context, in *ec2.CreateSecurityGroupInput) (*ec2.CreateSecurityGroupOutput, error) {
	c := wire.CallerFrom(ctx)
	name := aws.ToString(in.GroupName)
	switch {
	case name == "":
		return nil, missing("GroupName")
	case aws.ToString(in.Description) == "":
		return nil, missing("GroupDescription")
	case strings.EqualFold(name, defaultGroup):
		return nil, wire.Errorf("InvalidGroup.Reserved", "The security group name '%s' is reserved", name)
	case strings.HasPrefix(name, "sg-"):
		return nil, invalidValue("Invalid value '%s' for parameter groupName. Group names cannot begin with sg-", name)
	case len(name) > 255 || len(*in.Description) > 255:
		return nil, invalidValue("Invalid security group name or description. They are limited to 255 characters")
	}
	tags, err := tagsFor(in.TagSpecifications, kindGroup.resource)
	if err != nil {
		return nil, err
	}
	n, err := s.networkOf(c)
	if err != nil {
		return nil, err
	}
	v, err := s.vpcFor(n, in.VpcId)
	if err != nil {
		return nil, err
	}
	vpc := *v.VpcId
	if s.groupNamed(vpc, name) != nil {
		return nil, wire.Errorf("InvalidGroup.Duplicate", "The security group '%s' already exists for VPC '%s'", name, vpc)
	}
	g := newGroup(c, vpc, name, *in.Description)
	g.Tags = tags[kindGroup.resource]
	s.hide(ctx, *g.GroupId)
	return &ec2.CreateSecurityGroupOutput{GroupId: g.GroupId, SecurityGroupArn: g.SecurityGroupArn, Tags: g.Tags}, s.groups.Put(*g.GroupId, g)
}

func (s *state) DeleteSecurityGroup(ctx context.Context, in *ec2.DeleteSecurityGroupInput) (*ec2.DeleteSecurityGroupOutput, error) {
	c := wire.CallerFrom(ctx)
	g, err := s.findGroup(c, in.GroupId, in.GroupName)
	if err != nil {
		return nil, err
	}
	if *g.GroupName == defaultGroup {
		return nil, wire.Errorf("CannotDelete", "the specified group: \"%s\" name: \"default\" cannot be deleted by a user", *g.GroupId)
	}
	inUse := wire.Errorf("DependencyViolation", "resource %s has a dependent object", *g.GroupId)
	for _, in := range s.instances.Rows {
		if slices.ContainsFunc(in.SecurityGroups, func(id types.GroupIdentifier) bool { return *id.GroupId == *g.GroupId }) {
			return nil, inUse
		}
	}
	for _, n := range s.networks.Rows {
		if slices.ContainsFunc(n.Connects, func(e types.Ec2InstanceConnectEndpoint) bool { return slices.Contains(e.SecurityGroupIds, *g.GroupId) }) {
			return nil, inUse
		}
		if slices.ContainsFunc(n.Interfaces, func(i types.NetworkInterface) bool {
			return slices.ContainsFunc(i.Groups, func(id types.GroupIdentifier) bool { return *id.GroupId == *g.GroupId })
		}) {
			return nil, inUse
		}
	}
	for id, other := range s.groups.Rows {
		if id != *g.GroupId && slices.ContainsFunc(other.Rules, func(r types.SecurityGroupRule) bool {
			return r.ReferencedGroupInfo != nil && *r.ReferencedGroupInfo.GroupId == *g.GroupId
		}) {
			return nil, inUse
		}
	}
	return &ec2.DeleteSecurityGroupOutput{Return: aws.Bool(true), GroupId: g.GroupId}, s.groups.Drop(*g.GroupId)
}

var groupFilters = filters{
	{"description", "Description"}, {"group-id", "GroupId"}, {"group-name", "GroupName"}, {"owner-id", "OwnerId"}, {"vpc-id", "VpcId"},
	{"egress.ip-permission.cidr", "IpPermissionsEgress.IpRanges.CidrIp"}, {"egress.ip-permission.from-port", "IpPermissionsEgress.FromPort"},
	{"egress.ip-permission.group-id", "IpPermissionsEgress.UserIdGroupPairs.GroupId"}, {"egress.ip-permission.group-name", "IpPermissionsEgress.UserIdGroupPairs.GroupName"},
	{"egress.ip-permission.ipv6-cidr", "IpPermissionsEgress.Ipv6Ranges.CidrIpv6"}, {"egress.ip-permission.prefix-list-id", ""},
	{"egress.ip-permission.protocol", "IpPermissionsEgress.IpProtocol"}, {"egress.ip-permission.to-port", "IpPermissionsEgress.ToPort"},
	{"egress.ip-permission.user-id", "IpPermissionsEgress.UserIdGroupPairs.UserId"},
	{"ip-permission.cidr", "IpPermissions.IpRanges.CidrIp"}, {"ip-permission.from-port", "IpPermissions.FromPort"},
	{"ip-permission.group-id", "IpPermissions.UserIdGroupPairs.GroupId"}, {"ip-permission.group-name", "IpPermissions.UserIdGroupPairs.GroupName"},
	{"ip-permission.ipv6-cidr", "IpPermissions.Ipv6Ranges.CidrIpv6"}, {"ip-permission.prefix-list-id", ""},
	{"ip-permission.protocol", "IpPermissions.IpProtocol"}, {"ip-permission.to-port", "IpPermissions.ToPort"}, {"ip-permission.user-id", "IpPermissions.UserIdGroupPairs.UserId"},
}

func (s *state) DescribeSecurityGroups(ctx context.Context, in *ec2.DescribeSecurityGroupsInput) (*ec2.DescribeSecurityGroupsOutput, error) {
	if err := kindGroup.checkPage(query{max: in.MaxResults}); err != nil {
		return nil, err
	}
	c := wire.CallerFrom(ctx)
	groups, err := s.groupsOf(c)
	if err != nil {
		return nil, err
	}
	var rows []types.SecurityGroup
	for _, g := range groups {
		rows = append(rows, g.view())
	}
	ids := slices.Clone(in.GroupIds)
	for _, name := range in.GroupNames {
		g, err := s.findGroup(c, nil, &name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, *g.GroupId)
	}
	rows, next, err := list(s, kindGroup, query{ids, in.Filters, in.MaxResults, in.NextToken}, rows)
	return &ec2.DescribeSecurityGroupsOutput{SecurityGroups: rows, NextToken: next}, err
}

var ruleFilters = filters{{"group-id", "GroupId"}, {"security-group-rule-id", "SecurityGroupRuleId"}}

func (s *state) DescribeSecurityGroupRules(ctx context.Context, in *ec2.DescribeSecurityGroupRulesInput) (*ec2.DescribeSecurityGroupRulesOutput, error) {
	groups, err := s.groupsOf(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	var rows []types.SecurityGroupRule
	for _, g := range groups {
		rows = append(rows, g.Rules...)
	}
	rows, next, err := list(s, kindRule, query{in.SecurityGroupRuleIds, in.Filters, in.MaxResults, in.NextToken}, rows)
	return &ec2.DescribeSecurityGroupRulesOutput{SecurityGroupRules: rows, NextToken: next}, err
}

// flatPermission is the older form of a permission: one range or group, given as
// parameters of the action itself.
type flatPermission struct {
	protocol, cidr, groupName, groupOwner *string
	from, to                              *int32
}

// with appends the older form, if it is used, to permissions.
func (f flatPermission) with(permissions []types.IpPermission) []types.IpPermission {
	if f.protocol == nil && f.cidr == nil && f.groupName == nil {
		return permissions
	}
	p := types.IpPermission{IpProtocol: f.protocol, FromPort: f.from, ToPort: f.to}
	if p.IpProtocol == nil {
		p.IpProtocol = aws.String("-1")
	}
	if f.cidr != nil {
		p.IpRanges = []types.IpRange{{CidrIp: f.cidr}}
	}
	if f.groupName != nil {
		p.UserIdGroupPairs = []types.UserIdGroupPair{{GroupName: f.groupName, UserId: f.groupOwner}}
	}
	return append(slices.Clone(permissions), p)
}

// rulesOf converts permissions to rules of g, without ids.
func (s *state) rulesOf(c wire.Caller, g *group, permissions []types.IpPermission, egress bool) ([]types.SecurityGroupRule, error) {
	if len(permissions) == 0 {
		return nil, missing("IpPermissions")
	}
	var out []types.SecurityGroupRule
	for _, p := range permissions {
		protocol, from, to, err := checkPorts(p)
		if err != nil {
			return nil, err
		}
		base := types.SecurityGroupRule{GroupId: g.GroupId, GroupOwnerId: g.OwnerId, IsEgress: &egress, IpProtocol: &protocol, FromPort: &from, ToPort: &to}
		for _, r := range p.IpRanges {
			prefix, err := netip.ParsePrefix(aws.ToString(r.CidrIp))
			if err != nil || !prefix.Addr().Is4() {
				return nil, invalidValue("CIDR block %s is malformed", aws.ToString(r.CidrIp))
			}
			rule := base
			rule.CidrIpv4, rule.Description = aws.String(prefix.Masked().String()), r.Description
			out = append(out, rule)
		}
		for _, r := range p.Ipv6Ranges {
			prefix, err := netip.ParsePrefix(aws.ToString(r.CidrIpv6))
			if err != nil || !prefix.Addr().Is6() {
				return nil, invalidValue("CIDR block %s is malformed", aws.ToString(r.CidrIpv6))
			}
			rule := base
			rule.CidrIpv6, rule.Description = aws.String(prefix.Masked().String()), r.Description
			out = append(out, rule)
		}
		for _, r := range p.UserIdGroupPairs {
			peer, err := s.findGroup(c, r.GroupId, r.GroupName)
			if err != nil {
				return nil, err
			}
			if *peer.VpcId != *g.VpcId {
				return nil, wire.Errorf("InvalidGroup.NotFound", "You have specified two resources that belong to different networks.")
			}
			rule := base
			rule.ReferencedGroupInfo, rule.Description = &types.ReferencedSecurityGroup{GroupId: peer.GroupId, UserId: peer.OwnerId}, r.Description
			out = append(out, rule)
		}
		if len(p.PrefixListIds) > 0 {
			return nil, wire.Errorf("InvalidPrefixListID.NotFound", "The prefix list ID '%s' does not exist", aws.ToString(p.PrefixListIds[0].PrefixListId))
		}
	}
	if len(out) == 0 {
		return nil, missing("IpPermissions.1.IpRanges")
	}
	return out, nil
}

// checkPorts returns a permission's ports and its protocol by its usual name.
func checkPorts(p types.IpPermission) (protocol string, from, to int32, err error) {
	names := map[string]string{"6": "tcp", "17": "udp", "1": "icmp", "58": "icmpv6", "all": "-1"}
	protocol = strings.ToLower(aws.ToString(p.IpProtocol))
	if name, ok := names[protocol]; ok {
		protocol = name
	}
	switch protocol {
	case "":
		return "", 0, 0, missing("IpPermissions.1.IpProtocol")
	case "tcp", "udp":
		if p.FromPort == nil || p.ToPort == nil {
			return "", 0, 0, invalidValue("Invalid value for portRange. Must specify both from and to ports with TCP/UDP.")
		}
		from, to = *p.FromPort, *p.ToPort
		if from < 0 || to > 65535 {
			return "", 0, 0, invalidValue("Invalid value '%d' for portRange. Must be between 0 and 65535.", min(from, to))
		}
		if from > to {
			return "", 0, 0, wire.Errorf("InvalidPermission.Malformed", "Invalid TCP/UDP port range (%d:%d)", from, to)
		}
	case "icmp", "icmpv6":
		from, to = -1, -1
		if p.FromPort != nil {
			from = *p.FromPort
		}
		if p.ToPort != nil {
			to = *p.ToPort
		}
	default:
		var number int
		if _, scan := fmt.Sscanf(protocol, "%d", &number); scan != nil || number < -1 || number > 255 {
			return "", 0, 0, invalidValue("Invalid value '%s' for IP protocol. Unknown protocol.", protocol)
		}
		from, to = -1, -1
	}
	return protocol, from, to, nil
}

// sameRule reports whether two rules allow the same traffic.
func sameRule(a, b types.SecurityGroupRule) bool {
	return *a.IsEgress == *b.IsEgress && *a.IpProtocol == *b.IpProtocol && *a.FromPort == *b.FromPort && *a.ToPort == *b.ToPort &&
		reflect.DeepEqual(a.CidrIpv4, b.CidrIpv4) && reflect.DeepEqual(a.CidrIpv6, b.CidrIpv6) && reflect.DeepEqual(a.ReferencedGroupInfo, b.ReferencedGroupInfo)
}

// peerOf formats a rule's peer as EC2's errors do.
func peerOf(r types.SecurityGroupRule) string {
	if r.ReferencedGroupInfo != nil {
		return *r.ReferencedGroupInfo.GroupId
	}
	return cmp.Or(aws.ToString(r.CidrIpv4), aws.ToString(r.CidrIpv6))
}

func (s *state) authorize(ctx context.Context, id, name *string, permissions []types.IpPermission, egress bool, specs []types.TagSpecification) ([]types.SecurityGroupRule, error) {
	tags, err := tagsFor(specs, kindRule.resource)
	if err != nil {
		return nil, err
	}
	c := wire.CallerFrom(ctx)
	g, err := s.findGroup(c, id, name)
	if err != nil {
		return nil, err
	}
	rules, err := s.rulesOf(c, g, permissions, egress)
	if err != nil {
		return nil, err
	}
	have := slices.Clone(g.Rules)
	for i := range rules {
		r := &rules[i]
		if slices.ContainsFunc(have, func(h types.SecurityGroupRule) bool { return sameRule(h, *r) }) {
			return nil, errDuplicateRule(*r)
		}
		r.SecurityGroupRuleId, r.Tags = aws.String(newID("sgr")), tags[kindRule.resource]
		r.SecurityGroupRuleArn = aws.String(arn(c, "ec2", "security-group-rule/"+*r.SecurityGroupRuleId))
		have = append(have, *r)
	}
	if len(have) > 120 {
		return nil, wire.Errorf("RulesPerSecurityGroupLimitExceeded", "The maximum number of rules per security group has been reached.")
	}
	if err := s.groups.Edit(*g.GroupId, func(g *group) { g.Rules = have }); err != nil {
		return nil, err
	}
	s.refreshPolicies()
	return rules, nil
}

func (s *state) revoke(ctx context.Context, id, name *string, permissions []types.IpPermission, ruleIDs []string, egress bool) ([]types.RevokedSecurityGroupRule, error) {
	c := wire.CallerFrom(ctx)
	g, err := s.findGroup(c, id, name)
	if err != nil {
		return nil, err
	}
	var gone []types.SecurityGroupRule
	for _, ruleID := range ruleIDs {
		i := slices.IndexFunc(g.Rules, func(r types.SecurityGroupRule) bool {
			return *r.SecurityGroupRuleId == ruleID && *r.IsEgress == egress
		})
		if i < 0 {
			return nil, kindRule.notFound(ruleID)
		}
		gone = append(gone, g.Rules[i])
	}
	if len(ruleIDs) == 0 {
		if gone, err = s.rulesOf(c, g, permissions, egress); err != nil {
			return nil, err
		}
	}
	rest := slices.Clone(g.Rules)
	var revoked []types.RevokedSecurityGroupRule
	for _, r := range gone {
		i := slices.IndexFunc(rest, func(h types.SecurityGroupRule) bool { return sameRule(h, r) })
		if i < 0 {
			return nil, wire.Errorf("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
		}
		out := types.RevokedSecurityGroupRule{SecurityGroupRuleId: rest[i].SecurityGroupRuleId, GroupId: g.GroupId, IsEgress: &egress,
			IpProtocol: r.IpProtocol, FromPort: r.FromPort, ToPort: r.ToPort, CidrIpv4: r.CidrIpv4, CidrIpv6: r.CidrIpv6, Description: rest[i].Description}
		if r.ReferencedGroupInfo != nil {
			out.ReferencedGroupId = r.ReferencedGroupInfo.GroupId
		}
		revoked = append(revoked, out)
		rest = slices.Delete(rest, i, i+1)
	}
	if err := s.groups.Edit(*g.GroupId, func(g *group) { g.Rules = rest }); err != nil {
		return nil, err
	}
	s.refreshPolicies()
	return revoked, nil
}

func (s *state) AuthorizeSecurityGroupIngress(ctx context.Context, in *ec2.AuthorizeSecurityGroupIngressInput) (*ec2.AuthorizeSecurityGroupIngressOutput, error) {
	flat := flatPermission{in.IpProtocol, in.CidrIp, in.SourceSecurityGroupName, in.SourceSecurityGroupOwnerId, in.FromPort, in.ToPort}
	rules, err := s.authorize(ctx, in.GroupId, in.GroupName, flat.with(in.IpPermissions), false, in.TagSpecifications)
	return &ec2.AuthorizeSecurityGroupIngressOutput{Return: aws.Bool(true), SecurityGroupRules: rules}, err
}

func (s *state) AuthorizeSecurityGroupEgress(ctx context.Context, in *ec2.AuthorizeSecurityGroupEgressInput) (*ec2.AuthorizeSecurityGroupEgressOutput, error) {
	flat := flatPermission{in.IpProtocol, in.CidrIp, in.SourceSecurityGroupName, in.SourceSecurityGroupOwnerId, in.FromPort, in.ToPort}
	rules, err := s.authorize(ctx, in.GroupId, nil, flat.with(in.IpPermissions), true, in.TagSpecifications)
	return &ec2.AuthorizeSecurityGroupEgressOutput{Return: aws.Bool(true), SecurityGroupRules: rules}, err
}

func (s *state) RevokeSecurityGroupIngress(ctx context.Context, in *ec2.RevokeSecurityGroupIngressInput) (*ec2.RevokeSecurityGroupIngressOutput, error) {
	flat := flatPermission{in.IpProtocol, in.CidrIp, in.SourceSecurityGroupName, in.SourceSecurityGroupOwnerId, in.FromPort, in.ToPort}
	rules, err := s.revoke(ctx, in.GroupId, in.GroupName, flat.with(in.IpPermissions), in.SecurityGroupRuleIds, false)
	return &ec2.RevokeSecurityGroupIngressOutput{Return: aws.Bool(true), RevokedSecurityGroupRules: rules}, err
}

func (s *state) RevokeSecurityGroupEgress(ctx context.Context, in *ec2.RevokeSecurityGroupEgressInput) (*ec2.RevokeSecurityGroupEgressOutput, error) {
	flat := flatPermission{in.IpProtocol, in.CidrIp, in.SourceSecurityGroupName, in.SourceSecurityGroupOwnerId, in.FromPort, in.ToPort}
	rules, err := s.revoke(ctx, in.GroupId, nil, flat.with(in.IpPermissions), in.SecurityGroupRuleIds, true)
	return &ec2.RevokeSecurityGroupEgressOutput{Return: aws.Bool(true), RevokedSecurityGroupRules: rules}, err
}

// ModifySecurityGroupRules changes the protocols, ports, peers and descriptions of rules,
// which keep their ids. The kind of a rule's peer cannot change.
func (s *state) ModifySecurityGroupRules(ctx context.Context, in *ec2.ModifySecurityGroupRulesInput) (*ec2.ModifySecurityGroupRulesOutput, error) {
	c := wire.CallerFrom(ctx)
	if aws.ToString(in.GroupId) == "" {
		return nil, missing("GroupId")
	}
	g, err := s.findGroup(c, in.GroupId, nil)
	if err != nil {
		return nil, err
	}
	if len(in.SecurityGroupRules) == 0 {
		return nil, missing("SecurityGroupRule")
	}
	rules := slices.Clone(g.Rules)
	var changed []int
	for _, u := range in.SecurityGroupRules {
		i := slices.IndexFunc(rules, func(r types.SecurityGroupRule) bool {
			return *r.SecurityGroupRuleId == aws.ToString(u.SecurityGroupRuleId)
		})
		switch {
		case i < 0:
			return nil, kindRule.notFound(aws.ToString(u.SecurityGroupRuleId))
		case slices.Contains(changed, i):
			return nil, invalidValue("The rule %s is named more than once.", *u.SecurityGroupRuleId)
		case u.SecurityGroupRule == nil:
			return nil, missing("SecurityGroupRule.SecurityGroupRule")
		}
		now, err := s.rulesOf(c, g, []types.IpPermission{permissionOf(*u.SecurityGroupRule)}, *rules[i].IsEgress)
		if err != nil {
			return nil, err
		}
		if len(now) != 1 {
			return nil, wire.Errorf("InvalidParameterCombination", "Specify exactly one of CidrIpv4, CidrIpv6, PrefixListId and ReferencedGroupId for the rule %s.", *u.SecurityGroupRuleId)
		}
		was := rules[i]
		if (was.CidrIpv4 == nil) != (now[0].CidrIpv4 == nil) || (was.CidrIpv6 == nil) != (now[0].CidrIpv6 == nil) {
			return nil, invalidValue("The kind of peer of the rule %s cannot be changed.", *u.SecurityGroupRuleId)
		}
		now[0].SecurityGroupRuleId, now[0].SecurityGroupRuleArn, now[0].Tags = was.SecurityGroupRuleId, was.SecurityGroupRuleArn, was.Tags
		rules[i] = now[0]
		changed = append(changed, i)
	}
	for _, i := range changed {
		for j, other := range rules {
			if i != j && sameRule(rules[i], other) {
				return nil, errDuplicateRule(rules[i])
			}
		}
	}
	if err := s.groups.Edit(*g.GroupId, func(g *group) { g.Rules = rules }); err != nil {
		return nil, err
	}
	s.refreshPolicies()
	return &ec2.ModifySecurityGroupRulesOutput{Return: aws.Bool(true)}, nil
}

// permissionOf returns the permission that a request for one rule describes.
func permissionOf(r types.SecurityGroupRuleRequest) types.IpPermission {
	p := types.IpPermission{IpProtocol: r.IpProtocol, FromPort: r.FromPort, ToPort: r.ToPort}
	if r.CidrIpv4 != nil {
		p.IpRanges = []types.IpRange{{CidrIp: r.CidrIpv4, Description: r.Description}}
	}
	if r.CidrIpv6 != nil {
		p.Ipv6Ranges = []types.Ipv6Range{{CidrIpv6: r.CidrIpv6, Description: r.Description}}
	}
	if r.ReferencedGroupId != nil {
		p.UserIdGroupPairs = []types.UserIdGroupPair{{GroupId: r.ReferencedGroupId, Description: r.Description}}
	}
	if r.PrefixListId != nil {
		p.PrefixListIds = []types.PrefixListId{{PrefixListId: r.PrefixListId, Description: r.Description}}
	}
	return p
}

func errDuplicateRule(r types.SecurityGroupRule) error {
	return wire.Errorf("InvalidPermission.Duplicate", "the specified rule \"peer: %s, %s, from port: %d, to port: %d, ALLOW\" already exists",
		peerOf(r), strings.ToUpper(*r.IpProtocol), *r.FromPort, *r.ToPort)
}

package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/destroy"
	"bake/builder/amazon/internal/ownership"
	"bake/communicator/ssh"
	"bake/step"
)

// Groups are the security groups of a machine.
type Groups struct {
	ids []string

	// public means that the group is temporary and admits only the public address of this
	// machine, so that private addresses are blocked.
	public bool
}

// MakesGroup reports whether a temporary security group is made for the machine.
func (l *Launcher) MakesGroup() bool { return len(l.groups()) == 0 && l.SecurityGroupFilter == nil }

// Groups finds the security groups that the options name, or makes one that admits this
// machine.
func (l *Launcher) Groups(ctx context.Context, place Place, tags map[string]string) (Groups, error) {
	if ids := l.groups(); len(ids) > 0 {
		return l.findGroups(ctx, ids)
	}
	if l.SecurityGroupFilter != nil {
		return l.filterGroups(ctx, place)
	}
	var ranges []string
	var public bool
	closed := l.Communicator == ssh.None || l.SSHInterface == SessionManager // no inbound connections
	if !closed {
		var err error
		if ranges, public, err = l.admitted(ctx); err != nil {
			return Groups{}, err
		}
	}
	name := "packer_" + l.Owner.ID
	want := l.Owner.Resource(ownership.SecurityGroup, name, l.Session.Region, ownership.WithName, name)
	id, err := ownership.Acquire(ctx, l.Scope, "create a temporary security group", want, func(ctx context.Context) (string, string, error) {
		out, err := access.Finish(ctx, l.client().CreateSecurityGroup, &ec2.CreateSecurityGroupInput{
			GroupName:         &name,
			Description:       new("Temporary group for bake"),
			VpcId:             access.Optional(place.vpc),
			TagSpecifications: l.Owner.Specs(tags, types.ResourceTypeSecurityGroup),
		})
		if access.Is(err, "InvalidGroup.Duplicate") && !access.Refused(err) {
			// An earlier attempt of the call has made the group, and its response was lost.
			if id := destroy.FindGroup(ctx, l.client(), name, l.Owner.ID); id != "" {
				return id, id, nil
			}
		}
		if err != nil {
			return "", "", err
		}
		return aws.ToString(out.GroupId), aws.ToString(out.GroupId), nil
	})
	if err != nil {
		return Groups{}, err
	}
	if closed {
		return Groups{ids: []string{id}}, nil
	}
	err = step.Run(ctx, l.Scope, "open the security group", func(ctx context.Context) error {
		return l.admit(ctx, id, ranges)
	})
	return Groups{ids: []string{id}, public: public}, err
}

func (l *Launcher) findGroups(ctx context.Context, ids []string) (Groups, error) {
	return step.Do(ctx, l.Scope, "check the security groups", func(ctx context.Context) (Groups, error) {
		_, err := access.Call(ctx, l.client().DescribeSecurityGroups, &ec2.DescribeSecurityGroupsInput{GroupIds: ids})
		if access.NotFound(err) || access.Is(err, "InvalidGroupId.Malformed", "InvalidGroupId.NotFound", "InvalidParameterValue") {
			blame := any(&l.SecurityGroupID)
			if l.SecurityGroupID == "" {
				blame = &l.SecurityGroupIDs
			}
			err = l.Src.Errorf(blame, "No such security group", "%s.", err)
		}
		return Groups{ids: ids}, err
	})
}

func (l *Launcher) filterGroups(ctx context.Context, place Place) (Groups, error) {
	return step.Do(ctx, l.Scope, "find the security groups", func(ctx context.Context) (Groups, error) {
		filters := l.SecurityGroupFilter.EC2()
		if place.vpc != "" {
			filters = append(filters, types.Filter{Name: new("vpc-id"), Values: []string{place.vpc}})
		}
		out, err := access.Call(ctx, l.client().DescribeSecurityGroups, &ec2.DescribeSecurityGroupsInput{Filters: filters})
		if err != nil {
			return Groups{}, l.SecurityGroupFilter.Blame(l.Src, err)
		}
		var g Groups
		for _, sg := range out.SecurityGroups {
			g.ids = append(g.ids, aws.ToString(sg.GroupId))
		}
		if len(g.ids) == 0 {
			return g, l.Src.Errorf(&l.SecurityGroupFilter, "No such security group", "No security group in %s matches these filters.", l.Session.Region)
		}
		slices.Sort(g.ids)
		return g, nil
	})
}

// admit allows address ranges at the communicator's port. The new group may not be visible
// in all of EC2 yet.
func (l *Launcher) admit(ctx context.Context, group string, ranges []string) error {
	p := types.IpPermission{
		IpProtocol: new("tcp"),
		FromPort:   new(int32(l.port())), // validated
		ToPort:     new(int32(l.port())), // validated
	}
	for _, r := range ranges {
		if strings.Contains(r, ":") {
			p.Ipv6Ranges = append(p.Ipv6Ranges, types.Ipv6Range{CidrIpv6: &r})
		} else {
			p.IpRanges = append(p.IpRanges, types.IpRange{CidrIp: &r})
		}
	}
	in := &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &group, IpPermissions: []types.IpPermission{p}}
	return l.Session.Watch(5*time.Second, 200*time.Second).Until(ctx, "security group "+group+" to exist", func(ctx context.Context) (bool, error) {
		_, err := access.Call(ctx, l.client().AuthorizeSecurityGroupIngress, in)
		switch {
		case access.Is(err, "InvalidGroup.NotFound"):
			return false, nil
		case access.Is(err, "InvalidPermission.Duplicate"):
			return true, nil // an earlier attempt succeeded
		}
		return err == nil, err
	})
}

const (
	everybody   = "0.0.0.0/0"
	everybodyV6 = "::/0"
	here        = "127.0.0.1/32" // this machine, for a cloud on it
)

// covers reports whether one of the ranges contains all addresses of another one.
func covers(ranges []string, other string) bool {
	inner, err := netip.ParsePrefix(other)
	return err == nil && slices.ContainsFunc(ranges, func(r string) bool {
		outer, err := netip.ParsePrefix(r)
		return err == nil && outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
	})
}

// admitted returns the address ranges to admit, and whether that is only the public
// address of this machine.
func (l *Launcher) admitted(ctx context.Context) (ranges []string, public bool, err error) {
	if l.Communicator == ssh.None {
		return nil, false, nil
	}
	all := everybody
	if l.SSHInterface == IPv6 {
		all = everybodyV6
	}
	ranges = slices.Clone(l.TemporarySecurityGroupSourceCIDRs)
	why := "temporary_security_group_source_cidrs"
	indirect := l.BastionHost != "" || l.ProxyHost != "" || l.fixedHost() != "" ||
		l.SSHInterface == PrivateIP || l.SSHInterface == PrivateDNS
	switch {
	case len(ranges) > 0 && l.Session.Cloud.StandsIn() && !covers(ranges, here):
		ranges, why = append(ranges, here), why+", and this machine as the local cloud sees it"
	case len(ranges) > 0:
	case l.TemporarySecurityGroupSourcePublicIP && !l.Session.Loopback():
		ip, err := publicAddress(ctx, 10*time.Second)
		if err != nil {
			return nil, false, l.Src.Errorf(&l.TemporarySecurityGroupSourcePublicIP, "Unknown public address",
				"%s. Set temporary_security_group_source_cidrs instead.", err)
		}
		ranges, why = append(ranges, ip), "the public address of this machine"
	case l.Session.Loopback():
		ranges, why = []string{here}, "this machine"
	case indirect:
		ranges, why = []string{all}, "everyone, since the address that bake connects from is unknown; set temporary_security_group_source_cidrs to narrow it down"
	default:
		ip, err := publicAddress(ctx, 3*time.Second)
		if err == nil && strings.Contains(ip, ":") != (l.SSHInterface == IPv6) {
			err = fmt.Errorf("it is of the wrong IP version: %s", ip)
		}
		switch {
		case ctx.Err() != nil:
			return nil, false, context.Cause(ctx)
		case err != nil:
			ranges = []string{all}
			why = fmt.Sprintf("everyone, since the public address of this machine is unknown (%s); set temporary_security_group_source_cidrs to narrow it down", err)
		default:
			ranges, public = []string{ip}, true
			why = "the public address of this machine; use temporary_security_group_source_cidrs to allow others"
		}
	}
	slices.Sort(ranges)
	ranges = slices.Compact(ranges)
	l.Scope.Say(ctx, "The temporary security group allows %s to connect to port %d (%s)", strings.Join(ranges, ", "), l.port(), why)
	return ranges, public, nil
}

// openForPrivate allows connections from all hosts that can reach the machine's private
// address.
func (l *Launcher) openForPrivate(ctx context.Context, g Groups) error {
	if !g.public {
		return nil
	}
	l.Scope.Say(ctx, "The machine has no public address; the security group now allows connections from %s, since bake's address inside the network is unknown (temporary_security_group_source_cidrs narrows it down)", everybody)
	return l.admit(ctx, g.ids[0], []string{everybody})
}

const addressService = "https://checkip.amazonaws.com"

// publicAddress asks AWS for the public address of this machine, and returns it as a range
// that contains only that address.
func publicAddress(ctx context.Context, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s did not answer within %s", addressService, limit))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, addressService, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return "", cause
		}
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 100))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answered %s", addressService, resp.Status)
	}
	ip, err := netip.ParseAddr(strings.TrimSpace(string(body)))
	if err != nil {
		return "", errors.New(addressService + " did not answer with an address")
	}
	return netip.PrefixFrom(ip, ip.BitLen()).String(), nil
}

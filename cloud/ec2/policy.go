package ec2

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/machine"
	"bake/cloud/network"
	"bake/cloud/wire"
)

// policy is the evaluated security groups of an instance. Its rules are replaced as a
// whole, so that the network may read them at any time.
type policy struct {
	admits atomic.Pointer[admits]
	link   atomic.Pointer[link]
}

type admits struct{ ingress, egress []admit }

// link is the lifetime of connections from outside.
type link struct {
	ctx   context.Context
	sever context.CancelFunc
}

// Link implements [network.Linked].
func (p *policy) Link() context.Context { return p.link.Load().ctx }

// set replaces the policy's rules. A disconnected instance (cutOff) allows no traffic, and
// its connections break.
func (p *policy) set(a *admits, cutOff bool) {
	l := p.link.Load()
	switch {
	case cutOff && l != nil:
		a = &admits{}
		l.sever()
	case l == nil || l.ctx.Err() != nil:
		l = &link{}
		l.ctx, l.sever = context.WithCancel(context.Background())
		p.link.Store(l)
	}
	p.admits.Store(a)
}

// admit is one rule: a protocol ("-1" means all), ports, and peers.
type admit struct {
	proto    string
	from, to uint16
	peers    []netip.Prefix
}

// newAdmits evaluates the rules of groups; members are the private addresses of each
// group's instances.
func newAdmits(groups []*group, members map[string][]netip.Prefix) *admits {
	a := &admits{}
	for _, g := range groups {
		for _, r := range g.Rules {
			one := admit{proto: *r.IpProtocol, to: 65535}
			if one.proto == "tcp" || one.proto == "udp" {
				one.from, one.to = uint16(*r.FromPort), uint16(*r.ToPort)
			}
			switch {
			case r.ReferencedGroupInfo != nil:
				one.peers = members[*r.ReferencedGroupInfo.GroupId]
			default:
				prefix, err := netip.ParsePrefix(peerOf(r))
				if err != nil {
					continue // rulesOf rejects such rules
				}
				one.peers = []netip.Prefix{prefix}
			}
			if *r.IsEgress {
				a.egress = append(a.egress, one)
			} else {
				a.ingress = append(a.ingress, one)
			}
		}
	}
	return a
}

func matches(rules []admit, proto network.Proto, peer netip.Addr, port uint16) bool {
	peer = peer.Unmap()
	return slices.ContainsFunc(rules, func(r admit) bool {
		return (r.proto == "-1" || r.proto == string(proto)) && r.from <= port && port <= r.to &&
			slices.ContainsFunc(r.peers, func(p netip.Prefix) bool { return p.Contains(peer) })
	})
}

// Ingress implements [network.Policy].
func (p *policy) Ingress(proto network.Proto, from netip.Addr, port uint16) bool {
	return matches(p.admits.Load().ingress, proto, from, port)
}

// Egress implements [network.Policy].
func (p *policy) Egress(proto network.Proto, to netip.Addr, port uint16) bool {
	return matches(p.admits.Load().egress, proto, to, port)
}

// Open implements [network.Policy].
func (p *policy) Open() []network.PortRange {
	var out []network.PortRange
	for _, r := range p.admits.Load().ingress {
		if (r.proto == "-1" || r.proto == "tcp") && len(r.peers) > 0 {
			out = append(out, network.PortRange{From: r.from, To: r.to})
		}
	}
	return out
}

// policyOf returns the instance's policy.
func (s *state) policyOf(id string, in *instance) *policy {
	p := s.policies[id]
	if p == nil {
		p = &policy{}
		s.policies[id] = p
	}
	r := s.runners[id]
	p.set(newAdmits(s.groupsOfInstance(in), s.members()), r != nil && r.cutOff)
	return p
}

func (s *state) groupsOfInstance(in *instance) []*group {
	var out []*group
	for _, id := range in.SecurityGroups {
		if g, ok := s.groups.Get(*id.GroupId); ok {
			out = append(out, g)
		}
	}
	return out
}

// members returns the private addresses of the instances in each group.
func (s *state) members() map[string][]netip.Prefix {
	out := map[string][]netip.Prefix{}
	for _, in := range s.instances.Rows {
		if !in.holdsAddress() {
			continue
		}
		addr := netipAddr(in.PrivateIpAddress)
		for _, g := range in.SecurityGroups {
			out[*g.GroupId] = append(out[*g.GroupId], netip.PrefixFrom(addr, 32))
		}
	}
	return out
}

// refreshPolicies evaluates the policy of every running instance again and informs the
// machines.
func (s *state) refreshPolicies() {
	members := s.members()
	for id, r := range s.runners {
		p, in := s.policies[id], s.instances.Rows[id]
		if p == nil || in == nil {
			continue
		}
		p.set(newAdmits(s.groupsOfInstance(in), members), r.cutOff)
		if r.machine != nil {
			r.machine.NetworkChanged()
		}
	}
}

// neighbours calls visit with the running instances of in's VPC until visit returns true.
func (s *state) neighbours(in *instance, visit func(id string, other *instance, m machine.Machine) bool) {
	for id, r := range s.runners {
		other := s.instances.Rows[id]
		if r.machine != nil && other != nil && sameVpc(in, other) && visit(id, other, r.machine) {
			return
		}
	}
}

// sameVpc reports whether two instances are in the same VPC. Instances in different VPCs
// cannot reach each other.
func sameVpc(a, b *instance) bool {
	return a.OwnerId == b.OwnerId && a.Region == b.Region && aws.ToString(a.VpcId) == aws.ToString(b.VpcId)
}

// peer is a running instance as its neighbours see it.
type peer struct {
	machine machine.Machine
	policy  *policy
	name    string
}

// Dial implements [network.Peer].
func (p peer) Dial(ctx context.Context, from netip.Addr, port uint16) (net.Conn, error) {
	if !p.policy.Ingress(network.TCP, from, port) {
		return nil, fmt.Errorf("the security groups of %s do not allow connections from %s to port %d", p.name, from, port)
	}
	return p.machine.Dial(ctx, port)
}

// peer returns the neighbour of in that has the address, or nil.
func (s *state) peer(in *instance, addr netip.Addr) (found network.Peer) {
	s.neighbours(in, func(id string, other *instance, m machine.Machine) bool {
		if netipAddr(other.PrivateIpAddress) != addr {
			return false
		}
		found = peer{m, s.policies[id], id}
		return true
	})
	return found
}

// address resolves a private DNS name in in's VPC. The names are those of existing
// instances, running or not, including in itself. It returns the zero Addr if there is
// none.
func (s *state) address(in *instance, name string) netip.Addr {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for _, other := range s.instances.Rows {
		if !sameVpc(in, other) || !other.holdsAddress() {
			continue
		}
		full := aws.ToString(other.PrivateDnsName)
		host, _, _ := strings.Cut(full, ".")
		if name == full || name == host {
			return netipAddr(other.PrivateIpAddress)
		}
	}
	return netip.Addr{}
}

// DialPublic connects client to a port of the running instance that has the
// public address addr, if its security groups admit that.
func (s *Service) DialPublic(ctx context.Context, client, addr netip.Addr, port uint16) (net.Conn, error) {
	return s.dialWhere(ctx, client, port, "public address "+addr.String(), func(in *instance) bool {
		return netipAddr(in.PublicIpAddress) == addr
	})
}

// DialInstance is DialPublic for an instance that may have no public address. Its security
// groups must allow the client's address.
func (s *Service) DialInstance(ctx context.Context, client netip.Addr, id string, port uint16) (net.Conn, error) {
	return s.dialWhere(ctx, client, port, "id "+id, func(in *instance) bool {
		return aws.ToString(in.InstanceId) == id
	})
}

// dialWhere connects client to a port of the running instance for which match returns true. what
// describes that instance in messages.
func (s *Service) dialWhere(ctx context.Context, client netip.Addr, port uint16, what string, match func(*instance) bool) (net.Conn, error) {
	cutOff := false
	to := view(s, func(st *state) (found peer) {
		for id, r := range st.runners {
			if in := st.instances.Rows[id]; in != nil && r.machine != nil && match(in) {
				found, cutOff = peer{r.machine, st.policies[id], id}, r.cutOff
			}
		}
		return found
	})
	if to.machine == nil {
		return nil, wire.Errorf("InvalidAddress.NotFound", "No running instance has the %s", what)
	}
	if cutOff {
		return nil, fmt.Errorf("the instance with the %s is unreachable", what)
	}
	if !to.policy.Ingress(network.TCP, client, port) {
		return nil, &wire.Error{Code: "UnauthorizedOperation", Status: 403,
			Message: fmt.Sprintf("The security groups of the instance with the %s do not allow connections from %s to port %d", what, client, port)}
	}
	conn, err := to.machine.Dial(ctx, port)
	if err != nil {
		return nil, err
	}
	return network.Severable(to.policy.Link(), conn), nil
}

// Package network gives a machine its place in a virtual private cloud: a
// user-mode router with outbound connections and name resolution, the instance
// metadata service, and listeners on a loopback address that stands for the
// machine's public address.
package network

import (
	"context"
	"net"
	"net/http"
	"net/netip"
)

// Config describes a machine's network for one boot.
type Config struct {
	Private netip.Addr   // the machine's address in Subnet
	Subnet  netip.Prefix // its first address is the router, its second the name server
	Public  netip.Addr   // in 127.0.0.0/8; the zero Addr means none

	// PublicNow, if not nil, tells which public address the machine has after a change;
	// it is asked when Changed is called. The zero Addr is none.
	PublicNow func() netip.Addr

	MTU int // 0 means 9001, as in a VPC

	// Metadata answers on 169.254.169.254 port 80. It already knows the machine.
	Metadata http.Handler

	// Policy is asked for every new connection. It may change its mind at any
	// time; nil admits everything.
	Policy Policy

	// Reach says what the machine may connect to outside of the cloud; nil is
	// every public address and nothing else.
	Reach *Reach

	// Peer finds another machine of the same network by private address; nil,
	// or a nil Peer, means that there is none.
	Peer func(netip.Addr) Peer

	// Names resolves names of the cloud's own, such as a machine's private DNS
	// name; everything else goes to the host's resolver. May be nil.
	Names func(name string) (netip.Addr, bool)
}

// Policy is a machine's security groups. Its methods must be safe for
// concurrent use and quick.
type Policy interface {
	// Ingress reports whether from may open a connection to port.
	Ingress(proto Proto, from netip.Addr, port uint16) bool
	// Egress reports whether the machine may open a connection to port of to.
	Egress(proto Proto, to netip.Addr, port uint16) bool
	// Open lists the TCP ports that somebody may reach.
	Open() []PortRange
}

// Linked is a policy that can cut a machine off.
type Linked interface {
	// Link returns a context that ends when all connections from outside are to break.
	Link() context.Context
}

// PortRange is inclusive at both ends.
type PortRange struct{ From, To uint16 }

// Proto is a transport protocol.
type Proto string

// The protocols that the router carries.
const (
	TCP  Proto = "tcp"
	UDP  Proto = "udp"
	ICMP Proto = "icmp"
)

// Peer is a machine as its neighbours see it.
type Peer interface {
	// Dial connects to a port of the peer as from. It fails when the peer's
	// policy does not admit from.
	Dial(ctx context.Context, from netip.Addr, port uint16) (net.Conn, error)
}

// Package network connects a machine to a virtual private cloud: a user-mode router with outbound
// connections and name resolution, the instance metadata service, and listeners on a loopback
// address that serves as the machine's public address.
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
	Subnet  netip.Prefix // its first address is the router's, its second the name server's
	Public  netip.Addr   // in 127.0.0.0/8; the zero Addr means none

	// PublicNow, if not nil, returns the machine's current public address. It is called by
	// Changed. The zero Addr means none.
	PublicNow func() netip.Addr

	MTU int // 0 means 9001, as in a VPC

	// Metadata serves 169.254.169.254 port 80. It serves this machine only.
	Metadata http.Handler

	// Policy is consulted for every new connection. Its answers may change at any time.
	// Nil allows everything.
	Policy Policy

	// Reach says what the machine may connect to outside the cloud; nil means every public
	// address and nothing else.
	Reach *Reach

	// Peer finds another machine of the same network by private address. Nil, or a nil
	// Peer, means that there is none.
	Peer func(netip.Addr) Peer

	// Names resolves the cloud's own names, such as a machine's private DNS name; other
	// names go to the host's resolver. May be nil.
	Names func(name string) (netip.Addr, bool)
}

// Policy is a machine's security groups. Its methods must be fast and safe for concurrent
// use.
type Policy interface {
	// Ingress reports whether from may open a connection to port.
	Ingress(proto Proto, from netip.Addr, port uint16) bool
	// Egress reports whether the machine may open a connection to port of to.
	Egress(proto Proto, to netip.Addr, port uint16) bool
	// Open lists the TCP ports that at least one peer may reach.
	Open() []PortRange
}

// Linked is a policy that can disconnect a machine.
type Linked interface {
	// Link returns a context that ends when all connections from outside must be broken.
	Link() context.Context
}

// PortRange is an inclusive range of ports.
type PortRange struct{ From, To uint16 }

// Proto is a transport protocol.
type Proto string

// The protocols that a [Policy] decides about.
const (
	TCP Proto = "tcp"
	UDP Proto = "udp"
)

// Peer is a machine as its neighbours see it.
type Peer interface {
	// Dial connects to a port of the peer, with from as the source address. It fails if
	// the peer's policy does not allow from.
	Dial(ctx context.Context, from netip.Addr, port uint16) (net.Conn, error)
}

package network

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/nested"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// pingFilter drops echo requests to addresses that the router does not own. The stack
// treats every address as its own and would answer for all of them.
type pingFilter struct {
	nested.Endpoint
	answers func(netip.Addr) bool
}

func newPingFilter(card stack.LinkEndpoint, answers func(netip.Addr) bool) *pingFilter {
	f := &pingFilter{answers: answers}
	f.Init(card, f)
	return f
}

// DeliverNetworkPacket implements stack.NetworkDispatcher.
func (f *pingFilter) DeliverNetworkPacket(protocol tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	if protocol == ipv4.ProtocolNumber {
		b, ok := pkt.Data().PullUp(header.IPv4MinimumSize)
		if ok {
			ip := header.IPv4(b)
			if ip.TransportProtocol() == header.ICMPv4ProtocolNumber && !f.answers(netAddr(ip.DestinationAddress())) {
				return
			}
		}
	}
	f.Endpoint.DeliverNetworkPacket(protocol, pkt)
}

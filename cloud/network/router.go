package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	gvisorlog "gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const (
	defaultMTU = 9001

	// dialTimeout ends a connection attempt that nothing answers. The machine's
	// own kernel goes on trying until its user loses patience.
	dialTimeout = 30 * time.Second

	// Silence after which a UDP flow is forgotten.
	udpIdle = 60 * time.Second
	dnsIdle = 10 * time.Second

	nic          = tcpip.NICID(1)
	maxHandshake = 1024 // connection attempts under way at one time
	maxSockets   = 2048 // connections, flows and lookups of one machine at one time
)

var (
	metadataAddr   = netip.MustParseAddr("169.254.169.254")
	linkNameServer = netip.MustParseAddr("169.254.169.253") // the name server of every VPC
)

// Guest is the machine behind a [Router].
type Guest interface {
	// Dial connects to a TCP port of the machine from inside its network.
	Dial(ctx context.Context, port uint16) (net.Conn, error)
	// Listening lists the TCP ports that something in the machine listens on.
	Listening(ctx context.Context) ([]uint16, error)
}

// Options of a [Router].
type Options struct {
	// Link carries the machine's Ethernet frames, one for each read and write: a
	// tap device or a packet socket. The router takes it over. When nil the
	// machine has no card; its listeners work all the same.
	Link *os.File

	// ResolvConf is the file that names the host's resolvers; empty means
	// /etc/resolv.conf. It is read for every lookup, so the host may move.
	ResolvConf string

	// Log tells developers what the router decides.
	Log *slog.Logger
}

// Router is the network of one machine: what lies behind its card, and what
// listens on its public address.
type Router struct {
	cfg      Config
	guest    Guest
	log      *slog.Logger
	resolver resolver

	router, nameServer netip.Addr

	link     *os.File
	stack    *stack.Stack
	metadata *http.Server
	visitors *connQueue
	public   *publicAddress

	ctx    context.Context // ends with the router
	cancel context.CancelFunc
	flows  sync.WaitGroup

	// sockets are the host's that the machine's traffic holds open, at most
	// maxSockets: the program serves other machines too.
	sockets chan struct{}
}

// HardwareAddr returns the address of the network card of the machine with that
// private address. Cards of one VPC have different ones.
func HardwareAddr(private netip.Addr) net.HardwareAddr {
	b := private.As4()
	return net.HardwareAddr{0x0a, 0xff, b[0], b[1], b[2], b[3]}
}

// Gateway returns the router's address in a subnet.
func Gateway(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }

// NameServer returns the resolver's address in a subnet.
func NameServer(subnet netip.Prefix) netip.Addr { return Gateway(subnet).Next() }

// MTUOrDefault returns the largest packet of the machine's card, in bytes.
func (c Config) MTUOrDefault() int {
	if c.MTU == 0 {
		return defaultMTU
	}
	return c.MTU
}

// New makes a router and opens the ports of the public address. It fails when
// the configuration is impossible; a port that cannot be opened is logged.
func New(cfg Config, guest Guest, o Options) (*Router, error) {
	if !cfg.Private.Is4() || !cfg.Subnet.Contains(cfg.Private) {
		return nil, fmt.Errorf("network: the private address %s is not in the subnet %s", cfg.Private, cfg.Subnet)
	}
	if cfg.Public.IsValid() && !(cfg.Public.Is4() && cfg.Public.IsLoopback()) {
		return nil, fmt.Errorf("network: the public address %s is not in 127.0.0.0/8", cfg.Public)
	}
	r := &Router{
		cfg:        cfg,
		guest:      guest,
		log:        o.Log,
		resolver:   resolver{conf: o.ResolvConf, names: cfg.Names},
		router:     Gateway(cfg.Subnet),
		nameServer: NameServer(cfg.Subnet),
		link:       o.Link,
		sockets:    make(chan struct{}, maxSockets),
	}
	r.resolver.hold = r.hold
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if cfg.Metadata != nil {
		r.visitors = newConnQueue(&net.TCPAddr{IP: metadataAddr.AsSlice(), Port: 80})
		r.metadata = &http.Server{Handler: cfg.Metadata, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(r.log.Handler(), slog.LevelDebug)}
		r.flows.Go(func() { _ = r.metadata.Serve(r.visitors) })
	}
	if o.Link != nil {
		if err := r.startStack(); err != nil {
			_ = r.Close()
			return nil, fmt.Errorf("network: %w", err)
		}
	}
	if cfg.Public.IsValid() || cfg.PublicNow != nil {
		r.public = newPublicAddress(r)
		r.flows.Go(r.public.run)
	}
	return r, nil
}

// Changed makes the router look at its policy again.
func (r *Router) Changed() {
	if r.public != nil {
		r.public.change()
	}
}

// Close ends the router with all its connections and closes the link.
func (r *Router) Close() error {
	r.cancel()
	if r.public != nil {
		r.public.close()
	}
	if r.metadata != nil {
		_ = r.metadata.Close()
	}
	if r.stack != nil {
		r.stack.RemoveNIC(nic)
		r.stack.Close()
	}
	r.flows.Wait()
	if r.stack != nil {
		r.stack.Wait()
	}
	if r.link != nil {
		return r.link.Close()
	}
	return nil
}

// startStack puts a TCP/IP stack on the link. The stack takes every packet for
// its own, whatever its destination, and hands new flows to the router.
func (r *Router) startStack() error {
	gvisorlog.SetLevel(gvisorlog.Warning) // it has one log only, on standard error, and remarks on single packets
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	r.stack = s
	sack := tcpip.TCPSACKEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 8 << 20}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 8 << 20}
	for _, option := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &receive, &send} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return stackError("set TCP option", err)
		}
	}

	fd := int(r.link.Fd())
	dispatch := fdbased.Readv
	if isSocket(fd) {
		dispatch = fdbased.RecvMMsg
	}
	card, err := fdbased.New(&fdbased.Options{
		FDs:                []int{fd},
		MTU:                uint32(r.cfg.MTUOrDefault()),
		EthernetHeader:     true,
		Address:            tcpip.LinkAddress(HardwareAddr(r.router)),
		RXChecksumOffload:  true, // the link never leaves this kernel
		PacketDispatchMode: dispatch,
	})
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	// Packets may come as soon as there is a card.
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(s, 0, maxHandshake, r.handleTCP).HandlePacket)
	s.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(s, r.handleUDP).HandlePacket)
	if err := s.CreateNIC(nic, newPingFilter(newBlockingEndpoint(card, fd), r.answersPing)); err != nil {
		return stackError("create card", err)
	}
	gateway := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: stackAddr(r.router).WithPrefix()}
	if err := s.AddProtocolAddress(nic, gateway, stack.AddressProperties{}); err != nil {
		return stackError("add address", err)
	}
	if err := errors.Join(
		stackError("accept foreign destinations", s.SetPromiscuousMode(nic, true)),
		stackError("answer from foreign addresses", s.SetSpoofing(nic, true)),
	); err != nil {
		return err
	}
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	return nil
}

// place is what an address means to the machine.
type place int

const (
	outside    place = iota // to be reached through the host, if the cloud's Reach admits it
	metadata                // the metadata service
	resolving               // the name server
	neighbour               // another machine of the cloud
	nothing                 // an address at which nobody is
	refusing                // nothing listens there
	prohibited              // the security groups do not let it out
)

// locate says what is at an address and port; the Peer is set for a neighbour.
func (r *Router) locate(proto Proto, to netip.AddrPort) (place, Peer) {
	addr, port := to.Addr(), to.Port()
	switch addr {
	case metadataAddr:
		if proto == TCP && port == 80 && r.metadata != nil {
			return metadata, nil
		}
		return refusing, nil
	case r.nameServer, linkNameServer:
		if port == 53 {
			return resolving, nil
		}
		return refusing, nil
	case r.router:
		return refusing, nil
	}
	if nobodys(addr) {
		return refusing, nil
	}
	if r.cfg.Policy != nil && !r.cfg.Policy.Egress(proto, addr, port) {
		return prohibited, nil
	}
	if r.cfg.Peer != nil {
		if peer := r.cfg.Peer(addr); peer != nil {
			return neighbour, peer
		}
	}
	if r.cfg.Subnet.Contains(addr) {
		return nothing, nil
	}
	return outside, nil
}

// hold takes one of the machine's sockets until release; ok is false when it has
// none left.
func (r *Router) hold() (release func(), ok bool) {
	select {
	case r.sockets <- struct{}{}:
		return func() { <-r.sockets }, true
	default:
		r.log.Warn("the machine has too many connections", "machine", r.cfg.Private, "limit", maxSockets)
		return nil, false
	}
}

// answersPing reports whether an echo request to addr gets its reply from the
// stack. What lies beyond the router is not pretended to be alive.
func (r *Router) answersPing(addr netip.Addr) bool {
	return addr == r.router || addr == r.nameServer || addr == metadataAddr || addr == linkNameServer
}

func isSocket(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK
}

func stackAddr(a netip.Addr) tcpip.Address { return tcpip.AddrFrom4(a.As4()) }

func netAddr(a tcpip.Address) netip.Addr { return netip.AddrFrom4(a.As4()) }

func stackError(what string, err tcpip.Error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %s", what, err)
}

// refused reports whether err is the answer of a host that is there.
func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
}

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

	// dialTimeout limits a connection attempt that gets no answer. The machine's own
	// kernel keeps trying until the program gives up.
	dialTimeout = 30 * time.Second

	// udpIdle is the time without packets after which a UDP flow is forgotten.
	udpIdle = 60 * time.Second
	dnsIdle = 10 * time.Second

	nic          = tcpip.NICID(1)
	maxHandshake = 1024 // concurrent connection attempts
	maxSockets   = 2048 // concurrent connections, flows and lookups of one machine
)

var (
	metadataAddr   = netip.MustParseAddr("169.254.169.254")
	linkNameServer = netip.MustParseAddr("169.254.169.253") // the name server of every VPC
)

// Guest is the machine behind a [Router].
type Guest interface {
	// Dial connects to a TCP port of the machine from inside its network.
	Dial(ctx context.Context, port uint16) (net.Conn, error)
	// Listening returns the TCP ports on which a program in the machine listens.
	Listening(ctx context.Context) ([]uint16, error)
}

// Options configure a [Router].
type Options struct {
	// Link carries the machine's Ethernet frames, one per read and write: a tap device or
	// a packet socket. The router takes ownership of it. If Link is nil, the machine has
	// no network card; its listeners work nevertheless.
	Link *os.File

	// ResolvConf is the file that names the host's resolvers; empty means
	// /etc/resolv.conf. It is read for every lookup, since the host may change networks.
	ResolvConf string

	// Log is for developers: it gets the router's decisions.
	Log *slog.Logger
}

// Router is the network of one machine: everything behind its network card, and the
// listeners on its public address.
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

	// sockets limits the host's sockets that the machine's traffic holds open to
	// maxSockets: this process serves other machines too.
	sockets chan struct{}
}

// HardwareAddr returns the address of the network card of the machine with that private
// address. It is unique within a VPC.
func HardwareAddr(private netip.Addr) net.HardwareAddr {
	b := private.As4()
	return net.HardwareAddr{0x0a, 0xff, b[0], b[1], b[2], b[3]}
}

// Gateway returns the router's address in a subnet.
func Gateway(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }

// NameServer returns the resolver's address in a subnet.
func NameServer(subnet netip.Prefix) netip.Addr { return Gateway(subnet).Next() }

// MTUOrDefault returns the MTU of the machine's network card, in bytes.
func (c Config) MTUOrDefault() int {
	if c.MTU == 0 {
		return defaultMTU
	}
	return c.MTU
}

// New creates a router and opens the ports of the public address. It fails if the
// configuration is invalid; a port that cannot be opened is only logged.
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

// Changed makes the router read its policy again.
func (r *Router) Changed() {
	if r.public != nil {
		r.public.change()
	}
}

// Close closes the router, all its connections and the link.
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

// startStack attaches a TCP/IP stack to the link. The stack accepts every packet, whatever
// its destination, and passes new flows to the router.
func (r *Router) startStack() error {
	gvisorlog.SetLevel(gvisorlog.Warning) // its only log is global, goes to standard error, and would comment on single packets
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
	// Packets may arrive as soon as there is a network card.
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
	outside    place = iota // reached through the host, if the cloud's Reach allows it
	metadata                // the metadata service
	resolving               // the name server
	neighbour               // another machine of the cloud
	nothing                 // an address without a host
	refusing                // nothing listens there
	prohibited              // the security groups do not allow it
)

// locate returns what is at an address and port, and the Peer if it is a neighbour.
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

// hold reserves one of the machine's sockets until release is called. ok is false if none
// is free.
func (r *Router) hold() (release func(), ok bool) {
	select {
	case r.sockets <- struct{}{}:
		return func() { <-r.sockets }, true
	default:
		r.log.Warn("the machine has too many connections", "machine", r.cfg.Private, "limit", maxSockets)
		return nil, false
	}
}

// answersPing reports whether the stack answers echo requests to addr. It does not answer
// for hosts beyond the router, which may not be alive.
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

// refused reports whether err means that a host was reached and refused the connection.
func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
}

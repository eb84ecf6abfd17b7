package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

var (
	testPrivate = netip.MustParseAddr("172.31.0.5")
	testSubnet  = netip.MustParsePrefix("172.31.0.0/20")
)

// client is a machine: a second stack at the other end of the link.
type client struct {
	t      *testing.T
	stack  *stack.Stack
	router *Router
}

// connectClient starts a router for cfg and a machine on its link.
func connectClient(t *testing.T, cfg Config, o Options) *client {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Private, cfg.Subnet, cfg.MTU = testPrivate, testSubnet, 1500
	o.Link = os.NewFile(uintptr(pair[0]), "link")
	r, err := New(cfg, noGuest{}, o)
	if err != nil {
		t.Fatal(err)
	}
	card, err := fdbased.New(&fdbased.Options{FDs: []int{pair[1]}, MTU: 1500, EthernetHeader: true, Address: tcpip.LinkAddress(HardwareAddr(testPrivate)), PacketDispatchMode: fdbased.RecvMMsg})
	if err != nil {
		t.Fatal(err)
	}
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	if err := s.CreateNIC(1, newBlockingEndpoint(card, pair[1])); err != nil {
		t.Fatal(err)
	}
	addr := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: stackAddr(testPrivate).WithPrefix()}
	if err := s.AddProtocolAddress(1, addr, stack.AddressProperties{}); err != nil {
		t.Fatal(err)
	}
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, Gateway: stackAddr(Gateway(testSubnet)), NIC: 1}})
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		s.RemoveNIC(1)
		s.Destroy()
		unix.Close(pair[1])
	})
	return &client{t, s, r}
}

// dial connects to an address that answers: it accepts or refuses.
func (c *client) dial(addr string) (net.Conn, error) { return c.dialWithin(time.Minute, addr) }

func (c *client) dialWithin(limit time.Duration, addr string) (net.Conn, error) {
	to := netip.MustParseAddrPort(addr)
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	conn, err := gonet.DialContextTCP(ctx, c.stack, tcpip.FullAddress{NIC: 1, Addr: stackAddr(to.Addr()), Port: to.Port()}, ipv4.ProtocolNumber)
	if err != nil {
		return nil, err
	}
	c.t.Cleanup(func() { conn.Close() })
	return conn, nil
}

type noGuest struct{}

func (noGuest) Dial(context.Context, uint16) (net.Conn, error) { return nil, syscall.ECONNREFUSED }
func (noGuest) Listening(context.Context) ([]uint16, error)    { return nil, nil }

// rules is a policy made of functions.
type rules struct {
	ingress, egress func(Proto, netip.Addr, uint16) bool
	open            []PortRange
}

func (r rules) Ingress(p Proto, a netip.Addr, port uint16) bool { return r.ingress(p, a, port) }
func (r rules) Egress(p Proto, a netip.Addr, port uint16) bool  { return r.egress(p, a, port) }
func (r rules) Open() []PortRange                               { return r.open }

func always(Proto, netip.Addr, uint16) bool { return true }

// peerTo is a neighbour all of whose ports lead to one address of the host.
type peerTo struct {
	addr string
	from chan netip.Addr
}

func (p peerTo) Dial(ctx context.Context, from netip.Addr, port uint16) (net.Conn, error) {
	p.from <- from
	if p.addr == "" {
		return nil, syscall.ECONNREFUSED
	}
	return net.Dial("tcp", p.addr)
}

// echo starts a server that echoes everything, including half-closes.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func TestMetadata(t *testing.T) {
	c := connectClient(t, Config{Metadata: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "i-5 "+r.URL.Path) })}, Options{})
	web := http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(_ context.Context, _, addr string) (net.Conn, error) { return c.dial(addr) }}}
	defer web.CloseIdleConnections()
	for range 2 {
		r, err := web.Get("http://169.254.169.254/latest")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || string(b) != "i-5 /latest" {
			t.Errorf("answer %q, %v", b, err)
		}
	}
}

// TestDestinations dials what a machine may and may not reach. Dropped packets show as a
// timeout.
func TestDestinations(t *testing.T) {
	from := make(chan netip.Addr, 9)
	server := echo(t)
	c := connectClient(t, Config{
		Policy: rules{egress: func(_ Proto, to netip.Addr, port uint16) bool { return port != 25 }},
		Peer: func(a netip.Addr) Peer {
			switch a.String() {
			case "172.31.0.6":
				return peerTo{server, from}
			case "172.31.0.7":
				return peerTo{"", from}
			}
			return nil
		},
	}, Options{})
	conn, err := c.dial("172.31.0.6:80")
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		conn.Write(text)
		conn.(*gonet.TCPConn).CloseWrite()
	}()
	back, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(back, text) {
		t.Errorf("%d bytes came back, %v", len(back), err)
	}
	if got := <-from; got != testPrivate {
		t.Errorf("the neighbour saw %s", got)
	}
	for addr, want := range map[string]string{
		"172.31.0.7:80":      "refused",
		"172.31.0.1:22":      "refused", // the router
		"172.31.0.2:22":      "refused", // the name server
		"169.254.169.254:80": "refused", // there is no metadata service
		"169.254.7.7:80":     "refused",
		"172.31.0.9:80":      "deadline", // no host
		"192.0.2.1:25":       "deadline", // prohibited
	} {
		t.Run(addr, func(t *testing.T) {
			t.Parallel()
			limit := time.Minute
			if want == "deadline" { // which has to pass
				limit = 2 * time.Second
			}
			_, err := c.dialWithin(limit, addr)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error is %v, not %s", err, want)
			}
		})
	}
}

// TestReset interrupts a download: the machine must see that it is incomplete.
func TestReset(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			s, err := l.Accept()
			if err != nil {
				return
			}
			s.Write([]byte("half"))
			io.ReadFull(s, make([]byte, 1)) // the client has the first half
			s.(*net.TCPConn).SetLinger(0)
			s.Close()
		}
	}()
	c := connectClient(t, Config{Peer: func(netip.Addr) Peer { return peerTo{l.Addr().String(), make(chan netip.Addr, 1)} }}, Options{})
	conn, err := c.dial("172.31.0.6:80")
	if err != nil {
		t.Fatal(err)
	}
	half := make([]byte, 4)
	if _, err := io.ReadFull(conn, half); err != nil {
		t.Fatal(err)
	}
	conn.Write([]byte("x"))
	if b, err := io.ReadAll(conn); err == nil {
		t.Errorf("a reset looks like the end of the stream after %q", b)
	}
}

func TestNames(t *testing.T) {
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("# none\nnameserver 127.255.71.9\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	names := func(name string) (netip.Addr, bool) {
		return netip.MustParseAddr("172.31.0.6"), name == "ip-172-31-0-6.ec2.internal"
	}
	c := connectClient(t, Config{Names: names}, Options{ResolvConf: conf})
	lookup := net.Resolver{PreferGo: true, Dial: func(_ context.Context, network, _ string) (net.Conn, error) {
		if strings.HasPrefix(network, "tcp") {
			return c.dial("172.31.0.2:53")
		}
		to := tcpip.FullAddress{NIC: 1, Addr: stackAddr(NameServer(testSubnet)), Port: 53}
		return gonet.DialUDP(c.stack, nil, &to, ipv4.ProtocolNumber)
	}}
	got, err := lookup.LookupNetIP(t.Context(), "ip4", "IP-172-31-0-6.ec2.internal.")
	if err != nil || len(got) != 1 || got[0].Unmap().String() != "172.31.0.6" {
		t.Errorf("own name: %v, %v", got, err)
	}
	// If the host's resolver does not answer, the machine gets an error, not silence.
	began := time.Now()
	if _, err := lookup.LookupNetIP(t.Context(), "ip4", "elsewhere.example."); err == nil || time.Since(began) > 20*time.Second {
		t.Errorf("foreign name: %v after %v", err, time.Since(began))
	}

	conn, err := c.dial("172.31.0.2:53")
	if err != nil {
		t.Fatal(err)
	}
	query := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{{
		Name: dnsmessage.MustNewName("ip-172-31-0-6.ec2.internal."), Type: dnsmessage.TypeAAAA, Class: dnsmessage.ClassINET,
	}}}
	b, err := query.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFrame(conn, b); err != nil {
		t.Fatal(err)
	}
	if b, err = readFrame(conn); err != nil {
		t.Fatal(err)
	}
	var answer dnsmessage.Message
	if err := answer.Unpack(b); err != nil || answer.ID != 7 || answer.RCode != dnsmessage.RCodeSuccess || len(answer.Answers) != 0 {
		t.Errorf("a name without an IPv6 address: %+v, %v", answer, err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, query []byte) {
		r := resolver{names: func(string) (netip.Addr, bool) { return testPrivate, true }}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if answer := r.answer(ctx, "udp", query); answer != nil && (len(answer) < 12 || !bytes.Equal(answer[:2], query[:2])) {
			t.Errorf("%x is answered with %x", query, answer)
		}
	})
}

func TestParseResolvConf(t *testing.T) {
	got := parseResolvConf(strings.NewReader("search a\n nameserver 10.0.0.2 \nnameserver fe80::1%eth0\nnameserver x\n#nameserver 1.1.1.1\noptions edns0\n"))
	if fmt.Sprint(got) != "[10.0.0.2:53 [fe80::1%eth0]:53]" {
		t.Errorf("got %v", got)
	}
}

func TestWantedPorts(t *testing.T) {
	for _, c := range []struct {
		ranges    []PortRange
		listening []uint16
		want      string
	}{
		{nil, []uint16{80}, "map[]"},
		{[]PortRange{{80, 82}}, nil, "map[80:true 81:true 82:true]"},
		{[]PortRange{{0, 65535}}, nil, "map[22:true 80:true 443:true]"},
		{[]PortRange{{0, 65535}}, []uint16{8080, 80}, "map[22:true 80:true 443:true 8080:true]"},
		{[]PortRange{{1000, 2000}, {22, 22}}, []uint16{1500, 3000}, "map[22:true 1500:true]"},
		{[]PortRange{{65535, 65535}, {0, 0}}, nil, "map[65535:true]"},
	} {
		if got := fmt.Sprint(wantedPorts(c.ranges, c.listening)); got != c.want {
			t.Errorf("%v with %v: %s", c.ranges, c.listening, got)
		}
	}
}

// listeningGuest has an echo server on every port on which it listens.
type listeningGuest struct {
	addr  string
	ports atomic.Pointer[[]uint16]
}

func (g *listeningGuest) Listening(context.Context) ([]uint16, error) { return *g.ports.Load(), nil }

func (g *listeningGuest) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	for _, p := range *g.ports.Load() {
		if p == port {
			return net.Dial("tcp", g.addr)
		}
	}
	return nil, syscall.ECONNREFUSED
}

func TestPublicAddress(t *testing.T) {
	public := netip.MustParseAddr("127.94.11.7")
	guest := &listeningGuest{addr: echo(t)}
	guest.ports.Store(&[]uint16{20101, 45001})
	policy := &switchable{}
	policy.set(rules{ingress: always, open: []PortRange{{20100, 20102}}})
	r, err := New(Config{Private: testPrivate, Subnet: testSubnet, Public: public, Policy: policy}, guest, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	if got, err := greet(public, 20101); got != "hello" {
		t.Errorf("open port: %q, %v", got, err)
	}
	if _, err := greet(public, 20102); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("port that the machine refuses: %v", err)
	}
	if _, err := greet(public, 45001); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("port that the policy does not open: %v", err)
	}
	policy.set(rules{ingress: func(_ Proto, from netip.Addr, port uint16) bool { return from.IsLoopback() && port != 20101 }, open: []PortRange{{20101, 20101}, {30000, 60000}}})
	r.Changed()
	until(t, func() bool { got, _ := greet(public, 45001); return got == "hello" })
	if _, err := greet(public, 20101); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client that may not come in: %v", err)
	}
	guest.ports.Store(&[]uint16{20101})
	until(t, func() bool { _, err := greet(public, 45001); return errors.Is(err, syscall.ECONNREFUSED) })
}

// TestAddressAfterChange checks that the listeners follow the address, also from and to
// none.
func TestAddressAfterChange(t *testing.T) {
	first, second := netip.MustParseAddr("127.94.11.9"), netip.MustParseAddr("127.94.11.10")
	guest := &listeningGuest{addr: echo(t)}
	guest.ports.Store(&[]uint16{20104})
	var now atomic.Pointer[netip.Addr]
	now.Store(&netip.Addr{})
	r, err := New(Config{Private: testPrivate, Subnet: testSubnet, PublicNow: func() netip.Addr { return *now.Load() },
		Policy: rules{ingress: always, open: []PortRange{{20104, 20104}}}}, guest, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	closed := func(addr netip.Addr) bool {
		_, err := greet(addr, 20104)
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	answers := func(addr netip.Addr) bool { got, _ := greet(addr, 20104); return got == "hello" }
	if !closed(first) {
		t.Error("a machine without a public address has one")
	}
	now.Store(&first)
	r.Changed()
	until(t, func() bool { return answers(first) })
	now.Store(&second)
	r.Changed()
	until(t, func() bool { return answers(second) && closed(first) })
	now.Store(&netip.Addr{})
	r.Changed()
	until(t, func() bool { return closed(second) })
}

// TestMovedPort occupies the port on all addresses.
func TestMovedPort(t *testing.T) {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	if int(port)+MovedBy > 0xffff {
		t.Skipf("port %d cannot be moved", port)
	}
	public := netip.MustParseAddr("127.94.11.8")
	guest := &listeningGuest{addr: echo(t)}
	guest.ports.Store(&[]uint16{port})
	policy := rules{ingress: always, open: []PortRange{{port, port}}}
	r, err := New(Config{Private: testPrivate, Subnet: testSubnet, Public: public, Policy: policy}, guest, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := greet(public, port+MovedBy); got != "hello" {
		t.Errorf("moved port: %q, %v", got, err)
	}
}

func TestImpossible(t *testing.T) {
	for name, cfg := range map[string]Config{
		"foreign private address": {Private: netip.MustParseAddr("10.0.0.5"), Subnet: testSubnet},
		"public not on loopback":  {Private: testPrivate, Subnet: testSubnet, Public: netip.MustParseAddr("203.0.113.5")},
		"nothing":                 {},
	} {
		if r, err := New(cfg, noGuest{}, Options{}); err == nil {
			r.Close()
			t.Errorf("%s: a router was made", name)
		}
	}
}

// switchable is a policy that tests can replace.
type switchable struct{ now atomic.Pointer[rules] }

func (s *switchable) set(r rules) { s.now.Store(&r) }
func (s *switchable) Ingress(p Proto, a netip.Addr, pt uint16) bool {
	return s.now.Load().ingress(p, a, pt)
}
func (s *switchable) Egress(Proto, netip.Addr, uint16) bool { return true }
func (s *switchable) Open() []PortRange                     { return s.now.Load().open }

// greet says hello to a port and returns the answer.
func greet(addr netip.Addr, port uint16) (string, error) {
	c, err := net.DialTimeout("tcp4", netip.AddrPortFrom(addr, port).String(), time.Minute)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, "hello"); err != nil {
		return "", err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil && !errors.Is(err, syscall.ENOTCONN) {
		return "", err
	} else if err != nil {
		return "", syscall.ECONNRESET
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
	}
}

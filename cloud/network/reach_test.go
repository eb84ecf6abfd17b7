package network

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

func TestReach(t *testing.T) {
	named := func(_ context.Context, name string) ([]netip.Addr, error) {
		if name == "mirror.example" {
			return []netip.Addr{netip.MustParseAddr("::ffff:10.1.2.3")}, nil
		}
		return nil, errors.New("no such name")
	}
	for _, test := range []struct {
		items      string
		admitted   string
		unadmitted string
	}{
		{"", "8.8.8.8:53 1.1.1.1:443 172.15.0.1:80 172.32.0.1:80 100.63.0.1:80 192.169.0.1:80 203.0.113.80:80 [2600::1]:80",
			"10.0.0.1:80 172.16.0.1:80 172.31.255.1:80 192.168.1.1:22 100.64.0.1:80 100.127.0.1:80 169.254.1.1:80 198.18.0.1:80 " +
				"127.0.0.1:80 0.0.0.0:80 0.1.2.3:80 224.0.0.1:80 240.0.0.1:80 255.255.255.255:67 " +
				"[::1]:80 [::]:80 [fc00::1]:80 [fd00:ec2::254]:80 [fe80::1]:80 [fec0::1]:80 [ff02::1]:80 " +
				"[::ffff:10.0.0.1]:80 [::ffff:127.0.0.1]:80 [64:ff9b::a00:1]:80 [64:ff9b::7f00:1]:80 [64:ff9b:1::1]:80 [2002:a00:1::]:80 [::10.0.0.1]:80"},
		{"10.1.0.0/16 192.168.1.5:3128 mirror.example:80 gone.example",
			"10.1.2.3:22 10.1.255.255:1 192.168.1.5:3128 [::ffff:10.1.2.3]:80", "10.2.0.1:80 192.168.1.5:80 192.168.1.6:3128 127.0.0.1:80"},
		{"mirror.example:80", "10.1.2.3:80", "10.1.2.3:81 10.1.2.4:80"},
		{"all", "10.0.0.1:80 192.168.1.1:22 [fd00::1]:80", "127.0.0.1:80 [::ffff:127.0.0.1]:80 169.254.169.254:80 224.0.0.1:80"},
	} {
		r, err := ParseReach(strings.Fields(test.items)...)
		if err != nil {
			t.Fatal(err)
		}
		r.resolve = named
		for _, to := range strings.Fields(test.admitted) {
			if !r.admits(t.Context(), netip.MustParseAddrPort(to)) {
				t.Errorf("%q does not admit %s", test.items, to)
			}
		}
		for _, to := range strings.Fields(test.unadmitted) {
			if r.admits(t.Context(), netip.MustParseAddrPort(to)) {
				t.Errorf("%q admits %s", test.items, to)
			}
		}
	}
	for _, item := range []string{"", "10.0.0.1:0", "10.0.0.1:x", "10.0.0.0/33", "1.2.3", "fd00::/8", "a b", "http://proxy", "proxy:99999", ":80"} {
		if _, err := ParseReach(item); err == nil || !strings.Contains(err.Error(), "not a destination") {
			t.Errorf("%q: %v", item, err)
		}
	}
}

// hostAddr returns an address of this host that is not a loopback address.
func hostAddr(t *testing.T) netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Is4() && !nobodys(prefix.Addr()) {
			return prefix.Addr()
		}
	}
	t.Skip("this host has no address but the loopback")
	return netip.Addr{}
}

// services serves a port of addr: TCP and UDP echo.
func services(t *testing.T, addr netip.Addr) (to netip.AddrPort) {
	l, err := net.Listen("tcp4", netip.AddrPortFrom(addr, 0).String())
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
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	to = l.Addr().(*net.TCPAddr).AddrPort()
	p, err := net.ListenPacket("udp4", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			p.WriteTo(b[:n], from)
		}
	}()
	return to
}

// exchange sends a packet from a new port, up to tries times, and returns the answer.
func (c *client) exchange(to netip.AddrPort, tries int) (string, error) {
	conn, err := gonet.DialUDP(c.stack, nil, &tcpip.FullAddress{NIC: 1, Addr: stackAddr(to.Addr()), Port: to.Port()}, ipv4.ProtocolNumber)
	if err != nil {
		return "", err
	}
	c.t.Cleanup(func() { conn.Close() })
	b := make([]byte, 100)
	var n int
	for range tries { // packets may be lost
		if _, err = conn.Write([]byte("hello")); err != nil {
			return "", err
		}
		conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if n, err = conn.Read(b); err == nil {
			break
		}
	}
	return string(b[:n]), err
}

// How often a packet is sent to a service that answers, on a busy host too, and to one that does not.
const answers, silent = 120, 3

// TestHostOutOfReach checks that a machine can reach services on the host's own address
// and private networks only if an item allows them.
func TestHostOutOfReach(t *testing.T) {
	host := services(t, hostAddr(t))
	c := connectClient(t, Config{}, Options{})
	for _, to := range []string{host.String(), "10.1.2.3:80", "192.168.77.1:22", "172.16.1.1:80", "100.64.1.1:80", "172.31.99.1:80"} {
		if _, err := c.dial(to); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: error is %v", to, err)
		}
	}
	if answer, err := c.exchange(host, silent); err == nil {
		t.Errorf("the host's UDP service answers %q", answer)
	}

	reach, err := ParseReach(host.String())
	if err != nil {
		t.Fatal(err)
	}
	c = connectClient(t, Config{Reach: reach}, Options{})
	conn, err := c.dial(host.String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Write([]byte("hello"))
	b := make([]byte, 5)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "hello" {
		t.Errorf("the admitted service answers %q, %v", b, err)
	}
	if answer, err := c.exchange(host, answers); answer != "hello" {
		t.Errorf("the admitted UDP service answers %q, %v", answer, err)
	}
}

// TestSockets checks that a machine cannot make the router open more sockets than its
// limit.
func TestSockets(t *testing.T) {
	host := services(t, hostAddr(t))
	reach, err := ParseReach("all")
	if err != nil {
		t.Fatal(err)
	}
	c := connectClient(t, Config{Reach: reach}, Options{})
	c.router.sockets = make(chan struct{}, 2)
	if answer, err := c.exchange(host, answers); answer != "hello" {
		t.Fatalf("the first: %q, %v", answer, err)
	}
	conn, err := c.dial(host.String())
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := c.exchange(host, silent); err == nil {
		t.Errorf("one too many: %q", answer)
	}
	if _, err := c.dialWithin(2*time.Second, host.String()); err == nil {
		t.Error("one connection too many")
	}
	conn.Close()
	until(t, func() bool { answer, _ := c.exchange(host, silent); return answer == "hello" })
}

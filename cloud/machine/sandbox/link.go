package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	nicName = "eth0"
	farName = "uplink0" // the driver's end of a pair
	tunPath = "/dev/net/tun"
)

// create makes the machine's network card and returns the file that carries its frames. It runs in
// the machine's network namespace. tun is the tun device if it is open already, or nil.
func (c *nic) create(tun *os.File) (*os.File, error) {
	mac, err := net.ParseMAC(c.MAC)
	if err != nil {
		return nil, err
	}
	var f *os.File
	switch c.Link {
	case LinkTap:
		f, err = newTap(tun)
	case LinkPacket:
		f, err = newPacketPair()
	default:
		if f, err = newTap(tun); err != nil {
			f, err = newPacketPair()
		}
	}
	if err != nil {
		return nil, err
	}
	if err := c.configure(mac); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openTun opens the tun device. Cards made with it belong to the network namespace of the thread
// that opens it.
func openTun() (*os.File, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: tunPath, Err: err}
	}
	return os.NewFile(uintptr(fd), tunPath), nil
}

// openTunOf opens the tun device for the network namespace of another process. It requires root.
func openTunOf(pid int) (*os.File, error) {
	path := fmt.Sprintf("/proc/%d/ns/net", pid)
	namespace, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer namespace.Close()
	type result struct {
		f   *os.File
		err error
	}
	opened := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is in the wrong namespace for other work
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			opened <- result{nil, fmt.Errorf("enter %s: %w", path, err)}
			return
		}
		f, err := openTun()
		opened <- result{f, err}
	}()
	r := <-opened
	return r.f, r.err
}

// newTap makes the card with the tun device, which it opens if f is nil. On error f is closed.
func newTap(f *os.File) (*os.File, error) {
	if f == nil {
		var err error
		if f, err = openTun(); err != nil {
			return nil, err
		}
	}
	request, err := unix.NewIfreq(nicName)
	if err != nil {
		f.Close()
		return nil, err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, request); err != nil {
		f.Close()
		return nil, fmt.Errorf("create tap device: %w", err)
	}
	return f, nil
}

// newPacketPair makes a pair of cards, one of them the machine's, and receives the frames of the
// other with a packet socket. It needs no device file.
func newPacketPair() (*os.File, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = nicName
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: farName}); err != nil {
		return nil, fmt.Errorf("create a pair of cards: %w", err)
	}
	far, err := netlink.LinkByName(farName)
	if err != nil {
		return nil, err
	}
	if err := disableIPv6(farName); err != nil {
		return nil, err
	}
	if err := netlink.LinkSetMTU(far, maxFrame); err != nil {
		return nil, fmt.Errorf("set MTU of %s: %w", farName, err)
	}
	if err := netlink.LinkSetUp(far); err != nil {
		return nil, fmt.Errorf("raise %s: %w", farName, err)
	}
	everything := networkOrder(unix.ETH_P_ALL)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(everything))
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), farName)
	err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: far.Attrs().Index})
	if err == nil {
		// Otherwise the socket would receive the frames that it sends.
		err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	for _, option := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 4<<20) // as much as the host allows
	}
	return f, nil
}

// maxFrame is the MTU of the far end of a pair, large enough for any MTU that the machine's user
// sets on the near end.
const maxFrame = 65000

// configure gives the card its address. The subnet has no route of its own: all traffic goes
// through the router, which knows the neighbours.
func (c *nic) configure(mac net.HardwareAddr) error {
	link, err := netlink.LinkByName(nicName)
	if err != nil {
		return err
	}
	if err := disableIPv6(nicName); err != nil {
		return err
	}
	addr := &netlink.Addr{
		IPNet: &net.IPNet{IP: c.Address.Addr().AsSlice(), Mask: net.CIDRMask(c.Address.Bits(), 32)},
		Flags: unix.IFA_F_NOPREFIXROUTE,
	}
	gateway := net.IP(c.Gateway.AsSlice())
	index := link.Attrs().Index
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"set hardware address", func() error { return netlink.LinkSetHardwareAddr(link, mac) }},
		{"set MTU", func() error { return netlink.LinkSetMTU(link, c.MTU) }},
		{"add address", func() error { return netlink.AddrAdd(link, addr) }},
		{"raise", func() error { return netlink.LinkSetUp(link) }},
		{"add route to the router", func() error {
			return netlink.RouteAdd(&netlink.Route{LinkIndex: index, Scope: netlink.SCOPE_LINK, Dst: &net.IPNet{IP: gateway, Mask: net.CIDRMask(32, 32)}, Src: addr.IP})
		}},
		{"add default route", func() error { return netlink.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gateway, Src: addr.IP}) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

func linkUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("raise %s: %w", name, err)
	}
	return nil
}

// disableIPv6 keeps a card from sending IPv6 messages about addresses that it does not need.
func disableIPv6(name string) error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) { // a kernel without IPv6
		return nil
	}
	return err
}

func networkOrder(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

func littleEndian() bool { return networkOrder(1) != 1 }

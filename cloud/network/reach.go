package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Reach decides to which addresses outside the cloud machines may connect, among those
// that the host can reach. Public addresses are always allowed. Addresses of the host
// itself and of private networks are only allowed by an item: the code that a machine runs
// comes from its image and scripts, and those networks should not trust it. A nil Reach
// has no items.
type Reach struct {
	all   bool
	items []destinations

	// resolve looks up the IPv4 addresses of a name; tests replace it.
	resolve func(ctx context.Context, name string) ([]netip.Addr, error)

	mu    sync.Mutex
	names map[string]resolved
}

// destinations are the addresses and ports that an item allows.
type destinations struct {
	prefix netip.Prefix
	name   string // instead of prefix
	port   uint16 // 0 means all
}

// resolved is a cached lookup of a name.
type resolved struct {
	addrs []netip.Addr
	until time.Time
}

// keepNames is how long the addresses of a name are cached.
const keepNames = 30 * time.Second

// ParseReach parses the items of a Reach. Each is "all", an address, a prefix in CIDR
// notation or a host name, optionally followed by ":PORT".
func ParseReach(items ...string) (*Reach, error) {
	r := &Reach{names: map[string]resolved{}, resolve: func(ctx context.Context, name string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip4", name)
	}}
	for _, item := range items {
		item = strings.TrimSpace(item)
		if item == "all" {
			r.all = true
			continue
		}
		d, err := parseDestinations(item)
		if err != nil {
			return nil, err
		}
		r.items = append(r.items, d)
	}
	return r, nil
}

func parseDestinations(item string) (d destinations, err error) {
	bad := fmt.Errorf("%q is not a destination: write an IPv4 address, a prefix such as 10.1.0.0/16 or a host name, optionally followed by a port such as :3128, or all", item)
	host, port, found := strings.Cut(item, ":")
	if found {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return d, bad
		}
		d.port = uint16(n)
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is4() {
		d.prefix = netip.PrefixFrom(addr, 32)
		return d, nil
	}
	if prefix, err := netip.ParsePrefix(host); err == nil && prefix.Addr().Is4() {
		d.prefix = prefix.Masked()
		return d, nil
	}
	letter := func(c rune) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' }
	other := func(c rune) bool { return !letter(c) && (c < '0' || c > '9') && c != '-' && c != '.' }
	if !strings.ContainsFunc(host, letter) || strings.ContainsFunc(host, other) {
		return d, bad
	}
	d.name = host
	return d, nil
}

// admits reports whether machines may connect to to. It may wait for a lookup.
func (r *Reach) admits(ctx context.Context, to netip.AddrPort) bool {
	to = netip.AddrPortFrom(embedded(to.Addr()), to.Port())
	if nobodys(to.Addr()) {
		return false
	}
	if !private(to.Addr()) && !hostOwns(to.Addr()) {
		return true
	}
	if r == nil {
		return false
	}
	return r.all || slices.ContainsFunc(r.items, func(d destinations) bool {
		if d.port != 0 && d.port != to.Port() {
			return false
		}
		if d.name != "" {
			return slices.Contains(r.lookup(ctx, d.name), to.Addr())
		}
		return d.prefix.Contains(to.Addr())
	})
}

// lookup returns the addresses of a name, or none.
func (r *Reach) lookup(ctx context.Context, name string) []netip.Addr {
	r.mu.Lock()
	known, ok := r.names[name]
	r.mu.Unlock()
	if ok && time.Now().Before(known.until) {
		return known.addrs
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := r.resolve(ctx, name)
	if err != nil {
		return known.addrs // the previous ones, rather than none
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names[name] = resolved{addrs, time.Now().Add(keepNames)}
	return addrs
}

// privateRanges are ranges for private use and ranges whose addresses are not those of one
// host. Documentation ranges are not included: closed networks use them like public ones.
var privateRanges = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // carriers and overlay networks
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("198.18.0.0/15"), // benchmarking
	netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("fec0::/10"),
	netip.MustParsePrefix("64:ff9b:1::/48"), // NAT64 prefixes local to a network
}

func private(addr netip.Addr) bool {
	return slices.ContainsFunc(privateRanges, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// nobodys reports whether addr cannot be another host for a machine: connecting to it
// would reach this host or all of its neighbours.
func nobodys(addr netip.Addr) bool {
	reserved := addr.Is4() && (addr.As4()[0] == 0 || addr.As4()[0] >= 240)
	return !addr.IsValid() || addr.IsLoopback() || addr.IsUnspecified() || addr.IsLinkLocalUnicast() || addr.IsMulticast() || reserved
}

// embedded returns the IPv4 address that an IPv6 address contains (mapped, NAT64 or 6to4),
// otherwise addr.
func embedded(addr netip.Addr) netip.Addr {
	addr = addr.Unmap()
	if !addr.Is6() {
		return addr
	}
	b := addr.As16()
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(addr), netip.MustParsePrefix("::/96").Contains(addr) && !addr.IsLoopback():
		return netip.AddrFrom4([4]byte(b[12:]))
	case netip.MustParsePrefix("2002::/16").Contains(addr):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return addr
}

// hostOwns reports whether packets to addr are delivered to this host or to all of its
// neighbours. It asks the kernel, so that all interfaces and routing tables count. An
// address without a route is not owned.
func hostOwns(addr netip.Addr) bool {
	routes, err := netlink.RouteGet(addr.AsSlice())
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
		return false
	}
	return err != nil || slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Type != unix.RTN_UNICAST })
}

package localcloud

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"net/url"
	"time"

	"bake/builder/amazon"
	"bake/internal/envvar"
)

// FromEnvironment returns the cloud that an environment names as AWS: AWS itself, or a
// local cloud at AWS_ENDPOINT_URL, which may be on another host. The public addresses of
// its machines are on the loopback interface of that host, so connections go through the
// local cloud. If the server at that URL is not a local cloud, addresses are dialed
// directly.
func FromEnvironment(env []string) amazon.Cloud {
	endpoint := Endpoint(env)
	if endpoint == "" {
		return amazon.Cloud{}
	}
	return amazon.Cloud{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if ofMachine(addr) {
			if conn, err := Connect(ctx, endpoint, addr); !stranger(err) {
				return conn, err
			}
		}
		return (&net.Dialer{KeepAlive: 5 * time.Second}).DialContext(ctx, network, addr)
	}}
}

// Endpoint returns the URL of a possible local cloud that an environment names as AWS, or
// "".
func Endpoint(env []string) string {
	endpoint := cmp.Or(envvar.Get(env, "AWS_ENDPOINT_URL_EC2"), envvar.Get(env, "AWS_ENDPOINT_URL"))
	if u, err := url.Parse(endpoint); err != nil || u.Scheme != "http" || u.Host == "" {
		return ""
	}
	return endpoint
}

// OnlyThrough reports whether the machine at addr can be reached only through the local
// cloud at endpoint: it is on the loopback of another host, or this host does not let the
// cloud listen on the port.
func OnlyThrough(ctx context.Context, endpoint, addr string) bool {
	u, err := url.Parse(endpoint)
	if err != nil || !ofMachine(addr) {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if here := u.Hostname() == "localhost" || err == nil && ip.IsLoopback(); here && servedHere(addr) {
		return false
	}
	conn, err := Connect(ctx, endpoint, addr)
	if err == nil {
		conn.Close()
	}
	return !stranger(err)
}

// servedHere reports whether the port of a machine's address is served unchanged on this
// host.
func servedHere(addr string) bool {
	at, err := netip.ParseAddrPort(addr)
	return err == nil && ServedPort(int(at.Port())) == int(at.Port())
}

// ofMachine reports whether the host of addr can be a machine of a local cloud: a
// loopback address that is not the host's own.
func ofMachine(addr string) bool {
	at, err := netip.ParseAddrPort(addr)
	return err == nil && at.Addr().Is4() && at.Addr().IsLoopback() && at.Addr() != netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

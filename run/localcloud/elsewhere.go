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

// Elsewhere is what an environment names as AWS: AWS itself, or a local cloud at
// AWS_ENDPOINT_URL that may be on another host. The public addresses of its machines
// are on the loopback of that host, so it is asked to connect to them.
func Elsewhere(env []string) amazon.Cloud {
	endpoint := cmp.Or(envvar.Get(env, "AWS_ENDPOINT_URL_EC2"), envvar.Get(env, "AWS_ENDPOINT_URL"))
	if u, err := url.Parse(endpoint); err != nil || u.Scheme != "http" || u.Host == "" {
		return amazon.Cloud{}
	}
	return amazon.Cloud{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if ofMachine(addr) {
			return Connect(ctx, endpoint, addr)
		}
		return (&net.Dialer{KeepAlive: 5 * time.Second}).DialContext(ctx, network, addr)
	}}
}

// ofMachine reports whether the host of addr can be a machine of a local cloud: a
// loopback address that is not the host's own.
func ofMachine(addr string) bool {
	at, err := netip.ParseAddrPort(addr)
	return err == nil && at.Addr().Is4() && at.Addr().IsLoopback() && at.Addr() != netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

package local

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"bake/cloud/image"
	"bake/cloud/image/debian"
	"bake/cloud/network"
)

// reach returns what machines may connect to outside of the cloud: what o permits, and the
// sources of packages, which may be at a private address: the archives of the host's apt
// and of the machines, and the host's proxies.
func reach(o Options, mirrors image.Mirrors, store *image.Store) (*network.Reach, error) {
	var items []string
	for _, item := range strings.Split(o.Egress, ",") {
		if strings.TrimSpace(item) != "" {
			items = append(items, item)
		}
	}
	urls := debian.HostMirrors(os.DirFS("/"))
	for _, u := range mirrors {
		urls = append(urls, u)
	}
	bases, err := store.Bases()
	if err != nil {
		return nil, err
	}
	for _, b := range bases {
		urls = append(urls, b.Mirrors...)
	}
	for _, name := range []string{"http_proxy", "https_proxy", "all_proxy"} {
		urls = append(urls, o.Getenv(name), o.Getenv(strings.ToUpper(name)))
	}
	for _, u := range urls {
		if item, ok := urlDestination(u); ok {
			items = append(items, item)
		}
	}
	r, err := network.ParseReach(items...)
	if err != nil {
		return nil, fmt.Errorf("-allow-egress or BAKE_ALLOW_EGRESS: %w", err)
	}
	return r, nil
}

// urlDestination returns the host and port of a URL, as an item of [network.ParseReach].
func urlDestination(text string) (item string, ok bool) {
	if text != "" && !strings.Contains(text, "://") {
		text = "http://" + text // as proxies are often written
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return "", false
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && !addr.Is4() || port == "" {
		return "", false // machines have no IPv6
	}
	item = net.JoinHostPort(u.Hostname(), port)
	_, err = network.ParseReach(item)
	return item, err == nil
}

// The cloud shifts ports by this number.
var _ [0]struct{} = [MovedBy - network.MovedBy]struct{}{}

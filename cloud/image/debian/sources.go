package debian

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// source is one suite on one mirror: a "deb" line of sources.list(5).
type source struct {
	URI        string // without a trailing slash
	Suite      string
	Components []string
	SignedBy   string // as in the host's sources; empty means any key that apt trusts
	// Expired accepts a release past its Valid-Until date, like "Check-Valid-Until: no" for a
	// frozen mirror in the host's sources.
	Expired bool
}

// Line returns s in the one-line format of sources.list(5).
func (s source) Line() string {
	options := ""
	if s.Expired {
		options = "[check-valid-until=no] "
	}
	return "deb " + options + s.URI + " " + s.Suite + " " + strings.Join(s.Components, " ")
}

// hostSources reads the binary package sources of the host with the root directory host:
// sources.list and sources.list.d, in both formats. A host without apt has none.
func hostSources(host fs.FS) ([]source, error) {
	var all []source
	for _, pattern := range []string{"etc/apt/sources.list", "etc/apt/sources.list.d/*.list", "etc/apt/sources.list.d/*.sources"} {
		names, err := fs.Glob(host, pattern)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			b, err := fs.ReadFile(host, name)
			if errors.Is(err, fs.ErrPermission) {
				continue // it may contain a password and not be readable by this user
			}
			if err != nil {
				return nil, fmt.Errorf("read the host's apt sources: %w", err)
			}
			parse := parseOneLine
			if path.Ext(name) == ".sources" {
				parse = parseDeb822
			}
			found, err := parse(string(b))
			if err != nil {
				return nil, fmt.Errorf("/%s: %w", name, err)
			}
			all = append(all, found...)
		}
	}
	return all, nil
}

// HostMirrors returns the URLs of the archives in the host's own apt sources, without
// duplicates. It ignores sources that cannot be read.
func HostMirrors(host fs.FS) []string {
	sources, _ := hostSources(host) // errors are reported when a base is made
	return mirrors(sources)
}

func mirrors(sources []source) []string {
	var urls []string
	for _, s := range sources {
		if fetchable(s.URI) && !slices.Contains(urls, s.URI) {
			urls = append(urls, s.URI)
		}
	}
	return urls
}

// parseOneLine parses "deb [options] uri suite component..." lines.
func parseOneLine(text string) ([]source, error) {
	var list []source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		kind, rest := cutField(line)
		if kind != "deb" {
			continue
		}
		s := source{}
		if strings.HasPrefix(rest, "[") {
			options, after, ok := strings.Cut(rest[1:], "]")
			if !ok {
				return nil, fmt.Errorf("%q: the options have no end", clip(line))
			}
			for o := range strings.FieldsSeq(options) {
				key, value, _ := strings.Cut(o, "=")
				switch strings.ToLower(key) {
				case "signed-by":
					s.SignedBy = value
				case "check-valid-until":
					s.Expired = isNo(value)
				}
			}
			rest = after
		}
		f := strings.Fields(rest)
		if len(f) < 2 {
			return nil, fmt.Errorf("%q has no suite", clip(line))
		}
		s.URI, s.Suite, s.Components = strings.TrimRight(f[0], "/"), f[1], f[2:]
		list = append(list, s)
	}
	return list, nil
}

// parseDeb822 parses paragraphs of Types, URIs, Suites and Components.
func parseDeb822(text string) ([]source, error) {
	var list []source
	err := parseControl(text, func(p paragraph) error {
		if !slices.Contains(strings.Fields(p.get("Types")), "deb") || isNo(p.get("Enabled")) {
			return nil
		}
		for _, uri := range strings.Fields(p.get("URIs")) {
			for _, suite := range strings.Fields(p.get("Suites")) {
				list = append(list, source{
					URI:        strings.TrimRight(uri, "/"),
					Suite:      suite,
					Components: strings.Fields(p.get("Components")),
					SignedBy:   strings.TrimSpace(p.get("Signed-By")),
					Expired:    isNo(p.get("Check-Valid-Until")),
				})
			}
		}
		return nil
	})
	return list, err
}

func cutField(s string) (first, rest string) {
	s = strings.TrimSpace(s)
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		return s[:i], strings.TrimSpace(s[i:])
	}
	return s, ""
}

func isNo(s string) bool {
	return slices.Contains([]string{"no", "false", "without", "off", "disable", "0"}, strings.ToLower(strings.TrimSpace(s)))
}

// chooseSources returns the sources of suite (such as bookworm): first the suite itself,
// then its updates and security fixes. An explicit mirror replaces the host's sources,
// which may be of another release. If security fixes have a separate tree that no source
// names, chooseSources expects that tree next to the mirror's, where every full mirror has
// it.
func (d distribution) chooseSources(host []source, mirror, suite string) ([]source, error) {
	var release, security *source
	for _, s := range host {
		base, kind, _ := strings.Cut(s.Suite, "-")
		if !slices.Contains(d.Suites, base) || !slices.Contains(s.Components, "main") || !fetchable(s.URI) || !d.signs(s.SignedBy) {
			continue
		}
		switch {
		case kind == "" && (release == nil || base == suite && release.Suite != suite):
			release = &s
		case kind == "security" && (security == nil || base == suite && security.Suite != suite+"-security"):
			security = &s
		}
	}
	if mirror != "" {
		mirror = strings.TrimRight(mirror, "/")
		if !fetchable(mirror) {
			return nil, fmt.Errorf("mirror %q: it must begin with http:// or https://", mirror)
		}
		release, security = &source{URI: mirror}, nil
	}
	if release == nil {
		name := strings.ToLower(d.Name)
		return nil, fmt.Errorf("this host's apt sources list no %s mirror: set one with -mirror or BAKE_MIRROR, such as %s=http://mirror.example/%s", d.Name, name, name)
	}
	switch {
	case d.OneTree:
		security = release
	case security == nil:
		security = &source{URI: release.URI + "-security", Expired: release.Expired}
	}
	at := func(s *source, suite string) source {
		return source{URI: s.URI, Suite: suite, Components: d.Components, SignedBy: s.SignedBy, Expired: s.Expired}
	}
	return []source{
		at(release, suite),
		at(release, suite+"-updates"),
		at(security, suite+"-security"),
	}, nil
}

func fetchable(uri string) bool {
	u, err := url.Parse(uri)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// loopback returns the first of urls that, on a machine, would refer to the machine instead of the
// host.
func loopback(urls []string) string {
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil {
			continue
		}
		if addr, err := netip.ParseAddr(u.Hostname()); u.Hostname() == "localhost" || err == nil && addr.IsLoopback() {
			return text
		}
	}
	return ""
}

// hostAdmitsExpired reports whether the host's apt is configured to accept releases past
// their Valid-Until (apt.conf(5)), as on hosts with a frozen mirror.
func hostAdmitsExpired(host fs.FS) bool {
	setting := regexp.MustCompile(`(?m)^[^#/]*\bCheck-Valid-Until\s+"?(?:false|no|0|off)"?\s*;`)
	for _, pattern := range []string{"etc/apt/apt.conf", "etc/apt/apt.conf.d/*"} {
		names, _ := fs.Glob(host, pattern) // the pattern is valid
		for _, name := range names {
			if b, err := fs.ReadFile(host, name); err == nil && setting.Match(b) {
				return true
			}
		}
	}
	return false
}

// Package debian makes the root file system of a Debian or Ubuntu system from the packages of a
// mirror, without using Debian's tools on this host.
//
// It works in two stages. [Prepare] verifies the mirror's signed indexes, resolves dependencies and
// downloads packages. The [System] that it returns writes a tar archive in which every package is
// unpacked but not configured. The second stage, [System.Command], runs in a machine with that
// root: dpkg configures the packages there, offline.
package debian

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"golang.org/x/sync/errgroup"
)

// Options describe a system.
type Options struct {
	Suite   string   // codename of the release, such as bookworm
	Arch    string   // Debian's name for the architecture, such as amd64
	Include []string // packages to install in addition to the required ones
	// Optional packages are installed if the mirror has them and their dependencies.
	Optional []string

	// Mirror is the URL of an archive. If it is empty, packages and security fixes come
	// from the apt sources of the host; if there are none, that is an error.
	Mirror string
	// Keyring is a file with the OpenPGP keys that may sign the mirror's indexes. If it is
	// empty, the keys are those of the distribution's archive.
	Keyring string

	Cache    string         // directory that keeps downloads between calls
	User     string         // login user of the system, with passwordless sudo
	Progress func(Progress) // may be nil; calls do not overlap

	Host   fs.FS        // this host's root directory
	Client *http.Client // nil means a client that uses HTTP_PROXY and similar variables
	Now    func() time.Time
}

// System is a system whose packages are in the cache.
type System struct {
	Packages []*Package // each after its dependencies
	Sources  []string   // each URL in Sources once
	Mirrors  []string   // the URLs in Sources, each once
	Version  string     // of the release, such as 12.11; empty if the mirror does not say

	distribution
	sources []source
	suite   string
	arch    string
	user    string
	date    time.Time // of the release; all generated files get this time
	fetcher *fetcher
}

// Prepare selects and downloads the packages of a system. It uses nothing from the mirror that the
// mirror's signature does not cover.
func Prepare(ctx context.Context, o Options) (*System, error) {
	f := &fetcher{client: o.Client, dir: o.Cache, report: serialize(o.Progress)}
	if f.client == nil {
		f.client = &http.Client{Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			MaxIdleConnsPerHost: downloads,
			TLSHandshakeTimeout: stall,
		}}
	}
	host, err := hostSources(o.Host)
	if err != nil {
		return nil, err
	}
	d := distributionOf(o.Suite)
	sources, err := d.chooseSources(host, o.Mirror, o.Suite)
	if err != nil {
		return nil, err
	}
	if o.Mirror == "" && hostAdmitsExpired(o.Host) {
		for i := range sources {
			sources[i].Expired = true
		}
	}
	keys, err := d.loadKeyring(o.Host, os.ReadFile, o.Keyring)
	if err != nil {
		return nil, err
	}
	s := &System{Mirrors: mirrors(sources), distribution: d, suite: o.Suite, arch: o.Arch, user: o.User, fetcher: f}
	if u := loopback(s.Mirrors); u != "" {
		f.report(Progress{Note: fmt.Sprintf("%s is on this host's loopback, which machines cannot reach: they will not be able to install packages from it", u)})
	}
	packages, err := s.readSources(ctx, sources, keys, o)
	if err != nil {
		return nil, err
	}
	if s.Packages, err = packages.resolve(append(o.Include, packages.optional(o.Include, o.Optional)...)); err != nil {
		return nil, fmt.Errorf("choose packages: %w", err)
	}
	items := make([]item, len(s.Packages))
	for i, p := range s.Packages {
		items[i] = p.item()
	}
	return s, f.all(ctx, "download packages", items)
}

func (p *Package) item() item { return item{p.URL, fileEntry{p.Size, p.SHA256}} }

// readSources verifies and reads the indexes of sources and sets the fields of s that depend on
// them. Only the first source must exist.
func (s *System) readSources(ctx context.Context, sources []source, keys openpgp.EntityList, o Options) (*archive, error) {
	releases, err := s.readReleases(ctx, sources, keys, o.Now())
	if err != nil {
		return nil, err
	}
	s.Version, s.date = releases[0].Version, releases[0].Date

	var indexes []indexItem
	var items []item
	for i, r := range releases {
		if r == nil {
			continue
		}
		src := sources[i]
		// Set the option only if the mirror is frozen. On any other mirror, it would hide from the
		// machines that the mirror is no longer updated.
		src.Expired = src.Expired && r.expired(o.Now())
		line := src
		for _, c := range s.Further {
			if _, err := r.index(src, c, o.Arch); err == nil {
				line.Components = append(slices.Clip(line.Components), c)
			}
		}
		s.sources = append(s.sources, line)
		s.Sources = append(s.Sources, line.Line())
		for _, c := range src.Components {
			it, err := r.index(src, c, o.Arch)
			if err != nil {
				return nil, fmt.Errorf("the Release of %s at %s: %w", src.Suite, src.URI, err)
			}
			indexes, items = append(indexes, it), append(items, it.item)
		}
	}
	if err := s.fetcher.all(ctx, "download indexes", items); err != nil {
		return nil, err
	}
	return s.readIndexes(indexes)
}

// readReleases reads and verifies the Release of each source, nil for a source without one. The
// first source must have one.
func (s *System) readReleases(ctx context.Context, sources []source, keys openpgp.EntityList, now time.Time) ([]*release, error) {
	s.fetcher.report(Progress{Phase: "verify the mirror"})
	releases := make([]*release, len(sources))
	g, ctx := errgroup.WithContext(ctx)
	for i, src := range sources {
		g.Go(func() error {
			r, err := s.readRelease(ctx, src, keys, now)
			if i > 0 && errors.Is(err, errNotFound) {
				s.fetcher.report(Progress{Note: fmt.Sprintf("%s has no suite %s: continuing without it", src.URI, src.Suite)})
				return nil
			}
			releases[i] = r
			return err
		})
	}
	return releases, g.Wait()
}

// readIndexes reads downloaded package indexes.
func (s *System) readIndexes(indexes []indexItem) (*archive, error) {
	packages := newArchive()
	for _, it := range indexes {
		b, err := os.ReadFile(s.fetcher.path(it.item))
		if err == nil {
			b, err = inflate(b, it.compression, maxData)
		}
		if err == nil {
			err = packages.add(string(b), it.base)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", it.url, err)
		}
	}
	return packages, nil
}

// readRelease fetches and verifies one suite's InRelease file.
func (s *System) readRelease(ctx context.Context, src source, keys openpgp.EntityList, now time.Time) (*release, error) {
	url := src.URI + "/dists/" + src.Suite + "/InRelease"
	data, err := s.fetcher.release(ctx, url)
	if err != nil {
		return nil, err
	}
	text, err := verifyRelease(data, keys, now)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	r, err := parseRelease(text)
	if err == nil && r.Codename != src.Suite && r.Suite != src.Suite {
		err = fmt.Errorf("it is for %s, not %s", r.Codename, src.Suite)
	}
	if err == nil && !src.Expired {
		err = r.checkDates(now)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	return r, nil
}

// serialize returns a report function that is safe for concurrent use.
func serialize(report func(Progress)) func(Progress) {
	if report == nil {
		return func(Progress) {}
	}
	var mu sync.Mutex
	return func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		report(p)
	}
}

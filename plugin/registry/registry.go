package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	goversion "github.com/hashicorp/go-version"
)

// Options define the sources of plugins.
type Options struct {
	Mirror string       // directory, or http(s) URL, of a tree made by [Registry.Mirror]; if set, it is the only source
	Token  string       // for GitHub's API
	Log    *slog.Logger // nil for none

	// Progress is called during the download of a file, and at its end with done equal to total.
	// Calls do not overlap. total is 0 while it is unknown.
	Progress func(file string, done, total int64)

	// Notice is called with messages for the user during a wait. Calls do not overlap with each
	// other or with those of Progress.
	Notice func(text string)

	// Addresses of the sites, and the armored keys of HashiCorp's; zero values mean the real ones.
	Releases, API, Web string
	Keys               []byte
	HTTP               http.RoundTripper
}

// Registry finds and downloads plugins. It may be used by several goroutines.
type Registry struct {
	*client
	mirror   []func(Source) site // nil without a mirror
	releases string
	web      string
	keys     []byte
	report   func(file string, done, total int64)
}

// New returns a registry.
func New(o Options) (*Registry, error) {
	var mu sync.Mutex
	r := &Registry{
		releases: cmp.Or(o.Releases, "https://releases.hashicorp.com"),
		web:      cmp.Or(o.Web, "https://"+gitHub),
		keys:     o.Keys,
		report: func(file string, done, total int64) {
			if o.Progress != nil {
				mu.Lock()
				defer mu.Unlock()
				o.Progress(file, done, total)
			}
		},
	}
	if r.keys == nil {
		r.keys = hashicorpKey
	}
	trip := o.HTTP
	if trip == nil {
		trip = transport()
	}
	r.client = &client{
		http: &http.Client{Transport: trip, CheckRedirect: redirect},
		api:  cmp.Or(o.API, "https://api."+gitHub), token: o.Token, log: o.Log, now: time.Now,
		first: 500 * time.Millisecond, stall: stall, patience: patience,
		tell: func(text string) {
			if o.Notice != nil {
				mu.Lock()
				defer mu.Unlock()
				o.Notice(text)
			}
		},
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if o.Mirror != "" {
		return r, r.useMirror(o.Mirror)
	}
	return r, nil
}

// useMirror makes r use only a mirror.
func (r *Registry) useMirror(where string) error {
	c := r.client
	c.token = ""
	name, base := where, strings.TrimRight(where, "/")
	if scheme, _, ok := strings.Cut(where, "://"); ok {
		u, err := url.Parse(where)
		if err != nil || u.Host == "" || scheme != "http" && scheme != "https" {
			hint := ""
			if err != nil && strings.Contains(where, "@") {
				hint = "; special characters in its user name and password must be percent-encoded"
			}
			return fmt.Errorf("BAKE_PLUGIN_MIRROR is %q, which is neither a directory nor an http or https URL%s", withoutUser(where), hint)
		}
		name = u.Redacted()
	} else {
		info, err := os.Stat(where)
		if err == nil && !info.IsDir() {
			err = errors.New("it is not a directory")
		}
		if err != nil {
			return fmt.Errorf("cannot read the plugin mirror %s, set by BAKE_PLUGIN_MIRROR: %w", where, err)
		}
		base, c.dir = "file://mirror", where
		c.http = &http.Client{Transport: http.NewFileTransportFS(os.DirFS(where))}
	}
	r.mirror = []func(Source) site{
		func(s Source) site {
			return tree{c, name, base + "/" + s.Host + "/" + s.Path, r.signers(s), false}
		},
		func(s Source) site { // a plain copy of HashiCorp's site
			if !s.official() {
				return nil
			}
			return tree{c, name, base, r.keys, false}
		},
	}
	return nil
}

// withoutUser returns a URL, possibly an invalid one, without user name and password.
func withoutUser(address string) string {
	scheme, rest, _ := strings.Cut(address, "://")
	return scheme + "://" + rest[strings.LastIndexByte(rest, '@')+1:]
}

func (r *Registry) signers(s Source) []byte {
	if s.official() {
		return r.keys
	}
	return nil
}

// sites returns the sites that may have releases of a plugin, in the order in which to try them.
func (r *Registry) sites(s Source) []site {
	if r.mirror != nil {
		var all []site
		for _, make := range r.mirror {
			if m := make(s); m != nil {
				all = append(all, m)
			}
		}
		return all
	}
	if !strings.EqualFold(s.Host, gitHub) {
		return []site{tree{r.client, s.Host, "https://" + s.Host + "/" + s.Path, nil, false}}
	}
	hub := releases{r.client, r.web}
	if s.official() {
		u, err := url.Parse(r.releases)
		if err != nil {
			u = &url.URL{}
		}
		return []site{tree{r.client, u.Host, r.releases, r.keys, true}, hub}
	}
	return []site{hub}
}

// NotFoundError is the error if no release of a plugin can be installed.
type NotFoundError struct {
	source  Source
	Reasons []string // what was tried, and why it is unsuitable
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("no release of %s can be installed: %s", e.source, strings.Join(e.Reasons, "; "))
}

// Find returns the highest release of a plugin that allows accepts and that has an archive for one
// of the platforms. It tries sites in order until one has such a release. It skips sites that do
// not respond, and names them in the error if no site has one. A release with an invalid signature
// is an error at once.
func (r *Registry) Find(ctx context.Context, s Source, on Platforms, allows func(version string) bool) (*Release, error) {
	return r.find(ctx, s, on, func(at site) ([]string, []string, error) {
		all, err := at.versions(ctx, s)
		if err == nil && len(all) > maxVersions {
			err = fmt.Errorf("it lists %d versions; no plugin has more than %d", len(all), maxVersions)
		}
		if err != nil {
			return nil, nil, err
		}
		wanted, others := choose(all, allows)
		return wanted, others, nil
	})
}

// Exactly returns one release of a plugin, without listing the releases.
func (r *Registry) Exactly(ctx context.Context, s Source, on Platforms, version string) (*Release, error) {
	if _, ok := parseVersion(version); !ok {
		return nil, &NotFoundError{s, []string{fmt.Sprintf("version %s is not a release, so it was not downloaded from anywhere; install its binary with 'bake plugins install -path'", version)}}
	}
	return r.find(ctx, s, on, func(site) ([]string, []string, error) { return []string{version}, nil, nil })
}

// choose returns the allowed versions, the highest first, and the others.
func choose(all []string, allows func(string) bool) (wanted, others []string) {
	var parsed []*goversion.Version
	for _, text := range all {
		if v, ok := parseVersion(text); ok {
			parsed = append(parsed, v)
		}
	}
	sort.Slice(parsed, func(i, j int) bool { return parsed[j].LessThan(parsed[i]) })
	for _, v := range parsed {
		if text := v.String(); allows(text) {
			wanted = append(wanted, text)
		} else {
			others = append(others, text)
		}
	}
	return slices.Compact(wanted), slices.Compact(others)
}

// maxVersions is how many versions a site may list.
const maxVersions = 10_000

// maxReasons is how many releases are named that cannot be used.
const maxReasons = 10

// maxReleases is how many releases of a site, the newest first, are examined to find a usable one.
const maxReleases = 100

func (r *Registry) find(ctx context.Context, s Source, on Platforms, list func(site) (wanted, others []string, err error)) (*Release, error) {
	missing := &NotFoundError{source: s}
	var failures []string
	for _, at := range r.sites(s) {
		because := func(format string, args ...any) {
			reason := fmt.Sprintf("%s: ", at) + fmt.Sprintf(format, args...)
			if !slices.Contains(missing.Reasons, reason) { // both layouts of a mirror are tried
				missing.Reasons = append(missing.Reasons, reason)
			}
		}
		wanted, others, err := list(at)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, errNotFound):
			because("plugin not found")
			continue
		case err != nil:
			because("%v", err)
			failures = append(failures, err.Error())
			continue
		case len(wanted) == 0 && len(others) == 0:
			because("no releases found")
		case len(wanted) == 0:
			because("no release satisfies the constraint; available: %s", few(others))
		}
		rel, silent, err := newest(ctx, at, s, on, wanted, because)
		switch {
		case err != nil:
			return nil, err
		case silent != nil:
			failures = append(failures, silent.Error())
		case rel != nil:
			rel.Failures = failures
			return rel, nil
		}
	}
	return nil, missing
}

// newest returns the first of the wanted versions that a site has for one of the platforms, or nil
// if there is none; the reasons are passed to because. silent is why the site does not respond, and
// err ends the search.
func newest(ctx context.Context, at site, s Source, on Platforms, wanted []string, because func(format string, args ...any)) (rel *Release, silent, err error) {
	skipped := 0
	skip := func(format string, args ...any) {
		if skipped++; skipped <= maxReasons {
			because(format, args...)
		}
	}
	defer func() {
		if rel == nil && skipped > maxReasons {
			because("%d more releases cannot be used either", skipped-maxReasons)
		}
	}()
	for n, v := range wanted {
		if n == maxReleases {
			because("only the newest %d of %d releases were looked at; require an older version to get another one", maxReleases, len(wanted))
			break
		}
		rel, err := at.release(ctx, s, v)
		bad, untrusted := errors.AsType[*UntrustedError](err)
		_, useless := errors.AsType[unusable](err)
		switch {
		case ctx.Err() != nil:
			return nil, nil, context.Cause(ctx)
		case untrusted:
			return nil, nil, fmt.Errorf("version %s of %s is not installed: %w", v, s, bad)
		case errors.Is(err, errNotFound):
			skip("version %s has no downloadable files", v)
		case useless:
			skip("version %s: %v", v, err)
		case err != nil:
			because("version %s: %v", v, err)
			return nil, err, nil
		case !slices.ContainsFunc(rel.Archives, func(a Archive) bool { return on.has(a.Platform) }):
			skip("version %s has no build for %s", v, cmp.Or(on.String(), "any platform"))
		default:
			sort.Slice(rel.Archives, func(i, j int) bool { return rel.Archives[i].Platform.String() < rel.Archives[j].Platform.String() })
			return rel, nil, nil
		}
	}
	return nil, nil, nil
}

// few lists the first of many.
func few(all []string) string {
	const most = 5
	if len(all) > most {
		return strings.Join(all[:most], ", ") + fmt.Sprintf(" and %d more", len(all)-most)
	}
	return strings.Join(all, ", ")
}

// fetch downloads an archive into dir and verifies it.
func (r *Registry) fetch(ctx context.Context, a Archive, dir string) (file *os.File, err error) {
	name := a.url[strings.LastIndexByte(a.url, '/')+1:]
	for again := range 2 { // a resumed download may have combined two versions
		file, err = os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return nil, err
		}
		var size int64
		err = r.download(ctx, a.url, file, maxArchive, func(done, total int64) {
			size = done
			r.report(name, done, max(total, 0))
		})
		if err == nil {
			r.report(name, size, size)
			var sum string
			if sum, err = sumOfFile(file); err == nil && sum != a.SHA256 {
				err = &failure{url: r.shown(a.url), err: fmt.Errorf("%w: got %s, published is %s", errSum, sum, a.SHA256)}
			}
		}
		if err == nil {
			return file, nil
		}
		file.Close()
		if !errors.Is(err, errSum) || again > 0 {
			break
		}
	}
	switch {
	case errors.Is(err, errNotFound):
		err = fmt.Errorf("%w, although its checksum is published", err)
	case errors.Is(err, errSum):
		err = &UntrustedError{err}
	}
	return nil, err
}

// errSum is the error of a file that differs from the published one.
var errSum = errors.New("SHA-256 checksum mismatch")

func sumOfBytes(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

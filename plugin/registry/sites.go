package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	goversion "github.com/hashicorp/go-version"
)

// The host whose repositories' releases have their own layout, and the version of the plugin
// protocol that bake supports.
const (
	gitHub  = "github.com"
	apiKept = "5.0"
)

// site is a place that publishes releases.
type site interface {
	// String returns the name for messages.
	String() string
	// versions lists the possible versions of a plugin, in any order.
	versions(ctx context.Context, s Source) ([]string, error)
	// release returns one version. The error is errNotFound if it has no files.
	release(ctx context.Context, s Source, version string) (*Release, error)
}

// Release is a version of a plugin as a site publishes it.
type Release struct {
	Source   Source
	Version  string // without v
	API      string // version of the plugin protocol: 5.0
	Site     string // where it is published
	Signed   bool   // HashiCorp has signed its checksums
	Archives []Archive

	// Failures are why earlier sites were skipped; they may have a higher version.
	Failures []string

	// The published files; nil if there is none.
	sums, signature, manifest []byte
}

// Archive is the binary of one platform.
type Archive struct {
	Platform Platform
	SHA256   string // of the archive
	url      string
}

// archive returns the archive for a platform.
func (r *Release) archive(p Platform) (Archive, bool) {
	for _, a := range r.Archives {
		if a.Platform == p {
			return a, true
		}
	}
	return Archive{}, false
}

// unusable is the error of a release that bake cannot use.
type unusable struct{ reason string }

func (u unusable) Error() string { return u.reason }

// tree is a site with the layout of releases.hashicorp.com: base contains a directory for each
// product.
type tree struct {
	*client
	name string
	base string // without a slash at the end
	keys []byte // keys that sign releases, armored; nil if releases are not signed
	must bool   // an unsigned release is refused
}

func (t tree) String() string { return t.name }

func (t tree) versions(ctx context.Context, s Source) ([]string, error) {
	address := t.base + "/" + s.repository() + "/index.json"
	body, _, err := t.get(ctx, address, maxIndex)
	if err != nil {
		return nil, err
	}
	var index struct {
		Versions map[string]json.RawMessage `json:"versions"`
	}
	if err := json.Unmarshal(body, &index); err != nil {
		return nil, &failure{url: t.shown(address), err: fmt.Errorf("it is not a list of versions: %w", err)}
	}
	var all []string
	for v := range index.Versions {
		all = append(all, v)
	}
	return all, nil
}

// treeFile returns the name of a release's file: packer-plugin-docker_1.1.0_SHA256SUMS.
func treeFile(s Source, version, rest string) string {
	return s.repository() + "_" + version + "_" + rest
}

func (t tree) release(ctx context.Context, s Source, version string) (*Release, error) {
	dir := t.base + "/" + s.repository() + "/" + version + "/"
	address := dir + treeFile(s, version, "SHA256SUMS")
	r := &Release{Source: s, Version: version, API: apiKept, Site: t.name}
	var err error
	if r.sums, _, err = t.get(ctx, address, maxText); err != nil {
		return nil, err
	}
	if err := t.verify(ctx, r, address); err != nil {
		return nil, err
	}
	sums, err := parseSums(r.sums)
	if err != nil {
		return nil, &failure{url: t.shown(address), err: err}
	}
	named, plain, other := archives(s, version, dir, sums)
	if len(plain) > 0 {
		name := treeFile(s, version, "manifest.json")
		if r.manifest, err = t.manifest(ctx, dir+name, sums[name]); err != nil {
			return nil, err
		}
		r.Archives = plain
		return r, nil
	}
	r.Archives = named
	return r, r.usable(other)
}

// archives finds the archives of a release among its checksums. named are those whose names contain
// the protocol version, as on GitHub; plain are those whose names do not, as on
// releases.hashicorp.com. other is the protocol version of unsupported archives, if there are any.
func archives(s Source, version, dir string, sums map[string]string) (named, plain []Archive, other string) {
	for name, sum := range sums {
		if v, api, p, ok := s.parseName(name, ".zip"); ok && v == version {
			if api == apiKept {
				named = append(named, Archive{p, sum, dir + name})
			} else {
				other = api
			}
			continue
		}
		platform, ours := strings.CutPrefix(name, treeFile(s, version, ""))
		platform, zipped := strings.CutSuffix(platform, ".zip")
		if p, err := parsePlatform(platform); err == nil && ours && zipped {
			plain = append(plain, Archive{p, sum, dir + name})
		}
	}
	return named, plain, other
}

// usable returns an error if there is no archive. other is the protocol version of unsupported
// archives.
func (r *Release) usable(other string) error {
	if len(r.Archives) == 0 && other != "" {
		return unusable{fmt.Sprintf("it uses version %s of the plugin protocol; bake supports %s", other, apiKept)}
	}
	return nil
}

// verify checks the signature of r's checksums, which are at address.
func (t tree) verify(ctx context.Context, r *Release, address string) error {
	if t.keys == nil {
		return nil
	}
	signature, _, err := t.get(ctx, address+".sig", maxText)
	if errors.Is(err, errNotFound) && !t.must {
		return nil
	}
	if errors.Is(err, errNotFound) {
		return &UntrustedError{fmt.Errorf("the checksums are not signed: %w", err)}
	}
	if err != nil { // like any failed download
		return fmt.Errorf("the signature of the checksums could not be downloaded: %w", err)
	}
	if err := verifySums(t.keys, r.sums, signature, t.now()); err != nil {
		return &UntrustedError{&failure{url: t.shown(address), err: fmt.Errorf("it is not signed with HashiCorp's key: %w", err)}}
	}
	r.Signed, r.signature = true, signature
	return nil
}

// UntrustedError is the error of a release that was, or may have been, tampered with. Other sites
// are not tried, and nothing else is installed instead.
type UntrustedError struct{ err error }

func (u *UntrustedError) Error() string { return u.err.Error() }

// Unwrap returns the cause.
func (u *UntrustedError) Unwrap() error { return u.err }

// manifest returns the manifest at address if bake supports the protocol that it names. It verifies
// the checksum if sum is not empty.
func (t tree) manifest(ctx context.Context, address, sum string) ([]byte, error) {
	body, _, err := t.get(ctx, address, maxText)
	if errors.Is(err, errNotFound) {
		return nil, unusable{"it has no manifest at " + t.shown(address)}
	}
	if err != nil {
		return nil, err
	}
	if sum != "" && sum != sumOfBytes(body) {
		return nil, &UntrustedError{&failure{url: t.shown(address), err: errors.New("it does not have the checksum that is published for it")}}
	}
	var m struct {
		Metadata struct {
			ProtocolVersion string `json:"protocol_version"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, &failure{url: t.shown(address), err: fmt.Errorf("it is not a manifest: %w", err)}
	}
	if api := m.Metadata.ProtocolVersion; api != apiKept {
		return nil, unusable{fmt.Sprintf("it uses version %q of the plugin protocol; bake supports %s", clip(api), apiKept)}
	}
	return body, nil
}

// releases is a site with the releases of GitHub's repositories.
type releases struct {
	*client
	web string // base of downloads, without a slash at the end
}

func (g releases) String() string { return gitHub }

func (g releases) repository(s Source) (string, error) {
	if strings.Contains(s.Path, "/") {
		return "", fmt.Errorf("%s is not a plugin on GitHub: a source there has three parts, such as github.com/hashicorp/docker", s)
	}
	return s.Path + "/" + s.repository(), nil
}

// maxPages limits the pages of tags that are read, with a hundred tags each.
const maxPages = 50

func (g releases) versions(ctx context.Context, s Source) ([]string, error) {
	repository, err := g.repository(s)
	if err != nil {
		return nil, err
	}
	var all []string
	address := g.api + "/repos/" + repository + "/git/matching-refs/tags?per_page=100"
	for range maxPages {
		body, header, err := g.get(ctx, address, maxText)
		if err != nil {
			return nil, err
		}
		var refs []struct {
			Ref string `json:"ref"`
		}
		if err := json.Unmarshal(body, &refs); err != nil {
			return nil, &failure{url: g.shown(address), err: fmt.Errorf("it is not a list of tags: %w", err)}
		}
		for _, r := range refs {
			if v, ok := strings.CutPrefix(r.Ref, "refs/tags/v"); ok {
				all = append(all, v)
			}
		}
		next := nextPage(header.Values("Link"), address)
		if next == "" || !strings.HasPrefix(next, g.api+"/") {
			return all, nil
		}
		address = next
	}
	return all, nil
}

// nextPage returns the address of the next page from Link headers, or "". See RFC 8288.
func nextPage(links []string, base string) string {
	at, err := url.Parse(base)
	if err != nil {
		return ""
	}
	for link := range strings.SplitSeq(strings.Join(links, ","), ",") {
		target, params, _ := strings.Cut(link, ";")
		target, ok := strings.CutPrefix(strings.TrimSpace(target), "<")
		target, closed := strings.CutSuffix(target, ">")
		if !ok || !closed {
			continue
		}
		for param := range strings.SplitSeq(params, ";") {
			if name, value, _ := strings.Cut(strings.TrimSpace(param), "="); name == "rel" && strings.Trim(value, `"`) == "next" {
				if next, err := at.Parse(target); err == nil {
					return next.String()
				}
			}
		}
	}
	return ""
}

func (g releases) release(ctx context.Context, s Source, version string) (*Release, error) {
	repository, err := g.repository(s)
	if err != nil {
		return nil, err
	}
	dir := g.web + "/" + repository + "/releases/download/v" + version + "/"
	address := dir + s.repository() + "_v" + version + "_SHA256SUMS"
	r := &Release{Source: s, Version: version, API: apiKept, Site: gitHub}
	if r.sums, _, err = g.get(ctx, address, maxText); err != nil {
		return nil, err
	}
	sums, err := parseSums(r.sums)
	if err != nil {
		return nil, &failure{url: g.shown(address), err: err}
	}
	named, _, other := archives(s, version, dir, sums)
	r.Archives = named
	return r, r.usable(other)
}

// parseVersion parses a version that can be installed from a site: a release.
func parseVersion(text string) (*goversion.Version, bool) {
	v, err := goversion.NewSemver(text)
	if err != nil || v.Prerelease() != "" || v.Metadata() != "" || v.Original() != v.String() {
		return nil, false
	}
	return v, true
}

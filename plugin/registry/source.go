// Package registry gets Packer plugins: it finds the releases of a plugin where they are published,
// verifies its downloads, installs plugins where Packer keeps them, copies them to mirrors, and
// records the chosen releases in a lock file.
package registry

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"bake/internal/lazyregexp"
)

// Source is the address of a plugin, such as github.com/hashicorp/docker. It determines where
// releases are published and, below the plugin directory, where they are installed. Case is kept.
type Source struct {
	Host string
	Path string // between host and name, without slashes around it: hashicorp
	Name string // docker
}

// part matches a valid part of a source, which becomes a directory and a part of URLs.
var part = lazyregexp.New(`^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_-])?$`)

// ParseSource parses the address of a plugin.
func ParseSource(text string) (Source, error) {
	wrong := func(why string) (Source, error) {
		return Source{}, fmt.Errorf("%q is not the source of a plugin: %s. A source looks like github.com/hashicorp/docker", text, why)
	}
	if strings.Contains(text, "://") {
		return wrong("it must not have a scheme")
	}
	parts := strings.Split(text, "/")
	if len(parts) < 3 {
		return wrong("it must have a host, a namespace and a name, with slashes between them")
	}
	if len(parts) > 16 {
		return wrong("it has more than 16 parts")
	}
	for i, p := range parts {
		if host, port, ok := strings.Cut(p, ":"); ok && i == 0 && strings.Trim(port, "0123456789") == "" && port != "" {
			p = host
		}
		if !part.Get().MatchString(p) {
			return wrong(fmt.Sprintf("its part %q must consist of letters, digits, dots, dashes and underscores", p))
		}
	}
	name := parts[len(parts)-1]
	if rest, ok := strings.CutPrefix(name, "packer-plugin-"); ok {
		return wrong("the name is " + rest + " without packer-plugin-")
	}
	return Source{Host: parts[0], Path: strings.Join(parts[1:len(parts)-1], "/"), Name: name}, nil
}

func (s Source) String() string { return s.Host + "/" + s.Path + "/" + s.Name }

// repository returns the name of the repository and of the product: packer-plugin-docker.
func (s Source) repository() string { return "packer-plugin-" + s.Name }

// official reports whether HashiCorp publishes and signs the plugin.
func (s Source) official() bool {
	return strings.EqualFold(s.Host, gitHub) && strings.EqualFold(s.Path, "hashicorp")
}

// dir returns the directory below root where the plugin is installed.
func (s Source) dir(root string) string {
	return filepath.Join(root, s.Host, filepath.FromSlash(s.Path), s.Name)
}

// Platform is the platform of a binary, by GOOS and GOARCH.
type Platform struct{ OS, Arch string }

// String returns the form used in file names: linux_amd64.
func (p Platform) String() string { return p.OS + "_" + p.Arch }

// Platforms is the set of platforms with one of these systems and one of these architectures; an
// empty list means all.
type Platforms struct{ OS, Arch []string }

// Only returns a set with only p.
func (p Platform) Only() Platforms { return Platforms{[]string{p.OS}, []string{p.Arch}} }

// has reports whether p is one of the platforms.
func (all Platforms) has(p Platform) bool {
	return (len(all.OS) == 0 || slices.Contains(all.OS, p.OS)) && (len(all.Arch) == 0 || slices.Contains(all.Arch, p.Arch))
}

func (all Platforms) String() string {
	return strings.TrimSuffix(strings.Join(all.OS, ",")+"_"+strings.Join(all.Arch, ","), "_")
}

// exe returns the suffix of executable files.
func (p Platform) exe() string {
	if p.OS == "windows" {
		return ".exe"
	}
	return ""
}

// parsePlatform parses the result of [Platform.String].
func parsePlatform(text string) (Platform, error) {
	os, arch, ok := strings.Cut(text, "_")
	if !ok || !word.Get().MatchString(os) || !word.Get().MatchString(arch) {
		return Platform{}, errors.New("a platform looks like linux_amd64")
	}
	return Platform{os, arch}, nil
}

var word = lazyregexp.New(`^[a-z0-9]+$`)

// binaryName returns the file name of an installed plugin:
// packer-plugin-docker_v1.1.0_x5.0_linux_amd64. version is without its v, api without its x.
func (s Source) binaryName(version, api string, p Platform) string {
	return fmt.Sprintf("%s_v%s_x%s_%s%s", s.repository(), version, api, p, p.exe())
}

// sumSuffix is appended to the name of a binary for its checksum file.
const sumSuffix = "_SHA256SUM"

var versionAndAPI = lazyregexp.New(`^_v([0-9]+\.[0-9]+\.[0-9]+(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?)_x([0-9]+\.[0-9]+)_([a-z0-9]+)_([a-z0-9]+)$`)

// parseName parses a name made by [Source.binaryName], or the name of an archive, which has another
// suffix.
func (s Source) parseName(name, suffix string) (version, api string, p Platform, ok bool) {
	name, ok = strings.CutSuffix(name, suffix)
	if !ok {
		return
	}
	rest, ok := strings.CutPrefix(name, s.repository())
	if !ok {
		return
	}
	m := versionAndAPI.Get().FindStringSubmatch(rest)
	if m == nil {
		return "", "", Platform{}, false
	}
	return m[1], m[2], Platform{m[3], m[4]}, true
}

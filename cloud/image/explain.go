package image

import (
	"fmt"
	"runtime"
	"slices"
	"sort"
	"strings"
	"time"

	"bake/cloud/wire"
)

// Explain explains to the user why no image here matches a DescribeImages request, and what to do.
// id is the requested image id, or empty. The result is empty if the only help is the list of
// images.
func (s *Store) Explain(id string, owners []string, filters map[string][]string) (string, error) {
	all, err := s.Publications()
	if err != nil {
		return "", err
	}
	if id != "" {
		return fmt.Sprintf("The local cloud does not know the AMI ids of AWS. Map this one to a release, for example: bake cloud alias %s %s. 'bake cloud bases' lists the releases.", id, releases()[1].ID), nil
	}
	names := strings.Join(filters["name"], ", ")
	if text := elsewhere(owners, filters, names); text != "" {
		return text, nil
	}
	if text := s.otherArch(filters, names); text != "" {
		return text, nil
	}
	named := slices.DeleteFunc(all, func(p Publication) bool { return p.ID != "" || !matches(p.Name, filters["name"]) })
	owned := slices.DeleteFunc(slices.Clone(named), func(p Publication) bool {
		return len(owners) > 0 && !slices.Contains(owners, p.Owner) && !slices.Contains(owners, p.OwnerAlias)
	})
	switch {
	case len(filters["name"]) == 0:
		return "", nil
	case len(owned) > 0:
		return tooNarrow(newest(owned), filters), nil
	case len(named) > 0:
		p := newest(named)
		return fmt.Sprintf("The local cloud has %s of owner %s (%s), which is not among the owners %s.", p.Name, p.Owner, publisherOf(p.Owner).Name, strings.Join(owners, ", ")), nil
	}
	offered := s.offered()
	for _, r := range releases() {
		if p := r.publications(); !offered[r.ID] && slices.ContainsFunc(p, func(p Publication) bool { return matches(p.Name, filters["name"]) }) {
			return fmt.Sprintf("This host has no base for %s of %s. Make one from a container image, named with its registry: bake cloud base %s -from IMAGE.", r.Title, publisherOf(r.Owner).Name, r.ID), nil
		}
	}
	return s.missing(owners, names), nil
}

// elsewhere explains requests for images that the local cloud can never run.
func elsewhere(owners []string, filters map[string][]string, names string) string {
	lower := strings.ToLower(names)
	var what string
	switch {
	case strings.Contains(lower, "windows"), slices.Contains(owners, "801119661308"), slices.Contains(filters["platform"], "windows"):
		what = "Windows images"
	case strings.Contains(lower, "macos"):
		what = "macOS images"
	case len(filters["product-code"]) > 0, slices.Contains(owners, "aws-marketplace"), slices.Contains(owners, "679593333241"):
		what = "Images of AWS Marketplace"
	default:
		return ""
	}
	return what + " cannot run on the local cloud. Bake this source on AWS, without -local, or leave it out with -except."
}

// otherArch explains requests for images of a processor architecture that this host cannot run.
func (s *Store) otherArch(filters map[string][]string, names string) string {
	here := EC2Arch(runtime.GOARCH)
	for _, arch := range []struct{ name, pattern string }{{"arm64", "arm64"}, {"arm64", "aarch64"}, {"amd64", "amd64"}, {"amd64", "x86_64"}} {
		there := EC2Arch(arch.name)
		if !slices.Contains(filters["architecture"], there) && !strings.Contains(names, arch.pattern) {
			continue
		}
		if why := s.driver.Runs(arch.name); why != nil {
			return fmt.Sprintf("The wanted image is for %s: %v. With -local use the name and the instance type of %s, or bake on a host with %s.", there, why, here, there)
		}
	}
	return ""
}

// tooNarrow lists the filters, other than the name, that an image does not match.
func tooNarrow(p Publication, filters map[string][]string) string {
	has := map[string]string{
		"architecture": p.Architecture, "root-device-name": p.RootDeviceName, "root-device-type": "ebs", "virtualization-type": "hvm", "hypervisor": "xen",
		"block-device-mapping.volume-type": p.VolumeType, "block-device-mapping.device-name": p.RootDeviceName, "boot-mode": p.BootMode, "imds-support": p.ImdsSupport,
		"description": p.Description, "state": "available", "image-type": "machine", "is-public": "true", "ena-support": "true", "owner-id": p.Owner, "owner-alias": p.OwnerAlias,
	}
	var wrong []string
	for name, values := range filters {
		if value, known := has[name]; known && !matches(value, values) {
			wrong = append(wrong, fmt.Sprintf("its %s is %q, not %s", name, value, strings.Join(values, " or ")))
		}
	}
	if !p.Deprecated.IsZero() && p.Deprecated.Before(time.Now()) {
		wrong = append(wrong, "it is deprecated, and is found only with include_deprecated = true")
	}
	if wrong == nil {
		wrong = []string{"other filters do not match it"}
	}
	sort.Strings(wrong)
	return fmt.Sprintf("The local cloud has %s, but %s.", p.Name, strings.Join(wrong, "; "))
}

// missing explains requests for a name that no image here has.
func (s *Store) missing(owners []string, names string) string {
	owner := ""
	for _, o := range owners {
		if ownerPattern.Get().MatchString(o) {
			owner = o
			break
		}
	}
	from := publisherOf(owner)
	var ids []string
	offered := s.offered()
	for _, r := range releases() {
		if r.Owner == owner && offered[r.ID] {
			ids = append(ids, r.ID)
		}
	}
	name := strings.NewReplacer("*", "1", "?", "1").Replace(names)
	switch {
	case slices.Contains(owners, "self"):
		return fmt.Sprintf("This account has no image named %s on the local cloud, which has no images of AWS. Bake its template with -local first, or import one: bake cloud import FILE -name '%s'.", names, name)
	case ids != nil:
		return fmt.Sprintf("The local cloud has these releases of %s: %s. They have no image named %s. To provide one, import a root file system or an OCI image: bake cloud import FILE -owner %s -name '%s'.", from.Name, strings.Join(ids, ", "), names, owner, name)
	case from.Name != "":
		return fmt.Sprintf("The local cloud cannot make images of %s by itself. Import a root file system or an OCI image of that system: bake cloud import FILE -owner %s -name '%s' -user USER.", from.Name, owner, name)
	case owner != "":
		return fmt.Sprintf("The local cloud has no image named %s of owner %s. Bake its template with -local first, or import one: bake cloud import FILE -owner %s -name '%s' -user USER.", names, owner, owner, name)
	}
	return ""
}

func newest(list []Publication) Publication {
	return slices.MaxFunc(list, func(a, b Publication) int { return a.CreationDate.Compare(b.CreationDate) })
}

// matches reports whether value matches one of patterns, which have the syntax of EC2's filters. An
// empty list matches everything.
func matches(value string, patterns []string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { return wire.Match(p, value, wire.Backslash) })
}

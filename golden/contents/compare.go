package contents

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"github.com/package-url/packageurl-go"
)

// Change is a package that differs between two contents. A package that was added has no
// versions before, and one that was removed none after.
type Change struct {
	Kind   Kind   `json:"kind"`
	Name   string `json:"name"`
	Arch   string `json:"arch,omitempty"`
	Before string `json:"before,omitempty"` // removed versions, separated by commas
	After  string `json:"after,omitempty"`  // added versions, likewise
}

// String returns the change for people, on one line.
func (c Change) String() string {
	name := string(c.Kind) + " " + c.Name
	if c.Arch != "" {
		name += ":" + c.Arch
	}
	switch {
	case c.Before == "":
		return name + " " + c.After + " was added"
	case c.After == "":
		return name + " " + c.Before + " was removed"
	}
	return name + " " + c.Before + " is now " + c.After
}

// Compare lists the packages in which after differs from before.
func Compare(before, after *Contents) (changes []Change) {
	type key struct {
		kind       Kind
		name, arch string
	}
	count := map[key]map[string]int{} // 1: before only; 2: after only; 3: both
	for i, c := range []*Contents{before, after} {
		for _, p := range c.Packages {
			k := key{p.Kind, p.Name, p.Arch}
			if p.Kind == Python {
				k.name = pythonName(p.Name)
			}
			if count[k] == nil {
				count[k] = map[string]int{}
			}
			count[k][p.fullVersion()] |= 1 << i
		}
	}
	for k, versions := range count {
		var gone, come []string
		for v, where := range versions {
			switch where {
			case 1:
				gone = append(gone, v)
			case 2:
				come = append(come, v)
			}
		}
		if len(gone)+len(come) == 0 {
			continue
		}
		sort.Strings(gone)
		sort.Strings(come)
		changes = append(changes, Change{k.kind, k.name, k.arch, strings.Join(gone, ", "), strings.Join(come, ", ")})
	}
	sort.Slice(changes, func(i, j int) bool {
		a, b := changes[i], changes[j]
		switch {
		case a.Kind != b.Kind:
			return a.Kind < b.Kind
		case a.Name != b.Name:
			return a.Name < b.Name
		}
		return a.Arch < b.Arch
	})
	return changes
}

// fullVersion returns the version, with RPM's epoch; "?" for a Go program without a
// version.
func (p Package) fullVersion() string {
	switch {
	case p.Epoch != "":
		return p.Epoch + ":" + p.Version
	case p.Version == "":
		return "?"
	}
	return p.Version
}

// Parse reads the packages in a document of either format from their package URLs. It
// ignores everything else in the document.
func Parse(text []byte) (*Contents, error) {
	format, err := Recognize(text)
	if err != nil {
		return nil, err
	}
	var urls []string
	if format == CycloneDX {
		var d struct {
			Components []struct {
				PURL string `json:"purl"`
			} `json:"components"`
		}
		err = json.Unmarshal(text, &d)
		for _, c := range d.Components {
			urls = append(urls, c.PURL)
		}
	} else {
		var d struct {
			Packages []struct {
				References []struct {
					Type    string `json:"referenceType"`
					Locator string `json:"referenceLocator"`
				} `json:"externalRefs"`
			} `json:"packages"`
		}
		err = json.Unmarshal(text, &d)
		for _, p := range d.Packages {
			for _, r := range p.References {
				if r.Type == "purl" {
					urls = append(urls, r.Locator)
				}
			}
		}
	}
	if err != nil {
		return nil, err
	}
	c := &Contents{}
	for _, u := range urls {
		if u == "" {
			continue
		}
		p, err := packageOf(u)
		if err != nil {
			return nil, err
		}
		c.Packages = append(c.Packages, p)
	}
	return c, nil
}

// packageOf returns the package of a URL, as [Package.URL] makes it.
func packageOf(url string) (Package, error) {
	u, err := packageurl.FromString(url)
	if err != nil {
		return Package{}, fmt.Errorf("%.100q is not a package URL: %w", url, err)
	}
	q := u.Qualifiers.Map()
	p := Package{Kind: Kind(u.Type), Name: u.Name, Version: u.Version, Arch: q["arch"], Epoch: q["epoch"]}
	switch p.Kind {
	case Deb, RPM, APK:
	default:
		if u.Namespace != "" {
			p.Name = u.Namespace + "/" + u.Name
		}
	}
	return p, nil
}

package debian

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"

	"pault.ag/go/debian/version"
)

// Package is a version of a binary package on a mirror.
type Package struct {
	Name, Version, Architecture string
	Size                        int64  // bytes of the .deb
	SHA256                      string // of the .deb, in hexadecimal
	URL                         string // of the .deb

	essential bool
	priority  string
	depends   string // Pre-Depends and Depends, unparsed, since few are needed
	conflicts string // Conflicts and Breaks, likewise
	provides  string
}

// required reports whether a Debian system must have p.
func (p *Package) required() bool { return p.essential || p.priority == "required" }

// archive is the set of packages that can be installed: the newest version of each in the indexes
// that were added.
type archive struct {
	packages  map[string]*Package
	providers map[string][]provider // keyed by the name of the virtual package
}

// provider is a package that provides another name, optionally with a version.
type provider struct {
	pkg     *Package
	version string // empty if the Provides field names none
}

func newArchive() *archive {
	return &archive{packages: map[string]*Package{}}
}

// add reads a Packages index. The files of its packages are below the URL base.
func (a *archive) add(index, base string) error {
	return parseControl(index, func(p paragraph) error {
		pkg := &Package{}
		var file, size, sum string
		for _, f := range p {
			switch f.Name {
			case "Package":
				pkg.Name = f.Value
			case "Version":
				pkg.Version = f.Value
			case "Architecture":
				pkg.Architecture = f.Value
			case "Essential":
				pkg.essential = f.Value == "yes"
			case "Priority":
				pkg.priority = f.Value
			case "Filename":
				file = f.Value
			case "SHA256":
				sum = f.Value
			case "Size":
				size = f.Value
			case "Depends", "Pre-Depends":
				pkg.depends = join(pkg.depends, f.Value)
			case "Conflicts", "Breaks":
				pkg.conflicts = join(pkg.conflicts, f.Value)
			case "Provides":
				pkg.provides = f.Value
			}
		}
		e, ok := parseEntry(size, sum)
		if !ok || pkg.Name == "" || pkg.Version == "" || file == "" || e.Size == 0 {
			return fmt.Errorf("package %q: the index lacks its version, file name, size or SHA256", pkg.Name)
		}
		if _, err := version.Parse(pkg.Version); err != nil {
			return nil // dpkg would refuse it: ignore it, unless another package needs it
		}
		pkg.Size, pkg.SHA256 = e.Size, e.SHA256
		pkg.URL = base + "/" + file
		if old := a.packages[pkg.Name]; old == nil || compareVersions(pkg.Version, old.Version) > 0 {
			a.packages[pkg.Name] = pkg
		}
		a.providers = nil // computed again when next needed
		return nil
	})
}

// provide returns the packages that provide name: required ones first, then by priority, then by
// name, so that the choice is deterministic.
func (a *archive) provide(name string) ([]provider, error) {
	if a.providers == nil {
		a.providers = map[string][]provider{}
		for _, p := range a.packages {
			if p.provides == "" {
				continue
			}
			groups, err := parseRelations(p.provides)
			if err != nil {
				return nil, fmt.Errorf("package %s: Provides: %w", p.Name, err)
			}
			for _, g := range groups {
				a.providers[g[0].name] = append(a.providers[g[0].name], provider{p, g[0].version})
			}
		}
		for _, ps := range a.providers {
			sort.Slice(ps, func(i, j int) bool {
				x, y := ps[i].pkg, ps[j].pkg
				return cmp.Or(rank(x)-rank(y), strings.Compare(x.Name, y.Name)) < 0
			})
		}
	}
	return a.providers[name], nil
}

// rank returns the priority of a package as a number; lower ones are preferred.
func rank(p *Package) int {
	if p.essential {
		return 0
	}
	if i := slices.Index([]string{"required", "important", "standard", "optional"}, p.priority); i >= 0 {
		return i + 1
	}
	return 5
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}

// relation is one alternative in a dependency field: a package, optionally with a constraint on its
// version.
type relation struct {
	name    string
	op      string // "", "<<", "<=", "=", ">=", ">>"
	version string
}

func (r relation) String() string {
	if r.op == "" {
		return r.name
	}
	return r.name + " (" + r.op + " " + r.version + ")"
}

// compareVersions orders two versions like dpkg (deb-version(7)): it returns a negative
// number, zero or a positive number if a is earlier than, equal to or later than b. An
// invalid version is compared as far as it can be parsed.
func compareVersions(a, b string) int {
	x, _ := version.Parse(a)
	y, _ := version.Parse(b)
	return version.Compare(x, y)
}

// admits reports whether version v satisfies the constraint.
func (r relation) admits(v string) bool {
	c := compareVersions(v, r.version)
	switch r.op {
	case "<<":
		return c < 0
	case "<=":
		return c <= 0
	case "=":
		return c == 0
	case ">=":
		return c >= 0
	case ">>":
		return c > 0
	}
	return true
}

// provided reports whether a Provides with version v satisfies the constraint. Without a version,
// it satisfies only relations without a constraint.
func (r relation) provided(v string) bool {
	return r.op == "" || v != "" && r.admits(v)
}

// parseRelations parses a field such as Depends into groups, all of which must be satisfied. A
// group is a list of alternatives, one of which must be satisfied. Architecture qualifiers after a
// colon are dropped, since there is only one architecture.
func parseRelations(s string) ([][]relation, error) {
	var groups [][]relation
	for part := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		var group []relation
		for alt := range strings.SplitSeq(part, "|") {
			r, err := parseRelation(strings.TrimSpace(alt))
			if err != nil {
				return nil, err
			}
			group = append(group, r)
		}
		groups = append(groups, group)
	}
	return groups, nil
}

func parseRelation(s string) (relation, error) {
	name, rest, constrained := strings.Cut(s, "(")
	name, _, _ = strings.Cut(strings.TrimSpace(name), ":")
	if name == "" || strings.ContainsAny(name, " \t\n") {
		return relation{}, fmt.Errorf("%q is not a package relation", clip(s))
	}
	if !constrained {
		return relation{name: name}, nil
	}
	constraint, after, closed := strings.Cut(rest, ")")
	number := strings.TrimSpace(strings.TrimLeft(constraint, "<>= \t"))
	op := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(constraint), number))
	switch op {
	case "<": // the old spellings, which mean "or equal"
		op = "<="
	case ">":
		op = ">="
	case "<<", "<=", "=", ">=", ">>":
	default:
		return relation{}, fmt.Errorf("%q has an unknown operator", clip(s))
	}
	if !closed || strings.TrimSpace(after) != "" || number == "" {
		return relation{}, fmt.Errorf("%q is not a package relation", clip(s))
	}
	return relation{name, op, number}, nil
}

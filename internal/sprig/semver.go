package sprig

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"bake/internal/lazyregexp"
)

// The functions behave like github.com/Masterminds/semver, which the tests compare them
// with. That library is not linked, since it compiles seven expressions before main, which
// is a fourteenth of the time of "bake validate".

// semverCompare reports whether version satisfies constraint: comparisons (=, !=, >, <, >=,
// <=, ~, ~>, ^) joined by spaces or commas, alternatives by ||, and ranges (1.2 - 2). A part
// of a version that is left out, or is x, X or *, may be anything. A prerelease can satisfy
// only sets of comparisons in which one names a prerelease.
func semverCompare(constraint, version string) (bool, error) {
	alternatives, err := parseConstraint(constraint)
	if err != nil {
		return false, fmt.Errorf("%q: %w", constraint, err)
	}
	v, err := parseVersion(version)
	if err != nil {
		return false, fmt.Errorf("%q: %w", version, err)
	}
	return slices.ContainsFunc(alternatives, func(all []comparison) bool {
		if v.prerelease != "" && !slices.ContainsFunc(all, func(c comparison) bool { return c.than.prerelease != "" }) {
			return false
		}
		return !slices.ContainsFunc(all, func(c comparison) bool { return !c.holds(v) })
	}), nil
}

// semanticVersion is a semantic version (semver.org 2.0.0) without its build metadata.
type semanticVersion struct {
	number     [3]uint64 // major, minor, patch
	prerelease string
}

// comparison is an operator with a version, which may be given only in its first parts.
type comparison struct {
	op    string
	than  semanticVersion
	given int // parts of than, from 1 to 3, or 0 for *
}

const (
	semverSuffix = `(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?`
	semverPart   = `([0-9]+|[xX*])`
	semverAny    = `v?` + semverPart + `(?:\.` + semverPart + `)?(?:\.` + semverPart + `)?` + semverSuffix
	semverOp     = `(=|!=|>|<|>=|=>|<=|=<|~|~>|\^|)`

	maxVersion, maxConstraint, maxAlternatives = 256, 512, 32
)

var (
	versionFormat    = lazyregexp.New(`^v?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?` + semverSuffix + `$`)
	rangeFormat      = lazyregexp.New(`\s*(` + semverAny + `)\s+-\s+(` + semverAny + `)\s*`)
	comparisonFormat = lazyregexp.New(`^\s*` + semverOp + `\s*` + semverAny + `(?:\s*$|\s*,|\s+)`)
)

func parseVersion(text string) (semanticVersion, error) {
	if len(text) > maxVersion {
		return semanticVersion{}, fmt.Errorf("a version has at most %d characters", maxVersion)
	}
	m := versionFormat.Get().FindStringSubmatch(text)
	if m == nil {
		return semanticVersion{}, errors.New("no semantic version, such as 1.2.3")
	}
	return newVersion(m[1:4], m[4])
}

// newVersion makes a version from its parts. The last part may be empty.
func newVersion(parts []string, prerelease string) (v semanticVersion, err error) {
	for i, p := range parts {
		if p == "" {
			continue
		}
		if v.number[i], err = strconv.ParseUint(p, 10, 64); err != nil {
			return v, fmt.Errorf("%s is too large", p)
		}
	}
	for id := range strings.SplitSeq(prerelease, ".") {
		if _, numeric := number(id); numeric && len(id) > 1 && id[0] == '0' {
			return v, fmt.Errorf("the number %s in a prerelease begins with a zero", id)
		}
	}
	v.prerelease = prerelease
	return v, nil
}

func parseConstraint(text string) (alternatives [][]comparison, err error) {
	if len(text) > maxConstraint {
		return nil, fmt.Errorf("a constraint has at most %d characters", maxConstraint)
	}
	text = rangeFormat.Get().ReplaceAllString(text, ">= $1, <= $6 ")
	for one := range strings.SplitSeq(text, "||") {
		if len(alternatives) == maxAlternatives {
			return nil, fmt.Errorf("a constraint has at most %d alternatives", maxAlternatives)
		}
		var all []comparison
		for rest := one; rest != "" || all == nil; {
			m := comparisonFormat.Get().FindStringSubmatch(rest)
			if m == nil || strings.HasSuffix(m[0], ",") && strings.TrimSpace(rest[len(m[0]):]) == "" {
				return nil, fmt.Errorf("no constraint, such as >=1.2: %q", strings.TrimSpace(rest))
			}
			c := comparison{op: m[1]}
			for c.given < 3 && m[2+c.given] != "" && !strings.ContainsAny(m[2+c.given], "xX*") {
				c.given++
			}
			if c.than, err = newVersion(m[2:2+c.given], m[5]); err != nil {
				return nil, err
			}
			all, rest = append(all, c), rest[len(m[0]):]
		}
		alternatives = append(alternatives, all)
	}
	return alternatives, nil
}

func (c comparison) holds(v semanticVersion) bool {
	order := compareVersions(v, c.than)
	// parts compares the first parts of the two, without prereleases.
	parts := func(n int) int { return slices.Compare(v.number[:n], c.than.number[:n]) }
	whole := c.given == 0 || c.given == 3
	switch c.op {
	case "!=":
		switch {
		case whole:
			return order != 0
		case c.given == 2 && v.prerelease+c.than.prerelease != "":
			return parts(2) != 0 || comparePrereleases(v.prerelease, c.than.prerelease) != 0
		}
		return parts(c.given) != 0
	case ">":
		if whole {
			return order > 0
		}
		return parts(c.given) > 0
	case "<":
		return order < 0
	case ">=", "=>":
		return order >= 0
	case "<=", "=<":
		switch c.given {
		case 3:
			return order <= 0
		case 1:
			return parts(1) <= 0
		}
		return parts(2) <= 0
	case "^":
		first := 3 // parts, up to the first that is not zero or the last that is given
		for i := range 3 {
			if c.than.number[i] > 0 || i+1 == c.given {
				first = i + 1
				break
			}
		}
		return order >= 0 && parts(first) == 0
	}
	if c.given == 3 && (c.op == "" || c.op == "=") {
		return order == 0
	}
	switch {
	case whole && c.than.number == [3]uint64{}: // ~0.0.0 and * are anything from there on
		return order >= 0
	case c.given == 1:
		return order >= 0 && parts(1) == 0
	}
	return order >= 0 && parts(2) == 0
}

func compareVersions(a, b semanticVersion) int {
	return cmp.Or(slices.Compare(a.number[:], b.number[:]), comparePrereleases(a.prerelease, b.prerelease))
}

// comparePrereleases compares by section 11 of semver.org: a release comes after its
// prereleases, numbers come before words, and more identifiers come after fewer.
func comparePrereleases(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == "":
		return 1
	case b == "":
		return -1
	}
	return slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), func(a, b string) int {
		m, numberA := number(a)
		n, numberB := number(b)
		switch {
		case numberA && numberB:
			return cmp.Compare(m, n)
		case numberA:
			return -1
		case numberB:
			return 1
		}
		return cmp.Compare(a, b)
	})
}

func number(id string) (uint64, bool) {
	n, err := strconv.ParseUint(id, 10, 64)
	return n, err == nil
}

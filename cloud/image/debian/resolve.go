package debian

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// resolve returns all packages that must be installed for the required packages of a and
// for those in include. Each comes after its dependencies, except in cycles. Equal archives
// give equal lists.
//
// Like apt, it takes the first alternative that is available, unless a later one will be
// installed anyway, and ignores Recommends. It does not backtrack: it keeps an alternative
// once it has taken it, and a resulting conflict is an error.
func (a *archive) resolve(include []string) ([]*Package, error) {
	r := resolver{archive: a, chosen: map[string]*Package{}}
	var roots []*Package
	for _, name := range slices.Sorted(maps.Keys(a.packages)) {
		if p := a.packages[name]; p.required() {
			roots = append(roots, p)
		}
	}
	var errs []error
	for _, name := range include {
		if p := a.packages[name]; p != nil {
			roots = append(roots, p)
		} else {
			errs = append(errs, fmt.Errorf("the mirror has no package named %s", name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	// Select all roots before resolving dependencies, so that alternatives prefer them.
	for _, p := range roots {
		r.chosen[p.Name] = p
	}
	for _, p := range roots {
		if err := r.visit(p); err != nil {
			return nil, err
		}
	}
	return r.order, r.conflicts()
}

// optional returns those of names that can be installed in addition to include.
func (a *archive) optional(include, names []string) []string {
	var there, out []string
	for _, name := range names {
		if a.packages[name] != nil {
			there = append(there, name)
		}
	}
	if _, err := a.resolve(slices.Concat(include, there)); err == nil {
		return there
	}
	for _, name := range there { // one by one, to leave out those that cannot be installed
		if _, err := a.resolve(slices.Concat(include, out, []string{name})); err == nil {
			out = append(out, name)
		}
	}
	return out
}

type resolver struct {
	*archive
	chosen  map[string]*Package
	visited map[*Package]bool
	order   []*Package
}

// visit resolves the dependencies of p and then appends p to the order.
func (r *resolver) visit(p *Package) error {
	if r.visited[p] {
		return nil
	}
	if r.visited == nil {
		r.visited = map[*Package]bool{}
	}
	r.visited[p] = true
	groups, err := parseRelations(p.depends)
	if err != nil {
		return fmt.Errorf("package %s: %w", p.Name, err)
	}
	for _, g := range groups {
		dep, err := r.satisfy(g)
		if err != nil {
			return fmt.Errorf("package %s: %w", p.Name, err)
		}
		r.chosen[dep.Name] = dep
		if err := r.visit(dep); err != nil {
			return err
		}
	}
	r.order = append(r.order, p)
	return nil
}

// satisfy returns the package to install for a group of alternatives.
func (r *resolver) satisfy(group []relation) (*Package, error) {
	var first *Package
	for _, alt := range group {
		candidates, err := r.candidates(alt)
		if err != nil {
			return nil, err
		}
		for _, p := range candidates {
			if r.chosen[p.Name] == p {
				return p, nil
			}
			if first == nil {
				first = p
			}
		}
	}
	if first == nil {
		names := make([]string, len(group))
		for i, alt := range group {
			names[i] = alt.String()
		}
		return nil, fmt.Errorf("the mirror has nothing for its dependency %s", strings.Join(names, " | "))
	}
	return first, nil
}

// candidates returns the packages that satisfy alt, best first.
func (r *resolver) candidates(alt relation) ([]*Package, error) {
	var list []*Package
	if p := r.packages[alt.name]; p != nil && alt.admits(p.Version) {
		list = append(list, p)
	}
	ps, err := r.provide(alt.name)
	if err != nil {
		return nil, err
	}
	for _, p := range ps {
		if alt.provided(p.version) {
			list = append(list, p.pkg)
		}
	}
	return list, nil
}

// conflicts reports selected packages that conflict with each other.
func (r *resolver) conflicts() error {
	var errs []error
	for _, p := range r.order {
		groups, err := parseRelations(p.conflicts)
		if err != nil {
			return fmt.Errorf("package %s: %w", p.Name, err)
		}
		for _, g := range groups {
			candidates, err := r.candidates(g[0])
			if err != nil {
				return err
			}
			for _, other := range candidates {
				if other != p && r.chosen[other.Name] == other {
					errs = append(errs, fmt.Errorf("packages %s and %s cannot be installed together", p.Name, other.Name))
				}
			}
		}
	}
	return errors.Join(errs...)
}

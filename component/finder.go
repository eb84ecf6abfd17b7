package component

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/hcl/v2"

	"bake/config/schema"
	"bake/internal/prose"
)

// MissingRequirement is the Extra of a diagnostic about what a template lacks as a whole, such as a plugin:
// each block that needs it gives the same one.
type MissingRequirement struct{}

// Finder finds the factories of components of kind C. Methods are safe for concurrent
// use.
type Finder[C any] interface {
	// Find returns the factory of what a template calls typ, which requires these
	// plugins; nil if there is none. The diagnostics say more than that, and belong to
	// the place where typ is written if they name none.
	Find(typ string, required []Requirement) (Factory[C], hcl.Diagnostics)

	// Names are those that there are for sure, in order.
	Names() []string
}

// Requirement is an entry of required_plugins.
type Requirement struct {
	Name    string // that the template calls its components by
	Source  string // such as github.com/hashicorp/amazon
	Version string // constraint
	Range   hcl.Range
}

// Is says whether the requirement is one of the plugin that source names.
func (r Requirement) Is(source string) bool { return strings.EqualFold(r.Source, source) }

// Allows says whether a plugin of this version meets the requirement.
func (r Requirement) Allows(release string) bool {
	c, err := version.NewConstraint(r.Version)
	v, verr := version.NewVersion(release)
	return err == nil && verr == nil && c.Check(v)
}

// Names returns the part of typ after the name of the requirement, "-ebs" of aws-ebs
// and nothing of aws, and whether typ is called by it.
func (r Requirement) Names(typ string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(typ, r.Name)
	return rest, ok && (rest == "" || rest[0] == '-')
}

// Owner returns the requirement that typ is called by; of several the longest name.
func Owner(typ string, required []Requirement) (owner Requirement, ok bool) {
	for _, r := range required {
		if _, names := r.Names(typ); names && len(r.Name) >= len(owner.Name) {
			owner, ok = r, true
		}
	}
	return owner, ok
}

// Registry is a closed set of factories. It is built by explicit calls, never
// by init, so a test can hold a registry of exactly what it needs.
type Registry[C any] map[string]Factory[C]

// NewRegistry panics when two factories have the same name.
func NewRegistry[C any](fs ...Factory[C]) Registry[C] {
	r := Registry[C]{}
	for _, f := range fs {
		if _, dup := r[f.Name()]; dup {
			panic(fmt.Sprintf("component %q registered twice", f.Name()))
		}
		r[f.Name()] = f
	}
	return r
}

// Find implements [Finder]. The name under which a plugin is required is the prefix of
// its components, so that with aws = { source = "github.com/hashicorp/amazon", ... }
// aws-ebs is amazon-ebs.
func (r Registry[C]) Find(typ string, required []Requirement) (Factory[C], hcl.Diagnostics) {
	if f, ok := r[typ]; ok {
		return f, nil
	}
	if owner, ok := Owner(typ, required); ok {
		rest, _ := owner.Names(typ)
		if f, ok := r[path.Base(owner.Source)+rest]; ok {
			return f, nil
		}
	}
	return nil, nil
}

// Names implements [Finder].
func (r Registry[C]) Names() []string { return slices.Sorted(maps.Keys(r)) }

// Observe returns a finder of the same factories, each of which hands observe the
// outline of every component that it finds nothing wrong with when it is checked.
func Observe[C any](f Finder[C], observe func(component any)) Finder[C] {
	return observing[C]{f, observe}
}

type observing[C any] struct {
	Finder[C]
	observe func(any)
}

// Find implements [Finder].
func (o observing[C]) Find(typ string, required []Requirement) (Factory[C], hcl.Diagnostics) {
	f, diags := o.Finder.Find(typ, required)
	if f != nil {
		f = observed[C]{f, o.observe}
	}
	return f, diags
}

type observed[C any] struct {
	Factory[C]
	observe func(any)
}

// Check implements [Factory].
func (f observed[C]) Check(in schema.Input) hcl.Diagnostics {
	c, diags := f.Outline(in)
	if !diags.HasErrors() {
		f.observe(c)
	}
	if err := Close(c); err != nil {
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: "Not closed", Detail: prose.Sprintf("%s: %s.", f.Name(), err)})
	}
	return diags
}

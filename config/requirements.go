package config

import (
	"context"
	"strings"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/hcl/v2"
)

// LoadRequirements reads what a template requires of Packer and its plugins, and
// nothing else: of the options only Path and Cwd count, and variables need no
// values. The template holds Plugins and Files alone.
func LoadRequirements(ctx context.Context, o Options) (*Template, hcl.Diagnostics) {
	l := newLoader(ctx, o)
	where, diags := l.reader.find(o.Path)
	if diags.HasErrors() {
		return l.t, diags
	}
	l.t.Root = where.root
	syntax, diags := l.parse(where.names)
	if wrong := l.requiredVersions(); wrong.HasErrors() {
		return l.t, wrong
	}
	return l.t, Merge(append(syntax, diags...), l.plugins())
}

// also makes p meet what q, another requirement of the same name, asks for too:
// several files may need the same plugin.
func (p *Plugin) also(q Plugin) hcl.Diagnostics {
	if !p.Is(q.Source) {
		return problem(&q.Range, "Two plugins with the same name", "The name %q is already used for the plugin %s, at %s; this one is %s. Rename one of them.",
			q.Name, p.Source, p.Range, q.Source)
	}
	if p.Version != q.Version {
		p.Version += ", " + q.Version
	}
	return nil
}

// Is says whether the requirement is one of the plugin that source names.
func (p Plugin) Is(source string) bool { return strings.EqualFold(p.Source, source) }

// Allows says whether a plugin of this version meets the requirement.
func (p Plugin) Allows(release string) bool {
	c, err := version.NewConstraint(p.Version)
	v, verr := version.NewVersion(release)
	return err == nil && verr == nil && c.Check(v)
}

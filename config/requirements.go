package config

import (
	"context"

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

// also returns p with what q, another requirement of the same name, asks for too:
// several files may need the same plugin.
func also(p, q Plugin) (Plugin, hcl.Diagnostics) {
	if !p.Is(q.Source) {
		return p, problem(&q.Range, "Two plugins with the same name", "The name %q is already used for the plugin %s, at %s; this one is %s. Rename one of them.",
			q.Name, p.Source, p.Range, q.Source)
	}
	if p.Version != q.Version {
		p.Version += ", " + q.Version
	}
	return p, nil
}

package config

import (
	"context"

	"github.com/hashicorp/hcl/v2"
)

// LoadRequirements reads only which versions of Packer and of plugins a template requires:
// it uses only the options Path and Cwd, and variables need no values. The result holds
// only Plugins and Files.
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

// also combines p with q, another requirement with the same name: several files may need
// the same plugin.
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

package installed

import (
	"context"
	"fmt"

	"github.com/zclconf/go-cty/cty"

	"bake/builtin/reference"
	"bake/component"
	"bake/config/schema"
	"bake/plugin/host"
)

// Reference returns the documentation of the components of installed plugins, in the
// newest version of each, under the plugin's own name. Options are queried only from
// the plugins of requested components.
func Reference(ctx context.Context, plugins *host.Set, wanted func(name string) bool) (all []reference.Component, err error) {
	binaries, _ := plugins.Binaries()
	last := ""
	for _, b := range binaries { // by source
		if b.Source == last {
			continue
		}
		last = b.Source
		p, err := plugins.Require(ctx, host.Requirement{Source: b.Source})
		if missing(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		c := p.Components(ctx, p.Name())
		for _, add := range []func() error{
			func() error { return refer(&all, p, "builder", c.Builders, wanted) },
			func() error { return refer(&all, p, "provisioner", c.Provisioners, wanted) },
			func() error { return refer(&all, p, "post-processor", c.PostProcessors, wanted) },
			func() error { return refer(&all, p, "data-source", c.DataSources, wanted) },
		} {
			if err := add(); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func refer[C any](all *[]reference.Component, p *host.Plugin, kind string, factories []component.Factory[C], wanted func(string) bool) error {
	for _, f := range factories {
		r := reference.Component{Kind: kind, Name: f.Name(), Plugin: p.Source + " " + p.Version, Exports: map[string]cty.Type{}}
		if wanted(r.Name) {
			var err error
			if r.Options, err = f.Docs(); err != nil {
				return fmt.Errorf("%s %s: %w", kind, r.Name, err)
			}
			r.Exports = f.Exports(schema.Input{}).Types
		}
		*all = append(*all, r)
	}
	return nil
}

package builtin

import (
	"path"
	"slices"
	"strings"
)

// Plugin is one of Packer's plugins whose components are built in.
type Plugin struct {
	Source     string   // such as github.com/hashicorp/amazon
	Version    string   // of the release whose options the components have
	Components []string // by name, without duplicates
}

// Plugins are those that are built in.
type Plugins []Plugin

// Plugins returns those that are built in. All components whose names begin with the
// last part of a source are that plugin's.
func (c Catalog) Plugins() Plugins {
	all := Plugins{
		{Source: "github.com/hashicorp/amazon", Version: "1.8.2"},
		{Source: "github.com/hashicorp/ansible", Version: "1.1.6"},
	}
	names := slices.Concat(c.Builders.Names(), c.Provisioners.Names(), c.PostProcessors.Names(), c.DataSources.Names())
	slices.Sort(names)
	for i, p := range all {
		prefix := path.Base(p.Source)
		for _, n := range slices.Compact(names) {
			if rest, ok := strings.CutPrefix(n, prefix); ok && (rest == "" || rest[0] == '-') {
				all[i].Components = append(all[i].Components, n)
			}
		}
	}
	return all
}

// Called returns the one whose source that is.
func (all Plugins) Called(source string) (Plugin, bool) {
	i := slices.IndexFunc(all, func(p Plugin) bool { return strings.EqualFold(p.Source, source) })
	if i < 0 {
		return Plugin{}, false
	}
	return all[i], true
}

// InsteadOf returns the built-in plugin that replaces an installed plugin with this source, if the
// version constraint of the template allows its version.
func (all Plugins) InsteadOf(source string, allows func(version string) bool) (Plugin, bool) {
	b, ok := all.Called(source)
	return b, ok && allows(b.Version)
}

// As returns b's components as a template knows them that requires b under name.
func (b Plugin) As(name string) (out []string) {
	for _, c := range b.Components {
		out = append(out, name+strings.TrimPrefix(c, path.Base(b.Source)))
	}
	return out
}

// Package installed finds the components that a template uses: built-in ones, and those of
// installed plugins. It does not read the plugin directories for a built-in component.
package installed

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/builtin"
	"bake/component"
	"bake/config/lang"
	"bake/datasource"
	"bake/engine"
	"bake/internal/knownplugins"
	"bake/internal/prose"
	"bake/plugin/host"
	"bake/plugin/registry"
	"bake/plugin/setup"
	"bake/postprocessor"
	"bake/provisioner"
)

// Options are the sources of components for a template.
type Options struct {
	BuiltIn builtin.Catalog
	Plugins *host.Set

	// Lock reads the template's lock file. It is called when a plugin is used for the first time.
	Lock func() (*registry.Lock, hcl.Diagnostics)

	Template string // its path, for commands in messages
}

// Components returns the components that one template can use. The end of ctx ends requests to
// plugins while the template is checked.
func Components(ctx context.Context, o Options) engine.Components {
	s := &search{
		Options: o, ctx: ctx, replaced: o.BuiltIn.Plugins(), lock: sync.OnceValues(o.Lock),
		required: map[required]answer{}, components: map[named]host.Components{},
	}
	return engine.Components{
		Builders: &finder[builder.Builder]{search: s, what: "builder", builtIn: o.BuiltIn.Builders,
			of: func(c host.Components) []component.Factory[builder.Builder] { return c.Builders }},
		Provisioners: &finder[provisioner.Provisioner]{search: s, what: "provisioner", builtIn: o.BuiltIn.Provisioners,
			of: func(c host.Components) []component.Factory[provisioner.Provisioner] { return c.Provisioners }},
		PostProcessors: &finder[postprocessor.PostProcessor]{search: s, what: "post-processor", builtIn: o.BuiltIn.PostProcessors,
			of: func(c host.Components) []component.Factory[postprocessor.PostProcessor] { return c.PostProcessors }},
		DataSources: &finder[datasource.DataSource]{search: s, what: "data source", builtIn: o.BuiltIn.DataSources,
			of: func(c host.Components) []component.Factory[datasource.DataSource] { return c.DataSources }},
	}
}

// search is the state that the finders of a template share.
type search struct {
	Options
	ctx      context.Context
	replaced builtin.Plugins // plugins with built-in replacements
	lock     func() (*registry.Lock, hcl.Diagnostics)

	mu         sync.Mutex
	required   map[required]answer
	components map[named]host.Components
}

type required struct{ source, version string }

type answer struct {
	plugin *host.Plugin
	err    error
}

type named struct{ path, name string }

// require returns the plugin that meets a requirement. The error is a [*host.NotInstalled],
// hcl.Diagnostics, or says that the plugin must not be run.
func (s *search) require(r component.Requirement) (*host.Plugin, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := required{strings.ToLower(r.Source), r.Version}
	if a, ok := s.required[key]; ok {
		return a.plugin, a.err
	}
	p, err := s.find(r)
	s.required[key] = answer{p, err}
	return p, err
}

func (s *search) find(r component.Requirement) (*host.Plugin, error) {
	lock, diags := s.lock()
	if diags.HasErrors() {
		return nil, diags
	}
	want := host.Requirement{Source: r.Source, Version: r.Version, Allows: r.Allows}
	if r.Version == "" { // the template does not require it
		want.Allows = nil
		if locked, ok := lock.Find(r.Source); ok {
			want.Locked = locked.Version
		}
		return s.Plugins.Require(s.ctx, want)
	}
	if want.Locked, diags = lock.Version(r.Source, r.Version, r.Allows, r.Range); diags.HasErrors() {
		return nil, diags
	}
	if want.Locked != "" {
		want.Version, want.Allows = want.Locked, nil
	}
	return s.Plugins.Require(s.ctx, want)
}

// of returns the components of p, whose types start with name. It returns the same ones each time,
// because a factory caches its plugin's answers.
func (s *search) of(p *host.Plugin, name string) host.Components {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := named{p.Path, name}
	c, ok := s.components[key]
	if !ok {
		c = p.Components(s.ctx, name)
		s.components[key] = c
	}
	return c
}

// finder finds the components of one kind.
type finder[C any] struct {
	*search
	what    string
	builtIn component.Registry[C]
	of      func(host.Components) []component.Factory[C]
}

// Names implements [component.Finder].
func (f *finder[C]) Names() []string { return f.builtIn.Names() }

// Find implements [component.Finder]. Built-in components take precedence, unless the template
// requires a version of the plugin that they do not replace.
func (f *finder[C]) Find(typ string, required []component.Requirement) (component.Factory[C], hcl.Diagnostics) {
	own, builtIn := f.builtIn[typ]
	owner, owned := component.Owner(typ, required)
	if !owned {
		if builtIn {
			return own, nil
		}
		return f.unrequired(typ, required)
	}
	instead, replaced := f.replaced.Called(owner.Source)
	if !replaced {
		if builtIn && !f.ofPlugin(typ) {
			return own, nil
		}
		return f.ofRequired(typ, owner)
	}
	rest, _ := owner.Names(typ)
	own, builtIn = f.builtIn[path.Base(instead.Source)+rest]
	if builtIn && owner.Allows(instead.Version) {
		return own, nil
	}
	found, diags := f.ofRequired(typ, owner)
	switch {
	case !builtIn:
		return found, diags
	case found != nil:
		p, _ := f.require(owner)
		return found, append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagWarning, Summary: "Plugin used instead of the built-in one", Subject: owner.Range.Ptr(),
			Detail: fmt.Sprintf("Version %s of %s is built in, but %q excludes it, so the installed plugin %s is used. Allow version %s here to use the built-in one.",
				instead.Version, instead.Source, owner.Version, p.Version, instead.Version),
		})
	}
	if _, err := f.require(owner); missing(err) { // bake init has reported this
		return own, nil
	}
	return nil, diags
}

func missing(err error) bool {
	_, is := errors.AsType[*host.NotInstalled](err)
	return is
}

// ofPlugin reports whether a built-in component replaces one of a plugin.
func (f *finder[C]) ofPlugin(typ string) bool {
	return slices.ContainsFunc(f.replaced, func(p builtin.Plugin) bool { return slices.Contains(p.Components, typ) })
}

// ofRequired finds a component of a plugin that the template requires.
func (f *finder[C]) ofRequired(typ string, owner component.Requirement) (component.Factory[C], hcl.Diagnostics) {
	p, err := f.require(owner)
	var absent *host.NotInstalled
	switch {
	case err == nil:
		return f.in(p, owner.Name, typ)
	case errors.As(err, &absent):
		text := fmt.Sprintf("The %s %q comes with the plugin %s, which the template requires and which is not installed", f.what, typ, owner.Source)
		if len(absent.Skipped) > 0 {
			text += " in a version that can be used"
		}
		return nil, lacking("Plugin not installed", "%s. To install it:\n\n  %s%s", text, f.init(), skippedText(absent.Skipped))
	}
	return nil, refused(owner.Source, err)
}

// refused returns the error of a plugin that must not be run. It has its own position if the lock
// file is the reason.
func refused(source string, err error) hcl.Diagnostics {
	if r, ok := errors.AsType[*setup.Refused](err); ok {
		return r.Diags
	}
	if diags, ok := errors.AsType[hcl.Diagnostics](err); ok {
		return diags
	}
	return wrong("Plugin cannot be used", "%s: %s.", source, err)
}

// init returns the command that installs the template's requirements.
func (f *finder[C]) init() string {
	if f.Template == "" {
		return "bake init ."
	}
	return "bake init " + f.Template
}

func skippedText(skipped []host.Skipped) string {
	var b strings.Builder
	for _, s := range skipped {
		fmt.Fprintf(&b, "\n%s is not used: %s.", s.Path, s.Why)
	}
	return b.String()
}

// in finds a component of a plugin that the template calls name.
func (f *finder[C]) in(p *host.Plugin, name, typ string) (component.Factory[C], hcl.Diagnostics) {
	var names []string
	for _, c := range f.of(f.search.of(p, name)) {
		if c.Name() == typ {
			return c, nil
		}
		names = append(names, c.Name())
	}
	hint := lang.DidYouMean(typ, slices.Concat(names, f.Names()))
	switch {
	case len(names) == 0:
		hint = fmt.Sprintf(" It has no %s at all.", f.what)
	case hint == "":
		hint = fmt.Sprintf(" It has: %s.", strings.Join(names, ", "))
	}
	return nil, wrong("Unknown "+f.what, "The plugin %s %s has no %s %q.%s", p.Source, p.Version, f.what, typ, hint)
}

// unrequired finds a component of an installed plugin that the template does not require, by the
// plugin's own name. If it finds none, its diagnostics say where there is one.
func (f *finder[C]) unrequired(typ string, required []component.Requirement) (component.Factory[C], hcl.Diagnostics) {
	sources, skipped := f.called(typ)
	if len(sources) > 1 {
		return nil, wrong("Ambiguous plugin", "The %s %q may come with any of the installed plugins %s. Say which one in required_plugins.", f.what, typ, strings.Join(sources, ", "))
	}
	if len(sources) == 1 {
		p, err := f.require(component.Requirement{Source: sources[0]})
		var absent *host.NotInstalled
		switch {
		case err == nil:
			return f.in(p, p.Name(), typ)
		case !errors.As(err, &absent):
			return nil, refused(sources[0], err)
		}
		skipped = absent.Skipped
	}
	if known, ok := knownplugins.Of(typ); ok {
		if r, ok := requiredAs(known.Source, required); ok {
			rest := strings.TrimPrefix(typ, known.Name)
			return nil, wrong("Unknown "+f.what, "The template requires the plugin %s under the name %q, which is what the names of its components begin with. Did you mean %q?", known.Source, r.Name, r.Name+rest)
		}
		if _, replaced := f.replaced.Called(known.Source); !replaced {
			return nil, lacking("Plugin not required", "The %s %q comes with the plugin %s. Add it to the template:\n\n%s\n\nThen install it:\n\n  %s%s",
				f.what, typ, known.Source, requirement(known), f.init(), skippedText(skipped))
		}
	}
	names := f.Names()
	hint := lang.DidYouMean(typ, slices.Concat(names, knownplugins.Names()))
	if hint == "" {
		hint = fmt.Sprintf(" Built in: %s. If it comes with a plugin, add that to required_plugins and run: %s", strings.Join(names, ", "), f.init())
	}
	return nil, wrong("Unknown "+f.what, "There is no %s of type %q.%s%s", f.what, typ, hint, skippedText(skipped))
}

// called returns the sources of installed plugins to which typ may belong. If their names differ in
// length, only the longest count. It also returns the unusable binaries of such names.
func (f *finder[C]) called(typ string) (sources []string, skipped []host.Skipped) {
	binaries, unusable := f.Plugins.Binaries()
	longest := ""
	for _, b := range binaries {
		if _, ok := (component.Requirement{Name: b.Name()}).Names(typ); !ok || len(b.Name()) < len(longest) {
			continue
		}
		if len(b.Name()) > len(longest) {
			longest, sources = b.Name(), nil
		}
		if !slices.ContainsFunc(sources, func(s string) bool { return strings.EqualFold(s, b.Source) }) {
			sources = append(sources, b.Source)
		}
	}
	for _, s := range unusable {
		name := filepath.Base(filepath.Dir(s.Path))
		if _, ok := (component.Requirement{Name: name}).Names(typ); ok {
			skipped = append(skipped, s)
		}
	}
	return sources, skipped
}

func requiredAs(source string, required []component.Requirement) (component.Requirement, bool) {
	for _, r := range required {
		if r.Is(source) {
			return r, true
		}
	}
	return component.Requirement{}, false
}

// requirement returns the template text that requires a plugin.
func requirement(p knownplugins.Plugin) string {
	return fmt.Sprintf(`packer {
  required_plugins {
    %s = {
      source  = %q
      version = %q
    }
  }
}`, p.Name, p.Source, p.Version)
}

// lacking returns an error that applies to every block with the component.
func lacking(summary, format string, args ...any) hcl.Diagnostics {
	diags := wrong(summary, format, args...)
	diags[0].Extra = component.MissingRequirement{}
	return diags
}

// wrong returns an error at the place where a component is named.
func wrong(summary, format string, args ...any) hcl.Diagnostics {
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: summary, Detail: prose.Sprintf(format, args...)}}
}

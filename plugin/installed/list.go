package installed

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"bake/builtin"
	"bake/plugin/host"
	"bake/plugin/registry"
	"bake/plugin/setup"
)

// Plugin is a plugin that is built in, installed or required by a template.
type Plugin struct {
	Name       string   `json:"name,omitempty"` // in the template
	Source     string   `json:"source"`
	Constraint string   `json:"constraint,omitempty"` // the template's
	BuiltIn    bool     `json:"built_in"`
	Version    string   `json:"version,omitempty"` // built in or installed
	Path       string   `json:"path,omitempty"`    // of the binary
	New        *bool    `json:"new,omitempty"`     // just installed
	Components []string `json:"components"`        // by the names that the template uses
	Installed  []string `json:"installed,omitempty"`
}

// BuiltIn returns a built-in plugin. Its components have the prefix name; if empty, the plugin's
// own.
func BuiltIn(b builtin.Plugin, name string) Plugin {
	components := b.Components
	if name != "" {
		components = b.As(name)
	}
	return Plugin{Source: b.Source, BuiltIn: true, Version: b.Version, Components: append([]string{}, components...)}
}

// Places describes where plugins are installed, and what is built in.
type Places struct {
	BuiltIn builtin.Plugins
	Dirs    []string
	Env     []string // of plugins that are run to describe themselves
}

// All lists the built-in plugins, then the installed ones, and why other binaries cannot be used.
func (p Places) All(ctx context.Context) (all []Plugin, skipped []host.Skipped, err error) {
	for _, b := range p.BuiltIn {
		all = append(all, BuiltIn(b, ""))
	}
	usable, skipped, err := host.Installed(host.Options{Dirs: p.Dirs, Env: p.Env}).Usable(ctx, func(host.Binary) bool { return true })
	for _, i := range usable {
		all = append(all, Plugin{Source: i.Source, Version: i.Version, Path: i.Path, Components: i.Description.Labels(i.Name())})
	}
	return all, skipped, err
}

// Required returns the plugins that meet requirements: the built-in one if the constraint allows
// it, otherwise the newest installed one, and otherwise the built-in one after all. It calls
// refused for binaries that do not match the lock file; they are not run.
func (p Places) Required(ctx context.Context, required []setup.Requirement, lock *registry.Lock, refused func(host.Binary, error)) (all []Plugin, err error) {
	trust := func(b host.Binary) error {
		err := setup.TrustLocked(lock)(b)
		if err != nil {
			refused(b, err)
		}
		return err
	}
	set := host.Installed(host.Options{Dirs: p.Dirs, Env: p.Env, Trust: trust})
	for _, r := range required {
		l := p.named(r)
		if _, enough := p.BuiltIn.InsteadOf(r.Source, r.Allows); !enough {
			usable, _, err := set.Usable(ctx, func(b host.Binary) bool {
				return strings.EqualFold(b.Source, r.Source) && r.Allows(setup.Core(b.Version))
			})
			if err != nil {
				return nil, err
			}
			for n, i := range usable {
				l.Installed = append(l.Installed, i.Path)
				if n == 0 {
					l.BuiltIn, l.Version, l.Path, l.Components = false, i.Version, i.Path, i.Description.Labels(r.Name)
				}
			}
		}
		all = append(all, l)
	}
	return all, nil
}

// Remove removes a plugin's installed binaries for this platform. what is its source; versions is a
// version or constraint, or empty for all. what may also be the absolute path of one binary. It is
// an error if there is nothing to remove, and a [*UnreadableError] if what or versions is invalid.
func (p Places) Remove(ctx context.Context, what, versions string) (removed []string, err error) {
	if filepath.IsAbs(what) {
		if err := registry.RemoveFile(ctx, p.Dirs, filepath.Clean(what)); err != nil {
			return nil, err
		}
		return []string{what}, nil
	}
	source, err := registry.ParseSource(what)
	if err != nil {
		return nil, &UnreadableError{err}
	}
	allows, err := registry.ParseVersions(versions)
	if err != nil {
		return nil, &UnreadableError{err}
	}
	removed, err = registry.Remove(ctx, p.Dirs, source, setup.Platform(), allows)
	if err == nil && len(removed) == 0 {
		if b, ok := p.BuiltIn.Called(what); ok {
			return nil, fmt.Errorf("%s is built in and cannot be removed", b.Source)
		}
		return nil, fmt.Errorf("no installed plugin matches %s; 'bake plugins installed' lists the installed plugins", strings.TrimSpace(what+" "+versions))
	}
	return removed, err
}

// UnreadableError is the error of a source or of versions with invalid syntax.
type UnreadableError struct{ err error }

func (e *UnreadableError) Error() string { return e.err.Error() }

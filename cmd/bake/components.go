package main

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/hcl/v2"

	"bake/builtin"
	"bake/config"
	"bake/engine"
	"bake/plugin/host"
	"bake/plugin/installed"
	"bake/plugin/keeper"
	"bake/plugin/registry"
	"bake/plugin/setup"
)

// components returns a function that makes the components that a template can use:
// built-in ones, and those of installed plugins in the versions of the lock file next to
// the template. When its context ends, requests to plugins during checks end.
func (p *program) components(t config.Options, releases bool) func(context.Context, builtin.Parts) engine.Components {
	read := sync.OnceValues(func() (*registry.Lock, hcl.Diagnostics) {
		dir := t.Path
		if info, err := os.Stat(dir); err == nil && !info.IsDir() {
			dir = filepath.Dir(dir)
		}
		lock, diags := registry.ReadLock(filepath.Join(dir, registry.LockFile))
		p.lock.Store(lock)
		return lock, diags
	})
	return func(ctx context.Context, parts builtin.Parts) engine.Components {
		return installed.Components(ctx, installed.Options{
			BuiltIn: parts.Catalog(), Plugins: p.plugins(parts, releases, read), Lock: read, Template: t.Path,
		})
	}
}

// plugins returns the installed plugins. read reads the lock file.
func (p *program) plugins(parts builtin.Parts, releases bool, read func() (*registry.Lock, hcl.Diagnostics)) *host.Set {
	o := host.Options{
		Dirs: host.Dirs(p.env), Env: parts.Env, Releases: releases, Terminal: parts.Terminal, Keeper: keeper.Command(), Warn: parts.Cloud.Warn,
		Trust: func(b host.Binary) error {
			lock, diags := read()
			if diags.HasErrors() {
				return diags
			}
			return setup.Trust(lock)(b)
		},
	}
	return host.Installed(o)
}

// installedPlugins returns the installed plugins, regardless of any template.
func (p *program) installedPlugins() *host.Set {
	return host.Installed(host.Options{Dirs: host.Dirs(p.env), Env: p.env})
}

// withLock adds the lock file, if it was read, to the files that diagnostics point at.
func (p *program) withLock(files map[string]*hcl.File) map[string]*hcl.File {
	lock := p.lock.Load()
	if lock == nil {
		return files
	}
	all := lock.Files()
	maps.Copy(all, files)
	return all
}

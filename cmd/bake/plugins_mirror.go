package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bake/plugin/registry"
	"bake/plugin/setup"
)

// mirrorOptions are the flags of bake plugins mirror.
type mirrorOptions struct{ systems, archs commaList }

func (p *program) pluginsMirrorCommand() *cobra.Command {
	var o mirrorOptions
	cmd := &cobra.Command{
		Use:   "mirror DIR [TEMPLATE]",
		Short: "Copy the plugins that a template requires to a mirror",
		Long: `Copy the plugin releases that a template requires to the directory DIR: those in its
lock file, or else the newest that its constraints allow. TEMPLATE defaults to the
working directory. Releases are copied for all platforms, unless -os or -arch selects
some. Existing files in DIR are kept, so that one mirror can serve several templates.

Set BAKE_PLUGIN_MIRROR to DIR, or to the URL where a web server serves it, to install
plugins only from there. Built-in plugins are not copied, unless the version constraint
excludes their version.`,
		Example: `  bake plugins mirror /srv/plugins
  bake plugins mirror -os linux,windows -arch amd64 /srv/plugins templates/web`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 || len(args) == 2 {
				return nil
			}
			return usageError{fmt.Sprintf("%s takes a directory and optionally a template; got %d arguments", cmd.CommandPath(), len(args)), cmd.CommandPath()}
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return interruptible(cmd.Context(), func(ctx context.Context) error {
				return p.pluginsMirror(ctx, args[0], slices.Concat(args[1:], []string{"."})[0], o)
			})
		},
	}
	cmd.Flags().Var(&o.systems, "os", "copy plugins for these operating `systems` only, such as linux,darwin")
	cmd.Flags().Var(&o.archs, "arch", "copy plugins for these `architectures` only, such as amd64,arm64")
	p.jsonFlag(cmd)
	return cmd
}

// mirrored is a release that was copied to a mirror.
type mirrored struct {
	Source  string   `json:"source"`
	Version string   `json:"version"`
	Files   []string `json:"files"`
}

func (p *program) pluginsMirror(ctx context.Context, dir, path string, o mirrorOptions) error {
	template, err := p.requirements(ctx, templateFlags{}, "bake plugins mirror", path)
	if err != nil {
		return err
	}
	lock, diags := registry.ReadLock(filepath.Join(template.Root, registry.LockFile))
	if diags.HasErrors() {
		return &templateError{Diags: diags, Files: lock.Files()}
	}
	all := requirementsOf(template.Plugins)
	required := p.places().Missing(all)
	for _, r := range all {
		if !slices.ContainsFunc(required, func(m setup.Requirement) bool { return m.Name == r.Name }) {
			p.say(fmt.Sprintf("%s is built in", r.Source))
		}
	}
	var done []setup.Mirrored
	err = p.withRegistry(func(r *registry.Registry) error {
		done, diags = setup.Mirror(ctx, required, dir, registry.Platforms{OS: o.systems, Arch: o.archs}, setup.Options{Registry: r, Lock: lock})
		return nil
	})
	if err != nil {
		return err
	}
	result := []mirrored{}
	for _, m := range done {
		result = append(result, mirrored{m.Source, m.Version, m.Files})
		for _, note := range m.Notes {
			fmt.Fprintf(p.stderr, "Warning: %s\n", note.Detail)
		}
		p.say(fmt.Sprintf("Copied %s v%s: %s", m.Source, m.Version, strings.Join(m.Files, ", ")))
	}
	p.json.result = struct {
		Plugins []mirrored `json:"plugins"`
	}{result}
	if diags.HasErrors() {
		return &templateError{Diags: diags, Files: bothFiles(template, lock)}
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bake/builtin"
	"bake/plugin/host"
	"bake/plugin/installed"
	"bake/plugin/registry"
	"bake/plugin/setup"
	"bake/run/localcloud"
	"bake/step"
)

// pluginsResult is what bake init and bake plugins write with -json.
type pluginsResult struct {
	Plugins []installed.Plugin `json:"plugins"`
}

// places are where plugins are.
func (p *program) places() installed.Places {
	return installed.Places{BuiltIn: p.builtIn(), Dirs: host.Dirs(p.env), Env: p.env}
}

// withRegistry runs fn with what gets plugins. Downloads are shown on standard error.
func (p *program) withRegistry(fn func(*registry.Registry) error) error {
	emit, done := p.progressDisplay()
	defer done()
	token, mirror := p.env.get("PACKER_GITHUB_API_TOKEN"), p.env.get("BAKE_PLUGIN_MIRROR")
	p.log.secrets.Add(token)
	if u, err := url.Parse(mirror); err == nil && u.User != nil {
		password, _ := u.User.Password()
		p.log.secrets.Add(password)
	}
	phases := map[string]func(string, int64, int64){}
	r, err := registry.New(registry.Options{
		Mirror: mirror, Token: token, Log: p.log.Logger,
		Progress: func(file string, done, total int64) {
			if phases[file] == nil {
				phases[file] = localcloud.Phases(p.now, emit)
			}
			phases[file]("download "+file, done, total)
		},
		Notice: func(text string) { emit(step.Event{Time: p.now(), Kind: step.Say, Text: text}) },
	})
	if err != nil {
		return err
	}
	return fn(r)
}

func (p *program) pluginsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "plugins",
		Aliases: []string{"plugin"},
		Short:   "Install, list, remove and mirror plugins",
		Long: `Install, list, remove and mirror Packer plugins. They are programs that run with
your permissions. bake and Packer share one plugin directory.`,
		Args: cobra.ArbitraryArgs,
		RunE: p.noCommand,
	}
	cmd.AddCommand(p.pluginsInstalledCommand(), p.pluginsRequiredCommand(), p.pluginsInstallCommand(), p.pluginsRemoveCommand(), p.pluginsMirrorCommand())
	return cmd
}

func (p *program) builtIn() builtin.Plugins { return p.parts().Catalog().Plugins() }

func (p *program) pluginsInstalledCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "installed",
		Short: "List the plugins that are built in or installed",
		Long: `List the built-in and the installed plugins, one per line. For built-in plugins the line
has the source, the version whose options are supported, and the components; for
plugins installed for this platform, the path of the binary. Binaries that cannot be
used are listed on standard error, with the reason.`,
		Example: `  bake plugins installed`,
		Args:    exactly(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return interruptible(cmd.Context(), p.pluginsInstalled) },
	}
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) pluginsInstalled(ctx context.Context) error {
	all, skipped, err := p.places().All(ctx)
	if err != nil {
		return err
	}
	for _, i := range all {
		if i.BuiltIn {
			p.say(fmt.Sprintf("%s v%s (built in): %s", i.Source, i.Version, strings.Join(i.Components, ", ")))
		} else {
			p.say(i.Path)
		}
	}
	for _, s := range skipped {
		fmt.Fprintf(p.stderr, "%s is not used: %s\n", s.Path, s.Why)
	}
	p.json.result = pluginsResult{all}
	return nil
}

func (p *program) pluginsRequiredCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "required TEMPLATE",
		Short: "List the plugins that a template requires",
		Long: `List the plugins that a template requires, one per line: the name, the source, the
version constraint, and the paths of installed binaries that satisfy it, the newest
first, or "(built in)".`,
		Example: `  bake plugins required .`,
		Args:    exactly("the template"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return interruptible(cmd.Context(), func(ctx context.Context) error { return p.pluginsRequired(ctx, args[0]) })
		},
	}
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) pluginsRequired(ctx context.Context, path string) error {
	template, err := p.requirements(ctx, templateFlags{}, "bake plugins required", path)
	if err != nil {
		return err
	}
	lock, diags := registry.ReadLock(filepath.Join(template.Root, registry.LockFile))
	if diags.HasErrors() {
		return &templateError{Diags: diags, Files: lock.Files()}
	}
	all, err := p.places().Required(ctx, requirementsOf(template.Plugins), lock, func(b host.Binary, err error) {
		fmt.Fprintf(p.stderr, "%s is not used: %v\n", b.Path, err)
	})
	if err != nil {
		return err
	}
	for _, l := range all {
		paths := l.Installed
		if l.BuiltIn {
			paths = []string{"(built in)"}
		}
		p.say(strings.TrimSpace(fmt.Sprintf("%s %s %q %s", l.Name, l.Source, l.Constraint, strings.Join(paths, " "))))
	}
	p.json.result = pluginsResult{list(all)}
	return nil
}

func (p *program) pluginsInstallCommand() *cobra.Command {
	var binary string
	var force bool
	cmd := &cobra.Command{
		Use:   "install SOURCE [VERSION]",
		Short: "Install a plugin",
		Long: `Install the newest release of the plugin SOURCE, such as github.com/hashicorp/docker.
VERSION is a version or a constraint, such as 1.1.0 or '~> 1.1'. With -path, install a
binary from this host instead, as the version that it reports.

Built-in plugins are not installed, unless VERSION excludes the built-in version.`,
		Example: `  bake plugins install github.com/hashicorp/docker
  bake plugins install github.com/hashicorp/docker '~> 1.1'
  bake plugins install -path ./packer-plugin-thing github.com/example/thing`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) != 1 && len(args) != 2:
				return usageError{fmt.Sprintf("%s takes the source of a plugin and optionally a version; got %d arguments", cmd.CommandPath(), len(args)), cmd.CommandPath()}
			case len(args) == 2 && binary != "":
				return usageError{"-path cannot be combined with a version: the binary reports its own", cmd.CommandPath()}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			source, err := registry.ParseSource(args[0])
			if err != nil {
				return usageError{err.Error(), cmd.CommandPath()}
			}
			return interruptible(cmd.Context(), func(ctx context.Context) error {
				if binary != "" {
					return p.pluginsInstallFile(ctx, source, binary)
				}
				return p.pluginsInstall(ctx, source, slices.Concat(args[1:], []string{""})[0], force)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&binary, "path", "", "plugin `binary` to install")
	flags.BoolVar(&force, "force", false, "reinstall the plugin if it is already installed")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) pluginsInstall(ctx context.Context, source registry.Source, wanted string, force bool) error {
	allows, err := registry.ParseVersions(wanted)
	if err != nil {
		return usageError{err.Error(), "bake plugins install"}
	}
	if b, ok := p.builtIn().InsteadOf(source.String(), allows); ok {
		p.json.result = pluginsResult{[]installed.Plugin{installed.BuiltIn(b, "")}}
		p.say(fmt.Sprintf("%s is built in, with the options of version %s. There is nothing to install.", b.Source, b.Version))
		return nil
	}
	var made setup.Installation
	err = p.withRegistry(func(r *registry.Registry) (err error) {
		made, err = setup.Install(ctx, source, allows, setup.Options{Registry: r, Dirs: host.Dirs(p.env), Env: p.env, Force: force})
		return err
	})
	if rel := made.Release; rel != nil {
		for _, why := range rel.Failures {
			fmt.Fprintf(p.stderr, "Warning: v%s was found on %s; another site, which may have a newer release, did not respond: %s\n", rel.Version, rel.Site, why)
		}
	}
	if err != nil {
		return err
	}
	p.sayInstalled(made.Installed, made.New)
	return nil
}

func (p *program) pluginsInstallFile(ctx context.Context, source registry.Source, binary string) error {
	made, err := setup.InstallFile(ctx, source, binary, setup.Options{Dirs: host.Dirs(p.env), Env: p.env})
	if err != nil {
		return err
	}
	p.sayInstalled(made, true)
	return nil
}

func (p *program) sayInstalled(made *registry.Installed, fresh bool) {
	p.json.result = pluginsResult{[]installed.Plugin{{Source: made.Source.String(), Version: made.Version, Path: made.Path, New: &fresh, Components: []string{}}}}
	if fresh {
		p.say(fmt.Sprintf("Installed plugin %s v%s in %q", made.Source, made.Version, made.Path))
	} else {
		p.say(fmt.Sprintf("%s v%s is installed: %q", made.Source, made.Version, made.Path))
	}
}

func (p *program) pluginsRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove SOURCE [VERSION] | PATH",
		Short: "Remove an installed plugin",
		Long: `Remove the installed binaries of a plugin for this platform and print their paths. With
VERSION, a version or a constraint, remove only the versions that satisfy it. With
PATH, remove the one binary that 'bake plugins installed' lists under that path. Fail
if there is nothing to remove. Built-in plugins cannot be removed.`,
		Example: `  bake plugins remove github.com/hashicorp/docker
  bake plugins remove github.com/hashicorp/docker '< 1.1'`,
		Args: cobra.MatchAll(cobra.RangeArgs(1, 2), func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 && filepath.IsAbs(args[0]) {
				return usageError{"a path already names one version; omit " + args[1], cmd.CommandPath()}
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			removed, err := p.places().Remove(cmd.Context(), args[0], slices.Concat(args[1:], []string{""})[0])
			if unreadable, ok := errors.AsType[*installed.UnreadableError](err); ok {
				err = usageError{unreadable.Error(), cmd.CommandPath()}
			}
			for _, path := range removed {
				p.say(path)
			}
			p.json.result = struct {
				Removed []string `json:"removed"`
			}{list(removed)}
			return err
		},
	}
	p.jsonFlag(cmd)
	return cmd
}

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

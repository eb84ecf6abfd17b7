package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"bake/plugin/host"
	"bake/plugin/installed"
	"bake/plugin/registry"
	"bake/plugin/setup"
)

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
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 || len(args) > 2:
				return usageError{fmt.Sprintf("%s takes the source of a plugin and optionally a version, or a path; got %d arguments", cmd.CommandPath(), len(args)), cmd.CommandPath()}
			case len(args) == 2 && filepath.IsAbs(args[0]):
				return usageError{"a path already names one version; omit " + args[1], cmd.CommandPath()}
			}
			return nil
		},
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

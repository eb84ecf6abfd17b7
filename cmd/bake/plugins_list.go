package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"bake/plugin/host"
	"bake/plugin/registry"
)

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

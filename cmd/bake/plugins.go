package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	goversion "github.com/hashicorp/go-version"
	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"bake/builtin"
	"bake/config"
	"bake/config/lang"
)

// notBuiltIn says that a plugin is missing, and which one may have been meant.
func notBuiltIn(all builtin.Plugins, source string) string {
	text := fmt.Sprintf("The plugin %s is not built in, and bake does not download plugins.", source)
	if hint := lang.DidYouMean(source, all.Sources()); hint != "" {
		return text + hint
	}
	return text + " Built-in plugins: " + strings.Join(all.Sources(), ", ") + "."
}

// pluginsResult is what bake init and bake plugins write with -json.
type pluginsResult struct {
	Plugins []listedPlugin `json:"plugins"`
}

// listedPlugin is a plugin that is built in, or that a template requires.
type listedPlugin struct {
	Name       string   `json:"name,omitempty"` // in the template
	Source     string   `json:"source"`
	Constraint string   `json:"constraint,omitempty"` // that the template has
	BuiltIn    bool     `json:"built_in"`
	Version    string   `json:"version,omitempty"` // that is built in
	Components []string `json:"components"`        // under the names that the template knows them by
}

func listedAs(b builtin.Plugin, components []string) listedPlugin {
	return listedPlugin{Source: b.Source, BuiltIn: true, Version: b.Version, Components: list(components)}
}

// required lists the plugins that a template requires.
func required(all builtin.Plugins, plugins []config.Plugin) pluginsResult {
	out := pluginsResult{[]listedPlugin{}}
	for _, r := range plugins {
		l := listedPlugin{Components: []string{}}
		if b, ok := all.Called(r.Source); ok {
			l = listedAs(b, b.As(r.Name))
		}
		l.Name, l.Source, l.Constraint = r.Name, r.Source, r.Version
		out.Plugins = append(out.Plugins, l)
	}
	return out
}

func (p *program) pluginsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "plugins",
		Aliases: []string{"plugin"},
		Short:   "Show which plugins are built in and which ones a template requires",
		Long: `bake has its plugins built in: nothing is downloaded, installed or removed.
These commands are here for scripts that call 'packer plugins'.`,
		Args: cobra.ArbitraryArgs,
		RunE: p.noCommand,
	}
	cmd.AddCommand(p.pluginsInstalledCommand(), p.pluginsRequiredCommand(), p.pluginsInstallCommand(), p.pluginsRemoveCommand())
	return cmd
}

func (p *program) builtIn() builtin.Plugins { return p.parts().Catalog().Plugins() }

func (p *program) pluginsInstalledCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "installed",
		Short: "List the built-in plugins",
		Long: `List the built-in plugins, one per line: the source, the version whose options are
supported, and the components.`,
		Example: `  bake plugins installed`,
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			result := pluginsResult{[]listedPlugin{}}
			for _, b := range p.builtIn() {
				result.Plugins = append(result.Plugins, listedAs(b, b.Components))
				p.say(fmt.Sprintf("%s v%s (built in): %s", b.Source, b.Version, strings.Join(b.Components, ", ")))
			}
			p.json.result = result
			return nil
		},
	}
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) pluginsRequiredCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "required TEMPLATE",
		Short: "List the plugins that a template requires",
		Long: `List the plugins that a template requires, one per line: the name, the source, the
version constraint, and "(built in)" if bake has it.`,
		Example: `  bake plugins required .`,
		Args:    exactly("the template"),
		RunE: func(cmd *cobra.Command, args []string) error {
			load, err := new(templateFlags).options(p, "bake plugins required", args[0])
			if err != nil {
				return err
			}
			template, diags := config.LoadRequirements(cmd.Context(), load)
			if diags.HasErrors() {
				return &templateError{Diags: diags, Files: template.Files()}
			}
			all := p.builtIn()
			p.json.result = required(all, template.Plugins)
			for _, r := range template.Plugins {
				line := fmt.Sprintf("%s %s %q", r.Name, r.Source, r.Version)
				if _, ok := all.Called(r.Source); ok {
					line += " (built in)"
				}
				p.say(line)
			}
			return nil
		},
	}
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) pluginsInstallCommand() *cobra.Command {
	var binary string
	cmd := &cobra.Command{
		Use:   "install SOURCE [VERSION]",
		Short: "Check whether a plugin is built in",
		Long: `Check whether the plugin SOURCE, such as github.com/hashicorp/amazon, is built in, and
fail if it is not. Nothing is downloaded. If VERSION differs from the version whose
options are supported, that is reported but is not a failure.`,
		Example: `  bake plugins install github.com/hashicorp/amazon`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 || len(args) == 2 {
				return nil
			}
			return usageError{fmt.Sprintf("%s takes the source of a plugin and optionally a version; got %d arguments", cmd.CommandPath(), len(args)), cmd.CommandPath()}
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if binary != "" {
				return fmt.Errorf("%s cannot be used: bake does not run plugin binaries; omit -path to check whether %s is built in", binary, args[0])
			}
			return p.pluginsInstall(args[0], slices.Concat(args[1:], []string{""})[0])
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&binary, "path", "", "plugin `binary` to install; always an error, as bake does not run plugin binaries")
	flags.Bool("force", false, "no effect: there is nothing to install")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) pluginsInstall(source, wanted string) error {
	all := p.builtIn()
	b, ok := all.Called(source)
	if !ok {
		return fmt.Errorf("%s", strings.TrimSuffix(notBuiltIn(all, source), "."))
	}
	text := fmt.Sprintf("%s is built in, with the options of version %s. There is nothing to install.", b.Source, b.Version)
	if wanted != "" {
		v, err := goversion.NewVersion(wanted)
		if err != nil {
			return usageError{fmt.Sprintf("%q is not a version", wanted), "bake plugins install"}
		}
		if !v.Equal(goversion.Must(goversion.NewVersion(b.Version))) {
			text += fmt.Sprintf(" Version %s is not available.", v)
		}
	}
	p.say(text)
	return nil
}

func (p *program) pluginsRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove SOURCE [VERSION]",
		Short: "Fail: built-in plugins cannot be removed",
		Long: `Fail: built-in plugins cannot be removed, and no others can be installed. Packer
keeps its plugins in a directory of its own, which bake does not use.`,
		Example: `  bake plugins remove github.com/hashicorp/amazon`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if b, ok := p.builtIn().Called(args[0]); ok {
				return fmt.Errorf("%s is built in and cannot be removed", b.Source)
			}
			return fmt.Errorf("there is no plugin %s to remove; bake plugins installed lists the built-in ones", args[0])
		},
	}
	p.jsonFlag(cmd)
	return cmd
}

// initOptions are the flags of bake init.
type initOptions struct {
	templateFlags
	path           string
	upgrade, force bool
}

func (p *program) initCommand() *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init TEMPLATE",
		Short: "Check that the plugins a template requires are built in",
		Long: `Check that the plugins a template requires are built in, and list their components.
Nothing is downloaded. A plugin that is not built in is reported as an error where it
is required; the others are still listed. A built-in version that does not satisfy
the version constraint gets a warning.

Only required_plugins and required_version are read: variables need no values, and
-var, -var-file, -only and -except have no effect, as in Packer.`,
		Example: `  bake init .`,
		Args:    exactly("the template"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return p.init(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	o.register(flags)
	flags.BoolVar(&o.upgrade, "upgrade", false, "upgrade plugins; only prints that newer ones come with a newer bake")
	flags.BoolVar(&o.force, "force", false, "reinstall plugins; only prints that there is nothing to install")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) init(ctx context.Context, o initOptions) error {
	load, err := o.options(p, "bake init", o.path)
	if err != nil {
		return err
	}
	template, diags := config.LoadRequirements(ctx, load)
	if diags.HasErrors() {
		return &templateError{Diags: diags, Files: template.Files()}
	}
	all := p.builtIn()
	p.json.result = required(all, template.Plugins)
	if len(template.Plugins) == 0 {
		p.say("No plugins are required: the template has no required_plugins in a packer block.")
		return nil
	}
	for _, r := range template.Plugins {
		b, ok := all.Called(r.Source)
		if !ok {
			diags = append(diags, &hcl.Diagnostic{
				Severity: hcl.DiagError, Summary: "Plugin not built in", Subject: r.Range.Ptr(), Detail: notBuiltIn(all, r.Source),
			})
			continue
		}
		p.say(fmt.Sprintf("%s %s %q is built in: %s", r.Name, r.Source, r.Version, strings.Join(b.As(r.Name), ", ")))
		if !r.Allows(b.Version) {
			diags = append(diags, &hcl.Diagnostic{
				Severity: hcl.DiagWarning, Summary: "Different version built in", Subject: r.Range.Ptr(),
				Detail: fmt.Sprintf("The template requires %s of %s; the built-in plugin has the options of version %s.", r.Version, r.Source, b.Version),
			})
		}
	}
	if o.upgrade || o.force {
		p.say(fmt.Sprintf("There is nothing to install: built-in plugins are those of bake v%s, and newer ones come with a newer bake.", version))
	}
	if diags.HasErrors() {
		return &templateError{Diags: diags, Files: template.Files()}
	}
	p.diagnostics(template.Files(), diags)
	return nil
}

package main

import (
	"context"
	"maps"
	"path/filepath"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"bake/config"
	"bake/internal/prose"
	"bake/plugin/host"
	"bake/plugin/installed"
	"bake/plugin/registry"
	"bake/plugin/setup"
)

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
		Short: "Install the plugins that a template requires",
		Long: `Install the plugins that a template requires and that are neither built in nor already
installed. They go into the directory that Packer uses, so both programs share them.
The file bake.lock.hcl beside the template records the selected releases and their
hashes: commit it, so that everyone installs the same plugins. If a plugin cannot be
installed, the others still are.

Plugins are downloaded from releases.hashicorp.com, whose signatures are verified, from
GitHub releases, or from the host named in their source. If BAKE_PLUGIN_MIRROR is set,
they come only from there. No plugin is run before its checksum has been verified.

A built-in plugin is used instead of being installed, unless the version constraint
excludes its version.

Only required_plugins and required_version are read: variables need no values, and
-var, -var-file, -only and -except have no effect, as in Packer.`,
		Example: `  bake init .
  bake init -upgrade .`,
		Args: exactly("the template"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return interruptible(cmd.Context(), func(ctx context.Context) error { return p.init(ctx, o) })
		},
	}
	flags := cmd.Flags()
	o.register(flags)
	flags.BoolVar(&o.upgrade, "upgrade", false, "select and lock the newest releases that the constraints allow")
	flags.BoolVar(&o.force, "force", false, "reinstall plugins that are already installed")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) init(ctx context.Context, o initOptions) error {
	template, err := p.requirements(ctx, o.templateFlags, "bake init", o.path)
	if err != nil {
		return err
	}
	if len(template.Plugins) == 0 {
		p.json.result = pluginsResult{[]installed.Plugin{}}
		p.say("No plugins are required: the template has no required_plugins in a packer block.")
		return nil
	}
	lock, diags := registry.ReadLock(filepath.Join(template.Root, registry.LockFile))
	files := bothFiles(template, lock)
	if diags.HasErrors() {
		return &templateError{Diags: diags, Files: files}
	}
	places, required := p.places(), requirementsOf(template.Plugins)
	outcomes, err := p.install(ctx, places.Missing(required), setup.Options{Lock: lock, Upgrade: o.upgrade, Force: o.force})
	if err != nil {
		return err
	}
	result := pluginsResult{[]installed.Plugin{}}
	for _, r := range required {
		i := places.Initialized(r, outcomes[r.Name])
		if i.Text != "" {
			p.say(i.Text)
		}
		result.Plugins = append(result.Plugins, i.Plugin)
		diags = append(diags, i.Diags...)
	}
	p.json.result = result
	if err := lock.Save(); err != nil {
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Lock file not written", Detail: prose.Sprintf("The plugins are installed, but %v.", err)})
	}
	if diags.HasErrors() {
		return &templateError{Diags: diags, Files: files}
	}
	p.diagnostics(files, diags)
	return nil
}

// requirements reads the requirements of a template.
func (p *program) requirements(ctx context.Context, flags templateFlags, command, path string) (*config.Template, error) {
	load, err := flags.options(p, command, path)
	if err != nil {
		return nil, err
	}
	template, diags := config.LoadRequirements(ctx, load)
	if diags.HasErrors() {
		return nil, &templateError{Diags: diags, Files: template.Files()}
	}
	return template, nil
}

// install installs plugins. There is an outcome for each, by name.
func (p *program) install(ctx context.Context, required []setup.Requirement, o setup.Options) (map[string]setup.Outcome, error) {
	outcomes := map[string]setup.Outcome{}
	if len(required) == 0 {
		return outcomes, nil
	}
	return outcomes, p.withRegistry(func(r *registry.Registry) error {
		o.Registry, o.Dirs, o.Env = r, host.Dirs(p.env), p.env
		for _, outcome := range setup.Init(ctx, required, o) {
			outcomes[outcome.Name] = outcome
		}
		return nil
	})
}

// requirementsOf converts the requirements of a template for the installer.
func requirementsOf(plugins []config.Plugin) (all []setup.Requirement) {
	for _, r := range plugins {
		all = append(all, setup.Requirement{Name: r.Name, Source: r.Source, Constraint: r.Version, Allows: r.Allows, Range: r.Range})
	}
	return all
}

// bothFiles are what diagnostics about plugins can point at.
func bothFiles(template *config.Template, lock *registry.Lock) map[string]*hcl.File {
	files := template.Files()
	maps.Copy(files, lock.Files())
	return files
}

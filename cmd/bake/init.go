package main

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"bake/config"
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
	outcomes, err := p.installRequired(ctx, template.Plugins, setup.Options{Lock: lock, Upgrade: o.upgrade, Force: o.force})
	if err != nil {
		return err
	}
	result := pluginsResult{[]installed.Plugin{}}
	for _, r := range template.Plugins {
		line, listed, more := p.initialized(r, outcomes[r.Name])
		if line != "" {
			p.say(line)
		}
		result.Plugins = append(result.Plugins, listed)
		diags = append(diags, more...)
	}
	p.json.result = result
	if err := lock.Save(); err != nil {
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Lock file not written", Detail: fmt.Sprintf("The plugins are installed, but %v.", err)})
	}
	if diags.HasErrors() {
		return &templateError{Diags: diags, Files: files}
	}
	p.diagnostics(files, diags)
	return nil
}

// requirements reads what a template requires.
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

// installRequired installs what is missing of plugins that are not built in. There is
// an outcome for each of these, by name.
func (p *program) installRequired(ctx context.Context, plugins []config.Plugin, o setup.Options) (map[string]setup.Outcome, error) {
	all := p.builtIn()
	var required []setup.Requirement
	for _, r := range requirementsOf(plugins) {
		if _, ok := all.InsteadOf(r.Source, r.Allows); !ok {
			required = append(required, r)
		}
	}
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

// initialized says what has become of a plugin that is required.
func (p *program) initialized(r config.Plugin, outcome setup.Outcome) (line string, listed installed.Plugin, diags hcl.Diagnostics) {
	b, builtIn := p.builtIn().Called(r.Source)
	listed = installed.Plugin{Components: []string{}}
	if builtIn {
		listed = installed.BuiltIn(b, r.Name)
		line = fmt.Sprintf("%s %s %q is built in: %s", r.Name, r.Source, r.Version, strings.Join(b.As(r.Name), ", "))
	}
	listed.Name, listed.Source, listed.Constraint = r.Name, r.Source, r.Version
	warn := func(summary, detail string) {
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: summary, Subject: r.Range.Ptr(), Detail: detail})
	}
	for _, note := range outcome.Notes {
		warn(note.Summary, note.Detail)
	}
	switch {
	case outcome.Unavailable && builtIn:
		detail := fmt.Sprintf("The template requires %s of %s; the built-in plugin, which has the options of version %s, is used instead.", r.Version, r.Source, b.Version)
		for _, d := range outcome.Diags {
			detail += "\n\n" + d.Detail
		}
		warn("Different version built in", detail)
	case outcome.Diags.HasErrors():
		diags = append(diags, outcome.Diags...)
		line = ""
	case outcome.Path != "":
		listed.BuiltIn = false
		listed.Version, listed.Path, listed.New = outcome.Version, outcome.Path, &outcome.New
		line = fmt.Sprintf("%s %s %q is installed: v%s in %q", r.Name, r.Source, r.Version, outcome.Version, outcome.Path)
		if outcome.New {
			line = fmt.Sprintf("Installed plugin %s v%s in %q", r.Source, outcome.Version, outcome.Path)
		}
	}
	return line, listed, diags
}

// requirementsOf are what a template requires, for those who install it.
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

package main

import (
	"net/url"

	"github.com/spf13/cobra"

	"bake/builtin"
	"bake/internal/prose"
	"bake/plugin/host"
	"bake/plugin/installed"
	"bake/plugin/registry"
	"bake/run/localcloud"
	"bake/step"
)

// pluginsResult is the output of bake init -json and bake plugins -json.
type pluginsResult struct {
	Plugins []installed.Plugin `json:"plugins"`
}

// places are where plugins are.
func (p *program) places() installed.Places {
	return installed.Places{BuiltIn: p.builtIn(), Dirs: host.Dirs(p.env), Env: p.env}
}

// withRegistry runs fn with the plugin registry. It shows downloads on standard error.
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
		Notice: func(text string) { emit(step.Event{Time: p.now(), Kind: step.Say, Text: prose.PrintableLines(text)}) },
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

// Package shelllocal is the provisioner that runs scripts on the computer that bake
// runs on.
package shelllocal

import (
	"context"
	"os/exec"

	"bake/builder"
	"bake/component"
	"bake/config/schema"
	"bake/internal/gotemplate"
	"bake/internal/script"
	"bake/provisioner"
	"bake/step"
	"bake/step/onhost"
)

// Options are the arguments of a shell-local provisioner.
type Options struct{ script.LocalOptions }

func defaults() Options { return Options{script.LocalDefaults()} }

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	for _, p := range o.Problems(c.Known) {
		c.Errorf(p.Field, p.Summary, "%s", p.Detail)
	}
}

// Factory returns the factory of the shell-local provisioner.
func Factory() component.Factory[provisioner.Provisioner] {
	return component.Define("shell-local", defaults,
		func(o *Options, _ *schema.Source) provisioner.Provisioner { return &shellLocal{o} })
}

type shellLocal struct{ options *Options }

// Provision implements [provisioner.Provisioner].
func (p *shellLocal) Provision(ctx context.Context, s *step.Scope, m builder.Machine) error {
	t := gotemplate.Context{BuildName: s.SourceName, BuildType: s.SourceType, Start: s.Run.Start, Version: s.Run.Version}
	out := script.NewLines(func(line string) { s.Output(ctx, step.Output, line) })
	errOut := script.NewLines(func(line string) { s.Output(ctx, step.ErrOutput, line) })
	live := func(text string) { s.Output(ctx, step.Partial, text) }
	out.Overwritten, errOut.Overwritten = live, live
	defer errOut.Flush()
	defer out.Flush()
	local := &script.Local{
		Options: &p.options.LocalOptions, Env: s.Run.Env,
		BuildName: s.SourceName, BuilderType: s.SourceType, Data: m.Data.Plain(), Render: t.RenderAll,
		Say:    func(text string) { s.Say(ctx, "%s", text) },
		Warn:   func(text string) { s.Warn(ctx, "%s", text) },
		Stdout: out, Stderr: errOut,
		Exec: func(cmd *exec.Cmd) error { return onhost.Run(s, cmd) },
	}
	return local.Run(ctx)
}

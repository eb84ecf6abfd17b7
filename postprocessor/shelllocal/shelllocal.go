// Package shelllocal is the post-processor that runs scripts on the computer that bake
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
	"bake/postprocessor"
	"bake/step"
	"bake/step/onhost"
)

// Options are the arguments of a shell-local post-processor.
type Options struct{ script.LocalOptions }

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	for _, p := range o.Problems(c.Known) {
		c.Errorf(p.Field, p.Summary, "%s", p.Detail)
	}
}

// Factory returns the factory of the shell-local post-processor.
func Factory() component.Factory[postprocessor.PostProcessor] {
	return component.Define("shell-local", func() Options { return Options{script.LocalDefaults()} },
		func(o *Options, _ *schema.Source) postprocessor.PostProcessor { return &shellLocal{o.local()} })
}

// local returns the options, with an execute_command of one element turned into a
// command line for sh.
func (o *Options) local() *script.LocalOptions {
	if len(o.ExecuteCommand) == 1 {
		o.ExecuteCommand = []string{"sh", "-c", o.ExecuteCommand[0]}
	}
	return &o.LocalOptions
}

type shellLocal struct{ options *script.LocalOptions }

// Process implements [postprocessor.PostProcessor]. It passes the artifact on unchanged.
func (p *shellLocal) Process(ctx context.Context, s *step.Scope, in *builder.Artifact) (*builder.Artifact, postprocessor.Keep, error) {
	t := gotemplate.Context{BuildName: s.SourceName, BuildType: s.SourceType, Start: s.Run.Start, Version: s.Run.Version}
	out := script.NewLines(func(line string) { s.Output(ctx, step.Output, line) })
	errOut := script.NewLines(func(line string) { s.Output(ctx, step.ErrOutput, line) })
	live := func(text string) { s.Output(ctx, step.Partial, text) }
	out.Overwritten, errOut.Overwritten = live, live
	defer errOut.Flush()
	defer out.Flush()
	local := &script.Local{
		Options: p.options, Env: s.Run.Env,
		BuildName: s.SourceName, BuilderType: s.SourceType, Data: in.Data.Plain(), Render: t.RenderAll,
		Say:    func(text string) { s.Say(ctx, "%s", text) },
		Warn:   func(text string) { s.Warn(ctx, "%s", text) },
		Stdout: out, Stderr: errOut,
		Exec: func(cmd *exec.Cmd) error { return onhost.Run(s, cmd) },
	}
	if err := local.Run(ctx); err != nil {
		return nil, postprocessor.MustKeep, err
	}
	return in, postprocessor.MustKeep, nil
}

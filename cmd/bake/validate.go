package main

import (
	"context"

	"github.com/spf13/cobra"

	"bake/config"
	"bake/engine"
	"bake/step"
)

// validateOptions are the flags of bake validate.
type validateOptions struct {
	templateFlags
	path string

	syntaxOnly, readData, noWarnUndeclared bool
}

func (p *program) validateCommand() *cobra.Command {
	var o validateOptions
	cmd := &cobra.Command{
		Use:   "validate TEMPLATE",
		Short: "Check a template without running anything",
		Long: `Check a template: its syntax, its variables, and the options of all its builders,
provisioners and post-processors. Nothing is created or changed, and the network is
not used unless -evaluate-datasources is given.`,
		Example: `  bake validate template.pkr.hcl
  bake validate -var-file=prod.pkrvars.hcl .`,
		Args: exactly("the template"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return p.validate(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	o.register(flags)
	flags.BoolVar(&o.syntaxOnly, "syntax-only", false, "check the syntax and the variables only")
	flags.BoolVar(&o.readData, "evaluate-datasources", false, "read the data sources")
	withoutEffect(flags, "ignore-prerelease-plugins", "use-sequential-evaluation")
	flags.BoolVar(&o.noWarnUndeclared, "no-warn-undeclared-var", false, "do not warn about variables that a -var-file sets but the template does not declare")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) validate(ctx context.Context, o validateOptions) error {
	load, err := o.options(p, "bake validate", o.path)
	if err != nil {
		return err
	}
	load.WarnUndeclared = !o.noWarnUndeclared
	load.ReadData, load.AllData = o.readData, o.readData
	run := step.Invocation{Env: p.env, Start: load.Now, Version: config.LanguageVersion}
	if o.syntaxOnly {
		load.SyntaxOnly = true
		template, diags := config.Load(ctx, load)
		if diags.HasErrors() {
			return &templateError{diags, template.Files()}
		}
		p.diagnostics(template.Files(), diags)
		p.say("Syntax-only check passed. Everything looks okay.")
		return nil
	}
	warnings, err := p.check(ctx, load, o.templateFlags, run)
	if err != nil {
		return err
	}
	p.diagnostics(warnings.files, warnings.diags)
	p.say("The configuration is valid.")
	return nil
}

// check loads a template and decodes all that it would run. What is wrong is a
// *templateError; without an error, warnings holds what is only doubtful.
func (p *program) check(ctx context.Context, load config.Options, selected templateFlags, run step.Invocation) (warnings templateError, err error) {
	all := p.parts().Catalog()
	load.DataSources = all.DataSources
	template, diags := config.Load(ctx, load)
	if !diags.HasErrors() || len(template.Builds) > 0 {
		diags = config.Merge(diags, engine.Check(ctx, template, all.Components, engine.Options{
			Only: selected.only, Except: selected.except, Run: run, Start: run.Start,
		}))
	}
	found := templateError{diags, template.Files()}
	if diags.HasErrors() {
		return found, &found
	}
	return found, nil
}

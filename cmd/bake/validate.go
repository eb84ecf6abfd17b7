package main

import (
	"context"

	"github.com/spf13/cobra"

	"bake/config"
	"bake/run"
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
			return interruptible(cmd.Context(), func(ctx context.Context) error { return p.validate(ctx, o) })
		},
	}
	flags := cmd.Flags()
	o.register(flags)
	flags.BoolVar(&o.syntaxOnly, "syntax-only", false, "check only the syntax and the variables")
	flags.BoolVar(&o.readData, "evaluate-datasources", false, "read the data sources")
	o.registerReleases(flags)
	withoutEffect(flags, "use-sequential-evaluation")
	flags.BoolVar(&o.noWarnUndeclared, "no-warn-undeclared-var", false, "do not warn about variables that a -var-file sets but the template does not declare")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) validate(ctx context.Context, o validateOptions) error {
	template, err := o.template(p, "bake validate", o.path)
	if err != nil {
		return err
	}
	template.WarnUndeclared = !o.noWarnUndeclared
	template.ReadData, template.AllData = o.readData, o.readData
	if o.syntaxOnly {
		template.SyntaxOnly = true
		read, diags := config.Load(ctx, template.Options)
		if diags.HasErrors() {
			return &templateError{Diags: diags, Files: read.Files()}
		}
		p.diagnostics(read.Files(), diags)
		p.say("Syntax-only check passed. Everything looks okay.")
		return nil
	}
	doubts, err := run.Check(ctx, template, p.components(template.Options, o.releases)(ctx, p.parts()))
	if err != nil {
		return err
	}
	p.diagnostics(doubts.Files, doubts.Diags)
	p.say("The configuration is valid.")
	return nil
}

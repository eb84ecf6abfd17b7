package main

import (
	"context"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"bake/config"
	"bake/inspect"
)

// inspectOptions are the flags of bake inspect.
type inspectOptions struct {
	templateFlags
	path string
}

func (p *program) inspectCommand() *cobra.Command {
	var o inspectOptions
	cmd := &cobra.Command{
		Use:   "inspect TEMPLATE",
		Short: "Show the variables, local values and builds of a template",
		Long: `Show a template's variables and local values, and for each build its sources, its
provisioners in order, and its chains of post-processors. Nothing is run, and data
sources are not read: values that depend on them are shown as <unknown>, as are
variables without a value. Sensitive values are shown as <sensitive>.`,
		Example: `  bake inspect template.pkr.hcl
  bake inspect -only='*.web' .`,
		Args: exactly("the template"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return interruptible(cmd.Context(), func(ctx context.Context) error { return p.inspect(ctx, o) })
		},
	}
	o.register(cmd.Flags())
	withoutEffect(cmd.Flags(), "use-sequential-evaluation")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) inspect(ctx context.Context, o inspectOptions) error {
	load, err := o.options(p, "bake inspect", o.path)
	if err != nil {
		return err
	}
	outline, diags := config.ReadOutline(ctx, load)
	if diags.HasErrors() {
		return &templateError{Diags: diags, Files: outline.Files()}
	}
	inspected, diags := inspect.Of(outline, o.only, o.except)
	if diags.HasErrors() {
		return &templateError{Diags: diags, Files: outline.Files()}
	}
	if p.json.on {
		for _, d := range outline.Doubts {
			d.Severity = hcl.DiagWarning // nothing that was asked for has failed
		}
		p.diagnostics(outline.Files(), outline.Doubts)
		p.json.result = inspected
		return nil
	}
	var b strings.Builder
	inspected.Write(&b)
	p.say(b.String())
	return nil
}

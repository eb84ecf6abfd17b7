package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"bake/config"
	"bake/inspect"
)

// inspectOptions are the flags of bake inspect.
type inspectOptions struct {
	templateFlags
	path  string
	graph graphFormat
}

// graphFormat is how -graph draws: empty for not at all, text or svg.
type graphFormat string

// Set implements [pflag.Value].
func (g *graphFormat) Set(s string) error {
	if s != "text" && s != "svg" {
		return fmt.Errorf("unknown graph format %q: use text or svg", s)
	}
	*g = graphFormat(s)
	return nil
}

func (g *graphFormat) String() string { return string(*g) }

// Type implements [pflag.Value].
func (*graphFormat) Type() string { return "format" }

func (p *program) inspectCommand() *cobra.Command {
	var o inspectOptions
	cmd := &cobra.Command{
		Use:   "inspect TEMPLATE",
		Short: "Show the variables, local values and builds of a template",
		Long: `Show a template's variables and local values, and for each build its sources, its
provisioners in order, and its chains of post-processors. Nothing is run, and data
sources are not read: values that depend on them are shown as <unknown>, as are
variables without a value. Sensitive values are shown as <sensitive>.

With -graph, show what depends on what instead: data sources, sources, builds with their
provisioners and post-processors, and the images of bake files with the images that they
need, the regions and accounts that they go to, and their channels. -graph=svg writes an
SVG document.`,
		Example: `  bake inspect template.pkr.hcl
  bake inspect -only='*.web' .
  bake inspect -graph=svg template.pkr.hcl > template.svg`,
		Args: exactly("the template"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return interruptible(cmd.Context(), func(ctx context.Context) error { return p.inspect(ctx, o) })
		},
	}
	o.register(cmd.Flags())
	cmd.Flags().Var(&o.graph, "graph", "draw the dependency graph in this `format`: text (the default) or svg")
	cmd.Flags().Lookup("graph").NoOptDefVal = "text"
	withoutEffect(cmd.Flags(), "use-sequential-evaluation")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) inspect(ctx context.Context, o inspectOptions) error {
	if o.graph != "" && p.json.on {
		return usageError{"-graph and -json cannot be combined", "bake inspect"}
	}
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
		for _, d := range outline.Incomplete {
			d.Severity = hcl.DiagWarning // no requested operation has failed
		}
		p.diagnostics(outline.Files(), outline.Incomplete)
		p.json.result = inspected
		return nil
	}
	if o.graph != "" {
		return p.drawGraph(ctx, o, load, outline, inspected)
	}
	var b strings.Builder
	inspected.Write(&b)
	p.say(b.String())
	return nil
}

func (p *program) drawGraph(ctx context.Context, o inspectOptions, load config.Options, outline *config.Outline, inspected inspect.Template) error {
	images, diags := config.ReadImages(ctx, load)
	if diags.HasErrors() {
		return &templateError{Diags: diags, Files: images.Files}
	}
	picture := inspect.Draw(ctx, outline, inspected, images.All)
	var b strings.Builder
	if o.graph == "svg" {
		if err := picture.SVG(&b, o.path); err != nil {
			return err
		}
	} else {
		picture.Text(&b)
	}
	p.say(strings.TrimSuffix(b.String(), "\n"))
	return nil
}

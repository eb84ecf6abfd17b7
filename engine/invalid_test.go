package engine_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"bake/builder"
	"bake/component"
	"bake/config"
	"bake/config/schema"
	"bake/datasource"
	"bake/engine"
	"bake/internal/fixtures"
	"bake/postprocessor"
	"bake/provisioner"
	"bake/step"
)

// The fixtures in testdata/invalid use these components under their real names,
// with the few options that the fixtures need.

type nullBuilderOptions struct {
	// Communicator is the kind of connection to the machine.
	Communicator string `hcl:"communicator,optional"`
	// Timeout limits the connection attempts.
	Timeout time.Duration `hcl:"ssh_timeout,optional"`
}

type fileBuilderOptions struct {
	// Target is the file.
	Target string `hcl:"target"`
	// Content is the content of the file.
	Content string `hcl:"content,optional"`
}

type shellOptions struct {
	// Inline lists the commands.
	Inline []string `hcl:"inline,optional,again"`
}

type manifestOptions struct {
	// Output is the file.
	Output string `hcl:"output,optional"`
}

type nullDataOptions struct {
	// Input is the text.
	Input string `hcl:"input"`
}

// idle is a component of every kind that does nothing.
type idle struct{ value cty.Value }

func (idle) Build(context.Context, *step.Scope, builder.Hooks) (*builder.Artifact, error) {
	return nil, nil
}
func (idle) Provision(context.Context, *step.Scope, builder.Machine) error { return nil }
func (idle) Process(_ context.Context, _ *step.Scope, in *builder.Artifact) (*builder.Artifact, postprocessor.Keep, error) {
	return in, postprocessor.MustKeep, nil
}
func (i idle) Read(context.Context) (cty.Value, error) { return i.value, nil }

func fixtureComponents() (engine.Components, component.Registry[datasource.DataSource]) {
	return engine.Components{
			Builders: component.NewRegistry[builder.Builder](
				component.Define("null", func() nullBuilderOptions { return nullBuilderOptions{} },
					func(*nullBuilderOptions, *schema.Source) builder.Builder { return idle{} }),
				component.Define("file", func() fileBuilderOptions { return fileBuilderOptions{} },
					func(*fileBuilderOptions, *schema.Source) builder.Builder { return idle{} }),
			),
			Provisioners: component.NewRegistry[provisioner.Provisioner](
				component.Define("shell", func() shellOptions { return shellOptions{} },
					func(*shellOptions, *schema.Source) provisioner.Provisioner { return idle{} }),
			),
			PostProcessors: component.NewRegistry[postprocessor.PostProcessor](
				component.Define("manifest", func() manifestOptions { return manifestOptions{} },
					func(*manifestOptions, *schema.Source) postprocessor.PostProcessor { return idle{} }),
			),
		}, component.NewRegistry[datasource.DataSource](
			component.Define("null", func() nullDataOptions { return nullDataOptions{} },
				func(o *nullDataOptions, _ *schema.Source) datasource.DataSource {
					return idle{cty.ObjectVal(map[string]cty.Value{"output": cty.StringVal(o.Input)})}
				}).
				Exporting(map[string]cty.Type{"output": cty.String}),
		)
}

// validate is what `bake validate` does.
func validate(t *testing.T, path string) hcl.Diagnostics {
	t.Helper()
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	components, data := fixtureComponents()
	template, diags := config.Load(t.Context(), config.Options{Path: path, Cwd: cwd, DataSources: data, Now: start})
	if diags.HasErrors() && len(template.Builds) == 0 {
		return diags
	}
	return config.Merge(diags, engine.Check(t.Context(), template, components, engine.Options{Start: start}))
}

// TestInvalid checks that each fixture causes exactly the errors in its comments.
func TestInvalid(t *testing.T) { fixtures.Invalid(t, "../testdata/invalid/*.pkr.hcl", validate) }

// TestValid checks that valid fixtures cause no errors.
func TestValid(t *testing.T) { fixtures.Valid(t, "../testdata/valid/*.pkr.*", validate) }

package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
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
	"bake/postprocessor"
	"bake/provisioner"
	"bake/step"
)

// The fixtures in testdata/invalid use these components under their real names,
// with the few options that the fixtures need.

type nullBuilderOptions struct {
	// Communicator is how the machine is reached.
	Communicator string `hcl:"communicator,optional"`
	// Timeout is how long to try.
	Timeout time.Duration `hcl:"ssh_timeout,optional"`
}

type fileBuilderOptions struct {
	// Target is the file.
	Target string `hcl:"target"`
	// Content is what it holds.
	Content string `hcl:"content,optional"`
}

type shellOptions struct {
	// Inline are the commands.
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

func (idle) Build(context.Context, *step.Scope, builder.Provision) (*builder.Artifact, error) {
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
				component.Define("null", nil, func() nullBuilderOptions { return nullBuilderOptions{} },
					func(*nullBuilderOptions, *schema.Source) builder.Builder { return idle{} }),
				component.Define("file", nil, func() fileBuilderOptions { return fileBuilderOptions{} },
					func(*fileBuilderOptions, *schema.Source) builder.Builder { return idle{} }),
			),
			Provisioners: component.NewRegistry[provisioner.Provisioner](
				component.Define("shell", nil, func() shellOptions { return shellOptions{} },
					func(*shellOptions, *schema.Source) provisioner.Provisioner { return idle{} }),
			),
			PostProcessors: component.NewRegistry[postprocessor.PostProcessor](
				component.Define("manifest", nil, func() manifestOptions { return manifestOptions{} },
					func(*manifestOptions, *schema.Source) postprocessor.PostProcessor { return idle{} }),
			),
		}, component.NewRegistry[datasource.DataSource](
			component.Define("null", nil, func() nullDataOptions { return nullDataOptions{} },
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

var expectation = regexp.MustCompile(`# (FILE )?(ERROR|WARNING): (.*)`)

// TestInvalid holds every fixture to its comments: "# ERROR: text" stands on the
// line that the error must point at, and text is how its summary, or its summary
// and detail joined by a colon, starts. "# FILE ERROR:" is for what has no place.
// Nothing else may be complained about.
func TestInvalid(t *testing.T) {
	paths, err := filepath.Glob("../testdata/invalid/*.pkr.hcl")
	if err != nil || len(paths) == 0 {
		t.Fatal("no fixtures: ", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".pkr.hcl"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want := map[int][]string{} // line -> "ERROR: text"
			for i, line := range bytes.Split(text, []byte("\n")) {
				if m := expectation.FindSubmatch(line); m != nil {
					n := i + 1
					if len(m[1]) > 0 {
						n = 0
					}
					want[n] = append(want[n], fmt.Sprintf("%s: %s", m[2], bytes.ReplaceAll(m[3], []byte(`\n`), []byte("\n"))))
				}
			}
			if len(want) == 0 {
				t.Fatal("the fixture expects nothing")
			}
			for _, d := range validate(t, path) {
				kind := map[hcl.DiagnosticSeverity]string{hcl.DiagError: "ERROR", hcl.DiagWarning: "WARNING"}[d.Severity]
				got := fmt.Sprintf("%s: %s: %s", kind, d.Summary, d.Detail)
				line := 0
				if d.Subject != nil {
					line = d.Subject.Start.Line
				}
				i := slices.IndexFunc(want[line], func(w string) bool { return strings.HasPrefix(got, w) })
				if i < 0 {
					t.Errorf("unexpected on line %d: %s", line, got)
					continue
				}
				want[line] = slices.Delete(want[line], i, i+1)
			}
			for _, line := range slices.Sorted(maps.Keys(want)) {
				for _, w := range want[line] {
					t.Errorf("missing on line %d: %s", line, w)
				}
			}
		})
	}
}

// TestValid: there is nothing to complain about in these.
func TestValid(t *testing.T) {
	paths, err := filepath.Glob("../testdata/valid/*.pkr.*")
	if err != nil || len(paths) == 0 {
		t.Fatal("no fixtures: ", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			for _, d := range validate(t, path) {
				t.Errorf("%s: %s: %s", d.Subject, d.Summary, d.Detail)
			}
		})
	}
}

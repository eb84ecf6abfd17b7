package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/config"
	"bake/engine"
	"bake/step"
)

// asked gives each build of a fixture a pipeline.
func (f *fixture) asked(p *engine.Pipeline) {
	f.options.Pipelines = map[*config.Component]*engine.Pipeline{}
	for _, b := range f.template.Builds {
		f.options.Pipelines[b.Builder] = p
	}
}

// A closed gate fails the build, and the error-cleanup-provisioner runs. A gate that cannot be
// evaluated is closed.
func TestGates(t *testing.T) {
	for options, want := range map[string]string{"": "the gate", "unreached = true": "no machine"} {
		f := newFixture(t, fmt.Sprintf(`
source "machine" "web" {
  %s
}
build {
  sources = ["machine.web"]
  provisioner "run" { script = "one" }
  error-cleanup-provisioner "run" { script = "clean" }
}
`, options))
		f.asked(&engine.Pipeline{Provisioned: func(context.Context, *step.Scope, builder.Machine) error {
			return fmt.Errorf("the gate: %w", builder.ErrGate)
		}})
		result, diags := f.run(t.Context())
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		b := result.Builds[0]
		if !errors.Is(b.Err, builder.ErrGate) || !strings.Contains(b.Err.Error(), want) || b.Failure != engine.GateClosed {
			t.Errorf("%s: error %v, %q", options, b.Err, b.Failure)
		}
		cleaned := false
		for _, e := range f.events {
			cleaned = cleaned || e.Kind == step.Output && e.Text == "clean"
		}
		if cleaned != (options == "") {
			t.Errorf("%s: the error-cleanup-provisioner has run: %v", options, cleaned)
		}
	}
}

// If images must be verified, a builder whose images cannot be launched is an error before anything
// is created.
func TestNotVerifiable(t *testing.T) {
	f := newFixture(t, `
source "machine" "web" {}
build { sources = ["machine.web"] }
`)
	at := hcl.Range{Filename: "x.bake.hcl", Start: hcl.Pos{Line: 3}}
	f.asked(&engine.Pipeline{At: &at, ImageCreated: func(context.Context, *step.Scope, builder.Image, engine.Provision) error { return nil }})
	checked := engine.Check(t.Context(), f.template, f.world.components(), f.options)
	_, ran := f.run(t.Context())
	for _, diags := range []hcl.Diagnostics{checked, ran} {
		if len(diags) != 1 || diags[0].Subject == nil || diags[0].Subject.Filename != at.Filename || !strings.Contains(diags[0].Detail, "machine cannot be verified") {
			t.Errorf("diagnostics %v", diags)
		}
	}
	if made := f.world.existing(); len(made) > 0 {
		t.Errorf("made: %v", made)
	}
}

// The steps after an image is made are also done for a reused image, because the run that
// made it may have ended before; a plan does nothing.
func TestReused(t *testing.T) {
	for _, planOnly := range []bool{false, true} {
		f := newFixture(t, `
source "machine" "web" {}
build { sources = ["machine.web"] }
`)
		var did []string
		note := func(what string) func(context.Context, *step.Scope, builder.Builder, *builder.Artifact) error {
			return func(context.Context, *step.Scope, builder.Builder, *builder.Artifact) error {
				did = append(did, what)
				return nil
			}
		}
		f.asked(&engine.Pipeline{
			Reuse: func(context.Context, *step.Scope, builder.Builder) (*builder.Artifact, error) {
				return &builder.Artifact{ID: "old"}, nil
			},
			Distribute: note("distributed"), Release: note("released"),
			Done: func(context.Context, *step.Scope, *builder.Artifact) error {
				did = append(did, "done")
				return nil
			},
		})
		f.options.PlanOnly = planOnly
		result := f.one(t.Context())
		want := "distributed released done"
		if planOnly {
			want = ""
		}
		if got := strings.Join(did, " "); got != want || result.Err != nil || !result.Reused {
			t.Errorf("plan %v: did %q, want %q; %+v", planOnly, got, want, result)
		}
	}
}

// The machine must be ready before anything runs on it, which may be only the pipeline, and its
// first boot must be complete before the pipeline runs.
func TestReady(t *testing.T) {
	const source, provisioner = `source "machine" "web" {}
build {
  sources = ["machine.web"]
`, `  provisioner "run" { script = "one" }
`
	looked := &engine.Pipeline{Provisioned: func(context.Context, *step.Scope, builder.Machine) error { return nil }}
	for _, c := range []struct {
		template string
		pipeline *engine.Pipeline
		want     int
	}{
		{source + "}", nil, 0},
		{source + "}", &engine.Pipeline{}, 0},
		{source + "}", looked, 1},
		{source + provisioner + "}", nil, 1},
		{source + provisioner + "}", looked, 1},
	} {
		f := newFixture(t, c.template)
		f.asked(c.pipeline)
		ready := 0
		f.options.Ready = func(context.Context, *step.Scope, builder.Machine) error {
			ready++
			return nil
		}
		settled, asks := 0, 0
		f.options.AwaitFirstBoot = func(context.Context, *step.Scope, builder.Machine) error {
			settled++
			return nil
		}
		if c.pipeline == looked {
			asks = 1
		}
		if b := f.one(t.Context()); b.Err != nil || ready != c.want {
			t.Errorf("%s%+v: ready %d times, want %d; error %v", c.template, c.pipeline, ready, c.want, b.Err)
		}
		if settled != asks {
			t.Errorf("%s%+v: settled %d times, want %d", c.template, c.pipeline, settled, asks)
		}
	}
}

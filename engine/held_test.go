package engine_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"bake/builder"
	"bake/component"
	"bake/config/schema"
	"bake/engine"
	"bake/postprocessor"
	"bake/provisioner"
	"bake/step"
)

// open is something that must be closed once; it logs that under its name.
type open struct {
	*world
	name string
}

func (o *open) Close() error { return o.do(context.Background(), "close "+o.name) }

// live is an artifact that must be closed.
type live struct{ open }

func (l *live) State(_ context.Context, name string) (any, error) { return name + " of " + l.name, nil }

func (l *live) Destroy(ctx context.Context) error { return l.do(ctx, "destroy "+l.name) }

// liveMachine is a builder that must be closed and whose artifact must be too.
type liveMachine struct {
	open
	*machine
}

func (m *liveMachine) Close() error { return m.open.Close() }

func (m *liveMachine) Build(ctx context.Context, s *step.Scope, hooks builder.Hooks) (*builder.Artifact, error) {
	a, err := m.machine.Build(ctx, s, hooks)
	if a != nil {
		a.Live = &live{open{m.world(), "image"}}
	}
	return a, err
}

func (m *liveMachine) world() *world { return m.open.world }

type liveRun struct {
	open
	*run
}

func (r *liveRun) Close() error { return r.open.Close() }

// liveTurn is a post-processor that uses a live input and makes a live artifact.
type liveTurn struct {
	open
	*turn
}

func (p *liveTurn) Close() error { return p.open.Close() }

func (p *liveTurn) Process(ctx context.Context, s *step.Scope, in *builder.Artifact) (*builder.Artifact, postprocessor.Keep, error) {
	if in.Live == nil {
		return nil, 0, errors.New("the artifact has no life")
	}
	v, err := in.Live.State(ctx, "disk")
	if err == nil {
		err = p.open.do(ctx, "ask "+v.(string))
	}
	if err != nil {
		return nil, 0, err
	}
	out, keep, err := p.turn.Process(ctx, s, in)
	if out != nil && out != in {
		out.Live = &live{open{p.open.world, out.ID}}
	}
	return out, keep, err
}

func (w *world) holding() engine.Components {
	return engine.Components{
		Builders: component.NewRegistry[builder.Builder](
			component.Define("machine", func() machineOptions { return machineOptions{} },
				func(o *machineOptions, _ *schema.Source) builder.Builder {
					return &liveMachine{open{w, "builder"}, &machine{w, o}}
				}),
		),
		Provisioners: component.NewRegistry[provisioner.Provisioner](
			component.Define("run", func() runOptions { return runOptions{} },
				func(o *runOptions, _ *schema.Source) provisioner.Provisioner {
					return &liveRun{open{w, "provisioner"}, &run{w, o}}
				}),
		),
		PostProcessors: component.NewRegistry[postprocessor.PostProcessor](
			component.Define("turn", func() turnOptions { return turnOptions{} },
				func(o *turnOptions, _ *schema.Source) postprocessor.PostProcessor {
					return &liveTurn{open{w, "post-processor " + o.Into}, &turn{w, o}}
				}),
		),
	}
}

const living = `
source "machine" "web" {}
build {
  sources = ["source.machine.web"]
  provisioner "run" { script = "it" }
  post-processors {
    post-processor "turn" { into = "box" }
    post-processor "turn" { into = "upload" }
  }
  post-processor "turn" {}
}
`

// TestHeld checks that a live artifact is closed once, after its last use, and destroyed before
// that if it is not kept.
func TestHeld(t *testing.T) {
	ends := []string{"close image", "close builder"}
	made := []string{"create key", "create instance"}
	image := slices.Concat(made, []string{"run it", "close provisioner", "create image", "wait"})
	first := slices.Concat(image, []string{
		"ask disk of image", "turn img-1 into box", "ask disk of box", "turn box into upload", "destroy box",
		"close upload", "close post-processor upload", "close box", "close post-processor box",
	})
	tests := map[string]struct {
		template string
		fail     string // the action that fails or, after "cancel ", is cancelled
		onError  engine.OnError
		want     []string
	}{
		"a good end": {want: slices.Concat(first, []string{"ask disk of image", "turn img-1 into ", "close post-processor "}, ends)},
		"an artifact that is not kept": {
			template: strings.Replace(living, `post-processor "turn" {}`, "", 1),
			want:     slices.Concat(first, []string{"destroy image"}, ends),
		},
		"a post-processor that must discard": {
			template: strings.Replace(living, `{ into = "upload" }`, "{\n into = \"upload\"\n keep = 3\n keep_input_artifact = true\n}", 1),
			want:     slices.Concat(first, []string{"ask disk of image", "turn img-1 into ", "close post-processor "}, ends),
		},
		"the builder fails":        {fail: "create instance", want: slices.Concat(made, []string{"close builder"})},
		"the provisioner fails":    {fail: "run it", want: slices.Concat(made, []string{"run it", "close provisioner", "close builder"})},
		"a failure is left as is":  {fail: "run it", onError: engine.Abort, want: slices.Concat(made, []string{"run it", "close provisioner", "close builder"})},
		"the provisioner panics":   {fail: "panic run it", want: slices.Concat(made, []string{"run it", "close provisioner", "close builder"})},
		"a cancellation":           {fail: "cancel create instance", want: slices.Concat(made, []string{"close builder"})},
		"a cancelled post-process": {fail: "cancel turn img-1 into box", want: slices.Concat(image, []string{"ask disk of image", "turn img-1 into box", "close post-processor box"}, ends)},
		"a post-processor fails": {
			fail: "turn box into upload",
			want: slices.Concat(image, []string{
				"ask disk of image", "turn img-1 into box", "ask disk of box", "turn box into upload",
				"close post-processor upload", "close box", "close post-processor box",
				"ask disk of image", "turn img-1 into ", "close post-processor ",
			}, ends),
		},
		"closing fails":  {fail: "close image", want: slices.Concat(first, []string{"ask disk of image", "turn img-1 into ", "close post-processor "}, ends)},
		"closing panics": {fail: "panic close image", want: slices.Concat(first, []string{"ask disk of image", "turn img-1 into ", "close post-processor "}, ends)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			text := living
			if test.template != "" {
				text = test.template
			}
			f := newFixture(t, text)
			f.options.OnError = test.onError
			ctx, cancel := context.WithCancelCause(t.Context())
			f.world.act = func(ctx context.Context, what string) error {
				switch test.fail {
				case what:
					return errInjected
				case "panic " + what:
					panic(errInjected)
				case "cancel " + what:
					cancel(errInjected)
					return context.Cause(ctx)
				}
				return nil
			}
			result, diags := engine.Run(ctx, context.Background(), f.template, f.world.holding(), f.options)
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			if diff := cmp.Diff(test.want, f.world.log); diff != "" {
				t.Errorf("what was done (-want +got):\n%s", diff)
			}
			r := result.Builds[0]
			closing := strings.Contains(test.fail, "close ")
			if failed := r.Err != nil; failed != (test.fail != "" && !closing) {
				t.Errorf("error: %v", r.Err)
			}
			if warned := strings.Contains(f.transcript(), "warning | machine.web | machine: closing: "); warned != closing {
				t.Errorf("events:\n%s", f.transcript())
			}
			for _, a := range r.Artifacts {
				if a.Live != nil {
					t.Errorf("%s can still be asked", a.ID)
				}
			}
		})
	}
}

// TestLeftByNoBuild checks that resources that belong to no build, such as processes, are reported
// as left before the run ends.
func TestLeftByNoBuild(t *testing.T) {
	f := newFixture(t, living)
	f.world.act = func(_ context.Context, what string) error {
		if what == "create key" {
			return f.options.Ledger.Intend(step.Resource{Kind: "plugin:process", Key: "p"})
		}
		return nil
	}
	f.run(t.Context())
	last := f.events[len(f.events)-2:]
	if last[0].Kind != step.ResourceLeft || last[0].Resource.Key != "p" || last[1].Kind != step.RunFinished {
		t.Errorf("events:\n%s", f.transcript())
	}
}

// TestNotDestroyed checks that the error for an artifact that could not be deleted says what to
// delete by hand.
func TestNotDestroyed(t *testing.T) {
	f := newFixture(t, strings.Replace(living, `post-processor "turn" {}`, "", 1))
	f.world.act = func(_ context.Context, what string) error {
		if what == "destroy image" {
			return errInjected
		}
		return nil
	}
	result, _ := engine.Run(t.Context(), context.Background(), f.template, f.world.holding(), f.options)
	err := result.Builds[0].Err
	if !errors.Is(err, errInjected) || !strings.Contains(err.Error(), "delete it by hand: an image") {
		t.Errorf("error: %v", err)
	}
}

// varied is a builder whose exports depend on its options.
type varied struct {
	component.Factory[builder.Builder]
	checked []hcl.Body
	told    []schema.Build
}

func (v *varied) Check(in schema.Input) hcl.Diagnostics {
	v.checked, v.told = append(v.checked, in.Body), append(v.told, in.Build)
	return v.Factory.Check(in)
}

func (v *varied) Exports(in schema.Input) component.Exports {
	if in.Body != v.checked[len(v.checked)-1] {
		panic("not what was checked")
	}
	attrs, _ := in.Body.JustAttributes()
	name, _ := attrs["say"].Expr.Value(in.Context)
	if !name.IsKnown() || name.AsString() == "" {
		return component.Exports{Open: true}
	}
	return component.Exports{Types: map[string]cty.Type{name.AsString(): cty.DynamicPseudoType}}
}

// TestExports checks that the values of build.* depend on the source and may be unknown.
func TestExports(t *testing.T) {
	f := newFixture(t, `
source "machine" "a" { say = "A" }
source "machine" "b" { say = "B" }
source "machine" "open" { say = "" }
source "missing" "m" {}
build {
  sources = ["source.machine.a", "source.machine.b", "source.machine.open", "source.missing.m"]
  provisioner "run" { script = build.A }
}
`)
	c := f.world.components()
	machine, _ := c.Builders.Find("machine", nil)
	v := &varied{Factory: machine}
	c.Builders = component.Registry[builder.Builder]{"machine": v}
	f.options.Run.Force, f.options.OnError = true, engine.Abort
	diags := engine.Check(t.Context(), f.template, c, f.options)
	var texts []string
	for _, d := range diags {
		texts = append(texts, d.Summary)
	}
	if diff := cmp.Diff([]string{"Unknown name", "Unknown builder"}, texts); diff != "" {
		t.Errorf("(-want +got):\n%s\n%v", diff, diags)
	}
	want := schema.Build{Name: "a", Type: "machine", Force: true, OnError: "abort", Run: "run-1"}
	if len(v.told) != 3 || !cmp.Equal(v.told[0], want) {
		t.Errorf("told %+v", v.told)
	}
}

// TestObservedIsClosed checks that a component that is only created for inspection is closed.
func TestObservedIsClosed(t *testing.T) {
	f := newFixture(t, living)
	c := f.world.holding()
	c.Builders = component.Observe(c.Builders, func(any) {})
	if diags := engine.Check(t.Context(), f.template, c, f.options); diags.HasErrors() {
		t.Fatal(diags)
	}
	if want := []string{"close builder"}; !slices.Equal(f.world.log, want) {
		t.Errorf("done: %v, want %v", f.world.log, want)
	}
}

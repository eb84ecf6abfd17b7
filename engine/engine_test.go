package engine_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

// world is a minimal cloud: a set of named things.
type world struct {
	mu     sync.Mutex
	things map[string]bool
	log    []string

	// act is called before each action of a component, with the action's name. An error
	// makes the action fail.
	act func(ctx context.Context, what string) error
	// destroy is called before a resource is destroyed.
	destroy func(ctx context.Context, key string) error
}

func newWorld() *world { return &world{things: map[string]bool{}} }

func (w *world) do(ctx context.Context, what string) error {
	w.mu.Lock()
	w.log = append(w.log, what)
	act := w.act
	w.mu.Unlock()
	if act == nil {
		return nil
	}
	return act(ctx, what)
}

func (w *world) set(key string, exists bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if exists {
		w.things[key] = true
	} else {
		delete(w.things, key)
	}
}

func (w *world) existing() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var keys []string
	for k := range w.things {
		keys = append(keys, k)
	}
	return keys
}

// Destroy implements [step.Destroyer].
func (w *world) Destroy(ctx context.Context, r step.Resource) error {
	if w.destroy != nil {
		if err := w.destroy(ctx, r.Key); err != nil {
			return err
		}
	}
	w.set(r.Key, false)
	return nil
}

func (w *world) acquire(ctx context.Context, s *step.Scope, what string) error {
	key := s.Build + "/" + what
	_, err := step.Acquire(ctx, s, "create "+what, step.Resource{Kind: "fake:" + what, Key: key},
		func(ctx context.Context) (string, struct{}, error) {
			w.set(key, true) // even if the call seems to fail
			return "id-" + what, struct{}{}, w.do(ctx, "create "+what)
		})
	return err
}

// machineOptions are the options of the fake builder.
type machineOptions struct {
	// Image is the name of the image.
	Image string `hcl:"image,optional"`
	// Image is the image's name.
	Password string `hcl:"password,optional,secret"`
	// Say is printed.
	Say string `hcl:"say,optional"`
	// Copy is where to copy the image to; copies always fail.
	Copy string `hcl:"copy,optional"`
	// Generated is the password that the machine generates.
	Generated string `hcl:"generated,optional"`
	// Vanishes makes the cached image disappear before the launch.
	Vanishes bool `hcl:"vanishes,optional"`
	// Unreached makes connecting to the machine fail.
	Unreached bool `hcl:"unreached,optional"`
}

// machine is the fake builder: a key, an instance, provisioning, an image.
type machine struct {
	*world
	o *machineOptions
}

func (m *machine) Build(ctx context.Context, s *step.Scope, hooks builder.Hooks) (*builder.Artifact, error) {
	s.Handle("fake", m.world)
	if m.o.Say != "" {
		s.Say(ctx, "%s", m.o.Say)
	}
	if err := m.acquire(ctx, s, "key"); err != nil {
		return nil, err
	}
	if hooks.ResolveSource != nil {
		image, err := hooks.ResolveSource(ctx, builder.LaunchSource{Region: "r", Image: "img-0"})
		if err == nil && image != "" && m.o.Vanishes {
			_, err = hooks.ResolveSource(ctx, builder.LaunchSource{Region: "r", Image: "img-0", Gone: image})
		}
		if err != nil {
			return nil, err
		}
	}
	if err := m.acquire(ctx, s, "instance"); err != nil {
		return nil, err
	}
	data := builder.Data{"ID": builder.Text("i-1"), "Port": builder.Number(22)}
	if m.o.Generated != "" {
		data["Password"] = builder.Secret(m.o.Generated)
	}
	if !m.o.Unreached {
		if err := hooks.Provision(ctx, builder.Machine{Data: data}); err != nil {
			return nil, err
		}
	}
	if err := m.acquire(ctx, s, "image"); err != nil {
		return nil, err
	}
	if err := step.Run(ctx, s, "wait for the image", func(ctx context.Context) error {
		return m.do(ctx, "wait")
	}); err != nil {
		return nil, err
	}
	key := s.Build + "/image"
	err := s.Keep(ctx, key)
	if err == nil && m.o.Copy != "" {
		if err = m.acquire(ctx, s, "copy"); err == nil {
			err = errNoRoom
		}
	}
	return &builder.Artifact{
		BuilderID: "fake", ID: "img-1", Text: "an image " + m.o.Image,
		Data:      builder.Data{"ID": builder.Text("i-1")},
		Resources: []step.Resource{{Kind: "fake:image", Key: key, ID: "id-image"}},
	}, err
}

var errNoRoom = errors.New("no room there")

// runOptions are the options of the fake provisioner.
type runOptions struct {
	// Script is the list of actions.
	Script string `hcl:"script"`
}

type run struct {
	*world
	o *runOptions
}

// Key implements [provisioner.Keyed]. A script that begins with "read" depends on a file.
func (r *run) Key() (options any, files []string, err error) {
	path, reads := strings.CutPrefix(r.o.Script, "read ")
	if !reads {
		path = ""
	}
	return r.o, []string{path}, nil
}

func (r *run) Provision(ctx context.Context, s *step.Scope, m builder.Machine) error {
	s.Output(ctx, step.Output, r.o.Script)
	if path, ok := strings.CutPrefix(r.o.Script, "leave "); ok {
		m.Leftovers.Add(builder.Leftover{Path: path, Remove: func(ctx context.Context) error { return r.do(ctx, "remove "+path) }})
	}
	return r.do(ctx, "run "+r.o.Script)
}

// turnOptions are the options of the fake post-processor.
type turnOptions struct {
	// Into is the id of the new artifact; empty returns the input.
	Into string `hcl:"into,optional"`
	// Nothing makes the post-processor return no artifact.
	Nothing bool `hcl:"nothing,optional"`
	// Keep says what happens to the input.
	Keep int `hcl:"keep,optional"`
}

type turn struct {
	*world
	o *turnOptions
}

func (p *turn) Process(ctx context.Context, s *step.Scope, in *builder.Artifact) (*builder.Artifact, postprocessor.Keep, error) {
	if err := p.do(ctx, "turn "+in.ID+" into "+p.o.Into); err != nil {
		return nil, 0, err
	}
	switch {
	case p.o.Nothing:
		return nil, postprocessor.Keep(p.o.Keep), nil
	case p.o.Into == "":
		return in, postprocessor.Keep(p.o.Keep), nil
	}
	key := s.Build + "/" + p.o.Into
	p.set(key, true)
	return &builder.Artifact{ID: p.o.Into, Resources: []step.Resource{{Kind: "fake:file", Key: key}}}, postprocessor.Keep(p.o.Keep), nil
}

// lookOptions are the options of the fake data source.
type lookOptions struct {
	// Name is looked up.
	Name string `hcl:"name"`
}

type look struct {
	*world
	o *lookOptions
}

func (l *look) Read(ctx context.Context) (cty.Value, error) {
	err := l.do(ctx, "look up "+l.o.Name)
	return cty.ObjectVal(map[string]cty.Value{"id": cty.StringVal("found-" + l.o.Name)}), err
}

func (w *world) components() engine.Components {
	return engine.Components{
		Builders: component.NewRegistry[builder.Builder](
			component.Define("machine", func() machineOptions { return machineOptions{} },
				func(o *machineOptions, _ *schema.Source) builder.Builder { return &machine{w, o} }).
				Exporting(map[string]cty.Type{"Extra": cty.String}),
		),
		Provisioners: component.NewRegistry[provisioner.Provisioner](
			component.Define("run", func() runOptions { return runOptions{} },
				func(o *runOptions, _ *schema.Source) provisioner.Provisioner { return &run{w, o} }),
		),
		PostProcessors: component.NewRegistry[postprocessor.PostProcessor](
			component.Define("turn", func() turnOptions { return turnOptions{} },
				func(o *turnOptions, _ *schema.Source) postprocessor.PostProcessor { return &turn{w, o} }),
		),
	}
}

func (w *world) dataSources() component.Registry[datasource.DataSource] {
	return component.NewRegistry[datasource.DataSource](
		component.Define("look", func() lookOptions { return lookOptions{} },
			func(o *lookOptions, _ *schema.Source) datasource.DataSource { return &look{w, o} }).
			Exporting(map[string]cty.Type{"id": cty.String}),
	)
}

// fixture is a template to run.
type fixture struct {
	t        *testing.T
	world    *world
	template *config.Template
	options  engine.Options
	events   []step.Event
	ledger   string // directory
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newFixture(t *testing.T, text string, vars ...string) *fixture {
	t.Helper()
	f := &fixture{t: t, world: newWorld()}
	dir := t.TempDir()
	path := filepath.Join(dir, "t.pkr.hcl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var diags hcl.Diagnostics
	f.template, diags = config.Load(context.Background(), config.Options{
		Path: path, Cwd: dir, Vars: vars, DataSources: f.world.dataSources(), ReadData: true, Now: start,
	})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	f.ledger = filepath.Join(dir, "ledger")
	ledger, err := step.CreateLedger(f.ledger, step.Header{Run: "r"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ledger.Close() })
	f.options = engine.Options{
		Run: step.Invocation{ID: "run-1"}, Ledger: ledger, Start: start, Grace: time.Minute,
		Emit: func(e step.Event) { f.events = append(f.events, e) },
	}
	return f
}

func (f *fixture) run(ctx context.Context) (engine.Result, hcl.Diagnostics) {
	return engine.Run(ctx, context.Background(), f.template, f.world.components(), f.options)
}

// one runs the only build and returns its result.
func (f *fixture) one(ctx context.Context) engine.BuildResult {
	f.t.Helper()
	result, diags := f.run(ctx)
	if len(diags) > 0 {
		f.t.Fatal(diags)
	}
	if len(result.Builds) != 1 {
		f.t.Fatalf("%d builds ran, want 1", len(result.Builds))
	}
	return result.Builds[0]
}

func (f *fixture) transcript() string {
	var lines []string
	for _, e := range f.events {
		line := string(e.Kind)
		for _, s := range []string{e.Build, e.Step, e.Text} {
			if s != "" {
				line += " | " + s
			}
		}
		if e.Error != nil {
			line += " | error: " + e.Error.Error()
		}
		if a, ok := e.Artifact.(*builder.Artifact); ok {
			line += " | " + a.ID + ": " + a.Text
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

const simple = `
source "machine" "web" {
  image = "img"
}
build {
  sources = ["source.machine.web"]
  provisioner "run" {
    script = "on ${build.ID}:${build.Port}"
  }
}
`

func TestRun(t *testing.T) {
	f := newFixture(t, simple)
	result := f.one(t.Context())
	if result.Err != nil {
		t.Fatal(result.Err)
	}
	want := `run-started | machine.web
build-started | machine.web
step-started | machine.web | create key
resource-intended | machine.web | create key
resource-created | machine.web | create key
step-finished | machine.web | create key
step-started | machine.web | create instance
resource-intended | machine.web | create instance
resource-created | machine.web | create instance
step-finished | machine.web | create instance
step-started | machine.web | provision with run
output | machine.web | provision with run | on i-1:22
step-finished | machine.web | provision with run
step-started | machine.web | create image
resource-intended | machine.web | create image
resource-created | machine.web | create image
step-finished | machine.web | create image
step-started | machine.web | wait for the image
step-finished | machine.web | wait for the image
resource-kept | machine.web
step-started | machine.web | destroy instance id-instance
resource-destroyed | machine.web | destroy instance id-instance
step-finished | machine.web | destroy instance id-instance
step-started | machine.web | destroy key id-key
resource-destroyed | machine.web | destroy key id-key
step-finished | machine.web | destroy key id-key
artifact | machine.web | img-1: an image img
build-finished | machine.web
run-finished`
	if got := f.transcript(); got != want {
		t.Errorf("events:\n%s\nwant:\n%s", got, want)
	}
	if left := f.world.existing(); len(left) != 1 || left[0] != "machine.web/image" {
		t.Errorf("what exists in the end: %v", left)
	}
}

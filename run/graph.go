package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/builtin"
	"bake/config"
	"bake/engine"
	"bake/golden/pipeline"
	"bake/run/localcloud"
	"bake/step"
)

// apart builds the images of a template whose images have their own variables. Each image
// is built by a separate run, after the images that it refers to.
type apart struct {
	o     Options
	all   []*member
	began time.Time

	events *events // of all runs; each run also has a log of its own
	asking sync.Mutex
	slots  chan struct{} // a token for each run in progress; nil: no limit
	cancel context.CancelCauseFunc
}

// member is one image of the template, or the builds without an image block.
type member struct {
	config.ImageOf
	builds   []string // builds that -only and -except select
	made     int      // number of builds that make the image
	needed   bool     // by other images, although -only or -except excludes it
	shown    func(build string) string
	done     chan struct{}
	result   Result
	err      error
	built    config.Built
	complete bool // built is known
}

// runApart is [Build] for a template whose images are built separately.
func runApart(ctx context.Context, o Options, of *config.Images) (Result, error) {
	limit := newTimeLimit(ctx)
	defer limit.cancel(nil)
	limit.set(o.Timeout)
	ctx, cancel := context.WithCancelCause(limit)
	defer cancel(nil)
	r := &apart{o: o, began: time.Now(), cancel: cancel}
	parts := builtin.Parts{Cloud: localcloud.FromEnvironment(o.Template.Env), Env: o.Template.Env, Terminal: o.terminal, Connect: o.Connect, Now: o.Now}
	found, err := r.prepare(ctx, of, o.Components(ctx, parts))
	if err != nil {
		return Result{}, err
	}
	if r.events, err = openEvents(o.State, o.ID, false, o.Emit); err != nil {
		return Result{}, err
	}
	whole := o.record(step.Invocation{ID: o.ID, Start: o.Template.Now})
	defer whole.End()
	r.events.trace, r.o.Trace = whole, whole.Within()
	r.share()
	switch {
	case o.Debug:
		r.slots = make(chan struct{}, 1)
	case o.Parallel > 0:
		r.slots, r.o.Parallel = make(chan struct{}, o.Parallel), 1
	}
	r.name()
	r.start()
	var running sync.WaitGroup
	for _, i := range r.all {
		running.Go(func() {
			defer close(i.done)
			r.run(ctx, i)
		})
	}
	running.Wait()
	result, err := r.conclude(ctx, found)
	if err != nil {
		whole.Fail(errors.New("not all images are there")) // unless a build has reported a reason
	}
	return result, errors.Join(err, r.events.close())
}

// prepare checks all images, and determines which to build.
func (r *apart) prepare(ctx context.Context, of *config.Images, all engine.Components) (Diagnosis, error) {
	found := Diagnosis{Files: map[string]*hcl.File{}}
	t := r.o.Template
	t.images = of.All
	for _, i := range append(slices.Clone(of.All), config.ImageOf{}) {
		one := &member{ImageOf: i, done: make(chan struct{})}
		t.Instance = &one.Instance
		checked, err := checkOne(ctx, t, all, step.Invocation{ID: r.o.ID, Env: t.Env, Start: t.Now, Version: config.LanguageVersion}, nil)
		var wrong *TemplateError
		if err != nil && !errors.As(err, &wrong) {
			return found, err
		}
		maps.Copy(found.Files, checked.Files)
		found.Diags = config.Merge(found.Diags, checked.Diags)
		one.builds, one.made = checked.builds, checked.made
		r.o.Command = checked.redact(r.o.Command) // it will be logged
		r.all = append(r.all, one)
	}
	for _, i := range r.all {
		for name, at := range i.Needs {
			if p := r.named(name); p != nil && p.made > 1 {
				found.Diags = append(found.Diags, &hcl.Diagnostic{
					Severity: hcl.DiagError, Summary: "Several builds make the image", Subject: &at,
					Detail: fmt.Sprintf("The image %s is made by %d builds, so that a reference does not say which one is meant. Give each an image block of its own.", p.Address(), p.made),
				})
			}
		}
	}
	if found.Diags.HasErrors() {
		return found, (*TemplateError)(&found)
	}
	return found, r.choose()
}

// choose finds the images that are not selected but that selected images need. It returns an
// error if no build is selected.
func (r *apart) choose() error {
	any := false
	for _, i := range slices.Backward(r.all) { // images that refer to others first
		any = any || len(i.builds) > 0
		if len(i.builds) == 0 && !i.needed {
			continue
		}
		for name := range i.Needs {
			if p := r.named(name); p != nil && len(p.builds) == 0 {
				p.needed = true
			}
		}
	}
	if !any {
		return errors.New("no builds to run: -only and -except exclude all builds of the template")
	}
	return nil
}

func (r *apart) named(name string) *member {
	for _, i := range r.all {
		if i.Image != "" && i.Name() == name {
			return i
		}
	}
	return nil
}

// share makes the runs use the same cloud, and prompt the user one at a time.
func (r *apart) share() {
	if open := r.o.Cloud; open != nil {
		var once sync.Once
		var cloud *localcloud.Cloud
		var err error
		r.o.Cloud = func(ctx context.Context, _ func(step.Event)) (*localcloud.Cloud, error) {
			once.Do(func() { cloud, err = open(context.WithoutCancel(ctx), r.events.handle) }) // the cloud outlives the run that opens it
			return cloud, err
		}
	}
	if tell := r.o.OnWarnings; tell != nil {
		var telling sync.Mutex
		r.o.OnWarnings = func(d Diagnosis) {
			telling.Lock()
			defer telling.Unlock()
			tell(d)
		}
	}
	if ask := r.o.Ask; ask != nil {
		r.o.Ask = func(ctx context.Context, build, step string, err error) engine.Answer {
			r.asking.Lock()
			defer r.asking.Unlock()
			return ask(ctx, build, step, err)
		}
	}
}

// name gives unique names to builds that make several images.
func (r *apart) name() {
	count := map[string]int{}
	for _, i := range r.all {
		for _, b := range i.builds {
			count[b]++
		}
	}
	for _, i := range r.all {
		i.shown = func(build string) string {
			if count[build] > 1 && i.Image != "" {
				return i.Name() + ":" + build
			}
			return build
		}
	}
}

// start emits the event that starts the common display of all runs.
func (r *apart) start() {
	var names []string
	for _, i := range r.all {
		for _, b := range i.builds {
			names = append(names, i.shown(b))
		}
	}
	r.events.handle(step.Event{Time: r.o.Now(), Kind: step.RunStarted, Text: strings.Join(names, "\n"), Command: r.o.Command})
}

// run builds an image once the images that it refers to exist.
func (r *apart) run(ctx context.Context, i *member) {
	if len(i.builds) == 0 && !i.needed {
		return
	}
	instance := i.Instance
	instance.Known = map[string]config.Built{}
	for name := range i.Needs {
		p := r.named(name)
		if p == nil {
			continue
		}
		<-p.done
		if !p.complete {
			r.skip(i, p)
			return
		}
		instance.Known[name] = p.built
	}
	if r.slots != nil {
		select {
		case r.slots <- struct{}{}:
			defer func() { <-r.slots }()
		case <-ctx.Done():
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		i.err = cause
		return
	}
	o := r.o
	o.ID, o.Parent, o.ReuseOnly = NewID(), r.o.ID, i.needed
	o.Template.Instance, o.Template.images = &instance, r.list()
	if i.needed {
		o.Template.Only, o.Template.Except = nil, nil
	}
	o.Emit = func(e step.Event) {
		if e.Kind == step.RunStarted || e.Kind == step.RunFinished {
			return
		}
		if e.Build != "" {
			e.Build = i.shown(e.Build)
		}
		r.events.handle(e)
	}
	i.result, i.err = Build(ctx, o)
	i.settle()
	if i.err != nil && r.o.FailFast {
		r.cancel(&engine.FailFastError{Build: i.Address(), Err: i.err})
	}
}

func (r *apart) list() (all []config.ImageOf) {
	for _, i := range r.all {
		if i.Image != "" {
			all = append(all, i.ImageOf)
		}
	}
	return all
}

// skip records that an image was not built because parent, which it refers to, was not.
func (r *apart) skip(i, parent *member) {
	if r.o.planOnly && parent.err == nil {
		i.result.Planned = []pipeline.Planned{{Image: i.Name(), Build: strings.Join(i.builds, ", "), Unknown: "the image " + parent.Address() + ", which it refers to, is built first"}}
		return
	}
	err := fmt.Errorf("not built, because the image %s, which it refers to, was not", parent.Address())
	i.err = fmt.Errorf("image %s: %w", i.Address(), err)
	for _, b := range i.builds {
		name := i.shown(b)
		i.result.Builds = append(i.result.Builds, engine.BuildResult{Name: b, Err: err})
		r.events.handle(step.Event{Time: r.o.Now(), Kind: step.BuildFailed, Build: name, Error: err})
	}
}

// settle records the values that other images can refer to.
func (i *member) settle() {
	if i.err != nil {
		return
	}
	i.built, i.complete = i.result.Image(i.Name())
}

// Image returns the image of that name that the run has made or reused, as other images
// refer to it; ok reports whether there is one.
func (r Result) Image(name string) (made config.Built, ok bool) {
	for _, b := range r.Builds {
		images, region := madeImages(b.Artifacts)
		if len(images) == 0 {
			continue
		}
		made, ok = config.Built{IDs: images, ID: images[region]}, true
		if len(images) == 1 {
			for _, id := range images {
				made.ID = id
			}
		}
	}
	for _, p := range r.Planned {
		made.Inputs = p.Digest
		if len(p.Images) > 0 {
			made.Name = p.Name
		}
	}
	made.Name = cmp.Or(made.Name, name)
	return made, ok
}

// madeImages returns the images among artifacts, and the region of their build.
func madeImages(all []*builder.Artifact) (images map[string]string, region string) {
	for _, a := range all {
		if len(a.Images) > 0 {
			return a.Images, a.Data["BuildRegion"].Text
		}
	}
	return nil, ""
}

// conclude combines the results of the runs.
func (r *apart) conclude(ctx context.Context, found Diagnosis) (Result, error) {
	result := Result{Elapsed: time.Since(r.began), Diagnosis: Diagnosis{Files: found.Files}}
	failed := FailedError{}
	var wrong *TemplateError
	for _, i := range r.all {
		for _, b := range i.result.Builds {
			b.Name = i.shown(b.Name)
			result.Builds = append(result.Builds, b)
		}
		result.Left = append(result.Left, i.result.Left...)
		for _, one := range i.result.Planned {
			one.Build = i.shown(one.Build)
			result.Planned = append(result.Planned, one)
		}
		result.Diags = config.Merge(result.Diags, i.result.Diags)
		maps.Copy(result.Files, i.result.Files)
		if i.result.Run != "" {
			result.Parts = append(result.Parts, i.result)
		}
		if t, ok := errors.AsType[*TemplateError](i.err); ok {
			result.Diags, wrong = config.Merge(result.Diags, t.Diags), t
			maps.Copy(result.Files, t.Files)
		}
		if i.err != nil {
			failed.Errs = append(failed.Errs, i.err)
		}
	}
	r.events.handle(step.Event{Time: r.o.Now(), Kind: step.RunFinished, Elapsed: result.Elapsed, Error: context.Cause(ctx)})
	switch {
	case wrong != nil && len(result.Builds) == 0:
		return result, (*TemplateError)(&result.Diagnosis)
	case len(failed.Errs) == 0:
		return result, nil
	}
	failed.Left, failed.Outcome = result.Left, outcome(ctx, result.Builds, len(result.Left) > 0)
	return result, &failed
}

// Plan returns which builds [Build] would run, and why, without making anything. Its
// requests to the cloud are read-only.
func Plan(ctx context.Context, o Options) (Result, error) {
	dir, err := os.MkdirTemp("", "bake-plan-") // a plan leaves no log or ledger
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(dir)
	o.State, o.planOnly = State(dir), true
	return Build(ctx, o)
}

// imagesApart returns the images of a template that have to be built separately. It
// returns nil if there are none, or if this run builds one of them. A resumed run of one
// image gets the values of that image again.
func (o *Options) imagesApart(ctx context.Context) (*config.Images, hcl.Diagnostics) {
	if o.Template.Instance != nil && o.resumed == nil {
		return nil, nil
	}
	images, diags := config.ReadImages(ctx, o.Template.Options)
	if diags.HasErrors() {
		return images, diags
	}
	if own := o.Template.Instance; own != nil {
		o.Template.images = images.All
		for _, i := range images.All {
			if i.Image == own.Image && i.Key == own.Key {
				own.Each = i.Each
			}
		}
	}
	if !images.Apart || o.resumed != nil {
		return nil, nil
	}
	return images, nil
}

// parents returns the digests of the inputs of the images that the current image refers
// to.
func (t Template) parents() map[string]string {
	if t.Instance == nil {
		return nil
	}
	all := map[string]string{}
	for name, b := range t.Instance.Known {
		all[name] = b.Inputs
	}
	return all
}

// planned collects the decisions about builds.
type planned struct {
	mu  sync.Mutex
	all []pipeline.Planned
}

func (p *planned) add(one pipeline.Planned) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, one)
}

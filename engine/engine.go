// Package engine runs the builds of a template: it selects them, makes their components,
// and ensures that what they create is either kept or destroyed.
package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/component"
	"bake/config"
	"bake/config/lang"
	"bake/datasource"
	"bake/internal/limits"
	"bake/postprocessor"
	"bake/provisioner"
	"bake/step"
)

// Components are all that a template can use.
type Components struct {
	Builders       component.Finder[builder.Builder]
	Provisioners   component.Finder[provisioner.Provisioner]
	PostProcessors component.Finder[postprocessor.PostProcessor]
	DataSources    component.Finder[datasource.DataSource] // for code that reads the template
}

// Options define which builds are run, and how.
type Options struct {
	Only   []string // globs over full build names; empty means all
	Except []string // globs over full build names, and over names or types of post-processors

	// Builds are the builds that Run selects from. Nil means all builds of the template.
	Builds map[*config.Build]bool

	Parallel int             // builds at a time; 0 or less means all
	OnError  OnError         // empty means Cleanup
	FailFast bool            // once a build has failed, the others are cancelled, with a [*FailFastError]
	Run      step.Invocation // Run.Debug makes builds run one at a time
	Ledger   step.Ledger
	Journal  step.Journal // of results from which a later run can resume; nil: none
	Resume   bool         // resume the builds that Journal records; the others are errors

	// Destroyers delete the resources of resumed builds, and exit before the builders of
	// those builds provide a destroyer.
	Destroyers step.Destroyers

	// From is the provisioner with which builds resume whose provisioning had not
	// finished, on their existing machines: its name, type or number. If it is empty, such
	// builds are errors.
	From string

	// Boundary makes builds run by stages: each build runs from one boundary where it can
	// resume to the next, and Boundary is called with the boundary. Resume runs the next
	// stage. A build that cannot be divided has one stage. If Boundary is nil, builds run
	// to completion.
	Boundary func(step.Boundary)

	// Key is the private key of the machine that a build has left, in PEM, or empty. It
	// may be nil.
	Key   func(build string) string
	Start time.Time     // of the run, for {{timestamp}} and its like
	Grace time.Duration // limit for the teardown of one build

	// Emit gets every event, free of secrets. It is called by one goroutine at a time.
	Emit func(step.Event)

	// Ask decides what happens after a failed step when OnError is Ask. It is called for
	// one question at a time.
	Ask func(ctx context.Context, build, step string, err error) Answer

	// Pause is called before each step when Run.Debug is set. It returns when the user
	// wants to continue, or with the cause of ctx.
	Pause func(ctx context.Context, build, step string) error

	// Ready is called before the first provisioner of a build, or what its pipeline does
	// on the machine if it has none. It may be nil.
	Ready func(ctx context.Context, s *step.Scope, m builder.Machine) error

	// AwaitFirstBoot is called after the last provisioner of a build, before what its pipeline does on
	// the machine, and as [builder.Hooks.AwaitFirstBoot]. It may be nil.
	AwaitFirstBoot func(ctx context.Context, s *step.Scope, m builder.Machine) error

	// Pipelines hold the pipeline of each build, keyed by its builder.
	Pipelines map[*config.Component]*Pipeline

	// Verified is called with the outlines of builders whose images a pipeline verifies or
	// marks, when they are checked. It may be nil.
	Verified func(b builder.Builder, p *Pipeline)

	// Cache holds snapshots of provisioned machines, from which builds start and to which
	// they add their own. Nil means no cache.
	Cache Cache

	// PlanOnly makes Run only determine, by the pipelines of builds, whether the builds
	// are needed.
	PlanOnly bool

	// Uploads are the rules for files that provisioners upload for good.
	Uploads []*builder.Upload

	// Login describes how a user logs in to the machine m of a build; "" if that is not
	// known. It may be nil.
	Login func(ctx context.Context, build string, m builder.Machine) string

	// Secret is called with every value that must not be shown, in addition to the
	// template's Secrets. It may be nil.
	Secret func(string)
}

// OnError is what becomes of a build's resources when a step has failed.
type OnError string

// The values of -on-error.
const (
	Cleanup               OnError = "cleanup"                 // destroyed
	Abort                 OnError = "abort"                   // left, and listed
	Ask                   OnError = "ask"                     // as the user decides
	RunCleanupProvisioner OnError = "run-cleanup-provisioner" // left, after error-cleanup-provisioner has run
	Keep                  OnError = "keep"                    // left, and listed, for the run to be resumed
)

// FailFastError is why a build was cancelled that another one took down with it.
type FailFastError struct {
	Build string // that failed first
	Err   error
}

func (e *FailFastError) Error() string { return fmt.Sprintf("cancelled, because %s failed", e.Build) }

// Answer is the user's answer about a failed step.
type Answer int

// The answers.
const (
	AnswerCleanUp Answer = iota
	AnswerAbort
	AnswerRetry
)

// Result is how a run ended.
type Result struct {
	Builds []BuildResult // in template order
}

// BuildResult is how one build ended. Its texts hold no secrets.
type BuildResult struct {
	Name      string
	Elapsed   time.Duration
	Place     string // "file:line" of the provisioner or post-processor that failed; empty if none did
	Err       error  // nil if it succeeded; the cause of the context if it was cancelled
	Artifacts []*builder.Artifact
	Left      []step.Resource // created by the build, but neither kept nor destroyed

	Unfinished bool // it goes by stages, and there is one to come

	Reused bool // nothing was built: the artifacts are those of earlier builds

	Failure Failure // what the build was doing when it failed

	// LeftMachine reports that the build has failed and left its machine in place, as
	// requested.
	LeftMachine bool
}

// Failure is what a build was doing when it failed.
type Failure string

// The failures that have a name; others are empty.
const (
	Refused      Failure = "refused" // by the cloud, before a machine or an image was made
	Provisioning Failure = "provisioning"
	GateClosed   Failure = "gate closed"  // its machine or its image does not meet the requirements
	Distributing Failure = "distributing" // it has made an image, but not all that it was to do with it
)

// Check decodes every component of the selected builds, without running any. The
// diagnostics hold no secrets.
func Check(ctx context.Context, t *config.Template, c Components, o Options) hcl.Diagnostics {
	builds, diags := choose(t, o)
	if diags.HasErrors() {
		return t.Secrets().Diagnostics(diags)
	}
	ck := newChecker(t, c, o)
	var found hcl.Diagnostics
	if err := limits.Run(func() {
		for _, b := range builds {
			found = lang.AppendNew(found, ck.build(ctx, b))
		}
	}); err != nil {
		return append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Template exceeds its limits", Detail: fmt.Sprintf("The options of components: %s.", err)})
	}
	return t.Secrets().Diagnostics(config.Once(slices.Concat(diags, found, t.WeakSecrets())))
}

// Run runs the selected builds. The diagnostics are about the template: builds that they
// concern are not run, the others are. Errors of a running build are in its result. When
// ctx is cancelled, builds stop and are torn down; when stop is cancelled, teardown ends
// too and the results list what is left.
func Run(ctx, stop context.Context, t *config.Template, c Components, o Options) (Result, hcl.Diagnostics) {
	builds, diags := choose(t, o)
	if diags.HasErrors() {
		return Result{}, t.Secrets().Diagnostics(diags)
	}
	ck := newChecker(t, c, o)
	var ready []*config.Build
	for _, b := range builds {
		more := ck.build(ctx, b)
		if p := ck.pipeline(b); !more.HasErrors() && p != nil && p.Inputs != nil {
			more = append(more, p.Inputs(ctx, *ck.materials(b))...)
		}
		diags = lang.AppendNew(diags, more)
		if !more.HasErrors() {
			ready = append(ready, b)
		}
	}
	diags = t.Secrets().Diagnostics(config.Once(append(diags, t.WeakSecrets()...)))
	if len(ready) == 0 {
		return Result{}, diags
	}
	r := &runner{maker: ck.maker, stop: stop}
	return r.run(ctx, ready), diags
}
